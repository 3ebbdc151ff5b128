"""Demonstrations: the pool of the policy's own right answers, and which of them a problem may be shown."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2o_core.config import DemonstrationReflectorConfig, EvolveConfig
from p2o_core.search.proposals import is_word, number, numbers_in, repeats_itself, squeezed
from p2o_core.templates import CONTROL, Parts, Turn, parse_template
from p2o_core.types import Completion, Judged, Problem, VerdictStatus

LEFTOVER = re.compile(r"^\W*(?:user|assistant|human|system|question|problem|q|a|input)\b\W*:|^#|```|<\w+>", re.I | re.M)
"""What a policy writes that goes on after its answer: the next question, roles, headings, fences and tags."""
BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SHAPE_CHARACTERS = 60


@dataclass(frozen=True)
class Demonstration:
    """A verified, finished answer of the policy to a train problem, which templates may show as a chat turn: one row of
    demonstrations.parquet. ``tokens`` are the answer's, ``tier`` the problem's difficulty, ``iteration`` the one in
    which the policy gave it.

    >>> Demonstration("p0", "Write two in digits.", "2", 2, 1, "easy").answer
    '2'
    """

    problem_id: str
    question: str
    answer: str
    tokens: int
    iteration: int
    tier: str


class DemonstrationPool:
    """The policy's own verified answers to train problems: short and clean ones, few a problem. A ``closed``
    one, where nobody shows demonstrations, stays empty."""

    def __init__(
        self,
        config: DemonstrationReflectorConfig,
        known: Iterable[Demonstration] = (),
        *,
        iteration: int = 0,
        closed: bool = False,
    ) -> None:
        self.config = config
        self.iteration = iteration
        self.rows: list[Demonstration] = []
        self.closed = closed
        self._keep(known)

    def take(
        self,
        problems: Mapping[str, Problem],
        completions: Sequence[Completion],
        judged: Sequence[Judged],
        iteration: int,
    ) -> None:
        """Learn from an iteration's rollouts; ``judged[i]`` is the verdict on ``completions[i]``."""
        self.iteration = iteration
        asked = [problems[completion.problem_id] for completion in completions]
        self.learn(asked, completions, [verdict.status is VerdictStatus.CORRECT for verdict in judged])

    def learn(self, asked: Sequence[Problem], completions: Sequence[Completion], right: Sequence[bool]) -> None:
        """Take in what is fit to be shown. ``completions[i]`` answers ``asked[i]``, verified when ``right[i]``."""
        self._keep(
            Demonstration(
                problem.id,
                problem.question,
                completion.text,
                len(completion.token_ids),
                self.iteration,
                problem.difficulty,
            )
            for problem, completion, verified in zip(asked, completions, right, strict=True)
            if verified
            and not self.closed
            and problem.split == "train"
            and not completion.truncated
            and len(completion.token_ids) <= self.config.max_tokens
            and is_clean(completion.text, problem.spellings)
        )

    def _keep(self, new: Iterable[Demonstration]) -> None:
        """Keep the shortest answers of each problem, and of the pool; the older one of equal texts."""
        rows = {(row.problem_id, row.answer): row for row in sorted([*self.rows, *new], key=lambda row: -row.iteration)}
        per_problem: Counter[str] = Counter()
        kept = []
        for row in sorted(rows.values(), key=lambda row: (row.tokens, row.problem_id, row.answer)):
            per_problem[row.problem_id] += 1
            if per_problem[row.problem_id] <= self.config.per_problem:
                kept.append(row)
        self.rows = kept[: self.config.size]

    def draw(self, rng: random.Random, beside: Sequence[Turn] = (), *, unlike: str | None = None) -> Turn | None:
        """Draw a demonstration to stand beside others; None where the pool has no more.

        Its question is another one, and so is its answer where possible. A shape's share of the draws is at most
        ``max_share``, ``unlike`` a shape to avoid where there are others; among answers of a shape the short ones are
        likelier.
        """
        questions, answers = {turn.question for turn in beside}, {final_answer(turn.answer) for turn in beside}
        rows = [row for row in self.rows if row.question not in questions]
        rows = [row for row in rows if final_answer(row.answer) not in answers] or rows
        rows = [row for row in rows if shape(row.answer) != unlike] or rows
        if not rows:
            return None
        by_shape: dict[str, list[Demonstration]] = {}
        for row in rows:
            by_shape.setdefault(shape(row.answer), []).append(row)
        weights = capped([len(members) for members in by_shape.values()], self.config.max_share)
        (members,) = rng.choices(list(by_shape.values()), weights)
        (row,) = rng.choices(members, [1 / row.tokens for row in members])
        return Turn(row.question, row.answer)

    def draw_set(self, rng: random.Random) -> tuple[Turn, ...]:
        """Draw as many demonstrations as a template has, fewer from a small pool."""
        turns: list[Turn] = []
        while len(turns) < self.config.turns and (turn := self.draw(rng, turns)) is not None:
            turns.append(turn)
        return tuple(turns)


