"""Attention of one new token a row where several query heads share a key head (grouped-query attention).

transformers copies every key and value once for each query head that asks for it, all of the cache at every token, as
soon as there is a mask (integrations/sdpa_attention.py, ``repeat_kv``). Here the query heads of a group stand where
several new tokens would: one product a key head, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "p2o_grouped"


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model decodes so within the block, where it would take transformers' ``sdpa``."""
    before = model.config._attn_implementation
    if before == "sdpa":
        model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        if before == "sdpa":
            model.set_attn_implementation(before)


def _grouped(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """``query`` [R, heads, 1, D], ``key`` and ``value`` [R, heads / group, T, D], ``attention_mask`` [R, 1, 1, T]."""
    rows, heads, new, width = query.shape
    if new != 1 or key.shape[1] == heads or settings.get("position_bias") is not None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return attended
    grouped = query.view(rows, key.shape[1], -1, width)
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=settings.get("scaling"))
    return out.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, _grouped)
AttentionMaskInterface.register(NAME, sdpa_mask)
