"""One source of problems: a known data set, a file, a data set of the hub, or a generator."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pydantic import Field, PositiveInt, model_validator

from p2o_core.config import Section
from p2o_core.schemas import BadInput, check_problems
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from tasks.problems.answers import EXTRACTORS, AnswerKind
from tasks.problems.catalogue import Alternatives, entry_named
from tasks.problems.generators import Generator

PLAIN_COLUMNS: dict[str, Alternatives] = {name: (name,) for name in ("question", "answer", "id", "difficulty")}
REQUIRED = ("question", "answer")


class ProblemSource(Section):
    """Give ``name`` (of the catalogue), ``path``, ``hub`` or ``generator``; a name with a path reads that file with the
    name's columns, so that a copy on disk takes the hub's place."""

    name: str = Field("", description="entry of the catalogue, as math500")
    path: Path | None = Field(None, description="JSON lines, CSV or parquet; relative to data/sources/")
    hub: str = Field("", description="Hugging Face data set id")
    config: str = Field("", description="configuration on the hub")
    split: str = Field("", description="split on the hub; train by default")
    revision: str = Field("", description="commit on the hub; pin it, or the data may change under you")
    generator: Generator | None = Field(None, description="problems made here")
    columns: dict[str, str | tuple[str, ...]] = Field(
        {}, description="question, answer, id, difficulty: the file's columns; several are joined by a blank"
    )
    answer: AnswerKind | None = Field(None, description="how the gold answer is written; the catalogue knows")
    min_difficulty: float | None = Field(None, description="problems below are left out; the data set's own scale")
    max_difficulty: float | None = Field(None, description="problems above are left out")
    limit: PositiveInt | None = Field(None, description="problems at most, drawn by prepare.seed")
    tier: str = Field("", description="difficulty under which results are shown; the name, or the file's column")

    @model_validator(mode="after")
    def _one_origin(self) -> ProblemSource:
        origins = [self.generator is not None, bool(self.path), bool(self.hub), bool(self.name)]
        if not any(origins) or (self.generator and sum(origins) > 1) or (self.path and self.hub):
            raise ValueError("give one of name, path, hub and generator (name and path together: the copy at path)")
        return self

    @property
    def label(self) -> str:
        """For messages and the report."""
        made = self.generator.type if self.generator else ""
        return self.name or (str(self.path) if self.path else self.hub or made)


@dataclass(frozen=True)
class Loaded:
    """A source's problems; how many rows it had and how many were filtered out by difficulty; and the ids of those
    whose publisher gives no answer."""

    source: ProblemSource
    problems: list[Problem]
    rows: int
    filtered: int
    unanswered: tuple[str, ...] = ()


def load_source(source: ProblemSource, split: str, folder: Path, seed: int) -> Loaded:
    """Read, map, filter and draw. ``folder`` is data/sources/.

    Raises:
        BadInput: the file or data set cannot be read, or lacks a column, or a row lacks a value.
    """
    if source.generator is not None:
        rng = random.Random(derive_seed(seed, "generator", split, source.generator.model_dump_json()))
        made = list(source.generator.records(rng))
        problems = [Problem(r["id"], r["question"], r["answer"], source.tier or r["difficulty"], split) for r in made]
        return Loaded(source, _drawn(problems, source.limit, seed), len(problems), 0)
    place, records = _records(source, folder)
    columns = _columns(source, records, place)
    kept = [
        (row, record) for row, record in enumerate(records, start=1) if _wanted(source, record, columns, row, place)
    ]
    problems = [_problem(source, record, columns, row, split) for row, record in kept]
    unanswered: tuple[str, ...] = ()
    if source.name:  # a publisher's gaps are reported; in one's own file they are mistakes, and refused
        unanswered = tuple(problem.id for problem in problems if not problem.answer.strip())
        problems = [problem for problem in problems if problem.answer.strip()]
    check_problems(problems, place)
    drawn = _drawn(problems, source.limit, seed)
    return Loaded(source, drawn, len(records), len(records) - len(kept), unanswered)


def _records(source: ProblemSource, folder: Path) -> tuple[Path, list[Mapping[str, Any]]]:
    if source.path is not None:
        path = source.path if source.path.is_absolute() else folder / source.path
        return path, read_table(path)
    entry = entry_named(source.name) if source.name else None
    hub = source.hub or (entry.hub if entry else "")
    config = source.config or (entry.config if entry else "") or None
    split = source.split or (entry.split if entry else "train")
    from datasets import load_dataset

    try:
        data = load_dataset(hub, config, split=split, revision=source.revision or None)
    except Exception as error:  # whatever the hub, the network or a file format did: refused before any work
        raise BadInput(
            f"prepare: data set {hub!r} ({split}): {type(error).__name__}: {str(error)[:300]}. "
            f"Mend: correct its name or go online; or put a copy on disk and add `path:` to the source."
        ) from error
    return Path(hub), list(data)


def read_table(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a JSON lines, CSV or parquet file. Raises BadInput."""
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: correct the path in prepare of params.yaml.")
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        if path.suffix == ".csv":
            return pyarrow.csv.read_csv(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path}: not readable ({error}). Mend: write {path.suffix[1:]} with a header.") from error
    return list(_json_lines(path))


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    # not splitlines: JSON may hold the other line separators of Unicode as they are
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: line {number}: {error.msg}. Mend: one JSON object a line.") from error


