"""Micro-batches: samples of similar length as padded tensors, built once for everything that the loss reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2o_core.finite import NotFinite
from p2o_core.groups import TrainingSample
from p2o_core.policy import Batch, Policy


@dataclass(frozen=True, eq=False)
class MicroBatch(Batch):
    """B samples; P prompt and T completion columns. ``input_ids`` and ``attention_mask`` [B, P + T] and
    ``completion_mask`` [B, T] are :class:`p2o_core.policy.Batch`'s, under the gradient's prompt. Log-probs and log
    ratios are float32 and 0 behind a row's last token; :class:`p2o_core.groups.TrainingSample` says what each is."""

    samples: tuple[TrainingSample, ...]  # B, the rows
    advantages: Tensor  # [B]
    templated: Tensor  # [B] bool, sampled under a template
    old_logp: Tensor  # [B, T] trainer, gradient's prompt
    sampling_logp: Tensor  # [B, T] engine, sampling prompt
    templated_logp: Tensor  # [B, T] trainer, sampling prompt; the engine's where not measured
    engine_log_ratio: Tensor  # [B, T] log(trainer / engine), one prompt; 0 where not compared

    @classmethod
    def build(cls, samples: Sequence[TrainingSample], pad_id: int, device: torch.device) -> MicroBatch:
        """Pad and stack ``samples`` on ``device``."""
        batch = Batch.collate([s.prompt_ids for s in samples], [s.completion_ids for s in samples], pad_id).to(device)
        width = batch.completion_mask.shape[1]

        def padded(rows: list[tuple[float, ...]]) -> Tensor:
            filled = [[*row] + [0.0] * (width - len(row)) for row in rows]
            return torch.tensor(filled, dtype=torch.float32, device=device)

        return cls(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            completion_mask=batch.completion_mask,
            samples=tuple(samples),
            advantages=torch.tensor([s.advantage for s in samples], device=device),
            templated=torch.tensor([s.templated for s in samples], device=device),
            old_logp=padded([s.old_logps for s in samples]),
            sampling_logp=padded([s.sampling_logps for s in samples]),
            templated_logp=padded([s.template_reference for s in samples]),
            engine_log_ratio=padded([s.engine_log_ratios for s in samples]),
        )

    def check_finite(self, logp: Tensor) -> None:
        """Check all inputs of the loss; ``logp`` [B, T] are the new log-probs.

        Raises:
            NotFinite: with the rows that are not finite.
        """
        for what, values in (
            ("log-probs", logp),
            ("old log-probs", self.old_logp),
            ("sampling log-probs", self.sampling_logp),
            ("log-probs under the template", self.templated_logp),
            ("engine ratios", self.engine_log_ratio),
        ):
            finite = torch.isfinite(values.detach()).all(dim=1).tolist()
            if not all(finite):
                raise NotFinite(what, [s for s, fine in zip(self.samples, finite, strict=True) if not fine])


def microbatches(policy: Policy, samples: Sequence[TrainingSample], tokens: int) -> Iterator[MicroBatch]:
    """Yield the samples in micro-batches of at most ``tokens`` padded tokens, on the policy's device."""
    for rows in parts([sample.length for sample in samples], tokens):
        yield MicroBatch.build([samples[row] for row in rows], policy.chat.pad_id, policy.device)


def parts(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield each micro-batch's row numbers: rows of similar length, at most ``tokens`` padded tokens together. A single
    row longer than that is a part of its own.

    >>> list(parts([5, 1, 2, 9], tokens=6))
    [[1, 2], [0], [3]]
    """
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) + 1) * lengths[row] > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
