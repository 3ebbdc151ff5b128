"""One source of problems: a known data set, a file, a data set of the hub, or a generator."""

from __future__ import annotations

import math
import posixpath
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from p2o_core.config import Section
from p2o_core.schemas import BadInput, check_problems
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from tasks.problems.answers import AnswerKind
from tasks.problems.catalogue import Alternatives, entry_named
from tasks.problems.cells import Answers, golds_of, has, lookup, question_of, text_of
from tasks.problems.draws import AnswerTypes, answer_kind, drawn
from tasks.problems.generators import Generator
from tasks.problems.tables import Record, Rows, arrow_rows, read_table, stem_of

REQUIRED = ("question", "answer")
FIELDS = (*REQUIRED, "id", "difficulty", "kind")
TIER = re.compile(r"[/\w.\- :]{1,200}")
"""Signs that MLflow takes in a metric's name."""
OF_GENERATORS = {"generator", "limit", "validation", "draw_seed", "tier"}
OF_THE_HUB = {"config", "split", "revision"}
FORM = "verl"
"""Entry of the catalogue whose column names a file without a name may have beside the plain ones."""

Columns = Mapping[str, tuple[str, ...]]
"""Field to the column or columns it is read from."""


class ProblemSource(Section):
    """Give ``name`` (of the catalogue), ``path``, ``hub`` or ``generator``; a name with a path reads that file with the
    name's columns, so that a copy on disk takes the hub's place."""

    name: str = Field("", description="entry of the catalogue, as math500")
    path: Path | None = Field(
        None, description="JSON lines, JSON array, CSV or parquet, also .gz; relative to data/sources/"
    )
    encoding: str = Field("", description="of a text file that is no Unicode, as cp1252; told by itself where sure")
    hub: str = Field("", description="Hugging Face data set id")
    config: str = Field("", description="configuration on the hub")
    split: str = Field("", description="split on the hub; train by default")
    revision: str = Field("", description="commit on the hub; pin it, or the data may change under you")
    generator: Generator | None = Field(None, description="problems made here")
    columns: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="question, answer, id, difficulty, kind: the file's columns (a.b: b in struct a; several: joined)",
    )
    answer: AnswerKind | None = Field(None, description="how the gold answer is written; the catalogue knows")
    answers: Answers | None = Field(
        None, description="what a list of answers means: alternatives (each is right), or a set (all together are)"
    )
    min_difficulty: float | None = Field(None, description="problems below are left out; the data set's own scale")
    balance: AnswerTypes | None = Field(None, description="draw by the kinds of answers, as the paper does")
    validation: PositiveInt | None = Field(
        None, description="problems held out: left out under prepare.train, all that is taken under prepare.heldout"
    )
    limit: PositiveInt | None = Field(None, description="problems at most, drawn by draw_seed")
    draw_seed: NonNegativeInt | None = Field(None, description="of validation and limit; prepare.seed by default")
    tier: str = Field(
        "", description="difficulty under which results are shown; the name, the file's column, or the file's name"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ProblemSource:
        origins = [self.generator is not None, bool(self.path), bool(self.hub), bool(self.name)]
        if not any(origins) or (self.generator and sum(origins) > 1) or (self.path and self.hub):
            raise ValueError("give one of name, path, hub and generator (name and path together: the copy at path)")
        if unknown := sorted(set(self.columns) - set(FIELDS)):
            raise ValueError(f"columns.{unknown[0]} is no field of a problem; fields are {', '.join(FIELDS)}")
        said = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        origin = "a generator" if self.generator else "a file" if self.path else "a data set of the hub"
        ignored = said - OF_GENERATORS if self.generator else said & (OF_THE_HUB if self.path else {"encoding"})
        if ignored:
            raise ValueError(f"{origin} has no {', '.join(sorted(ignored))}: it would change nothing")
        if not isinstance(self.columns.get("answer", ""), str):
            raise ValueError(
                "columns.answer is one column; several spellings are a list in it, or sources of their own"
            )
        return self

    @property
    def label(self) -> str:
        """For messages and the report."""
        made = self.generator.type if self.generator else ""
        known = self.name if not self.path or self.name != FORM else ""  # a form of file names no data set
        return known or (stem_of(self.path) if self.path else self.hub or made)


@dataclass(frozen=True)
class Loaded:
    """A source's problems; how many rows it had and how many were filtered out by difficulty; the ids of those whose
    publisher gives no answer; and how many were not drawn when kinds of answers were balanced."""

    source: ProblemSource
    problems: list[Problem]
    rows: int
    filtered: int
    unanswered: tuple[str, ...] = ()
    unbalanced: int = 0


def load_source(source: ProblemSource, split: str, folder: Path, seed: int) -> Loaded:
    """Read, map, filter and draw. ``folder`` is data/sources/.

    Raises:
        BadInput: the file or data set cannot be read, or lacks a column, or a row lacks a value.
    """
    if source.generator is not None:
        rng = random.Random(derive_seed(seed, "generator", split, source.generator.model_dump_json()))
        records = list(source.generator.records(rng))
        made = [Problem(r["id"], r["question"], r["answer"], source.tier or r["difficulty"], split) for r in records]
        if split == "heldout":
            _check_tiers(made, source.label, range(1, len(made) + 1))
        return Loaded(source, _limited(made, source, split, seed), len(made), 0)
    place, rows = _records(source, folder)
    columns = _columns(source, rows, place)
    levels = _levels(source, rows, columns, place)
    wanted = [row for row, level in levels.items() if _wanted(source, level)]
    problems = {row: _problem(source, rows[row], columns, row, f"{place}: row {row}", split) for row in wanted}
    unanswered: tuple[str, ...] = ()
    if source.name:  # a publisher's gaps are reported; in one's own file they are mistakes, and refused
        unanswered = tuple(problem.id for problem in problems.values() if not problem.answer.strip())
        problems = {row: problem for row, problem in problems.items() if problem.answer.strip()}
    if not problems:
        raise BadInput(_none_left(source, place, len(rows), len(rows) - len(wanted), len(unanswered)))
    check_problems(list(problems.values()), place, problems)
    if split == "heldout":
        _check_tiers(list(problems.values()), place, problems)
    balanced = list(problems)
    if source.balance is not None:
        answers = [problem.answer for problem in problems.values()]
        balanced = [balanced[index] for index in source.balance.draw([levels[row] for row in problems], answers)]
        if not balanced:
            kinds = ", ".join(sorted({answer_kind(answer) for answer in answers}))
            raise BadInput(
                f"{place}: balancing leaves none of {len(answers)} problems (kinds of answers: {kinds}; too few within "
                "each level). Mend: leave `balance` out, or take more problems."
            )
    taken = _limited([problems[row] for row in balanced], source, split, seed)
    left_out = len(problems) - len(balanced)
    return Loaded(source, taken, len(rows), len(rows) - len(wanted), unanswered, left_out)


def _records(source: ProblemSource, folder: Path) -> tuple[Path, Rows]:
    if source.path is not None:
        path = source.path if source.path.is_absolute() else folder / source.path
        return path, read_table(path, source.encoding)
    entry = entry_named(source.name) if source.name else None
    hub = source.hub or (entry.hub if entry else "")
    if not hub:
        raise BadInput(f"prepare: {source.name!r} is a form of file, no data set. Mend: add `path:` to the source.")
    config = source.config or (entry.config if entry else "") or None
    split = source.split or (entry.split if entry else "train")
    from datasets import load_dataset

    try:
        data = load_dataset(hub, config, split=split, revision=source.revision or None)
        table = data.with_format("arrow")[:]
    except Exception as error:  # whatever the hub, the network or a file format did: refused before any work
        raise BadInput(
            f"prepare: data set {hub!r} ({split}): {type(error).__name__}: {str(error)[:300]}. "
            f"Mend: correct its name or go online; or put a copy on disk and add `path:` to the source."
        ) from error
    return Path(hub), arrow_rows(table, Path(hub))


def _columns(source: ProblemSource, records: Rows, place: Path) -> Columns:
    """Field to the file's column or columns, of those that any row has."""
    known: dict[str, Alternatives] = dict(entry_named(source.name or FORM).columns)
    if not source.name:
        known = {name: (name, *(known.get(name, ()) if name in REQUIRED else ())) for name in FIELDS}
    known |= {field: (columns,) for field, columns in source.columns.items()}
    columns = {}
    for field, alternatives in known.items():
        groups = [(names,) if isinstance(names, str) else tuple(names) for names in alternatives]
        match = next((g for g in groups if all(any(has(r, name) for r in records.values()) for name in g)), None)
        if match is not None:
            columns[field] = match
        elif field in REQUIRED or field in source.columns:
            wanted = " or ".join("+".join(names) for names in (groups if source.name else groups[:1]))
            found = list(dict.fromkeys(name for record in records.values() for name in record))
            raise BadInput(
                f"{place}: column {wanted!r} for {field} is missing (found {found[:30]}). "
                f"Mend: say which column it is with `columns: {{{field}: …}}`."
            )
    return columns


def _levels(source: ProblemSource, rows: Rows, columns: Columns, place: Path) -> dict[int, Any]:
    """Each row's level: on the data set's own scale where it is filtered by; where kinds of answers are balanced
    within levels, words (``hard``) do as well; 0 where nothing asks."""
    filtered = source.min_difficulty is not None
    if not filtered and (source.balance is None or "difficulty" not in columns):
        return dict.fromkeys(rows, 0.0)
    column = columns.get("difficulty", ("",))[0]
    texts = {row: text_of(lookup(record, column), column, f"{place}: row {row}") for row, record in rows.items()}
    numbers = {row: number for row, text in texts.items() if (number := _number(text)) is not None}
    if filtered and len(numbers) < len(rows):
        row = next(row for row in rows if row not in numbers)
        said = f"column {column!r} is {texts[row][:40]!r}" if column else "there is no column for it"
        raise BadInput(
            f"{place}: row {row}: no number as difficulty to filter by ({said}). Mend: name the column with "
            "`columns: {difficulty: …}`, or leave min_difficulty out."
        )
    return numbers if len(numbers) == len(rows) else texts


def _number(text: str) -> float | None:
    try:
        level = float(text)
    except ValueError:
        return None
    return None if math.isnan(level) else level


def _wanted(source: ProblemSource, level: Any) -> bool:
    return source.min_difficulty is None or bool(level >= source.min_difficulty)


def _none_left(source: ProblemSource, place: Path, rows: int, filtered: int, unanswered: int) -> str:
    """Why no row is a problem: the file has some."""
    if filtered == rows:
        bound = f"field 'min_difficulty' is {source.min_difficulty}"
        return f"{place}: {bound}, and none of {rows} rows is as difficult. Mend: lower it, or leave it out."
    return (
        f"{place}: none of {rows} rows has an answer ({filtered} left out by difficulty, {unanswered} unanswered). "
        "Mend: say with `answer:` how it is written, and with `columns: {answer: …}` where."
    )


def _check_tiers(problems: list[Problem], place: Path | str, rows: Iterable[int]) -> None:
    """Tiers of held-out problems become names of metrics: blank ones and signs that MLflow refuses are refused here,
    before anything is trained whose curves nobody could see."""
    for row, problem in zip(rows, problems, strict=True):
        tier = problem.difficulty
        beyond = tier.startswith(("/", "..")) or tier != posixpath.normpath(tier)  # MLflow: a path within accuracy/
        if not TIER.fullmatch(tier) or beyond or tier in (".", "mean"):
            raise BadInput(
                f"{place}: row {row}: its tier, the difficulty results are shown under, is {tier[:60]!r}, "
                "no name for a metric. Mend: write letters, digits, blanks and _ - . : / (not 'mean'); rename the "
                "file, if it is its name; or give all its problems one with `tier:` beside the source."
            )


def _problem(source: ProblemSource, record: Record, columns: Columns, row: int, place: str, split: str) -> Problem:
    def text(field: str) -> str:
        read = question_of if field == "question" else text_of
        values = [read(lookup(record, name), name, place) for name in columns[field]]
        return " ".join(value for value in values if value)

    entry = entry_named(source.name) if source.name else None
    kind = source.answer or (entry.answer if entry else "plain")
    answers = source.answers or (entry.answers if entry else None)
    answer_column = columns["answer"][0]
    gold, *others = golds_of(lookup(record, answer_column), answer_column, place, kind, answers)
    by_file = "difficulty" in columns and source.name in ("", FORM)
    tier = source.tier or (text("difficulty") if by_file else source.label)
    name = text("id") if "id" in columns else str(row)
    own_ids = "id" in columns and not source.name
    return Problem(
        id=name if own_ids else f"{source.label}/{name}",
        question=text("question"),
        answer=gold,
        difficulty=tier,
        split=split,
        alternatives=tuple(others),
        kind=text("kind") if "kind" in columns else "",
    )


def _limited(problems: list[Problem], source: ProblemSource, split: str, seed: int) -> list[Problem]:
    """The validation problems or the others, as ``split`` says, and of them ``limit`` at most, in their first order."""
    draw_seed = source.draw_seed if source.draw_seed is not None else derive_seed(seed, "limit", problems[0].id)
    places = list(range(len(problems)))
    if source.validation is not None:
        if source.validation >= len(problems):
            raise BadInput(
                f"{source.label}: field 'validation' is {source.validation}, of {len(problems)} problems. "
                "Mend: lower it."
            )
        validation, others = drawn(places, source.validation, draw_seed)
        places = validation if split == "heldout" else others
    if source.limit is not None:
        places, _ = drawn(places, source.limit, draw_seed)
    return [problems[place] for place in sorted(places)]