def _columns(source: ProblemSource, records: Sequence[Mapping[str, Any]], place: Path) -> dict[str, tuple[str, ...]]:
    """Field to the file's column or columns, of those that the first row has."""
    known = dict(entry_named(source.name).columns if source.name else PLAIN_COLUMNS)
    known |= {field: (columns,) for field, columns in source.columns.items()}
    found = list(records[0]) if records else []
    columns = {}
    for field, alternatives in known.items():
        groups = [(names,) if isinstance(names, str) else tuple(names) for names in alternatives]
        match = next((names for names in groups if set(names) <= set(found)), None)
        if match is not None:
            columns[field] = match
        elif field in REQUIRED or field in source.columns:
            wanted = " or ".join("+".join(names) for names in groups)
            raise BadInput(
                f"{place}: column {wanted!r} for {field} is missing (found {found}). "
                f"Mend: say which column it is with `columns: {{{field}: …}}`."
            )
    return columns


def _wanted(
    source: ProblemSource, record: Mapping[str, Any], columns: dict[str, tuple[str, ...]], row: int, place: Path
) -> bool:
    if source.min_difficulty is None and source.max_difficulty is None:
        return True
    try:
        value = float(record[columns["difficulty"][0]])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{place}: row {row}: no number as difficulty to filter by. Mend: name the column with "
            "`columns: {difficulty: …}`, or leave min_difficulty and max_difficulty out."
        ) from error
    low, high = source.min_difficulty, source.max_difficulty
    return (low is None or value >= low) and (high is None or value <= high)


def _problem(
    source: ProblemSource, record: Mapping[str, Any], columns: dict[str, tuple[str, ...]], row: int, split: str
) -> Problem:
    def text(field: str) -> str:
        values = [record.get(name) for name in columns[field]]
        return " ".join(str(value).strip() for value in values if value is not None)

    kind = source.answer or (entry_named(source.name).answer if source.name else "plain")
    gold = record.get(columns["answer"][0])
    tier = source.tier or source.name or (text("difficulty") if "difficulty" in columns else source.label)
    name = text("id") if "id" in columns else str(row)
    own_ids = "id" in columns and not source.name
    return Problem(
        id=name if own_ids else f"{source.label}/{name}",
        question=text("question"),
        answer="" if gold is None else EXTRACTORS[kind](gold),
        difficulty=tier,
        split=split,
    )


def _drawn(problems: list[Problem], limit: int | None, seed: int) -> list[Problem]:
    """At most ``limit``, drawn by seed, in their first order."""
    if limit is None or limit >= len(problems):
        return problems
    chosen = random.Random(derive_seed(seed, "limit", problems[0].id)).sample(range(len(problems)), limit)
    return [problems[index] for index in sorted(chosen)]
