"""latex2sympy's grammar: capitals are letters of their own, and it is read in ANTLR's two stages.

``(1, 2, 3)`` and intervals are ambiguous to the grammar until their end. ANTLR's full look-ahead (LL) finds that out
anew for every answer, in some 80 ms of Python; its quick one (SLL) keeps what it found, and either reads the same or
meets an error, after which the full one is asked: "two-stage parsing" in T. Parr, The Definitive ANTLR 4 Reference,
section 13.7. Without a comma little is ambiguous, and a product without a sign (``2x``) always needs the full one.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any


@cache
def tell_capitals_apart() -> None:
    """Make this process's math-verify read so. Left to itself it writes every symbol small: ``R - r`` is 0."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from math_verify import parser

    parser.latex2sympy = partial(latex2sympy, conversion_config=ConversionConfig(lowercase_symbols=False))


def read_in_two_stages() -> None:
    """Make this process's latex2sympy read so."""
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2

    class TwoStages(latex2sympy2.PSParser):
        def math(self) -> Any:
            if "," in str(self.getTokenStream().tokenSource.inputStream):
                self._interp.predictionMode = PredictionMode.SLL
                try:
                    return super().math()
                except Exception:  # latex2sympy's listener raises a bare Exception at the first error
                    self.reset()
                    self._interp.predictionMode = PredictionMode.LL
            return super().math()

    latex2sympy2.PSParser = TwoStages
