"""S1 and S2: a policy update against TRL's GRPOTrainer, its own ``_compute_loss`` with its chunked output layer.

Both take the gradient of one optimiser step over the same groups; nobody steps. TRL trains what its trainer would:
every completion, padded to the longest of the generation, shuffled and split by TRL's own functions into batches of
``rows``. Gradient checkpointing (TRL's default) is off: it would make TRL a third slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Meter, product_rate
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

COSINE = 0.9999
SHAPE = {"vocabulary": 49_152, "hidden": 128, "layers": 2, "heads": 4, "feed_forward": 512}
GROUPS = {"groups": 4, "samples": 8, "shortest": 32, "longest": 1024, "prompt": 128, "signal": 1.0, "seed": 0}
BASE: Settings = {**GROUPS, "shape": SHAPE, "rows": 8, "microbatch": 8192, "lora": False}
SMALL: Settings = {
    "shape": {"vocabulary": 500, "hidden": 32, "layers": 2, "heads": 2, "feed_forward": 64},
    "longest": 64,
    "prompt": 16,
    "microbatch": 512,
}


def _inputs(settings: Settings, folder: Path) -> tuple[Any, list[Any], Any]:
    import torch

    from benchmarks.inputs import Shape, random_groups, random_policy

    torch.set_num_threads(int(settings.get("threads", 2)))
    shape = Shape(**settings["shape"])
    policy = random_policy(shape, folder / "base", lora=settings["lora"])
    wanted = {name: settings[name] for name in GROUPS}
    return policy, random_groups(**wanted, vocabulary=shape.vocabulary), shape


def _keep_gradient(policy: Any, folder: Path) -> None:
    gradient = [p.grad.flatten().numpy() for _, p in sorted(policy.trainable_parameters().items())]
    np.save(folder / "gradient.npy", np.concatenate(gradient))


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """:func:`p2o_core.update.update_policy`, an optimiser that keeps the gradient instead of stepping."""
    import torch

    from p2o_core.config import DistillConfig
    from p2o_core.groups import with_advantages
    from p2o_core.optimizer import PolicyOptimizer
    from p2o_core.update import update_policy

    class Keeping(PolicyOptimizer):
        def step(self) -> float:
            self.steps_done += 1
            return 0.0

    policy, groups, shape = _inputs(settings, folder)
    config = DistillConfig(groups_per_minibatch=len(groups), tokens_per_microbatch=settings["microbatch"])
    optimizer = Keeping(policy, config)
    with meter:
        report, _ = update_policy(policy, optimizer, groups, config, temperature=1.0, seed=0)
    _keep_gradient(policy, folder)
    trained = [sample for group in with_advantages(groups, normalize_std=True) for sample in group]
    flop = shape.update_flop(trained, trains_all=not settings["lora"])
    rate = product_rate(512, shape.hidden, shape.vocabulary, torch.float32)
    return {
        "completion_tokens": sum(len(s.completion_ids) for s in trained),
        "steps": report.steps,
        "flop": flop,
        "limit_flops": rate,
        "limit_share": flop / rate / meter.cpu_s,
    }


def _no_reward(completions: Sequence[Any], **_: Any) -> list[float | None]:
    return [0.0] * len(completions)


def trl(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """``GRPOTrainer._compute_loss`` and ``backward``, batch by batch."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

    from p2o_core.groups import TrainingSample

    policy, groups, _ = _inputs(settings, folder)
    samples: list[TrainingSample] = [sample for group in groups for sample in group]
    steps = len(samples) // settings["rows"]
    trainer: Any = GRPOTrainer(
        model=policy.model,
        processing_class=policy.chat.tokenizer,
        reward_funcs=_no_reward,
        train_dataset=Dataset.from_dict({"prompt": ["sum 1 a+2 ?"]}),
        args=GRPOConfig(
            output_dir=str(folder),
            loss_type="dapo",  # token-mean over the whole step
            temperature=1.0,
            epsilon=0.2,
            epsilon_high=0.2,
            delta=3.0,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            per_device_train_batch_size=settings["rows"],
            gradient_accumulation_steps=steps,
            num_generations=settings["samples"],
        ),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = steps
    asked, width = max(len(s.prompt_ids) for s in samples), max(len(s.completion_ids) for s in samples)

    def left(row: Sequence[int], fill: int) -> list[int]:
        return [fill] * (asked - len(row)) + [*row]

    def right(row: Sequence[Any], fill: float) -> list[Any]:
        return [*row] + [fill] * (width - len(row))

    completion_mask = torch.tensor([right([1] * len(s.completion_ids), 0) for s in samples])
    rewards = torch.tensor([[s.reward for s in group] for group in groups])
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    torch.manual_seed(0)
    with meter:
        whole: dict[str, Any] = {
            "prompt_ids": torch.tensor([left(s.prompt_ids, policy.chat.pad_id) for s in samples]),
            "prompt_mask": torch.tensor([left([1] * len(s.prompt_ids), 0) for s in samples]),
            "completion_ids": torch.tensor([right(s.completion_ids, policy.chat.pad_id) for s in samples]),
            "completion_mask": completion_mask,
            "old_per_token_logps": torch.tensor([right(s.sampling_logps, 0.0) for s in samples]),
            "advantages": advantages.flatten(),
            "num_items_in_batch": completion_mask.sum(),
        }
        shuffled: Any = shuffle_sequence_dict(whole)
        for part in split_tensor_dict(shuffled, steps):
            trainer._compute_loss(trainer.model, part).backward()
    _keep_gradient(policy, folder)
    trained = [s for s, a in zip(samples, advantages.flatten().tolist(), strict=True) if a]
    return {"completion_tokens": sum(len(s.completion_ids) for s in trained)}


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """The gradients' cosine, and the lengths' ratio where every group has a signal (TRL divides by all tokens)."""
    mine, other = (np.load(case.sides[side][0].folder / "gradient.npy").astype(np.float64) for side in (OURS, THEIRS))
    cosine = float(mine @ other / (np.linalg.norm(mine) * np.linalg.norm(other)))
    if cosine < COSINE:
        raise Disagreement(f"the gradients' cosine is {cosine:.6f}, less than {COSINE}")
    return {"cosine": cosine, "length_ratio": float(np.linalg.norm(mine) / np.linalg.norm(other))}


def _judge(cases: Mapping[str, CaseRuns], goal: float, memory: float | None) -> Verdict:
    """The worst case counts."""
    speed = {name: case.ratios("cpu_s") for name, case in cases.items()}
    worst = min(speed, key=lambda name: pooled(speed[name])[0])
    ratio, spread = pooled(speed[worst])
    shares = {name: case.median(OURS, "peak_bytes") / case.median(THEIRS, "peak_bytes") for name, case in cases.items()}
    limits = {name: case.median(OURS, "limit_share") for name, case in cases.items()}
    tokens = {
        name: {
            side: round(case.median(side, "completion_tokens") / case.median(side, "cpu_s")) for side in (OURS, THEIRS)
        }
        for name, case in cases.items()
    }
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=ratio >= goal and (memory is None or max(shares.values()) <= memory),
        limit_share=limits[worst],
        bound="matrix products (limit_share) and the softmax over the vocabulary, which they do not contain",
        more={"useful_tokens_a_processor_second": tokens, "memory_share": shares, "limit_shares": limits},
    )


def _row(name: str, title: str, goal: str, cases: Mapping[str, Settings], speed: float, memory: float | None) -> Row:
    sides = {OURS: ours, THEIRS: trl}
    return Row(name, title, goal, cases, SMALL, sides, agree, lambda runs: _judge(runs, speed, memory), repetitions=1)


ROWS = {
    "S1": _row(
        "S1",
        "policy update against TRL's GRPOTrainer",
        "≥ 6× useful tokens a second, ≤ 0.25× memory above start, gradients' cosine ≥ 0.9999",
        {"full": BASE, "LoRA": {**BASE, "lora": True}},
        6.0,
        0.25,
    ),
    "S2": _row(
        "S2",
        "the same, 25 % of the groups with signal",
        "≥ 20× useful tokens a second, gradients' cosine ≥ 0.9999",
        {"full": {**BASE, "signal": 0.25}},
        20.0,
        None,
    ),
}
