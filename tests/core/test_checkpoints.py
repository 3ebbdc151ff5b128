"""An update killed between two optimiser steps goes on there and ends in the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from p2o_core.checkpoints import UpdateCheckpoints
from p2o_core.config import FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.finite import NotFinite
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.update import update_policy
from p2o_core.update_report import RunningMeans, UpdateReport
from tests.core.test_update import CONFIG, mixed_groups, weights

SETTINGS = CONFIG.model_copy(update={"groups_per_minibatch": 1, "warmup_steps": 3})


class Killed(BaseException):
    pass


def train(
    policy: Policy, folder: Path | None, dies_after: int | None = None, every: int = 1, done: list[int] | None = None
) -> UpdateReport:
    def on_step(step: int, planned: int) -> None:
        if done is not None:
            done.append(step)
        if step == dies_after:
            raise Killed

    report, _ = update_policy(
        policy,
        PolicyOptimizer(policy, SETTINGS),
        mixed_groups(policy),
        SETTINGS,
        temperature=1.0,
        seed=4,
        checkpoints=UpdateCheckpoints(folder, every=every),
        on_step=on_step,
    )
    return report


@pytest.mark.parametrize("config", [FullPolicy(), LoraPolicy(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize(("dies_after", "every"), [(1, 1), (3, 1), (3, 2), (4, 1)])
def test_killed_equals_undisturbed(
    base_folder: Path, tmp_path: Path, config: PolicyConfig, dies_after: int, every: int
) -> None:
    undisturbed = Policy.create(base_folder, config, seed=0)
    report = train(undisturbed, None)
    assert report.steps == report.planned_steps == 4
    with pytest.raises(Killed):
        train(Policy.create(base_folder, config, seed=0), tmp_path, dies_after, every)
    steps: list[int] = []
    resumed = Policy.create(base_folder, config, seed=0)
    again = train(resumed, tmp_path, None, every, steps)
    assert again == report, "the report adds up over both processes"
    assert torch.equal(weights(resumed), weights(undisturbed))
    kept = min(dies_after, 3) // every * every  # nothing is kept after the last step: it is done again
    assert steps == list(range(kept + 1, 5))


@pytest.mark.parametrize("dies_after", [1, 2])
def test_a_damaged_checkpoint_is_not_used(base_folder: Path, tmp_path: Path, dies_after: int) -> None:
    undisturbed = Policy.create(base_folder, FullPolicy(), seed=0)
    train(undisturbed, None)
    with pytest.raises(Killed):
        train(Policy.create(base_folder, FullPolicy(), seed=0), tmp_path, dies_after)
    (path,) = tmp_path.glob("step-*")
    content = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(content[:-4] + b"\0\0\0\1")
    resumed = Policy.create(base_folder, FullPolicy(), seed=0)
    train(resumed, tmp_path)
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_a_resume_that_would_train_nothing_is_an_error(base_folder: Path, tmp_path: Path) -> None:
    """A checkpoint that claims more steps than the optimiser took (another run's, or an edited one)."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    checkpoints = UpdateCheckpoints(tmp_path)
    checkpoints.save(3, 5, policy, PolicyOptimizer(policy, SETTINGS), RunningMeans(steps=4))
    with pytest.raises(RuntimeError, match="4 optimiser steps were planned"):
        train(policy, tmp_path)


@pytest.mark.parametrize("bad", ["sampling_logps", "weights"])
def test_numbers_that_are_none_name_their_rows(base_folder: Path, bad: str) -> None:
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    groups = mixed_groups(policy)
    if bad == "sampling_logps":
        groups[2][1] = replace(groups[2][1], sampling_logps=(float("inf"),) * len(groups[2][1].completion_ids))
    else:
        with torch.no_grad():
            next(iter(policy.trainable_parameters().values())).fill_(float("nan"))
    before = weights(policy)
    settings = SETTINGS.model_copy(update={"groups_per_minibatch": 8})
    with pytest.raises(NotFinite, match="weights were not changed") as raised:
        update_policy(policy, PolicyOptimizer(policy, settings), groups, settings, temperature=1.0, seed=4)
    torch.testing.assert_close(weights(policy), before, rtol=0, atol=0, equal_nan=True)
    if bad == "sampling_logps":
        assert [rollout.problem_id for rollout in raised.value.samples] == [groups[2][1].problem_id]
    else:
        assert raised.value.samples


@pytest.mark.parametrize("bad", ["sampling_logps", "weights"])
def test_a_policy_of_nan_is_noticed_without_any_signal(base_folder: Path, bad: str) -> None:
    """Every answer is wrong then, so no group has a signal and nothing else would look."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    groups = [[replace(rollout, reward=0.0) for rollout in group] for group in mixed_groups(policy)]
    if bad == "weights":
        with torch.no_grad():
            list(policy.trainable_parameters().values())[-1][-1] = float("nan")
    else:
        groups[1][0] = replace(groups[1][0], sampling_logps=(float("nan"),) * len(groups[1][0].completion_ids))
    with pytest.raises(NotFinite, match="weights were not changed") as raised:
        update_policy(policy, PolicyOptimizer(policy, SETTINGS), groups, SETTINGS, temperature=1.0, seed=4)
    expected = [groups[1][0]] if bad == "sampling_logps" else [rollout for group in groups for rollout in group]
    assert raised.value.samples == expected


def test_weights_that_the_last_step_spoils_are_noticed(base_folder: Path) -> None:
    """No later step would look at their log-probs."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    too_far = {"groups_per_minibatch": 64, "learning_rate": 3e37, "weight_decay": 11.0, "warmup_steps": 0}
    settings = SETTINGS.model_copy(update=too_far)  # weights of 1, of the norms, go beyond float32
    with pytest.raises(NotFinite, match=r"weights not finite, first in model\.") as raised:
        update_policy(
            policy, PolicyOptimizer(policy, settings), mixed_groups(policy), settings, temperature=1.0, seed=4
        )
    assert raised.value.samples
