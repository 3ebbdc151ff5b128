"""Imported by the verifier's fork server, and by nothing else: what all workers have in memory from their first answer.

A worker that took a hostile answer is killed, and the next one is a fork of this process. It finds math-verify
imported, its regular expressions compiled and the LaTeX grammar's tables filled, and is ready within milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal

from p2o_core.verify.checking import checked
from p2o_core.verify.grammar import read_in_two_stages
from p2o_core.verify.magnitude import refuse_huge_numbers

FORK_SERVER = os.getpid()
"""The process that imported this first."""

_PR_SET_PDEATHSIG = 1

_SHAPES = [
    ("so \\boxed{\\frac{1}{2}}", "0.5"),
    ("$x = \\sqrt{2} + 3\\pi$", "x=3\\pi+\\sqrt{2}"),
    ("\\boxed{\\left[ \\frac{\\pi^2}{8}, \\frac{5 \\pi^2}{4} \\right)}", "[0, 1)"),
    ("\\boxed{\\{1, 2, 3\\}}", "1, 2, 3"),
    ("\\boxed{(1, -16, -4)}", "\\left( \\frac{3}{2}, -13 \\right)"),
    ("\\boxed{x \\in [-2, 7]}", "\\frac{11 + 9a}{20}"),
    ("\\boxed{(a + 5)(b + 2)}", "x^5 - x^4 + x^3 - x^2 + x - 1"),
    ("\\boxed{(-\\infty, -3) \\cup (3, \\infty)}", "(3, \\infty)"),
    ("\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 5 \\end{pmatrix}"),
    ("\\boxed{x^3 + 3x - 6 \\le y}", "x^3+3x-6"),
    ("\\boxed{\\sin(2x) \\cdot \\log_2 5!}", "\\binom{5}{2} + 3i"),
    ("\\boxed{12 \\text{ cm}}", "50\\%"),
    ("\\boxed{3 \\text{ hours}}", "180 minutes"),
    ("\\boxed{√3·π/2}", "pi*sqrt(3)/2"),
    ("\\boxed{\\text{east}}", "\\text{(A)}"),
    ("the answer is 1,234.5", "1234.5"),
]


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends, also while it is deep inside C code. Linux only.

    Fork clears it, so every process calls it for itself; the parent is the thread that started this process.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


die_with_parent()
# math-verify warns at every call that its own time-outs are off; ours is the kill from outside
logging.getLogger("math_verify").setLevel(logging.ERROR)
refuse_huge_numbers()
read_in_two_stages()
for _shape in _SHAPES:
    checked(_shape)
gc.collect()
gc.freeze()  # pages the collector never touches stay shared between the workers
