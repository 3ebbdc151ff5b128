"""A trained policy on benchmarks beside its experiment: outside the chain of stages, whenever someone asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from p2o_core.config import EvaluateConfig
from p2o_core.evaluation import measure
from p2o_core.schemas import BadInput, check_problems, read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Judged, Problem
from tasks.parameters.experiment import Experiment
from tasks.problems.sources import ProblemSource, load_source
from tasks.problems.tables import is_table
from tasks.running.journal import Journal, JournaledEngine, JournaledVerifier
from tasks.running.layout import Layout
from tasks.running.lock import command, file_lock
from tasks.running.rejected import stopped_at_nan
from tasks.running.runtime import Runtime
from tasks.running.storage import storage_errors

METRICS = "metrics.json"


def benchmark_source(text: str) -> ProblemSource:
    """``aime24`` (from the hub), ``aime24=files/aime24.jsonl`` (a copy on disk), or ``my.jsonl``. Raises BadInput."""
    name, _, path = text.partition("=")
    if is_table(Path(name)):
        return ProblemSource(path=Path(name).resolve(), tier=Path(name).stem)
    return ProblemSource(name=name, path=Path(path).resolve() if path else None)


def evaluation_settings(section: EvaluateConfig, changes: Mapping[str, Any]) -> EvaluateConfig:
    """The experiment's ``evaluate`` section with changes. Raises BadInput."""
    try:
        return EvaluateConfig.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'evaluate'}: {e['msg']}" for e in error.errors())
        raise BadInput(f"--set: {wrong}. Mend: parameters of `evaluate` (docs/reference.md), as samples=8.") from error


def evaluate_benchmarks(
    experiment: Experiment,
    layout: Layout,
    iteration: int,
    sources: Sequence[ProblemSource],
    settings: EvaluateConfig,
    runtime: Runtime,
) -> dict[str, Any]:
    """Measure an iteration's policy on the benchmarks (on the held-out problems when none is named) and write
    predictions, verdicts and ``metrics.json`` to ``data/evaluations/<experiment>/<iteration>/<what was asked>/``.

    What was measured with the same questions before is not measured again, and what was killed half way goes on.

    Raises:
        BadInput: there is no such policy, or a source cannot be read.
    """
    policy, base = layout.iteration(iteration) / "policy", layout.base / "policy"
    if not policy.exists():
        raise BadInput(f"{policy}: no policy of iteration {iteration}. Mend: `p2o run` first, or another --iteration.")
    problems = _problems(sources, layout)
    folder = layout.evaluations / str(iteration) / _digest(experiment, policy, base, problems, settings)
    with storage_errors(folder), file_lock(folder / ".lock", command(), wait=True):
        if not (folder / METRICS).exists():
            nan = layout.rejected(iteration).with_name("benchmarks.parquet")
            with stopped_at_nan(nan, f"iteration {iteration}, benchmarks"):
                _measure(experiment, layout, iteration, problems, settings, runtime, folder)
    return read_metrics(folder / METRICS)


def _measure(
    experiment: Experiment,
    layout: Layout,
    iteration: int,
    problems: list[Problem],
    settings: EvaluateConfig,
    runtime: Runtime,
    folder: Path,
) -> None:
    policy, base = layout.iteration(iteration) / "policy", layout.base / "policy"
    journal = Journal(folder / "units", {"asked": folder.name})
    measured = measure(
        JournaledEngine(
            lambda: runtime.engine(policy, base, experiment),
            journal,
            unit=experiment.engine.completions_per_unit,
        ),
        JournaledVerifier(runtime.verifier(experiment.verify), journal),
        problems,
        settings,
        derive_seed(experiment.seed, "benchmarks"),
    )
    write_rows(folder / "predictions.parquet", measured.completions, Completion)
    write_rows(folder / "judgements.parquet", measured.judged, Judged)
    counts = {source: sum(p.difficulty == source for p in problems) for source in measured.metrics["accuracy"]}
    settled = {"iteration": iteration, "settings": settings.model_dump(mode="json"), "problems": counts}
    write_json(folder / METRICS, settled | measured.metrics)  # last: with it the measurement counts as done
    journal.close()


def read_metrics(path: Path) -> dict[str, Any]:
    """What an evaluation came to. Raises BadInput."""
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise BadInput(f"{path}: not readable ({error}). Mend: delete it and evaluate again.") from error


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
    from p2o_core.digests import digest

    asked = {
        "policy": digest(policy),
        "base": digest(base),
        "arithmetic": experiment.policy.model_dump(mode="json"),
        "timeout_s": experiment.verify.timeout_s,
        "problems": [[p.id, p.question, *p.spellings] for p in problems],
        "settings": settings.model_dump(mode="json"),
        "seed": experiment.seed,
        "engine": experiment.engine.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
