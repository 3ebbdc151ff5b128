"""A candidate against the champion: both measured on the same held-out problems, the numbers and the answer put into
MLflow's model registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.comparison.gate import WHOLE, Promotion, judge
from flows.tracking.models import CHAMPION, POLICY_TAG, WORKSPACE_TAG, base_digests, policy_digest
from p2o_core.config import EvaluateConfig
from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_problems, write_record
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout

Measure = Callable[[str, Experiment, Layout, int, EvaluateConfig], dict[str, list[float]]]
"""Takes who is measured, and what; returns the rewards on the held-out problems, by problem."""


def compared(
    experiment: Experiment,
    layout: Layout,
    iteration: int,
    version: ModelVersion,
    champion: ModelVersion | None,
    settings: EvaluateConfig,
    measured: Measure,
) -> Promotion:
    """Measure both and judge, and keep it as promotion-….json beside the candidate's evaluations. Without a champion
    the candidate's own base stands in for it.

    Raises:
        BadInput: the champion's policy is not where it was, or it was held out other problems.
    """
    heldout = base_digests(layout)["p2o.heldout"]
    if champion is None:
        against, theirs = f"its base (iteration 0 of {experiment.experiment})", (experiment, layout, 0)
        theirs_digest = policy_digest(layout, 0)
    else:
        against = f"version {champion.version} ({champion.tags['p2o.experiment']})"
        theirs, theirs_digest = _champions(champion, heldout), champion.tags[POLICY_TAG]
    one = measured("candidate", experiment, layout, iteration, settings)
    other = measured("champion", *theirs, settings)
    measures, verdict = judge(read_problems(layout.base / "heldout.parquet"), one, other)
    promotion = Promotion(f"version {version.version}", against, settings.samples, heldout, measures, verdict)
    asked = hashlib.sha256(
        f"{version.tags[POLICY_TAG]}{theirs_digest}{settings.model_dump_json()}".encode()
    ).hexdigest()
    write_record(layout.evaluations / str(iteration) / f"promotion-{asked[:12]}.json", promotion)
    return promotion


def _champions(champion: ModelVersion, heldout: str) -> tuple[Experiment, Layout, int]:
    """Where the champion's policy lies. Raises BadInput."""
    if champion.tags["p2o.heldout"] != heldout:
        raise BadInput(
            f"{champion.name}: its champion, version {champion.version}, was held out other problems than this "
            "experiment, so nothing can be paired. Mend: another registered model for this task, tracking.model in "
            "params.yaml."
        )
    return whereabouts(champion)


def whereabouts(version: ModelVersion) -> tuple[Experiment, Layout, int]:
    """The experiment, workspace and iteration in which a version's policy lies.

    Raises:
        BadInput: it is not there any more.
    """
    tags, place = version.tags, Path(version.tags[WORKSPACE_TAG])
    layout, iteration = Layout(place, tags["p2o.experiment"]), int(tags["p2o.iteration"])
    policy = layout.iteration(iteration) / "policy"
    if not (place / "params.yaml").exists() or not policy.exists() or digest(policy) != tags[POLICY_TAG]:
        raise BadInput(
            f"{policy}: not the champion's policy any more ({tags[POLICY_TAG][:12]}). Mend: bring it back, with "
            f"`dvc pull` or `p2o run` in {place}, or take the alias champion from version {version.version} of "
            f"{version.name} in MLflow's page."
        )
    return load_experiment(place / "params.yaml"), layout, iteration


def deliver(client: MlflowClient, version: ModelVersion, promotion: Promotion) -> None:
    """The numbers as the version's tags, and last the alias: who sees it finds them."""
    numbers = {
        f"p2o.promotion.{tier}": f"{m.candidate:.4f} against {m.champion:.4f}: {m.difference:+.4f} "
        f"[{m.low:+.4f}, {m.high:+.4f}], {m.problems} problems"
        for tier, m in promotion.measures.items()
    }
    whole = promotion.measures[WHOLE]
    tags = numbers | {
        "p2o.promotion": promotion.verdict,
        "p2o.promotion.against": promotion.against,
        "p2o.promotion.samples": str(promotion.samples),
        "p2o.accuracy": f"{whole.candidate:.4f}",
    }
    for tag, value in tags.items():
        client.set_model_version_tag(version.name, version.version, tag, value)
    if promotion.verdict == "better":
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
