"""From what a reflection model wrote to a template, or to the reason why not.

A small model returns junk now and then, and every reflection model sees gold answers in its feedback: a template
with an answer in it would score well and teach nothing. So a proposal is parsed leniently and then judged strictly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import StrEnum
from fractions import Fraction

from p2o_core.types import Problem

NGRAM = 8
"""Words in a row that a template may not share with a hard problem; a shorter problem must not be there whole."""
SHORTEST_PROBLEM = 3
"""Words below which a problem is too common to be recognised."""


class Refusal(StrEnum):
    """Why a proposal did not become a candidate."""

    BLANK = "blank"
    REPEATED = "repeated"
    TOO_LONG = "too_long"
    RESIDUE = "residue"
    LEAKED_ANSWER = "leaked_answer"
    LEAKED_PROBLEM = "leaked_problem"


FENCE = re.compile(r"```[^\n`]*\n?(.*?)(?:```|\Z)", re.DOTALL)
LABEL = re.compile(
    r"\A\s*(?:here(?:'s| is| are)[^\n]{0,120}:|sure[^\n]{0,80}[:!]|(?:new |improved |revised )?"
    r"(?:instruction|template|prompt)s?\s*:)\s*",
    re.IGNORECASE,
)
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}
SPECIAL = re.compile(r"<\|[^|>]*\|>|</?s>|\[/?INST\]|</?think>")
RESIDUE = re.compile(r"```|<curr|</?instruction", re.IGNORECASE)


def parse_proposal(text: str) -> str:
    """The template in a reply: the last fenced block, or all of it; without label and enclosing quotes."""
    blocks = [block for block in FENCE.findall(text) if block.strip()]
    proposal = (blocks[-1] if blocks else text).strip()
    proposal = LABEL.sub("", proposal).strip()
    while len(proposal) > 1 and QUOTES.get(proposal[0]) == proposal[-1]:
        proposal = proposal[1:-1].strip()
    return proposal


class ProposalGuard:
    """Judges the proposals of one search. ``hard`` are the problems whose answers and texts must not appear."""

    def __init__(self, hard: Sequence[Problem], *, max_characters: int) -> None:
        self.max_characters = max_characters
        self.seen: set[str] = {""}
        golds = [answer for problem in hard for answer in problem.spellings]
        self._numbers = {value for answer in golds if (value := number(answer)) is not None}
        others = [answer for answer in golds if number(answer) is None]
        self._texts = {squeezed(answer) for answer in others if len(squeezed(answer)) >= 3 and not is_word(answer)}
        self._words = {_plain(answer).strip() for answer in others} - {""}
        self._grams: set[tuple[str, ...]] = set()
        for problem in hard:
            words = _words(problem.question)
            if len(words) >= SHORTEST_PROBLEM:
                self._grams |= set(_ngrams(words, min(NGRAM, len(words))))

    def judge(self, proposal: str) -> Refusal | None:
        """The reason to refuse it, None for a new candidate, which is then remembered."""
        refusal = self._judge(proposal)
        if refusal is None:
            self.seen.add(proposal)
        return refusal

    def _judge(self, proposal: str) -> Refusal | None:
        if not proposal.strip():
            return Refusal.BLANK
        if proposal in self.seen:
            return Refusal.REPEATED
        if len(proposal) > self.max_characters:
            return Refusal.TOO_LONG
        if SPECIAL.search(proposal) or RESIDUE.search(proposal):
            return Refusal.RESIDUE
        if self._leaks_answer(proposal):
            return Refusal.LEAKED_ANSWER
        return Refusal.LEAKED_PROBLEM if self._leaks_problem(proposal) else None

    def _leaks_answer(self, proposal: str) -> bool:
        if self._numbers & set(numbers_in(proposal)):
            return True
        text = squeezed(proposal)
        if any(answer in text for answer in self._texts):
            return True
        return any(_announced(word, _plain(proposal)) for word in self._words)

    def _leaks_problem(self, proposal: str) -> bool:
        words = _words(proposal)
        lengths = {len(gram) for gram in self._grams}
        return any(gram in self._grams for length in lengths for gram in _ngrams(words, length))


_UP_TO_TWENTY = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
NUMBER_WORDS = {word: value for value, word in enumerate(_UP_TO_TWENTY.split())}
_FRACTION = re.compile(r"\\[dt]?frac\s*\{?\s*(-?\d+)\s*\}?\s*\{?\s*(\d+)\s*\}?|(?<![\d.])(-?\d+)\s*/\s*(\d+)(?![\d.])")
_NUMBER = re.compile(r"-?\d{1,3}(?:(?:,|\{,\}|\\,|\\!)\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?|-?\.\d+")
_SPACED = re.compile(r"(?<!\d)\d(?:[\s,;._\-]+\d)+(?!\d)")


def numbers_in(text: str) -> Iterator[Fraction]:
    """Every number a text says, by value and whatever its form: 1,234 and 1234.0, \\frac{1}{2} and 0.5, 50% as 50 and
    as 1/2, words up to twenty, and digits written apart (``1 2 3`` is also 123)."""
    plain = _plain(text)
    for match in _FRACTION.finditer(plain):
        top, bottom = (int(part) for part in match.groups() if part is not None)
        if bottom:
            yield Fraction(top, bottom)
    for match in _NUMBER.finditer(plain):
        value = Fraction(re.sub(r"[^\d.\-]", "", match[0]))
        yield value
        yield abs(value)
        if plain[match.end() :].lstrip().startswith(("%", "\\%")):
            yield value / 100
    for match in _SPACED.finditer(plain):
        yield Fraction(re.sub(r"\D", "", match[0]))
    for word in re.findall(r"[a-z]+", plain.lower()):
        if word in NUMBER_WORDS:
            yield Fraction(NUMBER_WORDS[word])


def number(answer: str) -> Fraction | None:
    """The value of a gold answer that is a number and nothing else (a unit, a percent or currency sign aside)."""
    bare = re.sub(r"(?<=\d)\s*[a-zA-Z]+(?:\^\{?[23]\}?)?\s*\Z|\\?[%$]|\^\s*\{?\\circ\}?|\s", "", _plain(answer))
    for pattern in (_FRACTION, _NUMBER):
        if (match := pattern.fullmatch(bare)) is not None:
            return next(numbers_in(match[0]))
    return None


def squeezed(text: str) -> str:
    """LaTeX without what changes its looks only."""
    return re.sub(r"\\left|\\right|\\[dt](?=frac)|\\[,!;: ]|[\s$]", "", _plain(text)).lower()


def is_word(answer: str) -> bool:
    """Yes, true, a name, a letter: too common a word to be refused wherever it stands."""
    return bool(re.fullmatch(r"[a-z]+", _plain(answer).strip().lower()))


def _plain(text: str) -> str:
    """Compatibility forms (full-width digits, ligatures) made plain, characters without width and the wrappers of
    LaTeX's text removed."""
    folded = unicodedata.normalize("NFKC", text)
    visible = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return re.sub(r"\\(?:text(?:bf|it|rm)?|mbox|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", visible)


def _announced(word: str, text: str) -> bool:
    """``word`` stands where answers stand: boxed, in brackets of its own, behind "answer is" or an equals sign."""
    escaped = re.escape(word)
    wanted = rf"(?:answers?\s*(?:is|are|:|=)\s*\W{{0,3}}|boxed\s*\{{\s*(?:\\text\{{)?|=\s*|\(){escaped}(?!\w)"
    return re.search(wanted, text, re.IGNORECASE) is not None


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|[+\-*/=]", _plain(text).lower()))


def _ngrams(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[start : start + length] for start in range(len(words) - length + 1))
