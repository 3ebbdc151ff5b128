"""Verification: is a response right? math-verify in processes that can be killed.

``verifier``     the pool as its callers see it    ``host``, ``preload``   its processes
``checking``     one response, one verdict         ``equivalence``         answer against gold answer
``notation``     many ways to write a number       ``units``, ``values``   what pint and sympy know of it
"""

from p2o_core.verify.checking import check_answer
from p2o_core.verify.verifier import Verifier, VerifierUnavailable

__all__ = ["Verifier", "VerifierUnavailable", "check_answer"]
