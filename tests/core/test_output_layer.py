"""The chunked output layer is the plain one: same log-probs, same gradients, and memory of a few logits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from p2o_core.output_layer import linear_head, target_logps


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    return torch.log_softmax(logits, dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@given(st.integers(0, 9), st.integers(2, 40), st.integers(1, 200), st.booleans(), st.booleans(), st.floats(0.2, 2.0))
def test_it_is_the_plain_log_softmax(
    count: int, words: int, chunk: int, has_bias: bool, trains: bool, temperature: float
) -> None:
    torch.manual_seed(count * words)
    hidden = torch.randn(count, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(words, 5, dtype=torch.float64, requires_grad=trains)
    bias = torch.randn(words, dtype=torch.float64, requires_grad=trains) if has_bias else None
    targets, upstream = torch.randint(words, (count,)), torch.randn(count, dtype=torch.float64)
    wanted = [tensor for tensor in (hidden, weight, bias) if tensor is not None and tensor.requires_grad]
    ours = target_logps(hidden, weight, bias, targets, temperature, chunk=chunk)
    theirs = plain(hidden, weight, bias, targets, temperature)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours @ upstream, wanted), torch.autograd.grad(theirs @ upstream, wanted), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_bfloat16_products_give_float32_log_probs() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32, requires_grad=True), torch.randn(500, 32) / 8
    targets = torch.randint(500, (64,))
    ours = target_logps(hidden, weight, None, targets, 1.0, dtype=torch.bfloat16, chunk=5000)
    assert ours.dtype == torch.float32
    theirs = plain(hidden, weight, None, targets, 1.0)
    assert (ours - theirs).abs().max() < 0.05
    (mine,) = torch.autograd.grad(ours.sum(), hidden, retain_graph=True)
    (other,) = torch.autograd.grad(theirs.sum(), hidden)
    assert torch.nn.functional.cosine_similarity(mine.flatten(), other.flatten(), dim=0) > 0.999


def test_without_a_gradient_nothing_is_kept() -> None:
    weight = torch.nn.Parameter(torch.randn(30, 4))
    with torch.no_grad():
        assert not target_logps(torch.randn(3, 4), weight, None, torch.tensor([1, 2, 3]), 1.0).requires_grad
    assert target_logps(torch.randn(3, 4), weight, None, torch.tensor([1, 2, 3]), 1.0).requires_grad


PEAK = """
import resource, sys, torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from p2o_core.output_layer import linear_head, target_logps
hidden = torch.randn(4096, 64, requires_grad=True)
weight, targets = torch.randn(50_000, 64, requires_grad=True), torch.randint(50_000, (4096,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
target_logps(hidden, weight, None, targets, 1.0).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB is Linux's")
def test_the_logits_are_never_there_together() -> None:
    """They would be 781 MiB, and autograd would hold two of them."""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", PEAK], cwd=root, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 400 * 1024


def test_a_model_that_reshapes_its_logits_is_refused() -> None:
    config = Gemma2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        head_dim=8,
        num_key_value_heads=1,
        final_logit_softcapping=30.0,
    )
    with pytest.raises(ValueError, match=r"final_logit_softcapping.*Mend"):
        linear_head(Gemma2ForCausalLM(config))
    config.final_logit_softcapping = None
    assert linear_head(Gemma2ForCausalLM(config)).out_features == 40
