"""What an experiment will generate and train, counted from its settings."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq

from p2o_core.config import SelfReflectorConfig, TeacherReflectorConfig
from tasks.parameters.experiment import Experiment, FilesPrepare
from tasks.problems.catalogue import entry_named
from tasks.problems.sources import ProblemSource
from tasks.running.layout import Layout

REFLECTION_PROMPT_TOKENS = 2000
"""Three failed answers with their feedback, shortened: what a reflection model reads, roughly."""


@dataclass(frozen=True)
class Assumptions:
    """What no setting says. Tokens are means; shares are of an iteration's problems."""

    completion_tokens: float
    prompt_tokens: float = 150.0
    hard_share: float = 0.3
    signal_share: float = 0.6


@dataclass(frozen=True)
class Work:
    """One stage over the whole experiment. ``passes`` counts tokens times forward passes in the trainer, a backward
    pass as two of them."""

    stage: str
    runs: int
    completions: float
    tokens: float
    prompt_tokens: float = 0.0
    passes: float = 0.0


def count(experiment: Experiment, heldout: int, assumed: Assumptions) -> list[Work]:
    """The stages that generate or train, in the order they run."""
    rollout, evaluate, last = experiment.rollout, experiment.evaluate, experiment.iterations
    again = sum((1 - assumed.signal_share) ** number for number in range(rollout.resample_rounds + 1))
    bare = rollout.problems * again * rollout.samples
    tried = round(last * bare)
    work = [_generation("rollout", last, tried, assumed, prompts=last * rollout.problems * again)]
    work += _search(experiment, assumed)
    templated = 0.0
    if experiment.distill.enabled and experiment.evolve.enabled and searches(experiment):
        since = last - experiment.evolve.first + 1  # templates are there from the first search on
        templated = since * rollout.problems * assumed.hard_share * experiment.distill.templated_samples
    work.append(_distillation(experiment, assumed, bare * last, templated))
    rounds = last // evaluate.every + 1  # the baseline too
    asked = heldout * evaluate.samples * (2 if evaluate.best_template else 1)
    return [*work, _generation("evaluate", rounds, rounds * asked, assumed, prompts=rounds * heldout)]


def searches(experiment: Experiment) -> int:
    """Iterations in which a search is due."""
    evolve, last = experiment.evolve, experiment.iterations
    return (last - evolve.first) // evolve.every + 1 if evolve.enabled and last >= evolve.first else 0


def _generation(stage: str, runs: int, completions: float, assumed: Assumptions, prompts: float) -> Work:
    return Work(stage, runs, completions, completions * assumed.completion_tokens, prompts * assumed.prompt_tokens)


def _search(experiment: Experiment, assumed: Assumptions) -> list[Work]:
    """The whole budget is spent, and every proposal's parent and child are scored on a mini-batch."""
    runs, evolve = searches(experiment), experiment.evolve
    if not runs:
        return []
    scored = runs * evolve.max_metric_calls * evolve.samples_per_score
    prompts = runs * evolve.max_metric_calls * 2 * assumed.prompt_tokens  # a template is about as long as a question
    completions, tokens = float(scored), scored * assumed.completion_tokens
    if isinstance(evolve.reflector, SelfReflectorConfig | TeacherReflectorConfig):
        proposals = runs * evolve.max_metric_calls / (2 * evolve.minibatch)
        prompts += proposals * REFLECTION_PROMPT_TOKENS
        if isinstance(evolve.reflector, SelfReflectorConfig):  # a teacher generates elsewhere
            completions += proposals
            tokens += proposals * min(evolve.reflector.max_new_tokens, assumed.completion_tokens)
    return [Work("evolve", runs, completions, tokens, prompts)]


def passes_a_token(experiment: Experiment) -> int:
    """Forward passes a trained token takes: old log-probs, then the update, whose backward pass is two."""
    return 5 if experiment.policy.checkpointing else 4


def _distillation(experiment: Experiment, assumed: Assumptions, bare: float, templated: float) -> Work:
    """Old log-probs and the update, on groups with a signal."""
    row = assumed.prompt_tokens + assumed.completion_tokens
    rows = (bare + templated) * assumed.signal_share if experiment.distill.enabled else 0.0
    return Work(
        "distill",
        experiment.iterations,
        templated,
        templated * assumed.completion_tokens,
        templated * 2 * assumed.prompt_tokens,
        passes=rows * row * passes_a_token(experiment),
    )


def heldout_size(experiment: Experiment, layout: Layout) -> int:
    """Held-out problems: as prepared, or as the sources say; 500 for a source that does not."""
    prepared = layout.base / "heldout.parquet"
    if prepared.exists():
        return int(pq.read_metadata(prepared).num_rows)
    if isinstance(experiment.prepare, FilesPrepare):
        return sum(_rows(source) for source in experiment.prepare.heldout)
    return 500


def _rows(source: ProblemSource) -> int:
    if source.generator is not None:
        return source.generator.count
    known = entry_named(source.name).rows if source.name else None
    return min(source.validation or known or 500, source.limit or 10**9)
