"""Transfer: how much of what a template brings bare training can take over.

A template's rescue counts for training only as far as the bare prompt can produce the same answers. Per token, the log
template ratio is log π(y | x) - log π(y | x, z); Δ is its mean over a completion's tokens, averaged over *correct*
completions sampled under z. Near 0 the bare policy would have written them as well; far below 0 they hang on the
template, and context distillation pushes a policy that cannot follow. This is HiLL's hint reliance (arXiv 2604.00698;
``compute_hint_reward`` in its ``hinter_utils.py``), and the weight exp(min(Δ, 0) / τ) is theirs, with τ = 0.3 there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2o_core.types import Completion, Judged

if TYPE_CHECKING:  # torch is not imported by those who only weigh
    from p2o_core.groups import Group

SampleId = tuple[str, int]
"""(problem id, sample): what names a completion within an iteration."""


@dataclass(frozen=True)
class TemplatedOutcome:
    """What one templated training rollout says about its template: one row of transfer.parquet.

    ``log_ratio`` is the mean over the completion's tokens of log π(y | x) - log π(y | x, z), from before the update and
    at the sampling temperature. It is None where the update did not measure it: for wrong rollouts, and in groups
    without signal.

    >>> TemplatedOutcome("p0", 8, "Do not stop early.", 1.0, -0.25).log_ratio
    -0.25
    """

    problem_id: str
    sample: int
    template: str
    reward: float
    log_ratio: float | None


def mean_log_ratio(bare: Sequence[float], templated: Sequence[float]) -> float:
    """Return the mean log template ratio of one completion: ``bare[t] - templated[t]`` over its tokens, in nats.

    Raises:
        ValueError: no tokens, or not as many log-probs of one kind as of the other.

    >>> mean_log_ratio([-2.0, -1.0], [-1.0, -1.0])
    -0.5
    """
    if not bare:
        raise ValueError("a completion without tokens has no template ratio")
    return math.fsum(b - t for b, t in zip(bare, templated, strict=True)) / len(bare)


def transfer_weight(log_ratios: Iterable[float], tau: float) -> float:
    """Return exp(min(Δ, 0) / tau), in (0, 1], with Δ the mean of the correct completions' :func:`mean_log_ratio`.

    Without any the weight is 1: there is nothing to hold against a template, and a rescue of 0 stays 0.

    Raises:
        ValueError: ``tau`` is not above 0.

    >>> transfer_weight([-0.3, 0.3, -0.9], tau=0.3) == math.exp(-1)
    True
    >>> transfer_weight([0.5], tau=0.3)
    1.0
    """
    if not tau > 0:
        raise ValueError(f"tau must be above 0, got {tau}")
    ratios = list(log_ratios)
    return math.exp(min(math.fsum(ratios) / len(ratios), 0.0) / tau) if ratios else 1.0


def correct_log_ratios(groups: Iterable[Group]) -> dict[SampleId, float]:
    """Map each correct templated sample of an update at the bare prompt to its mean log template ratio.

    Args:
        groups: with old log-probs, from :func:`p2o_core.update.with_old_logps`, which measures them for the mask; so
            this costs nothing. Groups without signal are not among them.
    """
    return {
        (sample.problem_id, sample.sample): mean_log_ratio(sample.old_logps, sample.template_reference)
        for group in groups
        for sample in group
        if sample.templated and sample.reward > 0
    }


def templated_outcomes(
    templated: Sequence[Completion], judged: Sequence[Judged], log_ratios: Mapping[SampleId, float]
) -> list[TemplatedOutcome]:
    """Return what each templated rollout says about its template, in the rollouts' order.

    Args:
        judged: the verdicts on ``templated``, in the same order.
        log_ratios: from :func:`p2o_core.update.update_policy`.
    """
    return [
        TemplatedOutcome(c.problem_id, c.sample, c.template, j.reward, log_ratios.get((c.problem_id, c.sample)))
        for c, j in zip(templated, judged, strict=True)
    ]
