"""What prompts leave in the key-value cache: a beginning that prompts share is computed once, and the cache has room
for what is written behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from p2o_core.batch import SHARED_ROW, Batch, Tokens, parts
from p2o_core.output_layer import linear_head
from p2o_core.policy import Policy

TOKENS_PER_PASS = 2048
"""Padded tokens of a forward pass over prompts; rows of unlike length would be padded in a larger one."""


class RoomyLayer(DynamicLayer):
    """A layer's keys and values [B, heads, columns, D], of which ``used`` columns are written. The next token goes
    where it belongs; transformers' own layer copies all that is there for each."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.room, self.used = (keys, values), used
        self._look()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write [B, heads, n, D] behind the last column and return all that is written."""
        first, self.used = self.used, self.used + key_states.shape[-2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, first : self.used] = states
        return self._look()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows ``indices``."""
        keys, values = self.room
        self.room = (keys[indices], values[indices])
        self._look()

    def _look(self) -> tuple[Tensor, Tensor]:
        keys, values = (room[:, :, : self.used] for room in self.room)
        self.keys, self.values = keys, values
        return keys, values


def prefill(policy: Policy, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> tuple[DynamicCache, Tensor, Tensor]:
    """The cache of ``prompts``, left padded to P columns, with room for ``new_tokens`` more; the next token's logits
    [rows, V]; the attention mask [rows, P]. Each distinct prompt is computed once."""
    width = max(map(len, prompts))
    mask = _left_padded(prompts, width, policy)
    if not policy.shares_prompts:
        return (*_each_distinct(policy, prompts, width), mask)
    room: list[Any] = []  # keys and values of each layer
    head, logits = linear_head(policy.causal_model), torch.empty(0)
    families = shared_beginnings(prompts)
    for part in parts([len(first) + sum(map(len, rest)) for first, rest in families], TOKENS_PER_PASS):
        rows = [families[number] for number in part]
        batch = Batch.of_rows(rows, policy.chat.pad_id).to(policy.device)
        cache = DynamicCache(config=policy.model.config)
        hidden = policy.hidden_states(batch, cache)
        places = _places(rows, batch.input_ids.shape[1])
        here = [number for number, prompt in enumerate(prompts) if prompt in places]
        last = torch.tensor([places[prompts[number]][-1] for number in here], device=policy.device)
        columns = torch.tensor([[0] * (width - len(p)) + places[p] for p in (prompts[n] for n in here)])
        kept: Any = [(layer.keys, layer.values) for layer in cast(Any, cache.layers)]
        if not room:
            logits = hidden.new_empty(len(prompts), len(head.weight))
            room = [tuple(_room(states, len(prompts), width + new_tokens) for states in layer) for layer in kept]
        logits[here] = head(hidden[last])
        for layer, targets in zip(kept, room, strict=True):
            for states, target in zip(layer, targets, strict=True):
                by_token = states.transpose(1, 2).flatten(0, 1)  # [R * S, heads, D]
                target[here, :, :width] = by_token[columns].transpose(1, 2)
    filled = DynamicCache(config=policy.model.config)
    filled.layers = [RoomyLayer(keys, values, width) for keys, values in room]
    return filled, logits, mask


def _left_padded(prompts: Sequence[tuple[int, ...]], width: int, policy: Policy) -> Tensor:
    """The attention mask [prompts, width]."""
    return torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=policy.device)


def _room(states: Tensor, rows: int, columns: int) -> Tensor:
    return states.new_zeros(rows, states.shape[1], columns, states.shape[3])


def shared_beginnings(prompts: Sequence[Tokens]) -> list[tuple[list[int], list[list[int]]]]:
    """Distinct prompts as beginnings with what follows each, in rows of at most :data:`SHARED_ROW` tokens. A prompt
    joins the row before where that leaves fewer tokens to compute; something follows every beginning.

    >>> shared_beginnings([(1, 2, 3, 4), (1, 2, 3, 5), (9,)])
    [([1, 2, 3], [[4], [5]]), ([], [[9]])]
    """
    rows: list[list[list[int]]] = []  # a row's prompts
    shared: list[int] = []  # how many tokens they have in common
    for prompt in sorted(set(map(tuple, prompts))):
        if rows:
            first, common = rows[-1][0], min(shared[-1], len(prompt) - 1)
            common = next((n for n in range(common) if first[n] != prompt[n]), common)
            length = common + sum(len(own) - common for own in rows[-1]) + len(prompt) - common
            if common > len(rows[-1]) * (shared[-1] - common) and length <= SHARED_ROW:
                rows[-1].append(list(prompt))
                shared[-1] = common
                continue
        rows.append([list(prompt)])
        shared.append(len(prompt) - 1)
    return [(row[0][:common], [own[common:] for own in row]) for row, common in zip(rows, shared, strict=True)]


def _places(rows: Sequence[tuple[list[int], list[list[int]]]], width: int) -> dict[tuple[int, ...], list[int]]:
    """Each prompt's tokens' places in a batch of rows of ``width`` columns, flattened."""
    places: dict[tuple[int, ...], list[int]] = {}
    for number, (beginning, rest) in enumerate(rows):
        start = number * width
        free = start + len(beginning)
        for own in rest:
            places[*beginning, *own] = [*range(start, start + len(beginning)), *range(free, free + len(own))]
            free += len(own)
    return places


def _each_distinct(policy: Policy, prompts: Sequence[tuple[int, ...]], width: int) -> tuple[DynamicCache, Tensor]:
    """The same for models whose layers carry a state or look through a window: a row a prompt, transformers' cache."""
    distinct = list(dict.fromkeys(prompts))
    mask = _left_padded(distinct, width, policy)
    pad = policy.chat.pad_id
    cache = DynamicCache(config=policy.model.config)
    logits = policy.model(
        input_ids=torch.tensor([[pad] * (width - len(p)) + list(p) for p in distinct], device=policy.device),
        attention_mask=mask,
        position_ids=positions(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    where = {prompt: index for index, prompt in enumerate(distinct)}
    spread = torch.tensor([where[prompt] for prompt in prompts], device=policy.device)
    cache.batch_select_indices(spread)
    return cache, logits[spread]


def positions(attention_mask: Tensor) -> Tensor:
    """Return each token's position, counted from its row's first real token: left padding has no positions."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
