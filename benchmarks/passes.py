"""S3: what a templated rollout costs in forward passes beside the gradient's own.

Theirs is what the official code does to a templated row: log-probs under the template, under the bare prompt, and both
once more where the mask is made out of a forward pass of its own, three passes beyond the gradient's. It is written
down here, with this repository's policy; running the official trainers (verl on GPUs) is not possible here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Meter
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict

SHAPE = {"vocabulary": 2048, "hidden": 64, "layers": 2, "heads": 2, "feed_forward": 256}
OFFICIAL_PASSES = 3
BOUNDS = (0.01, 10.0)
SHARPER = 30.0
"""What a random policy's logits and its attention are multiplied by: a template changes its opinions then."""


class TokenCounter:
    """Counts the tokens that go through a policy's embedding without and with a gradient."""

    def __init__(self, policy: Any) -> None:
        import torch

        self.scored = self.trained = 0

        def count(module: Any, inputs: Any) -> None:
            if torch.is_grad_enabled():
                self.trained += inputs[0].numel()
            else:
                self.scored += inputs[0].numel()

        policy.model.get_input_embeddings().register_forward_pre_hook(count)


def templated_groups(policy: Any, settings: Settings) -> list[Any]:
    """Rollouts of a random policy by the embedded engine, half of a group's under a template."""
    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.engines.embedded import EmbeddedEngine
    from p2o_core.groups import TrainingSample

    engine, samples = EmbeddedEngine(policy, rows_per_batch=256), settings["samples"]
    groups = []
    for problem in range(settings["groups"]):
        question, template = f"sum {problem} a+5 b+2 ?", "Do not stop early."
        bare, under = tuple(range(samples // 2)), tuple(range(samples // 2, samples))
        requests = [
            RolloutRequest(str(problem), question, "", bare, 7),
            RolloutRequest(str(problem), question, template, under, 7),
        ]
        encode = policy.chat.encode_prompt
        groups.append(
            [
                TrainingSample(
                    problem_id=c.problem_id,
                    prompt_ids=encode(question),
                    completion_ids=c.token_ids,
                    sampling_logps=c.logps,
                    reward=float(c.sample % 2),
                    templated=c.templated,
                    sampling_prompt_ids=encode(question, c.template),
                    sample=c.sample,
                )
                for c in engine.generate(requests, Sampling(1.0, settings["longest"]))
            ]
        )
    return groups


def _prepared(settings: Settings, folder: Path) -> tuple[Any, list[Any], TokenCounter]:
    import torch

    from benchmarks.inputs import Shape, random_policy

    torch.set_num_threads(int(settings.get("threads", 2)))
    policy = random_policy(Shape(**settings["shape"]), folder / "base", lora=False)
    with torch.no_grad():
        policy.model.model.norm.weight.mul_(SHARPER)
        for layer in policy.model.model.layers:
            layer.self_attn.o_proj.weight.mul_(SHARPER)
    return policy, templated_groups(policy, settings), TokenCounter(policy)


def _numbers(groups: list[Any], scored: int) -> dict[str, Any]:
    rows = [s for group in groups for s in group if s.templated]
    bare = sum(len(s.prompt_ids) + len(s.completion_ids) for s in rows)
    return {"templated_rows": len(rows), "tokens_of_a_pass": bare, "tokens_scored": scored, "passes": scored / bare}


def _mask(samples: list[Any], folder: Path, bare: str, templated: str) -> None:
    import torch

    from p2o_core.losses import template_ratio_mask

    logps = [torch.tensor([p for s in samples if s.templated for p in getattr(s, name)]) for name in (bare, templated)]
    mask = template_ratio_mask(logps[0].unsqueeze(0), logps[1].unsqueeze(0), low=BOUNDS[0], high=BOUNDS[1])
    np.save(folder / "mask.npy", mask.numpy())


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """What the update does before its steps (:func:`p2o_core.update.with_old_logps`)."""
    from p2o_core.config import DistillConfig
    from p2o_core.update import with_old_logps

    policy, groups, counter = _prepared(settings, folder)
    with meter:
        done = with_old_logps(policy, groups, DistillConfig(tokens_per_microbatch=8192), 1.0)
    _mask([s for group in done for s in group], folder, "old_logps", "template_reference")
    return _numbers(groups, counter.scored)


def official(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """Three passes a templated row, a row each, padded."""
    from dataclasses import replace

    import torch

    from p2o_core.batch import Batch

    policy, groups, counter = _prepared(settings, folder)
    rows = [s for group in groups for s in group if s.templated]
    logps: list[list[list[float]]] = []
    with meter, torch.no_grad():
        for name in ("sampling_prompt_ids", "prompt_ids", "sampling_prompt_ids")[:OFFICIAL_PASSES]:
            batch = Batch.collate([getattr(s, name) for s in rows], [s.completion_ids for s in rows], 0)
            logps.append(policy.completion_logps(batch, 1.0).tolist())

    def cut(scored: list[list[float]], index: int) -> tuple[float, ...]:
        return tuple(scored[index][: len(rows[index].completion_ids)])

    done = [replace(s, old_logps=cut(logps[1], i), templated_logps=cut(logps[0], i)) for i, s in enumerate(rows)]
    _mask(done, folder, "old_logps", "templated_logps")
    return _numbers(groups, counter.scored)


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """The masks are equal, token by token, and let through neither all nor nothing."""
    mine, other = (np.load(case.sides[side][0].folder / "mask.npy") for side in (OURS, THEIRS))
    if mine.shape != other.shape or (mine != other).any():
        raise Disagreement(f"{int((mine != other).sum())} of {mine.size} tokens are masked differently")
    masked = int((mine == 0).sum())
    if not 0 < masked < mine.size:
        raise Disagreement(f"the masks are equal since {masked} of {mine.size} tokens are masked: they say nothing")
    return {"tokens": int(mine.size), "masked": masked}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    case = cases["half templated"]
    passes, theirs = case.median(OURS, "passes"), case.median(THEIRS, "passes")
    return Verdict(
        ratio=theirs / passes,
        spread=(theirs / passes, theirs / passes),
        reached=passes <= 1.0,
        limit_share=None,
        bound="counted, not timed: tokens through the model, padding included, over those of one pass",
        more={"passes": {OURS: round(passes, 3), THEIRS: round(theirs, 3)}},
    )


ROWS = {
    "S3": Row(
        name="S3",
        title="extra forward passes of a templated row against the official code's",
        goal="≤ 1 pass, equal masks",
        cases={"half templated": {"groups": 8, "samples": 8, "longest": 44, "shape": SHAPE}},
        small={"groups": 2, "longest": 12},
        sides={OURS: ours, THEIRS: official},
        agree=agree,
        judge=_judge,
    )
}
