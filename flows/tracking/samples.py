"""Which rollouts of an iteration are worth a look: a seeded draw among hard, rescued, lost and masked ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from p2o_core.schemas import read_problems, read_record
from p2o_core.types import Problem
from p2o_core.update_report import IterationUpdate
from tasks.running.layout import Layout

BARE = ("rollouts.parquet", "verdicts.parquet")
TEMPLATED = ("templated.parquet", "templated_verdicts.parquet")
HELDOUT = ("predictions.parquet", "judgements.parquet")
SampleId = tuple[str, int]


@dataclass(frozen=True)
class Rollout:
    """A completion with its verdict, and why it was drawn: ``kind`` is ``rescued`` (a hard problem solved under a
    template), ``hard`` (a bare failure on a problem of the hard set), ``lost`` (a held-out answer that was right at the
    evaluation before, for the same sample number) or ``masked`` (a templated rollout of whose tokens the template mask
    dropped more than a hundredth)."""

    kind: str
    problem: Problem
    sample: int
    template: str
    text: str
    tokens: int
    prompt_tokens: int
    truncated: bool
    status: str
    extracted: str
    mean_logp: float
    masked: float | None = None


def draw(layout: Layout, iteration: int, number: int, seed: int) -> list[Rollout]:
    """At most ``number`` rollouts of an iteration that is complete on disk: one of each kind in turn, each kind in a
    random order of its own. The same files and seed give the same rollouts."""
    folder = layout.iteration(iteration)
    masked, told = _masked(folder), _told(folder)
    kinds: dict[str, tuple[tuple[str, str], list[SampleId]]] = {
        "rescued": (TEMPLATED, [id_ for id_ in _among(folder, TEMPLATED, _hard(folder), reward=1.0) if id_ in told]),
        "hard": (BARE, _among(folder, BARE, _hard(folder), reward=0.0)),
        "lost": (HELDOUT, _lost(layout, iteration)),
        "masked": (TEMPLATED, sorted(masked)),
    }
    for kind, (_, ids) in kinds.items():
        random.Random(f"{seed}:{iteration}:{kind}").shuffle(ids)
    turns = zip_longest(*([(kind, id_) for id_ in ids] for kind, (_, ids) in kinds.items()))
    firsts: dict[tuple[tuple[str, str], SampleId], tuple[str, SampleId]] = {}  # one may be of two kinds
    for kind, id_ in (entry for turn in turns for entry in turn if entry is not None):
        firsts.setdefault((kinds[kind][0], id_), (kind, id_))
    drawn = list(firsts.values())[:number]
    problems: dict[str, Problem] = {}
    for split in ("train", "heldout"):
        problems |= {problem.id: problem for problem in read_problems(layout.base / f"{split}.parquet")}
    rows = {
        names: dict(_rows(folder, names, {id_ for kind, id_ in drawn if kinds[kind][0] == names}))
        for names in (BARE, TEMPLATED, HELDOUT)
    }
    return [_rollout(kind, problems[id_[0]], rows[kinds[kind][0]][id_], masked.get(id_)) for kind, id_ in drawn]


def _rollout(kind: str, problem: Problem, row: dict[str, Any], masked: float | None) -> Rollout:
    return Rollout(
        kind=kind,
        problem=problem,
        sample=row["sample"],
        template=row["template"],
        text=row["text"],
        tokens=len(row["token_ids"]),
        prompt_tokens=row["prompt_tokens"],
        truncated=row["truncated"],
        status=row["status"],
        extracted=row["extracted"],
        mean_logp=sum(row["logps"]) / max(len(row["logps"]), 1),
        masked=masked if row["template"] else None,
    )


def _rows(folder: Path, names: tuple[str, str], ids: set[SampleId]) -> Iterator[tuple[SampleId, dict[str, Any]]]:
    """Completions with their verdicts, whole, of these samples alone: an iteration's file may have a million tokens."""
    if not ids:
        return
    problems = [problem for problem, _ in ids]
    found: dict[SampleId, dict[str, Any]] = {}
    for name in names:
        table = pq.read_table(folder / name, filters=pc.field("problem_id").isin(problems))
        for row in table.to_pylist():
            found.setdefault((row["problem_id"], row["sample"]), {}).update(row)
    yield from ((id_, found[id_]) for id_ in ids)


def _verdicts(path: Path) -> dict[SampleId, float]:
    if not path.exists():
        return {}
    table = pq.read_table(path, columns=["problem_id", "sample", "reward"])
    problems, samples, rewards = (table.column(name).to_pylist() for name in table.column_names)
    return {(problem, sample): reward for problem, sample, reward in zip(problems, samples, rewards, strict=True)}


def _hard(folder: Path) -> set[str]:
    path = folder / "hard.parquet"
    return set(pq.read_table(path, columns=["problem_id"]).column(0).to_pylist()) if path.exists() else set()


def _told(folder: Path) -> set[SampleId]:
    """The samples whose template says something: the empty one is in a search's set as well, as a template's parent."""
    path = folder / TEMPLATED[0]
    if not path.exists():
        return set()
    table = pq.read_table(path, columns=["problem_id", "sample"], filters=pc.field("template") != "")
    return set(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))


def _among(folder: Path, names: tuple[str, str], problems: set[str], *, reward: float) -> list[SampleId]:
    return sorted(id_ for id_, got in _verdicts(folder / names[1]).items() if id_[0] in problems and got == reward)


def _lost(layout: Layout, iteration: int) -> list[SampleId]:
    """Right at the last evaluation before this one and wrong now."""
    now = _verdicts(layout.iteration(iteration) / HELDOUT[1])
    for before in range(iteration - 1, -1, -1):
        if now and (then := _verdicts(layout.iteration(before) / HELDOUT[1])):
            return sorted(id_ for id_, reward in now.items() if reward == 0 and then.get(id_) == 1)
    return []


def _masked(folder: Path) -> dict[SampleId, float]:
    path = folder / "update.json"
    if not path.exists():
        return {}
    return {(row.problem_id, row.sample): row.share for row in read_record(path, IterationUpdate).masked or ()}
