"""Chooses the template set Z, and the template of each templated rollout."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from p2o_core.config import EvolveConfig
from p2o_core.search.posterior import Posterior
from p2o_core.types import Assignment, HardSample, Problem, Template, TemplateSearch

WEIGHT_FLOOR = 1e-6
"""Smallest drawing weight of a template in Z (official code), so that none is excluded for a mean score of 0."""


def greedy_cover(solved: Sequence[Sequence[bool]]) -> list[int]:
    """Greedy set cover over dev instances.

    Args:
        solved: ``[candidate][dev instance]``, True where the candidate solves the instance.

    Returns:
        Candidate indices in order of choice: each solves the most instances not yet covered (the lowest index
        on a tie), until none adds anything. Empty when nothing is solved.

    Raises:
        ValueError: rows of unequal length.

    >>> greedy_cover([[True, False, False], [False, True, True]])
    [1, 0]
    """
    if len({len(row) for row in solved}) > 1:
        raise ValueError(f"every candidate needs a verdict for every dev instance, got {[len(row) for row in solved]}")
    wins = [{instance for instance, won in enumerate(row) if won} for row in solved]
    covered: set[int] = set()
    chosen: list[int] = []
    while wins:
        best = max(range(len(wins)), key=lambda candidate: (len(wins[candidate] - covered), -candidate))
        if not wins[best] - covered:
            break
        covered |= wins[best]
        chosen.append(best)
    return chosen


def solvers(templates: Sequence[Template], dev_ids: Sequence[str], solved_at: float) -> dict[str, list[int]]:
    """Map each dev problem id to the ``index`` of every template whose score on it reaches ``solved_at``."""
    return {
        problem_id: [template.index for template in templates if template.scores[instance] >= solved_at]
        for instance, problem_id in enumerate(dev_ids)
    }


def assign_templates(
    hard_ids: Sequence[str],
    templates: Sequence[Template],
    solved_by: Mapping[str, Sequence[int]],
    *,
    rollouts: int,
    one_per_group: bool,
    rng: random.Random,
) -> list[Assignment]:
    """Draw a template for every templated rollout of every hard problem.

    If templates in Z solve a dev problem, its rollouts draw among these; any other problem's draw among all of Z. The
    weights are :attr:`Template.drawing_weight`, by default the mean dev scores, floored at :data:`WEIGHT_FLOOR`.

    Args:
        templates: the set Z.
        solved_by: from :func:`solvers` over Z.
        rollouts: templated rollouts a problem.
        one_per_group: all rollouts of a problem share one draw (a switch of the official code, off there).

    Returns:
        ``rollouts`` assignments a hard problem, in input order; none when Z is empty.
    """
    if not templates:
        return []
    by_index = {template.index: template for template in templates}
    assignments = []
    for problem_id in hard_ids:
        pool = [by_index[index] for index in solved_by.get(problem_id, ())] or list(templates)
        weights = [max(template.drawing_weight, WEIGHT_FLOOR) for template in pool]
        drawn = rng.choices(pool, weights, k=1) * rollouts if one_per_group else rng.choices(pool, weights, k=rollouts)
        assignments += [
            Assignment(problem_id, sample, template.index, template.text) for sample, template in enumerate(drawn)
        ]
    return assignments


def draw_by_posterior(
    hard: Sequence[Problem], search: TemplateSearch, config: EvolveConfig, *, rollouts: int, rng: random.Random
) -> list[Assignment]:
    """Draw a template for every templated rollout from what online search knows: by Thompson sampling, the template
    whose drawn solve rate on the problem's kind is highest; or uniformly, as a control."""
    posterior = Posterior(search.templates, by_kind=config.online.by_kind)
    kept = [template.index for template in search.kept]

    def draw(kind: str) -> int:
        if config.online.draw == "uniform":
            return rng.choice(kept)
        return max(kept, key=lambda index: posterior.sample(index, kind, rng))

    assignments = []
    for problem in hard if kept else ():
        drawn = [draw(problem.kind) for _ in range(1 if config.one_template_per_group else rollouts)]
        assignments += [
            Assignment(problem.id, sample, index, search.templates[index].text)
            for sample, index in enumerate(drawn * (rollouts // len(drawn)))
        ]
    return assignments


def plan_templated(
    hard: Sequence[HardSample],
    problems: Mapping[str, Problem],
    search: TemplateSearch,
    config: EvolveConfig,
    *,
    iteration: int,
    rollouts: int,
    seed: int,
) -> list[Assignment]:
    """Assign a template to each of the ``rollouts`` templated rollouts of every hard problem mined in this iteration.
    Problems remembered from earlier iterations get none: they have no bare rollouts to share a group with."""
    mined, rng = [problems[sample.problem_id] for sample in hard if sample.mined_at == iteration], random.Random(seed)
    if config.search == "online":
        return draw_by_posterior(mined, search, config, rollouts=rollouts, rng=rng)
    return assign_templates(
        [problem.id for problem in mined],
        search.kept,
        solvers(search.kept, search.dev_ids, config.solved_at),
        rollouts=rollouts,
        one_per_group=config.one_template_per_group,
        rng=rng,
    )
