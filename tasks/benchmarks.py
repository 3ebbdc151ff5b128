"""A trained policy on benchmarks beside its experiment: outside the chain of stages, whenever someone asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from p2o_core.config import EvaluateConfig
from p2o_core.digests import digest
from p2o_core.evaluation import Scores, measure
from p2o_core.schemas import BadInput, check_problems, read_problems, write_record, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Judged, Problem
from tasks.parameters.experiment import Experiment
from tasks.problems.catalogue import catalogue
from tasks.problems.sources import ProblemSource, load_source
from tasks.problems.tables import is_table, stem_of
from tasks.running.layout import Layout
from tasks.running.lock import command, file_lock
from tasks.running.plan import run_plan
from tasks.running.runtime import Runtime
from tasks.running.stage import Artifact, Stage, StageIO

METRICS = "metrics.json"


def benchmark_source(text: str) -> ProblemSource:
    """``aime24`` (from the hub), ``aime24=files/aime24.jsonl`` (a copy on disk), or ``my.jsonl``, whose own name may
    hold an equals sign. Raises BadInput."""
    name, equals, path = text.partition("=")
    if is_table(Path(text)) and (not equals or Path(text).exists()):
        return ProblemSource(path=Path(text).resolve(), tier=stem_of(Path(text)))
    if equals and name not in catalogue():
        raise BadInput(
            f"--benchmark {text}: no file of that name, and {name!r} is no data set of the catalogue whose copy "
            f"{path!r} could be. Mend: a file alone (its name is the benchmark's), or one of {', '.join(catalogue())}."
        )
    return ProblemSource(name=name, path=Path(path).resolve() if path else None)


def evaluation_settings(section: EvaluateConfig, changes: Mapping[str, Any]) -> EvaluateConfig:
    """The experiment's ``evaluate`` section with changes. Raises BadInput."""
    try:
        return EvaluateConfig.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'evaluate'}: {e['msg']}" for e in error.errors())
        raise BadInput(f"--set: {wrong}. Mend: parameters of `evaluate` (docs/reference.md), as samples=8.") from error


@dataclass(frozen=True, kw_only=True)
class BenchmarkScores(Scores):
    """metrics.json of an evaluation: what was asked, and what it came to. A benchmark's name is its problems'
    difficulty; ``problems`` counts them."""

    iteration: int
    settings: EvaluateConfig
    problems: Mapping[str, int]


def evaluated_in(
    experiment: Experiment,
    layout: Layout,
    iteration: int,
    sources: Sequence[ProblemSource],
    settings: EvaluateConfig,
    runtime: Runtime,
) -> Path:
    """Measure an iteration's policy on the benchmarks (on the held-out problems when none is named) and write
    predictions, verdicts and ``metrics.json`` to ``data/evaluations/<experiment>/<iteration>/<what was asked>/``, the
    folder that is returned.

    What was measured with the same questions before is not measured again, and what was killed half way goes on.

    Raises:
        BadInput: there is no such policy, or a source cannot be read.
    """
    policy, base = layout.iteration(iteration) / "policy", layout.base / "policy"
    if not policy.exists():
        raise BadInput(f"{policy}: no policy of iteration {iteration}. Mend: `p2o run` first, or another --iteration.")
    problems = _problems(sources, layout)
    folder = layout.evaluations / str(iteration) / _digest(experiment, policy, base, problems, settings)
    asked = experiment.model_copy(update={"evaluate": settings})
    with file_lock(folder / ".lock", command(), wait=True):
        list(run_plan([(benchmark_stage(problems, folder), iteration)], asked, layout, runtime))
    return folder


def benchmark_stage(problems: Sequence[Problem], folder: Path) -> Stage:
    """The stage that measures a policy on ``problems`` under the experiment's ``evaluate`` settings, in ``folder``."""
    return Stage(
        name="benchmarks",
        run=partial(_run, problems=problems),
        inputs={"base": Artifact("policy", "base"), "policy": Artifact("policy", "current")},
        outputs={"predictions": "predictions.parquet", "judgements": "judgements.parquet", "metrics": METRICS},
        params=("seed", "threads", "policy", "engine", "verify.timeout_s", "evaluate"),
        where=folder,
        per_iteration=False,
    )


def _run(io: StageIO, *, problems: Sequence[Problem]) -> None:
    settings, seed = io.experiment.evaluate, derive_seed(io.experiment.seed, "benchmarks")
    measured = measure(io.engine(), io.verifier(), problems, settings, seed)
    write_rows(io.outputs["predictions"], measured.completions, Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], measured.judged, Judged)
    counts = {name: sum(p.difficulty == name for p in problems) for name in measured.scores.accuracy}
    scores = BenchmarkScores(**vars(measured.scores), iteration=io.iteration, settings=settings, problems=counts)
    write_record(io.outputs["metrics"], scores)


def _problems(sources: Sequence[ProblemSource], layout: Layout) -> list[Problem]:
    """Every benchmark's problems; its name is their difficulty, as in a recipe's ``prepare.heldout``."""
    if not sources:
        return read_problems(layout.base / "heldout.parquet")
    problems = [p for source in sources for p in load_source(source, "heldout", layout.sources, seed=0).problems]
    check_problems(problems, Path("--benchmark"))
    return problems


def _digest(
    experiment: Experiment, policy: Path, base: Path, problems: Sequence[Problem], settings: EvaluateConfig
) -> str:
    asked = {
        "policy": digest(policy),
        "base": digest(base),
        "arithmetic": experiment.deciding()["policy"],
        "timeout_s": experiment.verify.timeout_s,
        "problems": [[p.id, p.question, *p.spellings] for p in problems],
        "settings": settings.model_dump(mode="json"),
        "seed": experiment.seed,
        "engine": experiment.deciding()["engine"],
    }
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
