"""The embedded engine: transformers in this process, batched, on CPU or one GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from p2o_core.engines.attention import grouped_attention
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutRequest, Sampling, check_scored
from p2o_core.engines.prefill import prefill
from p2o_core.policy import Policy
from p2o_core.prompts import Chat
from p2o_core.seeding import uniforms
from p2o_core.types import Completion

COMPACT_BELOW = 0.75
"""Rows are dropped from the batch once fewer than this share of them is still writing: dropping copies the
key-value cache, so it is not worth it for every finished row."""
BLOCK = 256
"""Tokens of the vocabulary whose probabilities are added up first when one is drawn."""
TOKENS_PER_PASS = 8192
"""Padded tokens that are scored together at most; a pass keeps the logits of all completion tokens."""


@dataclass
class _Row:
    """A completion while it is decoded."""

    request: RolloutRequest
    sample: int
    prompt_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class EmbeddedEngine:
    """Prefills each prompt once, shares the prefill among its n completions, and drops rows as they finish.

    Every completion draws from its own stream of uniforms (inverse-CDF sampling), so the same request list
    gives the same completions, whatever the engine sampled before.
    """

    def __init__(self, policy: Policy, *, rows_per_batch: int, on_rows: Callable[[int], None] | None = None) -> None:
        self.policy = policy
        self.rows_per_batch = rows_per_batch
        self.on_rows = on_rows

    @torch.inference_mode()
    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        finished: dict[tuple[int, int], Completion] = {}
        for chunk in batches(requests, self.policy.chat, self.rows_per_batch):
            rows = [(index, _Row(requests[index], sample)) for index in chunk for sample in requests[index].samples]
            with grouped_attention(self.policy.causal_model):
                self._write([row for _, row in rows], sampling)
            for index, row in rows:
                finished[index, row.sample] = self._completion(row)
            if self.on_rows:
                self.on_rows(len(rows))
        return [finished[index, sample] for index, request in enumerate(requests) for sample in request.samples]

    @torch.inference_mode()
    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """See :class:`p2o_core.engines.base.RolloutEngine`. Completions of like length share a forward pass."""
        chat = self.policy.chat
        prompts = [request.prompt(chat) for request in requests]
        completions = [request.token_ids for request in requests]
        scored = self.policy.score(prompts, completions, 1.0, tokens=TOKENS_PER_PASS)
        return check_scored(requests, scored, chat.decode)

    def _write(self, rows: list[_Row], sampling: Sampling) -> None:
        """Decode until every row has ended or reached ``max_new_tokens``."""
        draws = np.stack([uniforms(row.request.seed(row.sample), sampling.max_new_tokens) for row in rows])
        encode = self.policy.chat.encode_prompt
        prompts = [encode(row.request.question, row.request.template, row.request.style) for row in rows]
        for begun, prompt in zip(rows, prompts, strict=True):
            begun.prompt_tokens = len(prompt)
        cache, logits, mask = prefill(self.policy, prompts, sampling.max_new_tokens)
        position = mask.sum(dim=1, keepdim=True)
        active = list(range(len(rows)))  # rows of the batch tensors, as indices into ``rows``
        writing = [True] * len(rows)
        for step in range(sampling.max_new_tokens):
            tokens, logps = _sample(logits, draws[active, step], sampling.temperature)
            broken = []
            for row, token, logp in zip(active, tokens.tolist(), logps.tolist(), strict=True):
                if writing[row]:
                    rows[row].token_ids.append(token)
                    rows[row].logps.append(logp)
                    broken += [] if math.isfinite(logp) else [rows[row]]
                    writing[row] = token not in self.policy.chat.stop_ids
            if broken:  # now rather than at the end: what follows is noise
                raise PolicyNotFinite([self._completion(row) for row in broken])
            keep = [index for index, row in enumerate(active) if writing[row]]
            if not keep or step + 1 == sampling.max_new_tokens:
                return
            if len(keep) < COMPACT_BELOW * len(active):
                selected = torch.tensor(keep, device=mask.device)
                cache.batch_select_indices(selected)
                tokens, mask, position = tokens[selected], mask[selected], position[selected]
                active = [active[index] for index in keep]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            logits = self.policy.model(
                input_ids=tokens.unsqueeze(1),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            position = position + 1

    def _completion(self, row: _Row) -> Completion:
        return Completion(
            problem_id=row.request.problem_id,
            sample=row.sample,
            template=row.request.template,
            text=self.policy.chat.decode(row.token_ids),
            token_ids=tuple(row.token_ids),
            logps=tuple(row.logps),
            truncated=not self.policy.chat.ended(row.token_ids),
            prompt_tokens=row.prompt_tokens,
        )


def batches(requests: Sequence[RolloutRequest], chat: Chat, rows_per_batch: int) -> Iterator[list[int]]:
    """Request indices by batch; prompts of like length share one, so little is padded. A batch alone is one batch."""
    lengths = [len(chat.encode_prompt(r.question, r.template, r.style)) for r in requests]
    chunk: list[int] = []
    rows = 0
    for index in sorted(range(len(requests)), key=lambda index: lengths[index]):
        samples = len(requests[index].samples)
        if chunk and rows + samples > rows_per_batch:
            yield chunk
            chunk, rows = [], 0
        chunk.append(index)
        rows += samples
    if chunk:
        yield chunk


def _sample(logits: Tensor, draws: np.ndarray, temperature: float) -> tuple[Tensor, Tensor]:
    """Tokens [R] and their log-probs [R] by inverse CDF, in two steps: a block of the vocabulary, then a token of it.

    Sums over blocks and within the block are float64, or rare tokens would be lost at the far end of a large
    vocabulary; only one block a row is. A row of logits with NaN or +inf has no finite log-prob.
    """
    if temperature == 0:
        highest, tokens = logits.max(dim=-1)  # NaN counts as the highest
        return tokens, highest - highest
    scaled = logits.float() / temperature
    total = scaled.logsumexp(dim=-1, keepdim=True)
    rows, words = scaled.shape
    blocks = torch.nn.functional.pad((scaled - total).exp_(), (0, -words % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(dim=-1).double()  # [R, V / BLOCK]
    ends = sums.cumsum(dim=-1)
    thresholds = torch.from_numpy(draws).to(logits.device).unsqueeze(1) * ends[:, -1:]
    block = _first_above(ends, thresholds)  # [R, 1]
    chosen = blocks[torch.arange(rows, device=logits.device), block.squeeze(1)].double()  # [R, BLOCK]
    within = _first_above(chosen.cumsum(dim=-1), thresholds - (ends - sums).gather(1, block))
    tokens = (block * BLOCK + within).clamp(max=words - 1)
    return tokens.squeeze(1), (scaled.gather(1, tokens) - total).squeeze(1)


def _first_above(ends: Tensor, thresholds: Tensor) -> Tensor:
    """[R, 1] the first place of each row of ``ends`` [R, N], which never fall, above ``thresholds`` [R, 1].

    Rounding may leave a threshold a little below zero or at the last end; never is a place chosen that adds nothing.
    """
    last = torch.nextafter(ends[:, -1:], torch.zeros_like(thresholds))
    return torch.searchsorted(ends, torch.minimum(thresholds.clamp(min=0), last), right=True).clamp(
        max=ends.shape[1] - 1
    )
