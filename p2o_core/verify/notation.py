r"""One notation for all: an answer as people write it, in the LaTeX that latex2sympy reads.

Unicode mathematics (``√3/2``), plain text (``2*sqrt(5)``), mixed numbers (``1 1/4``), e-notation (``4.5e33``),
recurring decimals (``0.\overline{3}``), groups of three digits (``10 000``) and macros of style (``\bm{7}``).
Nothing here computes or judges: :mod:`p2o_core.verify.equivalence` does.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cache
from itertools import groupby
from math import prod

from p2o_core.verify.spelling import one_spelling, plain_functions
from p2o_core.verify.symbols import GREEK, with_braces

TEXT = r"\\(?:text(?:bf|it|rm|up|normal|sf|tt)?|mbox|mathrm|operatorname)\s*\{([^{}]*)\}"
"""A LaTeX text group; its content is the expression's one group."""

_MATH_MARKS = re.compile(r"\A(?:\$\$?|\\\(|\\\[)([^$]*?)(?:\$\$?|\\\)|\\\])\Z")
_LOOKS = re.compile(
    r"\\(?:textcolor\s*\{[^{}]*\}|color\s*\{[^{}]*\}|(?:boldsymbol|bm|pmb|underline|uline|mathbf|mathsf|mathtt|mathit"
    r"|mathnormal|mathcal|emph|hbox|underbrace|vec|hat|fbox|boxed|ensuremath|displaystyle|textstyle|scriptstyle|tiny|small|large|Large|LARGE|huge|Huge|bf"
    r"|it|rm|limits)(?![a-zA-Z]))|\\(?:left|right|[bB]igg?[lrm]?)(?:\.|(?![a-zA-Z]))"
)
_ROMAN = re.compile(r"\{ ?\\rm ?([a-zA-Z]+) ?\}")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[ ,;:!\n]|(?:q?quad|thinspace|enspace|space)(?![a-zA-Z]))|(?<!\\)~"
    r"|\\[hv]space\*?\{[^{}]*\}|\\(?:text|mbox|mathrm)\{\s*\}|\s+"
)
_THIN_AFTER_COMMA = re.compile(r"(?<=\d),\\! *(?=\d{3})")
_UNSEEN = "\u00ad\u200b\u2060\ufeff"
_LONE_BRACES = re.compile(r"(?<![\^_}\])\w])\{ *(-?[\w.]+) *\}")
_ENVIRONMENT = re.compile(r"\\begin\s*\{")

_GROUPS_OF_THREE = re.compile(r"(?<![\w.,]) ?\d{1,3}(?: \d{3})+(?! ?\d)(?P<under> ?/ ?\d+)?")
_GROUPS_ANYWHERE = re.compile(
    r"(?<![\d.,_])\d{1,3}(?:\{,\}\d{3})+(?!\d)"  # nothing else is written so
    r"|(?<![\d.,_])[1-9]\d{0,2}(?:,\d{3})*,0\d\d(?:,\d{3})*(?![\d,]|\.\.)"  # no member of a list begins with 0
    r"|(?<=\frac\{)[1-9]\d{0,2}(?:,\d{3})+(?=\})|(?<=[a-zA-Z] = )[1-9]\d{0,2}(?:,\d{3})+\Z"
    r"|(?<=[a-zA-Z]=)[1-9]\d{0,2}(?:,\d{3})+\Z|\A-?[1-9]\d{0,2}(?:\\?_\d{3})+\Z"
)
_BEHIND_THE_POINT = re.compile(r"(?<![\w.,])\d{1,20}\.\d{3}(?: \d{3}){1,20}(?: \d{1,2})?(?! ?\d)")
_ENDLESS = re.compile(
    r"(?<![\d.])(\d{0,20}\.\d{0,20}?)(?:(\d)\2{2,20}|(\d{2,6})\3{1,20})(?:\\[lc]?dots(?![a-zA-Z])|\.{3})"
)
_JOINED = re.compile(
    r"(?<![_^\d])\d+\.? +\.?\d|\d *\\\\ *\d|\d\{,\}(?!\d{3}(?!\d))\d"
    r"|\d['’]\d(?!\d\d(?!\d)|\d?(?:\"|''))"
)
_MIXED = re.compile(
    r"(?<![\w.,/^)}])(?P<sign>-?) ?(?P<whole>\d+)(?:(?: +|(?=\\[dtc]?frac))(?:(?P<over>\d+) ?/ ?(?P<under>\d+)"
    r"(?![\d.])|\\[dtc]?frac *(?:\{ *(?P<over2>\d+) *\}|(?P<over3>\d)) *(?:\{ *(?P<under2>\d+) *\}|(?P<under3>\d))))"
)
_DOUBLE_FACTORIAL = re.compile(r"(?<![\w.])(\d{1,2})!!(?!!)")
_E_NOTATION = re.compile(r"(?<![\w\\.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,4})(?!\w|\.\d)")
_TIMES_TEN = re.compile(r"(?<=\d) *(?:[xX*]|\\(?:times|cdot)(?![a-zA-Z])) *10 *\^ *\{? *([+-]?\d+) *\}?")
_RECURRING = re.compile(
    r"(?P<start>\d*\.\d*)(?:\\(?:overline|bar|overset\{\.\}|dot) *(?:\{ *(?P<digits>\d+) *\}|(?P<digit>\d))"
    r"(?:(?P<middle>\d*)\\dot *(?:\{ *(?P<last>\d) *\}|(?P<last2>\d)))?|\((?P<bracket>\d+)\)(?!\d))"
)

