"""Engine/trainer differences are weighed, and prompt shift is never taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from p2o_core.config import DistillConfig, FullPolicy
from p2o_core.groups import Group, TrainingSample
from p2o_core.losses import engine_ratio_weights, policy_loss
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.update import update_policy, with_old_logps
from tests.core.test_update import CONFIG, TEMPLATE, mixed_groups

TRUNCATED = CONFIG.model_copy(update={"engine_ratio": "truncated"})


@pytest.fixture
def policy(base_folder: Path) -> Policy:
    return Policy.create(base_folder, FullPolicy(), seed=0)


def erring(policy: Policy, error: float) -> list[Group]:
    """Groups from an engine whose log-probs are all ``error`` too high."""

    def shifted(rollout: TrainingSample) -> TrainingSample:
        prompt = policy.chat.encode_prompt(rollout.problem_id, TEMPLATE if rollout.templated else "")
        logps = tuple(logp + error for logp in rollout.sampling_logps)
        return replace(rollout, sampling_logps=logps, sampling_prompt_ids=prompt)

    return [[shifted(rollout) for rollout in group] for group in mixed_groups(policy)]


def old(policy: Policy, groups: list[Group], config: DistillConfig) -> list[TrainingSample]:
    return [r for group in with_old_logps(policy, groups, config, 1.0) for r in group]


def test_the_weights_by_hand() -> None:
    logs = torch.tensor([[0.0, 1.0, -1.0], [0.5, 0.5, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    e = torch.exp(torch.tensor(1.0)).item()
    token = engine_ratio_weights(logs, mask, limit=2.0)
    torch.testing.assert_close(token[0], torch.tensor([1.0, 2.0, 1 / e]))
    masked = engine_ratio_weights(logs, mask, mode="masked", limit=2.0)
    torch.testing.assert_close(masked[0], torch.tensor([1.0, 0.0, 0.0]))
    sequence = engine_ratio_weights(logs, mask, level="sequence", limit=4.0)
    torch.testing.assert_close(sequence, torch.tensor([[1.0] * 3, [e] * 3]))
    with pytest.raises(ValueError, match="limit"):
        engine_ratio_weights(logs, mask, limit=1.0)


def test_weights_multiply_the_loss() -> None:
    logp = torch.full((1, 2), -1.0, requires_grad=True)
    weights = torch.tensor([[0.5, 2.0]])
    outputs = policy_loss(logp, logp.detach(), torch.tensor([1.0]), torch.ones(1, 2), engine_weights=weights)
    outputs.loss.backward()
    torch.testing.assert_close(logp.grad, -weights / 2)
    assert outputs.metrics["engine_weight_mean"] == pytest.approx(1.25)


def test_an_exact_engine_gives_ratio_one(policy: Policy) -> None:
    for rollout in old(policy, erring(policy, 0.0), TRUNCATED):
        assert all(abs(ratio) < 1e-5 for ratio in rollout.engine_log_ratios)


def test_prompt_shift_is_not_engine_error(policy: Policy) -> None:
    """Bare rows tell the engine's error; templated rows are re-based and have weight 1, however far the bare
    prompt is from the template."""
    for rollout in old(policy, erring(policy, 0.3), TRUNCATED):
        if rollout.templated:
            assert rollout.engine_log_ratios == ()
            assert rollout.old_logps != rollout.sampling_logps
        else:
            assert rollout.engine_log_ratios == pytest.approx([-0.3] * len(rollout.completion_ids), abs=1e-5)


def test_measured_templated_rows_are_exact(policy: Policy) -> None:
    """With the second pass the engine ratio is the engine's error alone, and the template ratio the shift alone."""
    config = TRUNCATED.model_copy(update={"engine_ratio_templated": "measured"})
    exact = old(policy, erring(policy, 0.0), CONFIG)
    for rollout, reference in zip(old(policy, erring(policy, 0.3), config), exact, strict=True):
        assert rollout.engine_log_ratios == pytest.approx([-0.3] * len(rollout.completion_ids), abs=1e-5)
        if rollout.templated:
            ours = torch.tensor(rollout.old_logps) - torch.tensor(rollout.templated_logps)
            theirs = torch.tensor(reference.old_logps) - torch.tensor(reference.sampling_logps)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, {"bare": 0, "templated": 1}),
        ({"engine_ratio": "truncated"}, {"bare": 1, "templated": 1}),
        ({"engine_ratio": "masked", "engine_ratio_templated": "measured"}, {"bare": 1, "templated": 2}),
    ],
)
def test_extra_forward_passes(policy: Policy, changes: dict, passes: dict[str, int]) -> None:
    """A templated row needs one pass more, unless the second one was asked for."""
    rows = 0
    forward = policy.completion_logps

    def counted(batch, temperature):
        nonlocal rows
        rows += len(batch.completion_ids)
        return forward(batch, temperature)

    policy.completion_logps = counted  # type: ignore[method-assign]
    groups = erring(policy, 0.0)
    old(policy, groups, CONFIG.model_copy(update=changes))
    bare = sum(not r.templated for group in groups for r in group)
    templated = sum(r.templated for group in groups for r in group)
    assert rows == passes["bare"] * bare + passes["templated"] * templated


def test_the_update_reports_the_engine(policy: Policy) -> None:
    report, _ = update_policy(
        policy, PolicyOptimizer(policy, TRUNCATED), erring(policy, -0.3), TRUNCATED, temperature=1.0, seed=0
    )
    assert report.metrics["engine_log_ratio_mean"] == pytest.approx(0.3, abs=1e-4)
    assert report.metrics["engine_log_ratio_max"] == pytest.approx(0.3, abs=1e-4)
    assert report.metrics["engine_kl"] == pytest.approx(torch.exp(torch.tensor(0.3)).item() - 1.3, abs=1e-4)
    assert 1.0 < report.metrics["engine_weight_mean"] < 1.35
