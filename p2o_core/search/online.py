"""Search without a bill: the templated rollouts that train anyway are the templates' scores.

Each iteration counts what the last one's templated rollouts solved (``posterior.py``), reflects on failures, adds the
children, and retires the losers. It pays for the reflections only. ``cover.py`` draws the templates of rollouts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob

from p2o_core.config import EvolveConfig, OnlineConfig
from p2o_core.search.adapter import COMPONENT, feedback
from p2o_core.search.posterior import Posterior, Trial
from p2o_core.search.reflectors import Reflector
from p2o_core.search.sampling import draw_without_replacement
from p2o_core.types import Template

Example = Mapping[str, str]
"""What a reflector reads of one failure, under gepa's names: Inputs, Generated Outputs, Feedback."""
Failures = dict[tuple[int | None, str], list[Trial]]
"""Failed rollouts by template (None: the bare prompt) and kind of problem."""


def reflect_on_failures(
    known: Sequence[Template],
    bare: Sequence[Trial],
    templated: Sequence[Trial],
    reflector: Reflector,
    config: EvolveConfig,
    *,
    iteration: int,
    rng: random.Random,
    strangers: Sequence[Mapping[str, str]] = (),
) -> list[Template]:
    """The archive of this iteration: ``known`` with their evidence, the new children, and who of them is kept.

    Args:
        known: all templates so far, ``known[i].index`` is i.
        bare: this iteration's bare rollouts of hard problems.
        templated: the last iteration's templated rollouts.
        strangers: what another policy answered, for the control ``reads: stranger``.
    """
    online = config.online
    posterior = Posterior(known, by_kind=online.by_kind)
    jobs = _jobs(known, _failures(known, bare, templated), posterior, config, rng, first=not known)
    read = [_examples(failures, online, strangers, rng) for _, failures in jobs]
    asked: list[ReflectionJob] = [
        ({COMPONENT: known[parent].text if parent is not None else ""}, {COMPONENT: examples}, [COMPONENT])
        for (parent, _), examples in zip(jobs, read, strict=True)
    ]
    texts = taken(known, online)
    children: list[Template] = []
    for (parent, _), (proposal, _) in zip(jobs, reflector.reflect_many(asked), strict=True):
        text = proposal.new_texts.get(COMPONENT, "")
        if text and text not in texts:
            texts.add(text)
            parents = (parent,) if parent is not None else ()
            children.append(Template(len(known) + len(children), text, parents, (), kept=True, found_at=iteration))
    templates = [*known, *children]
    keep = _kept(templates, online, iteration)
    return [replace(template, kept=template.index in keep) for template in templates]


def taken(known: Sequence[Template], online: OnlineConfig) -> set[str]:
    """Texts that are no news. A control that forgets may find an old template again."""
    return {template.text for template in known if template.kept or online.keep == "front"}


def _failures(known: Sequence[Template], bare: Sequence[Trial], templated: Sequence[Trial]) -> Failures:
    by_text = {template.text: template.index for template in known if template.kept}
    found: Failures = {}
    for trial in (*bare, *templated):
        parent = by_text.get(trial.template) if trial.template else None
        if trial.reward == 0 and (parent is not None or not trial.template):
            found.setdefault((parent, trial.problem.kind), []).append(trial)
    return found


def _jobs(
    known: Sequence[Template],
    failures: Failures,
    posterior: Posterior,
    config: EvolveConfig,
    rng: random.Random,
    *,
    first: bool,
) -> list[tuple[int | None, list[Trial]]]:
    """(parent, failures) of each reflection: parents in proportion to their posterior on the kind they failed in, and
    the rest from nothing, on bare failures. The failures of one reflection are of one kind."""
    online = config.online
    count = online.first_reflections if first else online.reflections
    under = [key for key in failures if key[0] is not None]
    weights = {place: posterior.mean(parent, kind) for place, (parent, kind) in enumerate(under) if parent is not None}
    chosen = draw_without_replacement(weights, round(online.from_templated * count), rng)
    keys = [under[place] for place in chosen]
    without = [key for key in failures if key[0] is None]
    keys += [without[place % len(without)] for place in range(count - len(keys)) if without]
    return [
        (parent, rng.sample(trials, min(config.minibatch, len(trials))))
        for parent, kind in keys
        for trials in [failures[parent, kind]]
    ]


def _examples(
    failures: Sequence[Trial], online: OnlineConfig, strangers: Sequence[Mapping[str, str]], rng: random.Random
) -> list[Example]:
    if online.reads == "own":
        return [
            {
                "Inputs": trial.problem.question,
                "Generated Outputs": trial.answer,
                "Feedback": feedback(trial.status, trial.problem.answer),
            }
            for trial in failures
        ]
    if not strangers:
        raise ValueError("evolve.online.reads is stranger, and nobody wrote what a stranger answered (strangers.json)")
    alike = [[s for s in strangers if s["kind"] == trial.problem.kind] or strangers for trial in failures]
    return [
        {"Inputs": s["question"], "Generated Outputs": s["answer"], "Feedback": s["feedback"]}
        for s in map(rng.choice, alike)
    ]


def _kept(templates: Sequence[Template], online: OnlineConfig, iteration: int) -> set[int]:
    """Who stays. ``front``: this iteration's children, then those nearest to the best of some kind of problem, up to
    ``size``: gepa's idea of a front per instance, with estimates in place of scores taken at their word."""
    if online.keep == "all":
        return {template.index for template in templates}
    children = [template.index for template in templates if template.found_at == iteration]
    if online.keep == "newest":
        return set(children)
    posterior = Posterior(templates, by_kind=online.by_kind)
    before = [template.index for template in templates if template.kept and template.found_at != iteration]
    kinds = sorted({kind for index in before for kind in templates[index].evidence}) if online.by_kind else [None]
    best = {kind: max((posterior.mean(index, kind) for index in before), default=1.0) for kind in kinds}

    def nearness(index: int) -> float:
        return max((posterior.mean(index, kind) / best[kind] for kind in kinds), default=0.0)

    ranked = sorted(before, key=lambda index: (-nearness(index), -index))
    return {*children, *ranked[: max(0, online.size - len(children))]}
