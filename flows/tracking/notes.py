"""What MLflow's pages say of an experiment and its runs: names, and a note that answers "which arm, at how many tokens"
before any chart is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment

KEY_TAG = "p2o.key"
"""On an experiment's run: what it is found by."""
MARK = "<!-- p2o: what follows is written anew at the end of each run; what stands above stays -->"
TOKENS = "tokens/cumulative"
MOST = 1000


def run_name(experiment: Experiment) -> str:
    """Experiment, arm and seed, without repeating what the experiment's name says.

    >>> from types import SimpleNamespace
    >>> run_name(SimpleNamespace(experiment="microworld", arm="grpo", seed=1))
    'microworld · grpo · seed 1'
    >>> run_name(SimpleNamespace(experiment="p2o-online-s3", arm="p2o-online", seed=3))
    'p2o-online-s3'
    """
    said = [experiment.experiment]
    if experiment.arm not in experiment.experiment:
        said.append(experiment.arm)
    if not re.search(rf"(^|[-_.])s(eed)?[=-]?{experiment.seed}($|[-_.])", experiment.experiment):
        said.append(f"seed {experiment.seed}")
    return " · ".join(said)


def write_note(client: MlflowClient, experiment_id: str) -> None:
    """Put the table of arms into the MLflow experiment's description; a person's own text above it stays."""
    found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` LIKE '%'", max_results=MOST)
    before = client.get_experiment(experiment_id).tags.get(MLFLOW_RUN_NOTE, "")
    own = before.partition(MARK)[0]
    note = f"{own}{MARK}\n\n{arms_table(found)}"
    if note != before:
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, note)


def arms_table(runs: Iterable[Run]) -> str:
    """Arms with the means of their runs, and how to see the curves."""
    by_arm: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for run in runs:
        if TOKENS in run.data.metrics:
            where = run.data.tags.get("p2o.comparison") or run.data.tags.get("p2o.experiment", "").partition("-")[0]
            by_arm.setdefault((where, run.data.tags.get("p2o.arm", "")), []).append(run.data.metrics)
    tiers = sorted({key for group in by_arm.values() for row in group for key in row if key.startswith("accuracy/")})
    lines = [
        "Accuracies are on held-out problems at the bare prompt, after each run's last iteration, means over the runs; "
        "tokens are all that were generated for training, search included. Arms are fairly compared at equal tokens "
        "only: in the chart view the section `by_tokens` has generated tokens as its x-axis; group by the tag "
        "`p2o.arm`.",
        "",
        f"| | arm | runs | tokens | {' | '.join(tier.removeprefix('accuracy/') for tier in tiers)} |",
        f"|---|---|---:|---:|{'---:|' * len(tiers)}",
    ]
    for (where, arm), group in sorted(by_arm.items()):
        cells = [_mean(group, tier, "{:.3f}") for tier in tiers]
        lines.append(f"| {where} | {arm} | {len(group)} | {_mean(group, TOKENS, '{:,.0f}')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(rows: Iterable[Mapping[str, float]], key: str, shown: str) -> str:
    values = [row[key] for row in rows if key in row]
    return shown.format(fmean(values)) if values else "–"
