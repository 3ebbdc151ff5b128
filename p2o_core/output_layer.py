"""Log-probs of chosen tokens without ever holding the logits of more than a few positions.

Logits [N, V] are the largest thing in an update: with Qwen3's 151,936 words and 16,384 tokens a micro-batch they take
9 GiB in float32, and autograd holds several of them. Here they exist chunk by chunk. While a chunk is there, the
forward pass also takes the gradient of its log-probs by the hidden states, (W[target] - softmax @ W) / temperature,
[N, H] in all; backward scales it. Only a trained output layer (full fine-tuning) makes the logits once more, for its
own gradient. The idea is Liger's fused linear cross-entropy (arXiv 2410.10989) and Apple's cut cross-entropy
(arXiv 2411.09009); here the loss need not be known, because a log-prob is one number a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

CPU_CHUNK, CUDA_CHUNK = 2**24, 2**27
"""Logits held at once: 64 MiB of float32, which a processor's cache can still help with; 512 MiB keep a GPU busy."""


RESHAPED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""What configs of Gemma 2, Cohere, Granite and Falcon-H1 call what they do to logits behind the output layer."""


def linear_head(model: PreTrainedModel) -> torch.nn.Linear:
    """The layer whose output is the model's logits. Raises ValueError: something else happens to them."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    reshaped = [name for name in RESHAPED if getattr(config, name, None) not in (None, 1, 1.0)]
    if reshaped or not isinstance(head, torch.nn.Linear):
        what = f"config.{reshaped[0]}" if reshaped else f"an output layer of type {type(head).__name__}"
        raise ValueError(
            f"{type(model).__name__}: {what} makes its logits another thing than a linear layer's, which the update "
            "does not know. Mend: another policy."
        )
    return head


def target_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    *,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
) -> Tensor:
    """[N] float32 log-probs of ``targets`` [N] under softmax((``hidden`` [N, H] @ ``weight``ᵀ [H, V] + ``bias`` [V]) /
    ``temperature``).

    Args:
        dtype: of the matrix products, None for the hidden states' own; the softmax is float32 at least.
        chunk: logits held at once; by default as many as suit the device.
    """
    logits = chunk or (CUDA_CHUNK if hidden.is_cuda else CPU_CHUNK)
    rows = max(1, logits // len(weight))
    graph = torch.is_grad_enabled()
    result: Tensor = _TargetLogps.apply(hidden, weight, bias, targets, temperature, dtype or hidden.dtype, rows, graph)
    return result


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        dtype: torch.dtype,
        rows: int,
        graph: bool,
    ) -> Tensor:
        ctx.temperature, ctx.rows = temperature, rows
        ctx.trains = graph and (weight.requires_grad or (bias is not None and bias.requires_grad))
        slopes = torch.empty_like(hidden) if graph and hidden.requires_grad else None
        # autocast would cast the whole weight once a chunk
        with torch.autocast(hidden.device.type, enabled=False):
            inputs, matrix = hidden.detach().to(dtype), weight.detach().to(dtype)
            offset = None if bias is None else bias.detach().to(dtype)
            logps = torch.empty(len(hidden), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
            for part in _parts(len(hidden), rows):
                scaled = _scaled(inputs[part], matrix, offset, temperature)
                total = scaled.logsumexp(dim=-1, keepdim=True)
                logps[part] = (scaled.gather(-1, targets[part].unsqueeze(-1)) - total).squeeze(-1)
                if slopes is not None:
                    shares = scaled.sub_(total).exp_().to(dtype)
                    slopes[part] = ((matrix[targets[part]] - shares @ matrix) / temperature).to(slopes.dtype)
        ctx.save_for_backward(slopes, *((inputs, matrix, offset, targets) if ctx.trains else ()))
        ctx.kinds = weight.dtype, None if bias is None else bias.dtype
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads  # [N]
        slopes, *rest = ctx.saved_tensors
        by_hidden = None if slopes is None else slopes * grad.unsqueeze(-1).to(slopes.dtype)
        if not ctx.trains:
            return by_hidden, None, None, None, None, None, None, None
        inputs, matrix, offset, targets = rest
        by_weight = torch.zeros(matrix.shape, dtype=ctx.kinds[0], device=matrix.device)
        by_bias = None if offset is None else torch.zeros(len(matrix), dtype=ctx.kinds[1], device=matrix.device)
        with torch.autocast(inputs.device.type, enabled=False):
            for part in _parts(len(inputs), ctx.rows):
                weights = (grad[part] / ctx.temperature).unsqueeze(-1)  # [n, 1]
                pulls = torch.softmax(_scaled(inputs[part], matrix, offset, ctx.temperature), dim=-1).mul_(-weights)
                pulls[torch.arange(len(pulls)), targets[part]] += weights.squeeze(-1)  # [n, V], d loss / d logits
                by_weight += (pulls.to(inputs.dtype).T @ inputs[part]).to(by_weight.dtype)
                if by_bias is not None:
                    by_bias += pulls.sum(dim=0).to(by_bias.dtype)
        return by_hidden, by_weight, by_bias, None, None, None, None, None


def _scaled(inputs: Tensor, matrix: Tensor, offset: Tensor | None, temperature: float) -> Tensor:
    """[n, V] logits over temperature, in float32 at least."""
    logits = torch.nn.functional.linear(inputs, matrix, offset)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)


def _parts(count: int, rows: int) -> Iterator[slice]:
    return (slice(first, first + rows) for first in range(0, count, rows))
