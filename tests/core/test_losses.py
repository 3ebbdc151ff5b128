from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer

from p2o_core.batch import Batch
from p2o_core.config import Aggregation
from p2o_core.losses import loss_denominator, policy_loss, template_ratio_mask
from p2o_core.policy import Policy

TRL_LOSS_TYPE: dict[Aggregation, str] = {
    "token-mean": "bnpo",
    "seq-mean-token-mean": "grpo",
    "seq-mean-token-sum": "luspo",
}
"""TRL's names of the aggregations that it has too."""


def random_case(seed: int, rows: int = 5, width: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    old = -torch.rand(rows, width, generator=generator) * 3
    return {
        "logp": old + 0.6 * torch.randn(rows, width, generator=generator),
        "old_logp": old,
        "advantages": torch.randn(rows, generator=generator) * 2,
        "completion_mask": (torch.arange(width) < lengths.unsqueeze(1)).float(),
    }


@pytest.mark.parametrize("aggregation", TRL_LOSS_TYPE)
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_trl(full_policy: Policy, tmp_path: Path, aggregation: Aggregation, seed: int) -> None:
    """A real GRPOTrainer computes the loss of real tokens; log-probs, clipping, dual clip and aggregation agree."""
    trainer = GRPOTrainer(
        model=full_policy.model,
        processing_class=full_policy.chat.tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["sum 1 a+2 ?"]}),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            loss_type=TRL_LOSS_TYPE[aggregation],
            temperature=0.7,
            epsilon=0.1,
            epsilon_high=0.3,
            delta=3.0,
            beta=0.0,
            use_cpu=True,
            bf16=False,  # on by default, and then the log-probs differ by 1e-3
            report_to=[],
            per_device_train_batch_size=2,
            num_generations=2,
        ),
    )
    generator = torch.Generator().manual_seed(seed)
    lengths = [3, 6, 1, 5]
    prompts = [torch.randint(10, 100, (n,), generator=generator).tolist() for n in (4, 2, 6, 3)]
    completions = [torch.randint(10, 100, (n,), generator=generator).tolist() for n in lengths]
    batch = Batch.collate(prompts, completions, full_policy.chat.pad_id)
    logp = full_policy.completion_logps(batch, 0.7)
    old_logp = (logp.detach() + 0.7 * torch.randn(logp.shape, generator=generator)) * batch.completion_mask
    advantages = torch.randn(4, generator=generator) * 2
    pad = full_policy.chat.tokenizer.pad_token_id
    padded = [[pad] * (6 - len(prompt)) + prompt for prompt in prompts]
    trainer.model.eval()
    expected = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": torch.tensor(padded),
            "prompt_mask": torch.tensor([[0] * (6 - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            "completion_ids": batch.completion_ids,
            "completion_mask": batch.completion_mask.long(),
            "old_per_token_logps": old_logp,
            "advantages": advantages,
        },
    )
    outputs = policy_loss(
        logp,
        old_logp,
        advantages,
        batch.completion_mask,
        clip_low=0.1,
        clip_high=0.3,
        dual_clip=3.0,
        aggregation=aggregation,
    )
    assert outputs.metrics["clip_fraction"] > 0
    torch.testing.assert_close(outputs.loss, expected.reshape(()), rtol=1e-4, atol=1e-5)


@given(
    st.lists(st.tuples(st.floats(-12, 0), st.floats(-12, 0)), min_size=1, max_size=12),
    st.sampled_from(["hard", "soft"]),
)
def test_template_ratio_mask_is_its_definition(pairs: list[tuple[float, float]], mode: str) -> None:
    low, high = 0.01, 10.0
    bare = torch.tensor([[b for b, _ in pairs]], dtype=torch.float64)
    templated = torch.tensor([[t for _, t in pairs]], dtype=torch.float64)
    expected = []
    for b, t in pairs:
        ratio = math.exp(b - t)
        if mode == "hard":
            if min(abs(ratio / low - 1), abs(ratio / high - 1)) < 1e-5:
                return  # float32 rounding decides on the bound itself
            expected.append(1.0 if low <= ratio <= high else 0.0)
        else:
            expected.append(high / ratio if ratio > high else low / ratio if ratio < low else 1.0)
    mask = template_ratio_mask(bare, templated, low=low, high=high, mode=mode)  # type: ignore[arg-type]
    torch.testing.assert_close(mask, torch.tensor([expected]), rtol=1e-4, atol=1e-6)


def test_masked_tokens_stay_in_the_denominator() -> None:
    case = random_case(0)
    nothing = torch.zeros_like(case["logp"])
    nothing[0, 0] = 1
    loss = policy_loss(**case, template_mask=nothing).loss
    ratio = (case["logp"] - case["old_logp"]).exp()[0, 0]
    advantage = case["advantages"][0]
    token = max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    if advantage < 0:
        token = min(token, -advantage * 3.0)
    torch.testing.assert_close(loss, token / case["completion_mask"].sum())


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_parts_with_a_normalizer_add_up_to_the_whole(aggregation: Aggregation) -> None:
    case = random_case(3)
    whole = policy_loss(**case, aggregation=aggregation).loss
    mask = case["completion_mask"]
    normalizer = loss_denominator(float(mask.sum()), len(mask), aggregation)
    parts = [
        policy_loss(**{k: v[i : i + 2] for k, v in case.items()}, aggregation=aggregation, normalizer=normalizer).loss
        for i in (0, 2, 4)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_dual_clip_bounds_the_loss_of_bad_answers() -> None:
    logp, old = torch.tensor([[0.0]]), torch.tensor([[-5.0]])
    outputs = policy_loss(logp, old, torch.tensor([-1.0]), torch.ones(1, 1))
    assert outputs.loss == 3.0
    assert outputs.metrics["dual_clip_fraction"] == 1.0
    unbounded = policy_loss(logp, old, torch.tensor([-1.0]), torch.ones(1, 1), dual_clip=None)
    torch.testing.assert_close(unbounded.loss, torch.tensor(math.exp(5.0)))


def test_wrong_settings_are_refused() -> None:
    case = random_case(1)
    with pytest.raises(ValueError, match="dual_clip"):
        policy_loss(**case, dual_clip=0.5)
    with pytest.raises(ValueError, match="aggregation"):
        policy_loss(**case, aggregation="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one of token-mean, .*'mean'"):
        loss_denominator(5.0, 2, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="low < high"):
        template_ratio_mask(case["logp"], case["old_logp"], low=2.0, high=1.0)