_SIGNS = {
    "×": r"\times ", "÷": "/", "·": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "⁄": "/",
    "∕": "/", "−": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "′": "'", "″": "''", "’": "'", "°": r"^\circ ",
    "…": r"\ldots ",
    "⋯": r"\ldots ", "≠": r"\neq ", "∅": r"\emptyset ", "µ": r"\mu ", "⩽": r"\leq ", "⩾": r"\geq ", "、": ",",
    "。": ".", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|",
    "Ø": r"\emptyset ",
    "⟨": "(", "⟩": ")", "〈": "(", "〉": ")", "△": r"\triangle ", "∨": r"\text{ or }", "∶": ":", "Ω": r"\Omega ",
    "√": "√", "∛": "∛", "∜": "∜", "\u0304": "\u0304", "\u0305": "\u0305",
}  # fmt: skip
"""Signs that latex2sympy wants otherwise than pylatexenc writes them."""
_CURRENCY = "$¢£¥€₹₽₩元円圆"
_OVERLINED = re.compile("((?:\\d[\u0304\u0305])+)")
_ROOT = re.compile(r"([√∛∜]) *(?:(\d+(?:\.\d+)?|[a-zA-Z]|\\[a-zA-Z]+ ?)|(?=[({]))")
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}

_FUNCTIONS = "sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan"
_NAME = re.compile(
    rf"(?<![a-zA-Z\\])(?:(a(?:sin|cos|tan))|(infinity|infty|oo|inf)|({GREEK}|{_FUNCTIONS}))(?![a-zA-Z])", re.IGNORECASE
)
_OPERATORS = {"**": "^", "<=": r"\leq ", ">=": r"\geq ", "!=": r"\neq "}
_OPERATOR = re.compile(r"\*\*|<=|>=|!=")
_OPENED = re.compile(r"((?<![a-zA-Z])(?:\\?sqrt|(?:\\sqrt\[\d\]))|\^) *\(")
_LONG_POWER = re.compile(r"\^ *([+-]?\d{2,}|-\d)")
_SYMBOL = r"[a-zA-Z](?:_\{?\w\}?)?"
_VALUE_FIRST = re.compile(rf"\A([^=<>]*[^=<>\s\\!]) *= *({_SYMBOL})\Z")
_DOTS = re.compile(r"\\(?:[lc]?dots[cbmio]?|ldotp)(?![a-zA-Z])|\.{2,}")


