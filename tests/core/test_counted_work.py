"""Work is counted, not timed: a change that makes the update, the engine or the search do more of it fails here.

Tokens are those that go through the policy's embedding, padding included; vocabulary tensors are all that an operator
makes with a dimension of the vocabulary's size, the weights' own shape aside.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from p2o_core import output_layer
from p2o_core.config import DistillConfig, EvolveConfig, FullPolicy
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.groups import Group, TrainingSample
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.search.evolve import evolve_templates
from p2o_core.update import update_policy
from p2o_core.verify import Verifier
from tests.world import HARD, POOL, ScriptedEngine

GROUPS, SAMPLES, PROMPT, LONGEST = 4, 8, 30, 24
PADDING = 1.35
"""Tokens with padding over those without, at most: rows of like length share a batch."""


class Counted:
    """Forward passes and tokens, with and without a gradient; elements of the largest vocabulary tensor."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.scored = self.trained = self.largest = 0


@contextmanager
def counting(policy: Policy) -> Iterator[Counted]:
    counted = Counted()
    weight = policy.model.get_output_embeddings().weight

    def embedded(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        counted.passes.append(inputs[0].numel())
        if torch.is_grad_enabled():
            counted.trained += inputs[0].numel()
        else:
            counted.scored += inputs[0].numel()

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and len(weight) in tensor.shape:
                    own = set(tensor.shape) == set(weight.shape)
                    counted.largest = max(counted.largest, 0 if own else tensor.numel())
            return made

    hook = policy.model.get_input_embeddings().register_forward_pre_hook(embedded)
    try:
        with Made():
            yield counted
    finally:
        hook.remove()


def groups_of(policy: Policy, *, templated: int = 0, flat: int = 0) -> list[Group]:
    """Groups of random tokens; the first ``templated`` samples of each were drawn under a template of twice the
    prompt's length, and the last ``flat`` groups carry no signal."""
    rng = random.Random(0)
    words = policy.model.config.vocab_size

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, words) for _ in range(count))

    groups = []
    for number in range(GROUPS):
        prompt = tokens(PROMPT)
        group = []
        for sample in range(SAMPLES):
            length = rng.randint(4, LONGEST)
            reward = float(sample % 2) if number < GROUPS - flat else 0.0
            row = TrainingSample(f"p{number}", prompt, tokens(length), (-5.0,) * length, reward, templated=False)
            under = sample < templated
            group.append(replace(row, templated=under, sampling_prompt_ids=prompt + prompt if under else prompt))
        groups.append(group)
    return groups


def least(groups: list[Group]) -> int:
    """Each group's prompt once, and the completions."""
    return sum(PROMPT + sum(len(sample.completion_ids) for sample in group) for group in groups)


def update(policy: Policy, groups: list[Group], **changes: Any) -> None:
    config = DistillConfig(groups_per_minibatch=2, tokens_per_microbatch=2048, **changes)
    update_policy(policy, PolicyOptimizer(policy, config), groups, config, temperature=1.0, seed=0)


def test_an_update_trains_each_prompt_once_and_scores_nothing(full_policy: Policy) -> None:
    groups = groups_of(full_policy)
    with counting(full_policy) as counted:
        update(full_policy, groups)
    assert counted.scored == 0
    assert counted.trained <= PADDING * least(groups)
    assert len(counted.passes) == 2, "one forward pass a mini-batch"


def test_groups_without_signal_are_not_computed(full_policy: Policy) -> None:
    groups = groups_of(full_policy, flat=3)
    with counting(full_policy) as counted:
        update(full_policy, groups)
    assert counted.trained <= PADDING * least(groups[:1])


def test_a_templated_sample_costs_one_pass_more(full_policy: Policy) -> None:
    groups = groups_of(full_policy, templated=4)
    with counting(full_policy) as counted:
        update(full_policy, groups)
    assert 0 < counted.scored <= PADDING * least([group[:4] for group in groups])
    assert counted.trained <= PADDING * least(groups)


def test_an_update_never_holds_more_logits_than_a_chunk(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards, backwards, and the pass before: whatever the number of tokens."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    words = policy.model.config.vocab_size
    monkeypatch.setattr(output_layer, "CPU_CHUNK", 40 * words)
    groups = groups_of(policy, templated=4)
    assert sum(len(s.completion_ids) for s in groups[0]) > 80
    with counting(policy) as counted:
        update(policy, groups)
    assert words < counted.largest <= 40 * words


@pytest.mark.parametrize("samples", [1, 8])
def test_the_engine_reads_a_prompt_once_and_makes_one_pass_a_token(full_policy: Policy, samples: int) -> None:
    engine = EmbeddedEngine(full_policy, rows_per_batch=64)
    questions = ["sum 1 a+2 ?", "sum 3 a+4 b+5 ?"]
    requests = [RolloutRequest(str(i), q, "", tuple(range(samples)), 1) for i, q in enumerate(questions)]
    widest = max(len(full_policy.chat.encode_prompt(question)) for question in questions)
    with counting(full_policy) as counted:
        written = engine.generate(requests, Sampling(1.0, 12))
    assert counted.passes[0] <= 2 * widest
    assert len(counted.passes) <= max(len(c.token_ids) for c in written)
    assert sum(counted.passes[1:]) <= 12 * len(written)
    assert counted.largest <= len(written) * full_policy.model.config.vocab_size


def test_a_search_asks_the_engine_three_times_a_step(verifier: Verifier) -> None:
    """All parents' minibatches, all children's, and the dev sets of all that were kept, whatever their number."""
    engine = ScriptedEngine()
    config = EvolveConfig(min_hard=4, dev_size=6, parents=4, samples_per_score=2, max_metric_calls=150)
    found = evolve_templates(HARD, engine, verifier, POOL, config, Sampling(1.0, 8), seed=0)
    assert found.cost.steps >= 2
    assert engine.calls <= 1 + 3 * found.cost.steps
    assert engine.completions == 2 * found.cost.metric_calls