def pool_of(config: EvolveConfig, known: Iterable[Demonstration], phrases: Sequence[str] = ()) -> DemonstrationPool:
    """The last iteration's pool, with those in ``phrases`` where the reflector wants what a person wrote. It stays
    empty where nobody shows demonstrations."""
    if not config.enabled or not isinstance(config.reflector, DemonstrationReflectorConfig):
        return DemonstrationPool(DemonstrationReflectorConfig(), closed=True)
    written = written_demonstrations(phrases) if config.reflector.written else []
    return DemonstrationPool(config.reflector, [*known, *written])


def written_demonstrations(phrases: Sequence[str]) -> list[Demonstration]:
    """The turns of templates that a person wrote. Their length is in characters, since nobody encodes them: an answer
    of the policy's own is likelier to be shown.

    >>> written_demonstrations(["=== user ===\\ntwo ->\\n=== assistant ===\\n2"])[0].question
    'two ->'
    """
    turns = dict.fromkeys(turn for phrase in phrases for turn in parse_template(phrase).turns)
    return [
        Demonstration(f"written-{number}", turn.question, turn.answer, len(turn.answer), 0, "written")
        for number, turn in enumerate(turns)
    ]


def is_clean(text: str, spellings: Sequence[str]) -> bool:
    """Return whether a right answer is fit to be shown: a spelling of the gold answer stands in it as it is, it repeats
    nothing and ends with its answer's line. Without a sentence around it, the answer is the gold answer and nothing
    else (``571``, not ``571.`` or ``**571**``), or that in a box.

    >>> [is_clean(text, ["571"]) for text in ("571", "The number is 571.", "571.", "571 571", "5 71")]
    [True, True, False, False, False]
    """
    said = next((s for s in spellings if re.search(rf"(?<![\w.,]){re.escape(s)}(?!\w|[.,]\d)", text)), None)
    if said is None or text != text.strip() or CONTROL.search(text) or LEFTOVER.search(text):
        return False
    around = text.replace(said, "", 1)
    if not re.search(r"[^\W\d_]", around.replace("\\boxed", "")):
        return text in (said, f"\\boxed{{{said}}}")
    lines = [line for line in text.splitlines() if line.strip()]
    return said in lines[-1] and len(set(lines)) == len(lines) and not repeats_itself(text.split())


def shape(answer: str) -> str:
    """Return an answer's pattern: its beginning, with every number alike.

    >>> shape("The number is 1,571."), shape("12")
    ('the number is #.', '#')
    """
    return NUMBER.sub("#", answer)[:SHAPE_CHARACTERS].lower()


def capped(counts: Sequence[int], share: float) -> list[float]:
    """Return weights in proportion to ``counts``, none above ``share`` of their sum where there are enough to allow it;
    what is cut off goes to the others.

    >>> capped([8, 1, 1], 0.5)
    [2.0, 1.0, 1.0]
    """
    weights = [float(count) for count in counts]
    top = max(range(len(weights)), key=lambda index: weights[index])
    others = sum(weights) - weights[top]
    if others and 0 < share < 1:
        weights[top] = min(weights[top], share / (1 - share) * others)
    return weights


def final_answer(text: str) -> str:
    """Return what an answer says in the end: its last box, else its last number, else the whole text."""
    found = BOXED.findall(text) or NUMBER.findall(text)
    return (found[-1] if found else text).strip()


def without_own(template: str, problem: Problem) -> str:
    """Return a template as ``problem`` may see it: without demonstrations of its own question, or whose answer is its
    gold answer. A word (yes, no, a letter) gives nothing away: half of all demonstrations may end with it."""
    parts = parse_template(template)
    if not parts.turns:
        return template
    kept = tuple(turn for turn in parts.turns if not _shows(turn, problem))
    return template if kept == parts.turns else str(Parts(parts.instruction, kept))


def _shows(turn: Turn, problem: Problem) -> bool:
    if " ".join(turn.question.split()).lower() == " ".join(problem.question.split()).lower():
        return True
    final = final_answer(turn.answer)
    said = set(numbers_in(final))
    return any(
        value in said
        if (value := number(gold)) is not None
        else not is_word(gold) and squeezed(gold) == squeezed(final)
        for gold in problem.spellings
    )