def in_latex(answer: str) -> str:
    r"""The answer without what changes its looks only: math delimiters, Unicode signs, style macros, kinds of space.

    >>> in_latex("$\\bm{x²}\\;+ √3/2$")
    'x^{2}  + \\sqrt{3}/2'
    """
    text = answer.strip().strip(_UNSEEN)
    while (match := _MATH_MARKS.match(text)) is not None:
        text = match[1].strip()
    if text.count("$") - text.count(r"\$") in (2, 4, 6):  # $5$ or $6$
        text = re.sub(r"(?<!\\)\$", " ", text)
    text = _ROMAN.sub(r"\\text{\1}", _from_unicode(text))
    text = _without_looks(text).replace(r"\varnothing", r"\emptyset")
    text = one_spelling(_THIN_AFTER_COMMA.sub(",", text).strip())
    text = _ENDLESS.sub(r"\1\\overline{\2\3}", with_braces(text))
    text = _GROUPS_ANYWHERE.sub(lambda match: re.sub(r"\{,\}|\\?[,_]", "", match[0]), text)
    text = re.sub(r"\} +\{", "}{", _SPACE.sub(" ", text).strip())
    if not text.endswith(".."):
        text = text.rstrip(".").rstrip()
    return text if _ENVIRONMENT.search(text) else _LONE_BRACES.sub(r"\1", text)


def joins_numbers(text: str) -> bool:
    """Whether a space stands between digits that are neither groups of three nor a mixed number: ``4 5`` is not 45.

    ``text`` comes from :func:`in_latex`. In a matrix, spaces and line ends separate.
    """
    return _ENVIRONMENT.search(text) is None and _JOINED.search(_mixed(_grouped(text))) is not None


def plain_numbers(text: str) -> str:
    r"""Groups of three, mixed numbers, recurring decimals and e-notation in LaTeX's way.

    >>> [plain_numbers(text) for text in ("10 000", "1 1/4", "0.1\\overline{6}", "4.5e33")]
    ['10000', '\\frac{5}{4}', '\\frac{1}{6}', '4.5\\times 10^{33}']
    """
    text = _RECURRING.sub(_recurring, _mixed(_grouped(text)))
    text = _DOUBLE_FACTORIAL.sub(lambda match: str(prod(range(int(match[1]), 0, -2))), text)
    text = _TIMES_TEN.sub(r"\\times 10^{\1}", text)
    return _E_NOTATION.sub(r"\1\\times 10^{\2}", re.sub(rf"([/^])({_E_NOTATION.pattern})", r"\1(\2)", text))


def plain_mathematics(text: str) -> str:
    r"""Names and operators of plain text in LaTeX; text groups stay as they are.

    >>> plain_mathematics("2*sqrt((x+1)/2) - exp(-x)**10")
    '2*\\sqrt{(x+1)/2} - \\exp (-x)^{10}'
    """
    place, parts = 0, []
    for group in re.finditer(TEXT, text):
        parts += [_mathematics(text[place : group.start()]), group[0]]
        place = group.end()
    text = "".join([*parts, _mathematics(text[place:])])
    match = _VALUE_FIRST.match(text)
    if match is None or re.fullmatch(_SYMBOL, match[1].strip()):
        return text
    return f"{match[2]} = {match[1].strip()}"  # 5 = x


def has_dots(text: str) -> bool:
    """Whether the answer goes on in dots: ``1, 2, …, n`` or ``3.14…``."""
    return _DOTS.search(text) is not None


def same_dots(text: str) -> str:
    r"""Every kind of dots as ``\ldots``."""
    return _DOTS.sub(r"\\ldots ", text)


def _without_looks(text: str) -> str:
    """Style macros taken out, and the braces of what they were about: to latex2sympy, braces are a set."""
    while (match := _LOOKS.search(text)) is not None:
        rest = text[match.end() :].lstrip()
        close = _closing(rest, 0) if rest.startswith("{") else None
        if close is not None:
            rest = f"{rest[1:close]} {rest[close + 1 :]}"
        text = f"{text[: match.start()]} {rest}"
    return text


def _grouped(text: str) -> str:
    text = _BEHIND_THE_POINT.sub(lambda match: match[0].replace(" ", ""), text)
    return _GROUPS_OF_THREE.sub(_without_spaces, text)


def _without_spaces(match: re.Match[str]) -> str:
    """``41 121/255`` is a mixed number; 10 000/3 is none."""
    groups = match[0].partition("/")[0].split()
    under = (match["under"] or "").strip(" /")
    return match[0] if under and len(groups) == 2 and 0 < int(groups[1]) < int(under) else match[0].replace(" ", "")


def _mixed(text: str) -> str:
    return _MIXED.sub(_improper, text)


