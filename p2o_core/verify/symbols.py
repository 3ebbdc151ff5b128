r"""What latex2sympy would drop, compute or misread, written out: missing braces, primes, ``\\pm`` in brackets."""

from __future__ import annotations

import re

GREEK = "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|chi|psi|omega"

_BRACELESS = re.compile(
    r"(\\(?:[dtc]?frac|[dt]?binom))(?: *([\da-zA-Z])|(?<=frac)(?: *(\\[a-zA-Z]{2,}(?![a-zA-Z]))| +([a-zA-Z])))"
    r" *(?:(\d(?!\d)|[a-zA-Z])|(\\[a-zA-Z]{2,})(?! *[{(\[]))"
)
_GREEK_MACRO = rf"\\(?:{GREEK}|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega)(?![a-zA-Z])"
_BRACED = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_HALF_BRACED = [
    (re.compile(rf"(\\(?:[dtc]?frac|[dt]?binom)) *({_GREEK_MACRO}|[\da-zA-Z]) *(?=\{{)"), r"\1{\2}"),
    (re.compile(rf"(\\(?:[dtc]?frac|[dt]?binom) *{_BRACED}) *({_GREEK_MACRO}|[\da-zA-Z])"), r"\1{\2}"),
    (re.compile(r"(\\sqrt *\[[^\[\]]*\]) *([\da-zA-Z])"), r"\1{\2}"),
    (re.compile(rf"(\^|\\sqrt) *(\\[dtc]?frac *{_BRACED} *{_BRACED})"), r"\1{\2}"),
]
"""``\\frac\\pi{12}``, ``\\frac{x}y``, ``\\sqrt[3]2``, ``2^\\frac{1}{2}``."""
_DERIVATIVE = re.compile(r"\\[dt]?frac ?\{ ?(?:d|\\partial) ?([a-zA-Z]) ?\} ?\{ ?(?:d|\\partial) ?([a-zA-Z]) ?\}")
_TRANSPOSED = re.compile(r"(?<![a-zA-Z\\])([A-Z]) ?\^ ?(?:\{ ?(?:T|\\top|\\intercal) ?\}|(?:T|\\top)(?![a-zA-Z]))")
_NESTED_SIGNS = re.compile(r"[({](?:[^(){}]|\([^()]*\)|\{[^{}]*\})*\\pm(?![a-zA-Z])")
_SIGN_BETWEEN, _SIGNED = re.compile(r"(?<=[\w)}]) ?\\pm(?![a-zA-Z])"), re.compile(r"\\pm(?![a-zA-Z])")
_PRIMES = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])('+)")
_FACTOR = re.compile(r"(?<![\w.^_{\\}])(\d+(?:\.\d+)?) ?\((?=[-\d]|\\frac)")
_CONSTANT = re.compile(r"(?<=\+) ?c\Z")


def with_braces(text: str) -> str:
    r"""Every argument in its braces.

    >>> [with_braces(text) for text in ("\\frac12", "\\frac\\pi{12}", "2^\\frac{1}{2}")]
    ['\\frac{1}{2}', '\\frac{\\pi}{12}', '2^{\\frac{1}{2}}']
    """
    if "\\" not in text:
        return text
    return _half_braced(_BRACELESS.sub(_braced, _half_braced(text)))


def _half_braced(text: str) -> str:
    for pattern, into in _HALF_BRACED:
        text = pattern.sub(into, text)
    return text


def _braced(match: re.Match[str]) -> str:
    r"""``\frac12`` and ``\frac\pi6`` with their braces."""
    over, under = match[2] or match[3] or match[4], match[5] or match[6]
    return f"{match[1]}{{{over}}}{{{under}}}"


def own_names(text: str) -> str:
    r"""What latex2sympy would drop or compute, as symbols: primes, derivatives, transposes; and a factor before a
    bracket with its sign, since it reads ``4(\frac12)`` as a mixed number.

    >>> own_names("y'' + A^T"), own_names("\\frac{dy}{dx}"), own_names("4(\\frac12)")
    ('y_{p2} + A_{T}', 'y_{Dx}', '4\\cdot (\\frac12)')
    """
    if "\\text" in text:
        return text
    text = _TRANSPOSED.sub(r"\1_{T}", _DERIVATIVE.sub(r"\1_{D\2}", text))
    text = _PRIMES.sub(lambda match: f"{match[1]}_{{p{len(match[2])}}}", text)
    text = _CONSTANT.sub(" C", text)  # of integration: a small one is the same
    return _FACTOR.sub(r"\1\\cdot (", text)


def both_signs(text: str) -> str:
    r"""``\pm`` inside brackets as a list of two, since latex2sympy reads it outside of them only.

    >>> both_signs("\\frac{1\\pm x}{2}"), both_signs("(\\pm 1,2)")
    ('\\frac{1+ x}{2},\\frac{1- x}{2}', '( 1,2),(- 1,2)')
    """
    if not _NESTED_SIGNS.search(text):
        return text
    plus = _SIGNED.sub("", _SIGN_BETWEEN.sub("+", text))
    return ",".join((plus.replace("\\mp", "-"), text.replace("\\pm", "-").replace("\\mp", "+")))
