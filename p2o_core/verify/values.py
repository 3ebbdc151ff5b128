"""Numbers of sympy's compared as numbers: relatively, with their signs, and inside whatever holds them.

math-verify compares with an absolute tolerance (grader.py: ``(a - b).evalf(chop=True, n=15) == 0`` and six decimal
places), to which ``3e-30`` is ``5e-30``. So its yes is held against this module's no.
"""

from __future__ import annotations

from typing import Any

DIGITS = 40
"""Decimal digits of which numbers that are not rational are compared."""
MEMBERS = 200
"""Members of a container that are compared at most."""


def same_number(one: Any, other: Any) -> bool | None:
    """Whether two sympy expressions are the same number; None where one of them is no number."""
    values = [_number(side) for side in (one, other)]
    if any(value is None for value in values):
        return None
    return _equal(*values)


def same_numbers_inside(one: Any, other: Any) -> bool:
    """False when two expressions that math-verify takes for the same hold numbers that differ.

    Containers (sets, tuples, intervals, matrices) are compared as bags of members, since math-verify has compared their
    shape; formulas at one point; what cannot be compared as numbers counts as the same.
    """
    ours, theirs = _members(one), _members(other)
    if len(ours) != len(theirs) or len(ours) > MEMBERS:
        return True
    for mine in ours:
        match = next((place for place, theirs_ in enumerate(theirs) if _agree(mine, theirs_)), None)
        if match is None:
            return False
        del theirs[match]
    return True


def _agree(one: Any, other: Any) -> bool:
    """False only when both are numbers, or formulas with a value at the point, and these differ."""
    import sympy

    if isinstance(one, sympy.Rel) and isinstance(other, sympy.Rel):
        return _same_relation(one, other)
    for side in (one, other):
        sides = [_number(part) for part in side.args] if isinstance(side, sympy.Eq) else [None]
        if None not in sides and not _equal(*sides):
            return False  # 2 + 3 = 6
    values = [_number(_at_a_point(side)) for side in (one, other)]
    return any(value is None for value in values) or _equal(*values)


def _same_relation(one: Any, other: Any) -> bool:
    """False only when one is no multiple of the other at two points, or turned: ``2x<2`` is ``x<1`` and ``1>x``."""
    ratios = []
    for shift in (0, 1):
        left, right = (_number(_at_a_point(side.lhs - side.rhs, shift)) for side in (one, other))
        if left is None or right is None or right == 0:
            return True
        ratios.append(left / right)
    return _equal(*ratios)


def _equal(one: Any, other: Any) -> bool:
    import sympy

    if one.is_Rational and other.is_Rational:
        return bool(one == other)
    if not one.is_finite or not other.is_finite:
        return bool(one == other)
    left, right = (sympy.N(side, DIGITS, maxn=4 * DIGITS) for side in (one, other))
    scale = max(abs(left), abs(right))
    if scale == 0:
        return True
    return bool(abs(left - right) <= scale * sympy.Float(10) ** (5 - DIGITS))


def _number(side: Any) -> Any:
    """The exact number an expression is, None when it is none: decimals as fractions, an equation by its right side."""
    import sympy

    if isinstance(side, sympy.Eq) and side.lhs.is_Symbol:
        side = side.rhs
    if not isinstance(side, sympy.Expr):
        return None
    if {symbol.name for symbol in side.free_symbols} == {"i"}:
        side = side.subs(next(iter(side.free_symbols)), sympy.I)
    if side.free_symbols:
        return None
    value = exact(side).doit()
    if value.is_Rational or value in (sympy.oo, -sympy.oo):
        return value
    return value if value.is_number and value.is_finite else None


def exact(side: Any) -> Any:
    """An expression of sympy's, or what holds several, with its decimals as fractions."""
    import sympy

    if not isinstance(side, sympy.Basic | sympy.MatrixBase):
        return side
    if isinstance(side, sympy.Eq):
        return sympy.Eq(exact(side.lhs), exact(side.rhs), evaluate=False)  # 1/2 = 0.5 stays an equation
    return side.xreplace({part: sympy.Rational(str(part)) for part in side.atoms(sympy.Float)})


def _at_a_point(side: Any, shift: int = 0) -> Any:
    """A formula's value where each symbol has a number of its own, somewhere between 1 and 3."""
    import sympy

    if isinstance(side, sympy.Eq) and side.lhs.is_Symbol:
        side = side.rhs
    if not isinstance(side, sympy.Expr):
        return side
    codes = {symbol: sum(map(ord, symbol.name)) + shift for symbol in side.free_symbols}
    point = {symbol: 1 + sympy.Rational(code % 997, 499) for symbol, code in codes.items()}
    return exact(side).subs(point)


def _members(side: Any) -> list[Any]:
    import sympy

    if isinstance(side, sympy.MatrixBase):
        return [member for entry in side.flat() for member in _members(entry)]
    if isinstance(side, sympy.Interval):
        return [side.start, side.end]
    if isinstance(side, sympy.FiniteSet | sympy.Tuple | sympy.Union | sympy.Intersection | sympy.And | sympy.Or):
        return [member for part in side.args for member in _members(part)]
    return [side]