def _improper(match: re.Match[str]) -> str:
    """``1 1/4`` as 5/4. What is no proper fraction is no mixed number."""
    over = int(match["over"] or match["over2"] or match["over3"])
    under = int(match["under"] or match["under2"] or match["under3"])
    if not 0 < over < under:
        return match[0]
    return f"{match['sign']}\\frac{{{int(match['whole']) * under + over}}}{{{under}}}"


def _recurring(match: re.Match[str]) -> str:
    r"""``0.1\overline{6}`` as 1/6; ``0.\dot{1}4\dot{2}`` repeats 142."""
    digits = match["digits"] or match["digit"] or match["bracket"]
    digits += (match["middle"] or "") + (match["last"] or match["last2"] or "")
    whole, _, start = match["start"].partition(".")
    repeated = Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(start))
    value = Fraction(f"{whole or 0}.{start or 0}") + repeated
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _mathematics(text: str) -> str:
    text = plain_functions(text)
    text = _OPERATOR.sub(lambda match: _OPERATORS[match[0]], text)
    text = _NAME.sub(_command, text)
    while (match := _OPENED.search(text)) is not None:
        close = _closing(text, match.end() - 1)
        if close is None:
            break
        command = match[1] if match[1] in ("^",) or match[1].startswith("\\") else "\\" + match[1]
        text = f"{text[: match.start()]}{command}{{{text[match.end() : close]}}}{text[close + 1 :]}"
    return _LONG_POWER.sub(r"^{\1}", text)


def _command(match: re.Match[str]) -> str:
    inverse, infinite, name = match.groups()
    if infinite:
        return r"\infty "
    return f"\\arc{inverse[1:].lower()} " if inverse else f"\\{name if name[0].isupper() else name.lower()} "


def _closing(text: str, opening: int) -> int | None:
    """Place of the bracket that closes the one at ``opening``."""
    depth, pair = 0, {"(": "()", "{": "{}"}[text[opening]]
    for place in range(opening, len(text)):
        depth += (text[place] == pair[0]) - (text[place] == pair[1])
        if depth == 0:
            return place
    return None


def _from_unicode(text: str) -> str:
    if text.isascii():
        return text
    text = _OVERLINED.sub(lambda match: f"\\overline{{{re.sub('[^0-9]', '', match[1])}}}", text)
    pieces = []
    for kind, run in groupby(text, _script):
        signs = "".join(run)
        if kind:  # superscripts and subscripts that stand together are one exponent or one index
            pieces.append(f"{'^' if kind == '<super>' else '_'}{{{unicodedata.normalize('NFKC', signs)}}}")
        else:
            pieces.append("".join(map(_sign, signs)))
    text = unicodedata.normalize("NFC", "".join(pieces)).replace("−", "-")
    return _ROOT.sub(lambda match: _ROOTS[match[1]] + (f"{{{match[2].strip()}}}" if match[2] else ""), text)


def _script(sign: str) -> str:
    kind = unicodedata.decomposition(sign).partition(" ")[0]
    return kind if kind in ("<super>", "<sub>") else ""


def _sign(sign: str) -> str:
    if sign.isascii() or sign in _CURRENCY:
        return sign
    if sign in _SIGNS:
        return _SIGNS[sign]
    kind = unicodedata.decomposition(sign).partition(" ")[0]
    if kind == "<fraction>":  # ½
        over, _, under = unicodedata.normalize("NFKC", sign).partition("⁄")
        return f"\\frac{{{over}}}{{{under or 1}}}"
    if (
        sign not in "ℝℤℚℕℂ" and kind.startswith("<") and kind != "<circle>"
    ):  # full-width, mathematical alphabets, kinds of space
        return "".join(_SIGNS.get(part, part) for part in unicodedata.normalize("NFKC", sign))
    if unicodedata.category(sign) == "Sm" or "\u0370" <= sign <= "\u03ff" or sign in "ℝℤℚℕℂ":
        return _in_pylatexenc(sign)
    return sign


@cache
def _in_pylatexenc(sign: str) -> str:
    from pylatexenc.latexencode import UnicodeToLatexEncoder

    rules = ["unicode-xml", "defaults"]
    encoder = UnicodeToLatexEncoder(
        conversion_rules=rules,
        replacement_latex_protection="none",
        unknown_char_policy="keep",
        unknown_char_warning=False,
    )
    return encoder.unicode_to_latex(sign).replace("\\text", "\\", 1).strip() + " "
