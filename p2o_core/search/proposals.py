"""Turns a reflection model's reply into a template, or into the reason for refusing it.

A small model returns junk now and then, and every reflection model sees gold answers in its feedback: a template
with an answer in it would score well and teach nothing. So a proposal is parsed leniently and then judged strictly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from fractions import Fraction

from p2o_core.search.replies import FENCE, PROSE, bare, declines, fenced, is_placeholder, without_thinking
from p2o_core.templates import CONTROL, has_turns
from p2o_core.types import Problem

NGRAM = 8
"""Words in a row that a template may not share with a hard problem; a shorter problem must not be there whole."""
SHORTEST_PROBLEM = 3
"""Words below which a problem is too common to be recognised."""


class Refusal(StrEnum):
    """The reasons for refusing a proposal."""

    UNFENCED = "unfenced"
    UNCLOSED = "unclosed"
    DECLINED = "declined"
    ECHOED = "echoed"
    REPETITIVE = "repetitive"
    BLANK = "blank"
    REPEATED = "repeated"
    TOO_LONG = "too_long"
    RESIDUE = "residue"
    LEAKED_ANSWER = "leaked_answer"
    LEAKED_PROBLEM = "leaked_problem"


RESIDUE = re.compile(
    r"```|<curr|</?(?:\w+_)?(?:instruction|prompt|template)s?\b|\A\s*[<\[{][^<>\[\]{}]*[>\]}]\s*\Z"
    r"|\A\s*[\[{]\s*[\"'{\[]|\A\s*(?:def|import|class)\s\w+",
    re.IGNORECASE,
)
"""Fences and tags; a placeholder in brackets and nothing else; the beginning of JSON or of code."""
LETTER = re.compile(r"[^\W\d_]")
LONGEST_PERIOD = 40
"""Words of a passage that is looked for in repetition."""


def parse_proposal(text: str) -> str | Refusal:
    """Return the template in a reply: the last fenced block that is not blank, without label, enclosing tag and quotes.

    It refuses a reply without a fence (talk about a template), with a fence or thinking still open (cut off), and a
    block that announces code. It ignores what a model thought before (``<think>``).
    """
    reply = without_thinking(text)
    if reply is None:
        return Refusal.UNCLOSED
    blocks, around = fenced(reply)
    if FENCE in around or without_thinking(around) is None:
        return Refusal.UNCLOSED
    if not any(block.strip() for _, block in blocks):
        if blocks or not reply.strip():
            return Refusal.BLANK
        return Refusal.DECLINED if declines(reply) else Refusal.UNFENCED
    kind, proposal = next((kind, block) for kind, block in reversed(blocks) if block.strip())
    return bare(proposal) if kind.lower() in PROSE else Refusal.RESIDUE


class ProposalGuard:
    """Judges the proposals of one search. A proposal must not show answers or texts of the ``hard`` problems, and must
    not repeat ``asked``, the instructions in every reflection prompt."""

    def __init__(self, hard: Sequence[Problem], *, max_characters: int, asked: str = "") -> None:
        self.max_characters = max_characters
        self._asked, self._between = _words(asked), _words(parse_proposal(asked))
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

    def judge(self, proposal: str | Refusal) -> Refusal | None:
        """Return the reason for refusing a proposal, or None and remember it as a candidate. A proposal that the parser
        refused stays refused."""
        refusal = proposal if isinstance(proposal, Refusal) else self._judge(proposal)
        if refusal is None:
            self.seen.add(proposal)
        return refusal

    def _judge(self, proposal: str) -> Refusal | None:
        checks: tuple[tuple[Refusal, Callable[[str], object]], ...] = (
            (Refusal.BLANK, lambda text: not text.strip()),
            (Refusal.REPEATED, self.seen.__contains__),
            (Refusal.TOO_LONG, lambda text: len(text) > self.max_characters),
            (Refusal.RESIDUE, lambda text: CONTROL.search(text) or RESIDUE.search(text) or has_turns(text)),
            (Refusal.LEAKED_ANSWER, self._leaks_answer),
            (Refusal.LEAKED_PROBLEM, self._leaks_problem),
            (Refusal.BLANK, lambda text: not LETTER.search(text)),
            (Refusal.DECLINED, declines),
            (Refusal.ECHOED, self._echoes),
            (Refusal.RESIDUE, is_placeholder),
            (Refusal.REPETITIVE, lambda text: repeats_itself(text.split())),
        )
        return next((refusal for refusal, holds in checks if holds(proposal)), None)

    def _echoes(self, proposal: str) -> bool:
        """Return whether a proposal is a piece of the instructions or shares eight consecutive words with them. One or
        two words prove nothing, unless they are the instructions' own fenced block."""
        words = _words(proposal)
        if len(words) < SHORTEST_PROBLEM:
            return words == self._between
        length = min(NGRAM, len(words))
        return not set(_ngrams(words, length)).isdisjoint(_ngrams(self._asked, length))

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
    """Return the value of a gold answer that is just a number (it may have a unit, a percent or a currency sign)."""
    bare = re.sub(r"(?<=\d)\s*[a-zA-Z]+(?:\^\{?[23]\}?)?\s*\Z|\\?[%$]|\^\s*\{?\\circ\}?|\s", "", _plain(answer))
    for pattern in (_FRACTION, _NUMBER):
        if (match := pattern.fullmatch(bare)) is not None:
            return next(numbers_in(match[0]))
    return None


def squeezed(text: str) -> str:
    """Return LaTeX without the commands that change only its looks."""
    return re.sub(r"\\left|\\right|\\[dt](?=frac)|\\[,!;: ]|[\s$]", "", _plain(text)).lower()


def is_word(answer: str) -> bool:
    """Return whether an answer is a word, a name or a letter: too common to refuse wherever it stands."""
    return bool(re.fullmatch(r"[a-z]+", _plain(answer).strip().lower()))


def _plain(text: str) -> str:
    """Normalise compatibility forms (full-width digits, ligatures); remove zero-width characters and the wrappers of
    LaTeX's text."""
    folded = unicodedata.normalize("NFKC", text)
    visible = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return re.sub(r"\\(?:text(?:bf|it|rm)?|mbox|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", visible)


def _announced(word: str, text: str) -> bool:
    """Return whether ``word`` stands where answers do: boxed, alone in brackets, after "answer is" or an equals
    sign."""
    escaped = re.escape(word)
    wanted = rf"(?:answers?\s*(?:is|are|:|=)\s*\W{{0,3}}|boxed\s*\{{\s*(?:\\text\{{)?|=\s*|\(){escaped}(?!\w)"
    return re.search(wanted, text, re.IGNORECASE) is not None


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|[+\-*/=]", _plain(text).lower()))


def repeats_itself(words: Sequence[str]) -> bool:
    """Return whether a passage of up to forty words stands in the text four times in a row."""
    for period in range(1, LONGEST_PERIOD + 1):
        same = 0
        for word, later in zip(words, words[period:], strict=False):
            same = same + 1 if word == later else 0
            if same >= 3 * period:
                return True
    return False


def _ngrams(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[start : start + length] for start in range(len(words) - length + 1))
