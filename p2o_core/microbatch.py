"""Micro-batches: samples in rows of similar length as padded tensors, built once for everything that the loss reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2o_core.batch import Batch, rows_of
from p2o_core.finite import NotFinite
from p2o_core.groups import TrainingSample
from p2o_core.policy import Policy


@dataclass(frozen=True, eq=False)
class MicroBatch(Batch):
    """B samples of at most T tokens, in rows under the gradient's prompt (:class:`p2o_core.batch.Batch`). Log-probs and
    log ratios are float32 and 0 behind a sample's last token; :class:`p2o_core.groups.TrainingSample` says what each
    is."""

    samples: tuple[TrainingSample, ...]  # B
    advantages: Tensor  # [B]
    templated: Tensor  # [B] bool, sampled under a template
    old_logp: Tensor  # [B, T] trainer, gradient's prompt
    sampling_logp: Tensor  # [B, T] engine, sampling prompt
    templated_logp: Tensor  # [B, T] trainer, sampling prompt; the engine's where not measured
    engine_log_ratio: Tensor  # [B, T] log(trainer / engine), one prompt; 0 where not compared

    @classmethod
    def build(cls, rows: Sequence[Sequence[TrainingSample]], pad_id: int, device: torch.device) -> MicroBatch:
        """Pad and stack on ``device``; the samples of a row have one prompt."""
        batch = Batch.of_rows([(row[0].prompt_ids, [s.completion_ids for s in row]) for row in rows], pad_id).to(device)
        samples = [sample for row in rows for sample in row]
        width = batch.completion_mask.shape[1]

        def padded(rows: list[tuple[float, ...]]) -> Tensor:
            filled = [[*row] + [0.0] * (width - len(row)) for row in rows]
            return torch.tensor(filled, dtype=torch.float32, device=device).view(len(rows), width)

        return cls(
            **vars(batch),
            samples=tuple(samples),
            advantages=torch.tensor([s.advantage for s in samples], device=device),
            templated=torch.tensor([s.templated for s in samples], dtype=torch.bool, device=device),
            old_logp=padded([s.old_logps for s in samples]),
            sampling_logp=padded([s.sampling_logps for s in samples]),
            templated_logp=padded([s.template_reference for s in samples]),
            engine_log_ratio=padded([s.engine_log_ratios for s in samples]),
        )

    def check_finite(self, logp: Tensor) -> None:
        """Check all inputs of the loss; ``logp`` [B, T] are the new log-probs.

        Raises:
            NotFinite: with the samples that are not finite.
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
    """Yield the samples in micro-batches of at most ``tokens`` padded tokens, on the policy's device; of a policy that
    several processes train, this one's share of them (:func:`p2o_core.batch.rows_of`)."""
    prompts, completions = [s.prompt_ids for s in samples], [s.completion_ids for s in samples]
    for rows in rows_of(prompts, completions, tokens, share=policy.shares_prompts, team=policy.team):
        yield MicroBatch.build([[samples[number] for number in row] for row in rows], policy.chat.pad_id, policy.device)
