r"""Macros and words that say the same: ``\nicefrac12``, ``\operatorname{sin}``, ``cbrt(8)``, ``**Answer:** 5``.

Each row is a pattern and what takes its place. :mod:`p2o_core.verify.notation` applies the rows to every answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|lim|det"
_END = r"(?![a-zA-Z])"
_AT_LEAST = rf"(?:>=|\\geq?{_END})"


_NEARLY = "(?:about|approximately|roughly|exactly)"


def _rows(*rows: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), into) for pattern, into in rows]


_MACROS = _rows(
    (rf"\\(?:operatorname\*?|text(?:rm)?|mathrm|mbox) ?\{{ ?({FUNCTIONS}) ?\}}", r"\\\1 "),
    (r"(?<![a-zA-Z\\])\\(?:mathrm|operatorname) ?\{ ?([eid]) ?\}(?= ?(?:\^|\\(?:pi|sqrt)|\Z|[-+)},]))", r"\1"),
    (r"\\(?:SI|qty) ?\{([^{}]*)\} ?\{([^{}]*)\}", r"\1\\text{ \2}"),
    (r"\\num ?\{([^{}]*)\}", r"\1"),
    (r"(?<=\d)(?: |~)?\{ ?(\\text ?\{[^{}]*\}) ?\}", r"\1"),
    (r"(?<=\d)\\(?:text|mathrm) ?\{ ?[eE] ?([-+]?) ?\} ?\{? ?([-+]?\d+) ?\}?", r"e\1\2"),
    (r"\\sqrt ?\[ ?([3579]) ?\] ?\{ ?- ?(\d+) ?\}", r"-\\sqrt[\1]{\2}"),
    (r"\\(?:operatorname|text|mathrm) ?\{ ?sqrt ?\}", r"\\sqrt"),
    (rf"(?:\\operatorname ?\{{ ?(arc)?tg ?\}}|\\(arc)?tg{_END})", r"\\\1\2tan "),
    (rf"(?:\\operatorname ?\{{ ?c(?:o)?tg ?\}}|\\c(?:o)?tg{_END})", r"\\cot "),
    (r"(?:\{ ?\})?[\^_] ?\{? ?(\d+|[a-z]) ?\}? ?C ?_ ?\{? ?(\d+|[a-z]) ?\}?", r"\\binom{\1}{\2}"),
    (rf"\\(?:nicefrac|sfrac|flatfrac|xfrac){_END}", r"\\frac"),
    (rf"\\(?:mathds|Bbb|mathbf|mathbbm|mathbb) ?(?:\{{ ?([CNQRZ]) ?\}}|([CNQRZ]){_END})", r"\\mathbb{\1\2}"),
    (rf"\\([NQRZ]){_END}", r"\\mathbb{\1}"),
    (rf"\\var(phi|epsilon|theta|rho|sigma|kappa){_END}", r"\\\1"),
    (rf"\\lbrace{_END}", r"\\{"),
    (rf"\\rbrace{_END}", r"\\}"),
    (rf"\\lbrack{_END}", "["),
    (rf"\\rbrack{_END}", "]"),
    (rf"\\langle{_END}", "("),
    (rf"\\rangle{_END}", ")"),
    (rf"\\(?:colon|ratio){_END}|∶", ":"),
    (rf"\\mid{_END}", "|"),
    (r"\\sqrt ?(\\(?:pi|theta|alpha|beta|lambda|mu))(?![a-zA-Z])", r"\\sqrt{\1}"),
    (r"(?<![\w})])\^\{(\d)\}\\sqrt(?=[{(])", r"\\sqrt[\1]"),
    (r" ?\(mod (\w+)\)", r" \\pmod{\1}"),
    (rf"\\lg{_END}", r"\\log_{10}"),
    (rf"\\surd{_END}", r"\\sqrt"),
    (r"\\root ?\{?(\w)\}? ?\\of ?", r"\\sqrt[\1]"),
    (r"\^ ?(?:\{ ?(?:\\(?:text|mathrm)\{ ?o ?\}|o) ?\}|o(?![a-zA-Z]))", r"^\\circ "),
    (r"(?<=\d) ?(?:\^ ?\{ ?)?(?:\\(?:text|mathrm)\{ ?)?(?:st|nd|rd|th)(?![a-zA-Z]) ?\}{0,2}", ""),
    (r"\^ ?(?:\{ ?\\prime ?\}|\\prime(?![a-zA-Z]))", "'"),
    (rf" ?\\(?:checkmark|blacksquare|qed|square|Box){_END} ?\Z", ""),
    (r"\\(?:phantom|underset|overset|label|tag) ?\{ ?\}", ""),
    (r"(\\mathbb ?(?:\{[CNQRZ]\}|[CNQRZ])) ?(?:-|\\backslash(?![a-zA-Z])) ?(?=\\\{)", r"\1\\setminus "),
    (r"(\\\{ ?[a-zA-Z](?: ?\\in[^|:{}]*)?) ?\| ?", r"\1:"),
    (
        r"\A\\begin ?\{(aligned|align\*?|gathered|split|equation\*?)\}((?:(?!\\\\).)*)\\end ?\{\1\}\Z",
        r"\2",
    ),
    (r"(?<=%) ?\\text ?\{ ?of (?:the )?[a-z]+(?: [a-z]+)? ?\}\Z", ""),
)
_AROUND = _rows(
    (r"\A(?:\*\*|__)(?=[^*_])(.*?)(?:\*\*|__)\Z", r"\1"),
    (r"\A\*([^*]+)\*\Z", r"\1"),
    (r"(?<=\d)\{:\}(?=\d)", ":"),
    (r"\A`+([^`]+)`+\Z", r"\1"),
    (
        r"(?i)\A(?:\\text\{)? *(?:the )?(?:final |correct )?(?:answer|option|choice)(?:(?: is)? ?:| is) *\}? *(?=.)",
        "",
    ),
    (
        r"\A(?:=|\\(?:approx|sim(?:eq)?|therefore|implies|Rightarrow)(?![a-zA-Z])|≈|~|≃|∴"
        rf"|{_NEARLY} |\\text ?\{{ ?{_NEARLY} ?\}}) *(?=[^ =])",
        "",
    ),
    (r"(?i)\A(?:minus|negative) +(?=[\d.\\$])|\A\\text\{ ?(?:minus|negative) ?\} ?(?=[\d.\\$])", "-"),
    (r"(?i)\A(\d[^{}]{0,20}\\text ?\{[^{}]{0,40}?) +(?:below|under) +(?:zero|0) ?\}\Z", r"-\1}"),
    (r"(?i)\A(\d[^-+<>=]{0,60}?) *(?:\\text ?\{ *)?(?:below|under) +(?:zero|0) ?\}?\Z", r"-\1"),
    (r"\A(?:\\text\{ *[A-Za-z ]+\}|[A-Za-z]{4,}(?: [A-Za-z]+)*) *(?:= *(?=[^=]+\Z)|: *(?=.))", ""),
    (r"(?<=\d) ?(?:\\text ?\{ *)?squared ?\}?\Z", "^{2}"),
    (r"(?<=\d) ?(?:\\text ?\{ *)?cubed ?\}?\Z", "^{3}"),
    (r"(?<=\d) ?(?:\\text ?\{ *)?factorial ?\}?\Z", "!"),
    (r"\A\\text ?\{ ?(\\text[a-z]* ?\{[^{}]*\}) ?\}\Z", r"\1"),
    (r"\A\\(?:text(?:bf|it|rm|up|normal)?|mbox|mathrm) ?\{([^{}]*\d[^{}]*)\}\Z", r"\1"),
    (r"\A\]([^][,;]+[,;][^][,;]+)\[\Z", r"(\1)"),
    (r"\A\[([^][,;]+[,;][^][,;]+)\[\Z", r"[\1)"),
    (r"\A\]([^][,;]+[,;][^][,;]+)\]\Z", r"(\1]"),
    (r"\A([\[(])([^][();,]+);([^][();,]+)([\])])\Z", r"\1\2,\3\4"),
    (r"(?<=[\d)}]) +to +(?=[\d({\\])|(?<=[\d)}]) ?\\text\{ *to *\} ?(?=[\d({\\])", ":"),
    (r"\A\(([^()]*\\pm[^()]*)\) ?/ ?(\w+)\Z", r"\\frac{\1}{\2}"),
    (r"(?<!\\)[,;] ?\Z|(?<!\\)\\\Z", ""),
    (r"(?:\\\\ ?)+\Z|\A(?:\\\\ ?)+", ""),
)
_PLAIN = _rows(
    (r"(?<![\w.)}^/])(\d+)/(\d+) ?(?=[a-zA-Z(]|\\(?:pi|sqrt|frac))", r"\\frac{\1}{\2}"),
    (r"(?<![a-zA-Z\\])cbrt *\(", r"\\sqrt[3]("),
    (r"(?<![a-zA-Z\\])root *\( *(\d) *, *", r"\\sqrt[\1]("),
    (r"(?<![a-zA-Z\\])abs *\(((?:[^()]|\([^()]*\))*)\)", r"|\1|"),
    (r"(?<![a-zA-Z\\])floor *\(((?:[^()]|\([^()]*\))*)\)", r"\\lfloor \1\\rfloor "),
    (r"(?<![a-zA-Z\\])ceil(?:ing)? *\(((?:[^()]|\([^()]*\))*)\)", r"\\lceil \1\\rceil "),
    (r"(?<![a-zA-Z\\])log(2|10) *(?=\()", r"\\log_{\1}"),
    (r"(?<![a-zA-Z\\])(?:binom|binomial|C|nCr) *\( *([\w*]+) *, *([\w*]+) *\)", r"\\binom{\1}{\2}"),
    (r"(?<![a-zA-Z\\])sqrt *(?=\{|\d|[a-z](?![a-zA-Z]))", r"\\sqrt "),
    (r"(?<![a-zA-Z\\])(sin|cos|tan|ln)(?=[xyzt](?![a-zA-Z]))", r"\\\1 "),
    (r"(?<=[\])}]) *(?:U|u|union) *(?=[\[({\\])", r"\\cup "),
    (r"(?<![\w.])(\d+|[a-z]) ?choose ?(\d+|[a-z])(?!\w)", r"\\binom{\1}{\2}"),
    (r"(?<![\w.])(\d+)C(\d+)(?!\w)", r"\\binom{\1}{\2}"),
    (r"\+ ?/? ?-(?=[ \d\\a-z(])", r"\\pm "),
    (r"=<", r"\\leq "),
    (rf"\A([^<>=,\\]+){_AT_LEAST}([^<>=,\\]+){_AT_LEAST}([^<>=,\\]+)\Z", r"\3\\leq \2\\leq \1"),
    (r"\A([^<>=,\\]+)>([^<>=,\\]+)>([^<>=,\\]+)\Z", r"\3<\2<\1"),
    (r"\^ ?-(\w)(?!\w)", r"^{-\1}"),
)
_ROWS = re.compile(r"\A\[ ?\[([^\[\]]*(?:\] ?, ?\[[^\[\]]*)+)\] ?\]\Z")
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)(?: ?\^ ?\{?\d\}?)?) ?(?:\( ?|\{ ?)?(\d+(?:\.\d+)?) ?\^ ?\{? ?\\circ ?\}? ?[)}]?"
)
_WORDS = {
    word: str(number)
    for words in (
        "zero one two three four five six seven eight nine ten eleven twelve",
        "零 一 二 三 四 五 六 七 八 九 十",
    )
    for number, word in enumerate(words.split() if " " in words else words)
}


_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_ALONE = {word: str(number) for number, word in enumerate(_TEENS, 13)} | {
    f"{ten}{joint}{one}".rstrip("- "): str(10 * number + int(digit))
    for number, ten in enumerate(_TENS, 2)
    for joint in "- "
    for one, digit in [("", "0"), *list(_WORDS.items())[1:10]]
}
_ALONE |= {
    "one hundred": "100", "a hundred": "100", "one thousand": "1000", "a thousand": "1000", "one half": "1/2",
    "one-half": "1/2", "one third": "1/3", "one-third": "1/3", "one quarter": "1/4", "two thirds": "2/3",
    "three quarters": "3/4", "three fourths": "3/4", "infinity": r"\infty", "all real numbers": r"\mathbb{R}",
    "dne": "does not exist",
} | _WORDS  # fmt: skip
"""Words that are an answer by themselves."""


_WHOLE_AND = re.compile(
    rf"(?<![\w.,/^)}}])(\d+|{'|'.join(list(_WORDS)[1:13])}) ?(?:and|\\(?:text|mathrm) ?\{{ *and *\}}) ?"
    r"(?:(an? half|one half)|(?=\d+ ?/ ?\d+(?![\d.])|\\[dtc]?frac))"
)
_OR = re.compile(r"(?<=[\])]) ?(?:or|\\(?:text|mathrm) ?\{ ?or ?\}) ?(?=[\[(])")
_LIST = re.compile(r"[,;]|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])|\\cup")


def one_spelling(text: str) -> str:
    r"""Macros that have several names, by one of them; what stands around an answer and says nothing, taken off;
    degrees inside a function in radians.

    >>> one_spelling("**\\operatorname{sin}(x)**"), one_spelling("\\approx 3.14")
    ('\\sin (x)', '3.14')
    """
    word = text.removeprefix("\\text{").rstrip("}").lower()
    if word in _ALONE:
        return _ALONE[word]
    for pattern, into in _AROUND:
        text = pattern.sub(into, text)
    if "\\" in text or "^" in text or "th" in text or "∶" in text:
        for pattern, into in _MACROS:
            text = pattern.sub(into, text)
        text = _DEGREES.sub(_in_radians, text)
    if "[" in text or "]" in text or "\\infty" in text:
        text = _OR.sub(r"\\cup ", text)  # between intervals; points stay a list
    rows = _ROWS.match(text)
    if rows is not None:
        text = r"\begin{pmatrix}" + re.sub(r"\] ?, ?\[", r"\\\\", rows[1]).replace(",", "&") + r"\end{pmatrix}"
    return text.strip()


def whole_and_part(text: str, against: str) -> str:
    r"""``2 and 1/2`` as the mixed number ``2 1/2``, unless the other side is a list, which has two members then.

    >>> [whole_and_part(*sides) for sides in (("2 and 1/2", "2.5"), ("two and a half", "5/2"), ("2 and 1/2", "2, 1/2"))]
    ['2 1/2', '2 1/2', '2 and 1/2']
    """
    if "and" not in text or _LIST.search(against) is not None:
        return text
    return _WHOLE_AND.sub(lambda match: f"{_WORDS.get(match[1], match[1])} {'1/2' if match[2] else ''}", text)


def plain_functions(text: str) -> str:
    r"""Functions and operators of plain text in LaTeX.

    >>> plain_functions("cbrt(8)"), plain_functions("+-5")
    ('\\sqrt[3](8)', '\\pm 5')
    """
    for pattern, into in _PLAIN:
        text = pattern.sub(into, text)
    return text


def _in_radians(match: re.Match[str]) -> str:
    turn = Fraction(match[2]) / 180
    over = r"\pi" if turn.numerator == 1 else rf"{turn.numerator}\pi"
    return f"{match[1]}{{\\frac{{{over}}}{{{turn.denominator}}}}}"
