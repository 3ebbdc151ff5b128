"""The policy update: groups in, optimiser steps out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from p2o_core.checkpoints import UpdateCheckpoints
from p2o_core.config import DistillConfig
from p2o_core.finite import NotFinite, check_parameters, check_start
from p2o_core.groups import Group, TrainingSample, right_answers, with_advantages
from p2o_core.losses import loss_denominator, p2o_loss
from p2o_core.microbatch import microbatches
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.transfer import SampleId, correct_log_ratios
from p2o_core.update_report import (
    RunningMeans,
    UpdateReport,
    engine_metrics,
    most_masked,
    template_ratio_histogram,
    transfer_metrics,
)


def update_policy(
    policy: Policy,
    optimizer: PolicyOptimizer,
    groups: Sequence[Group],
    config: DistillConfig,
    *,
    temperature: float,
    seed: int,
    checkpoints: UpdateCheckpoints | None = None,
    on_step: Callable[[int, int], None] = lambda step, planned: None,
) -> tuple[UpdateReport, dict[SampleId, float]]:
    """Train ``policy`` in place: one pass over the groups in mini-batches, an optimiser step each.

    An interrupted update goes on where ``checkpoints`` end. With ``config.enabled`` off nothing is trained.

    Returns:
        The report; and the mean log template ratio of each correct templated sample in a group with signal, from before
        the update (:mod:`p2o_core.transfer`). There are none under ``config.context = "templated"``, where nothing is
        measured at the bare prompt.

    Raises:
        NotFinite: log-probs, ratios, loss or gradient are not finite; the weights are those before that step. Or the
            weights themselves are not, at the start or after a step.
        RuntimeError: fewer steps were done than planned.
    """
    checkpoints = checkpoints or UpdateCheckpoints()
    groups = groups if config.enabled else []
    check_start(dict(policy.model.named_parameters()), groups)
    if config.loss == "sft":
        signal, temperature = right_answers(groups), 1.0  # the policy's own likelihood, whatever it was sampled at
    else:
        signal = with_advantages(groups, normalize_std=config.normalize_std)
    random.Random(seed).shuffle(signal)
    size = config.groups_per_minibatch
    planned = -(-len(signal) // size)
    with_old = checkpoints.old_logps(lambda: with_old_logps(policy, signal, config, temperature))
    started_at = optimizer.steps_done
    done, means = checkpoints.restore(policy, optimizer)
    for step in range(done, planned):
        minibatch = [sample for group in with_old[step * size : (step + 1) * size] for sample in group]
        train_step(policy, optimizer, minibatch, config, temperature, means)
        checkpoints.save(step + 1, planned, policy, optimizer, means)
        on_step(step + 1, planned)
    if not means.steps == planned == optimizer.steps_done - started_at:
        raise RuntimeError(
            f"{planned} optimiser steps were planned, {means.steps} were done and the optimiser counts "
            f"{optimizer.steps_done - started_at}. Mend: delete data/units and start again."
        )
    samples = [sample for group in with_old for sample in group]
    log_ratios = correct_log_ratios(with_old) if config.context == "bare" else {}
    report = UpdateReport(
        status="off" if not config.enabled else "updated" if planned else "no_signal",
        groups=len(groups),
        groups_with_signal=len(signal),
        rollouts_trained=len(samples),
        planned_steps=planned,
        steps=means.steps,
        metrics=means.total(policy.team).means() | engine_metrics(samples) | transfer_metrics(log_ratios),
        template_ratios=template_ratio_histogram(samples),
        masked=most_masked(samples, config.template_ratio_low, config.template_ratio_high)
        if config.context == "bare" and config.template_mask != "off"
        else None,
    )
    return report, log_ratios


def train_step(
    policy: Policy,
    optimizer: PolicyOptimizer,
    minibatch: Sequence[TrainingSample],
    config: DistillConfig,
    temperature: float,
    means: RunningMeans,
) -> None:
    """The whole training step: a mini-batch's gradient, summed over micro-batches, and one optimiser step."""
    tokens = sum(len(sample.completion_ids) for sample in minibatch)
    denominator = loss_denominator(tokens, len(minibatch), config.aggregation)
    for batch in microbatches(policy, minibatch, config.tokens_per_microbatch):
        logp = policy.completion_logps(batch, temperature)  # [B, T] at the gradient's prompt
        batch.check_finite(logp)
        outputs = p2o_loss(logp, batch, config, denominator)
        if not torch.isfinite(outputs.loss):
            raise NotFinite("loss", batch.samples)
        outputs.loss.backward()
        means.add(outputs, float(batch.completion_mask.sum()))
    try:
        means.add_step(optimizer.step())
    except FloatingPointError as error:
        raise NotFinite("gradient", minibatch) from error
    check_parameters(optimizer.parameters, minibatch)


def with_old_logps(policy: Policy, groups: Sequence[Group], config: DistillConfig, temperature: float) -> list[Group]:
    """Every sample with its log-probs from before the update and, where asked for, its engine ratios.

    A sample drawn under the gradient's own prompt needs a forward pass only to measure the engine; without that the
    engine's log-probs are the old ones. A templated sample of a bare update needs one pass, under the bare prompt.
    That pass against the engine's log-probs is prompt shift *times* engine error, so its engine ratio is re-based on
    its own template ratio, which leaves 1; ``engine_ratio_templated: measured`` pays a second pass, under the
    template, and then both ratios are exact.
    """
    compare = config.engine_ratio != "off"
    measure = compare and config.engine_ratio_templated == "measured"

    def shifted(sample: TrainingSample) -> bool:
        """The gradient's prompt is not the one it was sampled under."""
        return sample.templated and config.context == "bare"

    def with_logps(
        sample: TrainingSample, old: tuple[float, ...] | None, templated: tuple[float, ...] | None
    ) -> TrainingSample:
        ours = templated if shifted(sample) else old  # at the prompt the engine sampled under
        ratios = zip(ours, sample.sampling_logps, strict=True) if compare and ours is not None else ()
        return replace(
            sample,
            old_logps=sample.sampling_logps if old is None else old,
            templated_logps=templated or (),
            engine_log_ratios=tuple(trainer - engine for trainer, engine in ratios),
        )

    samples = [sample for group in groups for sample in group]
    bare = [s.prompt_ids if compare or shifted(s) else None for s in samples]
    under_template = [s.sampling_prompt_ids if measure and shifted(s) else None for s in samples]
    old = _completion_logps(policy, samples, bare, config, temperature)
    templated = _completion_logps(policy, samples, under_template, config, temperature)
    finished = iter(map(with_logps, samples, old, templated))
    return [[next(finished) for _ in group] for group in groups]


def _completion_logps(
    policy: Policy,
    samples: Sequence[TrainingSample],
    prompts: Sequence[tuple[int, ...] | None],
    config: DistillConfig,
    temperature: float,
) -> list[tuple[float, ...] | None]:
    """Each sample's log-probs under its prompt; None where the prompt is None."""
    asked = [
        (sample.completion_ids, prompt) for sample, prompt in zip(samples, prompts, strict=True) if prompt is not None
    ]
    completions, contexts = [ids for ids, _ in asked], [prompt for _, prompt in asked]
    scored = iter(policy.score(contexts, completions, temperature, tokens=config.tokens_per_microbatch))
    return [None if prompt is None else next(scored) for prompt in prompts]
