"""Verification: is a response right? math-verify in processes that can be killed.

``verifier``     the pool as its callers see it    ``host``, ``preload``   its processes
``checking``     one response, one verdict         ``equivalence``         answer against gold answer
``prose``        the answer without a box          ``values``              what sympy knows of it
``notation``     many ways to write a number       ``spelling``            and many names for one macro
``measured``     a number and what is beside it    ``units``, ``times``    what pint knows of that; hours and dates
``statements``   names, conditions, denials        ``choices``             A to J, with and without their texts
``symbols``      what latex2sympy would misread    ``grammar``             its own, with capitals and faster
``magnitude``    numbers too large for any answer
"""

from p2o_core.verify.checking import check_answer
from p2o_core.verify.verifier import Verifier, VerifierUnavailable

__all__ = ["Verifier", "VerifierUnavailable", "check_answer"]
