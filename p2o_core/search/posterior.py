"""What training rollouts say of their templates: a discounted Beta posterior for each template and kind of problem.

A templated rollout of the update *is* an evaluation of its template, on the problems and under the policy that count.
The posterior has three levels: a template starts as its parent is (:data:`STRENGTH` rollouts' worth), and a kind of
problem as the template is over all kinds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from p2o_core.transfer import SampleId, transfer_weight
from p2o_core.types import Completion, Evidence, Judged, Problem, Template, VerdictStatus

STRENGTH = 2.0
"""Rollouts that a prior is worth: a child that fails twice is half way from its parent's rate to 0."""
FIRST_RATE = (1.0, 4.0)
"""Solved and tried before anything was: templates from nowhere start at 1/4, low enough for a first success to count,
high enough to be tried."""


@dataclass(frozen=True)
class Trial:
    """One judged rollout as a search sees it. ``log_ratio`` is its mean log template ratio where the update measured it
    (``transfer.py``)."""

    problem: Problem
    template: str
    answer: str
    status: VerdictStatus
    reward: float
    log_ratio: float | None = None

    def value(self, tau: float | None) -> float:
        """What it counts for its template: the reward, weighed by what bare training can take over unless ``tau`` is
        None."""
        known = [] if self.log_ratio is None else [self.log_ratio]
        return self.reward * (transfer_weight(known, tau) if tau is not None else 1.0)


def trials(
    problems: Mapping[str, Problem],
    completions: Sequence[Completion],
    verdicts: Sequence[Judged],
    log_ratios: Mapping[SampleId, float | None] = MappingProxyType({}),
) -> list[Trial]:
    """Completions and their verdicts, in the same order, as trials."""
    return [
        Trial(problems[c.problem_id], c.template, c.text, v.status, v.reward, log_ratios.get((c.problem_id, c.sample)))
        for c, v in zip(completions, verdicts, strict=True)
    ]


def with_evidence(
    templates: Sequence[Template], tried: Sequence[Trial], discount: float, tau: float | None = None
) -> list[Template]:
    """The templates after these trials. What was known before counts ``discount`` of what it did: the policy moves."""
    by_text: dict[str, dict[str, list[float]]] = {}
    for trial in tried:
        by_text.setdefault(trial.template, {}).setdefault(trial.problem.kind, []).append(trial.value(tau))

    def after(template: Template) -> Template:
        new = by_text.get(template.text, {})
        evidence = {
            kind: Evidence(
                discount * before.solved + sum(new.get(kind, ())), discount * before.tried + len(new.get(kind, ()))
            )
            for kind in sorted({*template.evidence, *new})
            for before in [template.evidence.get(kind, Evidence())]
        }
        return replace(template, evidence=evidence, trials=template.trials + sum(map(len, new.values())))

    return [after(template) for template in templates]


class Posterior:
    """Beta posteriors over a search's templates, retired ones included (children start as their parents are).

    Args:
        templates: ``templates[i].index`` is i.
        by_kind: off: one posterior a template over all kinds of problems.
    """

    def __init__(self, templates: Sequence[Template], *, by_kind: bool) -> None:
        self.templates = templates
        self.by_kind = by_kind
        known = [evidence for template in templates for evidence in template.evidence.values()]
        self._first = (FIRST_RATE[0] + sum(e.solved for e in known)) / (FIRST_RATE[1] + sum(e.tried for e in known))
        self._overall: list[tuple[float, float]] = []
        for template in templates:  # parents come first, and a line of hundreds is too long for a recursion
            self._overall.append(self._beta_overall(template))
        self.beta = cache(self._beta)

    def mean(self, index: int, kind: str | None = None) -> float:
        """The expected solve rate on problems of a kind; None: on all that were tried."""
        return _mean(self.beta(index, kind))

    def sample(self, index: int, kind: str, rng: random.Random) -> float:
        """A draw of the solve rate, for Thompson sampling."""
        return rng.betavariate(*self.beta(index, kind if self.by_kind else None))

    def _beta_overall(self, template: Template) -> tuple[float, float]:
        prior = _mean(self._overall[template.parents[0]]) if template.parents else self._first
        solved = sum(evidence.solved for evidence in template.evidence.values())
        tried = sum(evidence.tried for evidence in template.evidence.values())
        return _updated(prior, solved, tried)

    def _beta(self, index: int, kind: str | None) -> tuple[float, float]:
        """(alpha, beta) of a template's solve rate."""
        if kind is None:
            return self._overall[index]
        evidence = self.templates[index].evidence.get(kind, Evidence())
        return _updated(_mean(self._overall[index]), evidence.solved, evidence.tried)


def _updated(prior: float, solved: float, tried: float) -> tuple[float, float]:
    return STRENGTH * prior + solved, STRENGTH * (1.0 - prior) + tried - solved


def _mean(beta: tuple[float, float]) -> float:
    return beta[0] / sum(beta)
