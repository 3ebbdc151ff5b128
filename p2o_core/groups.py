"""Groups: the completions of one problem as the update trains on them, with their advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from p2o_core.advantages import group_advantages
from p2o_core.config import DistillConfig, PromptStyle
from p2o_core.prompts import Chat
from p2o_core.types import Completion, Judged, Problem


@dataclass(frozen=True)
class TrainingSample:
    """One completion as the update trains on it: C completion tokens, with C log-probs of each kind.

    ``prompt_ids`` is the context of the gradient: under context distillation the *bare* prompt, also when the
    completion was sampled under a template. ``sampling_prompt_ids`` is the context it was sampled under (empty: the
    same one). ``sample`` is the completion's number. All log-probs are from before the update's first step:

    - ``sampling_logps``: the engine's, under the sampling context.
    - ``old_logps``: the trainer's, under ``prompt_ids``.
    - ``templated_logps``: the trainer's, under the sampling context; empty where they were not measured.
    - ``engine_log_ratios``: log(trainer / engine) under one and the same context; empty where not compared (weight 1).

    >>> TrainingSample("p0", (1, 2), (3,), (-0.1,), reward=1.0, templated=False).old_logps
    ()
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    sampling_logps: tuple[float, ...]
    reward: float
    templated: bool
    sampling_prompt_ids: tuple[int, ...] = ()
    advantage: float = 0.0
    old_logps: tuple[float, ...] = ()
    templated_logps: tuple[float, ...] = ()
    engine_log_ratios: tuple[float, ...] = ()
    sample: int = 0

    @property
    def length(self) -> int:
        """Tokens of the completion and of the longer context."""
        return max(len(self.prompt_ids), len(self.sampling_prompt_ids)) + len(self.completion_ids)

    @property
    def template_reference(self) -> tuple[float, ...]:
        """The template ratio's denominator: the trainer's log-probs where measured, otherwise the engine's."""
        return self.templated_logps or self.sampling_logps


Group = list[TrainingSample]


def build_groups(
    chat: Chat,
    problems: Mapping[str, Problem],
    completions: Sequence[Completion],
    judged: Sequence[Judged],
    config: DistillConfig,
    style: PromptStyle = "plain",
) -> list[Group]:
    """Put each problem's bare and templated completions into one group. A hard problem's group has variance exactly
    when a template works.

    ``config.context`` chooses the gradient's prompt: the bare one, or the sampling prompt (no context distillation).
    ``config.hard_groups = "templated"`` leaves out the bare completions of problems with templated ones (the paper).

    Args:
        problems: by id.
        completions: in any order; groups come in order of first appearance.
        judged: the verdicts on ``completions``, in the same order.
    """
    groups: dict[str, Group] = {}
    replaced = {c.problem_id for c in completions if c.templated} if config.hard_groups == "templated" else set()
    for completion, verdict in zip(completions, judged, strict=True):
        if completion.problem_id in replaced and not completion.templated:
            continue
        question = problems[completion.problem_id].question
        context = completion.template if config.context == "templated" else ""
        groups.setdefault(completion.problem_id, []).append(
            TrainingSample(
                problem_id=completion.problem_id,
                prompt_ids=chat.encode_prompt(question, context, style),
                completion_ids=completion.token_ids,
                sampling_logps=completion.logps,
                reward=verdict.reward,
                templated=completion.templated,
                sampling_prompt_ids=chat.encode_prompt(question, completion.template, style),
                sample=completion.sample,
            )
        )
    return list(groups.values())


def with_advantages(groups: Sequence[Group], *, normalize_std: bool) -> list[Group]:
    """Return the groups that carry a signal, each sample with its advantage. Groups without variance are left out:
    neither the numerator nor the denominator of the loss sees them, so they contribute exactly nothing."""
    if not groups:
        return []
    sizes = [len(group) for group in groups]
    rewards = torch.tensor([sample.reward for group in groups for sample in group])
    members = torch.arange(len(groups)).repeat_interleave(torch.tensor(sizes))
    advantages = group_advantages(rewards, members, normalize_std=normalize_std).split(sizes)
    return [
        [replace(sample, advantage=advantage) for sample, advantage in zip(group, own.tolist(), strict=True)]
        for group, own in zip(groups, advantages, strict=True)
        if own.any()
    ]


def right_answers(groups: Sequence[Group]) -> list[Group]:
    """Return the groups' right answers alone, for supervised fine-tuning; groups without any are left out."""
    right = ([replace(sample, advantage=1.0) for sample in group if sample.reward > 0] for group in groups)
    return [group for group in right if group]
