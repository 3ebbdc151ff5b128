"""The tensors of a micro-batch, and the loss that reads nothing else."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import get_args

import pytest
import torch

from p2o_core.batch import parts
from p2o_core.config import Aggregation, DistillConfig
from p2o_core.finite import NotFinite
from p2o_core.groups import TrainingSample
from p2o_core.losses import engine_ratio_weights, loss_denominator, p2o_loss, policy_loss, template_ratio_mask
from p2o_core.microbatch import MicroBatch, microbatches
from p2o_core.policy import Policy

BARE = TrainingSample(
    "bare",
    (5, 6, 7),
    (8, 9),
    sampling_logps=(-1.0, -2.0),
    reward=0.0,
    templated=False,
    advantage=-0.5,
    old_logps=(-1.1, -2.1),
    engine_log_ratios=(0.1, -0.1),
)
TEMPLATED = TrainingSample(
    "templated",
    (5,),
    (8, 9, 10),
    sampling_logps=(-0.1, -0.2, -0.3),
    reward=1.0,
    templated=True,
    sampling_prompt_ids=(4, 4, 5),
    advantage=1.5,
    old_logps=(-1.0, -9.0, -0.3),
)
MEASURED = replace(TEMPLATED, templated_logps=(-0.2, -8.0, -0.4), engine_log_ratios=(-0.1, 3.0, -0.1))


def build(*samples: TrainingSample) -> MicroBatch:
    return MicroBatch.build([[sample] for sample in samples], pad_id=0, device=torch.device("cpu"))


def test_everything_is_padded_once_and_aligned() -> None:
    batch = build(BARE, TEMPLATED)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [5, 8, 9, 10, 0]]
    assert batch.attends is None
    assert batch.completion_ids.tolist() == [[8, 9, 0], [8, 9, 10]]
    assert batch.completion_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.advantages.tolist() == [-0.5, 1.5]
    assert batch.templated.tolist() == [False, True]
    torch.testing.assert_close(batch.old_logp, torch.tensor([[-1.1, -2.1, 0], [-1.0, -9.0, -0.3]]))
    torch.testing.assert_close(batch.sampling_logp, torch.tensor([[-1.0, -2.0, 0], [-0.1, -0.2, -0.3]]))
    torch.testing.assert_close(batch.engine_log_ratio, torch.tensor([[0.1, -0.1, 0], [0, 0, 0]]))
    with pytest.raises(FrozenInstanceError):
        batch.old_logp = batch.sampling_logp  # type: ignore[misc]


def test_log_probs_under_the_template_are_the_trainer_s_where_it_measured_them() -> None:
    assert build(TEMPLATED).templated_logp.tolist() == build(TEMPLATED).sampling_logp.tolist()
    measured = build(MEASURED)
    torch.testing.assert_close(measured.templated_logp, torch.tensor([[-0.2, -8.0, -0.4]]))
    torch.testing.assert_close(measured.sampling_logp, torch.tensor([[-0.1, -0.2, -0.3]]))


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
@pytest.mark.parametrize("changes", [{}, {"template_mask": "soft", "engine_ratio": "truncated", "clip_high": 0.5}])
def test_the_configured_loss_is_the_surrogate_with_its_weights(aggregation: str, changes: dict[str, object]) -> None:
    config = DistillConfig(aggregation=aggregation, **changes)
    batch = build(BARE, MEASURED)
    logp = (batch.old_logp + 0.3).requires_grad_()
    denominator = loss_denominator(5, 2, config.aggregation)
    outputs = p2o_loss(logp, batch, config, denominator)
    mask = template_ratio_mask(batch.old_logp, batch.templated_logp, mode=config.template_mask)
    mask[0] = 1.0  # a bare row is never masked
    weights = engine_ratio_weights(batch.engine_log_ratio, batch.completion_mask) if changes else None
    expected = policy_loss(
        logp,
        batch.old_logp,
        batch.advantages,
        batch.completion_mask,
        clip_high=config.clip_high,
        template_mask=mask,
        engine_weights=weights,
        aggregation=config.aggregation,
    )
    assert torch.equal(outputs.loss, expected.loss)
    assert outputs.metrics == expected.metrics


def test_the_mask_reads_the_measured_log_probs() -> None:
    """exp(-9.0 + 0.2) is far below the bound; against the trainer's own -8.0 under the template it is not."""
    config = DistillConfig()
    masked, kept = (p2o_loss(b.old_logp, b, config, 3.0) for b in (build(TEMPLATED), build(MEASURED)))
    assert masked.metrics["template_masked_fraction"] == pytest.approx(1 / 3)
    assert kept.metrics["template_masked_fraction"] == 0.0


def test_a_gradient_under_the_template_has_no_mask() -> None:
    batch = build(TEMPLATED)
    outputs = p2o_loss(batch.old_logp, batch, DistillConfig(context="templated"), 3.0)
    assert outputs.metrics["template_masked_fraction"] == 0.0


def test_microbatches_hold_every_sample_once_under_the_budget(full_policy: Policy) -> None:
    samples = [
        replace(BARE, problem_id=str(n), prompt_ids=(n, 6, 7), completion_ids=(8,) * n, sampling_logps=(-1.0,) * n)
        for n in (9, 1, 4, 2)
    ]
    samples = [replace(s, old_logps=s.sampling_logps, engine_log_ratios=()) for s in samples]
    batches = list(microbatches(full_policy, samples, tokens=15))
    assert [[s.problem_id for s in batch.samples] for batch in batches] == [["1", "2"], ["4"], ["9"]]
    assert [batch.input_ids.numel() for batch in batches] == [10, 7, 12]
    assert list(parts([], 5)) == []


def test_samples_of_one_prompt_share_a_row(full_policy: Policy) -> None:
    batch, *rest = microbatches(full_policy, [BARE, replace(BARE, completion_ids=(10, 11)), TEMPLATED], tokens=100)
    assert not rest
    assert batch.input_ids.tolist() == [[5, 8, 9, 10, 0, 0, 0], [5, 6, 7, 8, 9, 10, 11]]
    assert batch.position_ids.tolist()[1] == [0, 1, 2, 3, 4, 3, 4]
    assert [s.completion_ids for s in batch.samples] == [(8, 9, 10), (8, 9), (10, 11)]
    assert batch.attends is not None
    assert batch.attends[1, 5].tolist() == [True, True, True, False, False, True, False]


@pytest.mark.parametrize("field", ["old_logps", "sampling_logps", "templated_logps", "engine_log_ratios"])
def test_what_is_not_finite_names_its_row(field: str) -> None:
    bad = replace(MEASURED, **{field: (-0.1, float("nan"), -0.1)})
    batch = build(BARE, bad)
    with pytest.raises(NotFinite) as raised:
        batch.check_finite(torch.zeros(2, 3))
    assert raised.value.samples == [bad]
