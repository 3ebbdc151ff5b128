"""Whole numbers too large for any answer are refused where sympy would begin to compute them.

``10^{10^{10}}`` and ``(10^9)!`` keep sympy inside one integer operation until the time-out, and each costs its worker.
What they would come to is known before: a power has about ``exponent · log2(base)`` bits, a factorial ``n · log2(n)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

BITS = 2**20
"""Most bits of a number that is computed: 315,000 decimal digits, which takes sympy milliseconds."""

ENDLESS_DECIMAL = re.compile(r"\d[eE][-+]?\d{6}")
"""A decimal with an exponent of six digits: the fraction that sympy reads would have a million. No method can be
guarded there, so such an answer is not parsed at all (:func:`p2o_core.verify.checking.hopeless`)."""


class NumberTooLarge(ArithmeticError):
    """An answer holds a number beyond :data:`BITS`."""


def refuse_huge_numbers() -> None:
    """Make this process's sympy raise NumberTooLarge for integer powers, factorials and binomial coefficients beyond
    :data:`BITS`. The verifier's fork server calls it once, so that all its workers do.

    The places are sympy 1.14's: ``Integer._eval_power`` computes ``p**expt``, the others multiply one by one.
    """
    from sympy import Integer, Rational, binomial, factorial, factorial2

    for numbers in (Integer, Rational):
        _guard(numbers, "_eval_power", lambda base, power: _bits(base) * _size(power))
    for kind in (factorial, factorial2):
        _guard(kind, "eval", lambda kind, n: _size(n) * _bits(n))
    _guard(binomial, "eval", lambda kind, n, k: min(_size(n), _size(k)) * _bits(n))


def _guard(kind: Any, name: str, bits: Callable[..., int]) -> None:
    """Let ``bits`` look at the arguments of a method, or of a class method, first."""
    method = vars(kind)[name]
    compute = method.__func__ if isinstance(method, classmethod) else method

    def guarded(*arguments: Any) -> Any:
        if bits(*arguments) > BITS:
            raise NumberTooLarge(f"a number of more than {BITS:,} bits")
        return compute(*arguments)

    setattr(kind, name, classmethod(guarded) if isinstance(method, classmethod) else guarded)


def _size(number: Any) -> int:
    """A whole number's size, a fraction's numerator's; 0 for what is no number."""
    return abs(int(number.p)) if getattr(number, "is_Rational", False) else 0


def _bits(number: Any) -> int:
    """Bits of the numerator or the denominator; 0 for what is no number and for those that no power makes larger."""
    if not getattr(number, "is_Rational", False) or number.q == 1 >= abs(number.p):
        return 0
    return max(int(number.p).bit_length(), int(number.q).bit_length())
