"""Is a run well? Findings from its metrics, with advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from p2o_core.config import HealthConfig

EASY = 0.5
"""Accuracy before training from which a difficulty counts as one the policy can do."""
ENOUGH = 3
"""Earlier iterations needed before a gradient norm is called unusual."""
ENTROPY_FLOOR = 0.1
"""Share of the first iteration's entropy a token, below which the policy is said to explore no more."""


@dataclass(frozen=True)
class HealthFinding:
    """``kind``: ``gradient_spike``, ``entropy_collapse``, ``costly_update`` (skills lost in one update) or
    ``lost_skills`` (since training began)."""

    kind: str
    iteration: int
    message: str
    advice: str

    def __str__(self) -> str:
        return f"iteration {self.iteration}: {self.message}. {self.advice}"


def findings(rows: Sequence[dict[str, Any]], config: HealthConfig) -> list[HealthFinding]:
    """What is wrong with the last of ``rows`` (:func:`tasks.summary.experiment_rows`), in the light of the earlier."""
    if not rows:
        return []
    found = [_gradient(rows, config), _entropy(rows), _update_skills(rows[-1], config)]
    found += [_evaluated_skills(rows, tier, config) for tier in _easy_tiers(rows[0])]
    return [finding for finding in found if finding is not None]


def _gradient(rows: Sequence[dict[str, Any]], config: HealthConfig) -> HealthFinding | None:
    usual = [row["update/gradient_norm"] for row in rows[:-1] if row.get("update/gradient_norm")]
    largest = rows[-1].get("update/gradient_norm_max", 0.0)
    if len(usual) < ENOUGH or largest <= config.gradient_spike * median(usual):
        return None
    return HealthFinding(
        "gradient_spike",
        rows[-1]["iteration"],
        f"a gradient norm of {largest:.3g}, {largest / median(usual):.0f} times the usual {median(usual):.3g}",
        "It was clipped to distill.max_grad_norm. Should it come back: lower distill.learning_rate, or look at the "
        "template ratios and engine ratios of update.json.",
    )


def _entropy(rows: Sequence[dict[str, Any]]) -> HealthFinding | None:
    first = next((row["update/entropy"] for row in rows if row.get("update/entropy")), None)
    now = rows[-1].get("update/entropy")
    if first is None or now is None or now >= ENTROPY_FLOOR * first:
        return None
    return HealthFinding(
        "entropy_collapse",
        rows[-1]["iteration"],
        f"an entropy of {now:.3g} nats a token, {now / first:.0%} of the first iteration's {first:.3g}",
        "The policy hardly explores any more. Raise rollout.temperature or distill.clip_high, lower "
        "distill.learning_rate, or stop here if the accuracy is what you want.",
    )


def _update_skills(row: dict[str, Any], config: HealthConfig) -> HealthFinding | None:
    before, after = row.get("skills_before"), row.get("skills_after")
    if before is None or after is None or before - after <= config.skill_margin:
        return None
    rolled_back = bool(row.get("rolled_back"))
    done = "The update was taken back." if rolled_back else "The update was kept."
    return HealthFinding(
        "costly_update",
        row["iteration"],
        f"accuracy on problems solved before the update went from {before:.2f} to {after:.2f}",
        f"{done} Lower distill.learning_rate, or put more easy problems into rollout.problems.",
    )


def _easy_tiers(first: dict[str, Any]) -> list[str]:
    names = [name for name in first if name.startswith("accuracy/") and name != "accuracy/mean"]
    return [name for name in names if first[name] >= EASY]


def _evaluated_skills(rows: Sequence[dict[str, Any]], tier: str, config: HealthConfig) -> HealthFinding | None:
    before, now = rows[0][tier], rows[-1].get(tier)
    if now is None or before - now <= config.skill_margin:
        return None
    best = max((row for row in rows if tier in row), key=lambda row: row.get("accuracy/mean", 0.0))
    return HealthFinding(
        "lost_skills",
        rows[-1]["iteration"],
        f"held-out {tier} went from {before:.2f} before training to {now:.2f}",
        f"The best policy so far is iteration {best['iteration']}'s (accuracy/mean {best['accuracy/mean']:.2f}). Lower "
        "distill.learning_rate and train again, or accept the price: health.on_lost_skills: warn.",
    )
