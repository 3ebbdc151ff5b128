"""Metric points: what an iteration or an evaluation is in MLflow, and which of its points a run lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from p2o_core.evaluation import Scores

ALIGNED = ("accuracy/", "train/", "best_template")
"""Metrics that an experiment's run also has by generated tokens."""
SECONDS = "seconds/"
"""Metrics of time taken: not a function of the manifest, so a second value at a step is no correction."""


def iteration_points(row: dict[str, Any], seconds: dict[str, float], now: int) -> list[Metric]:
    """An iteration's row and the seconds of its stages; ``now`` is the points' time in ms."""
    values = {name: value for name, value in row.items() if name != "iteration"}
    values |= {f"{SECONDS}{stage}": value for stage, value in seconds.items()}
    return [Metric(name, float(value), now, row["iteration"]) for name, value in values.items()]


def curve_points(row: dict[str, Any], now: int) -> list[Metric]:
    """An iteration's row by iteration and, what arms are compared by, by generated tokens."""
    points = iteration_points(row, {}, now)
    return points + token_points(row, points)


def token_points(row: dict[str, Any], points: Sequence[Metric]) -> list[Metric]:
    """What arms are compared by once more, with generated tokens as the step."""
    return [
        Metric(f"by_tokens/{point.key}", point.value, point.timestamp, row["tokens/cumulative"])
        for point in points
        if point.key.startswith(ALIGNED)
    ]


def benchmark_values(scores: Scores) -> dict[str, float]:
    """A benchmark evaluation as MLflow metrics."""
    values = {"benchmark/mean_tokens": scores.mean_tokens, "benchmark/truncated": scores.truncated}
    values |= {f"benchmark/accuracy/{name}": value for name, value in scores.accuracy.items()}
    values |= {f"benchmark/maj_at/{name}": value for name, value in scores.maj_at.items()}
    for k, by_name in scores.pass_at.items():
        values |= {f"benchmark/pass_at_{k}/{name}": value for name, value in by_name.items()}
    for name, lengths in scores.lengths.items():
        values |= {f"benchmark/{kind}/{name}": value for kind, value in vars(lengths).items()}
    return values


def missing_points(client: MlflowClient, run: Run, points: Sequence[Metric]) -> list[Metric]:
    """Those that the run, just read from the store, lacks. Points of a metric are sent in the order of their steps, so
    the last one answers for those before it; only where it lies at or behind a point's step is the history read."""
    latest = {point.key: point for point in run.data.to_proto().metrics}

    def has(point: Metric) -> bool:
        last = latest.get(point.key)
        if last is None or last.step < point.step:
            return False
        if last.step == point.step and _same(last, point):
            return True
        return any(
            known.step == point.step and (_same(known, point) or point.key.startswith(SECONDS))
            for known in client.get_metric_history(run.info.run_id, point.key)
        )

    return [point for point in points if not has(point)]


def _same(one: Any, other: Any) -> bool:
    """Two points' values; NaN is itself here."""
    both_nan = math.isnan(one.value) and math.isnan(other.value)
    return both_nan or math.isclose(one.value, other.value, rel_tol=1e-12, abs_tol=0.0)
