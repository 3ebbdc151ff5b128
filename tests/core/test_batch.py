"""Rows that share a prompt: the same log-probs and gradients as a row each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM, RwkvConfig, RwkvForCausalLM

from p2o_core.batch import SHARED_ROW, Batch, rows_of
from p2o_core.config import FullPolicy
from p2o_core.policy import Policy

PROMPT, OTHER = (5, 6, 7), (4, 4)
COMPLETIONS = [(8, 9, 10), (8,), (11, 3, 2, 7, 6)]
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


def apart_and_together(policy: Policy) -> tuple[Batch, Batch]:
    pad = policy.chat.pad_id
    apart = Batch.collate([*[PROMPT] * 3, OTHER], [*COMPLETIONS, (9,)], pad)
    return apart, Batch.of_rows([(PROMPT, COMPLETIONS), (OTHER, [(9,)])], pad)


def test_a_shared_row_gives_the_log_probs_of_rows_of_their_own(policy: Policy) -> None:
    apart, together = apart_and_together(policy)
    torch.testing.assert_close(policy.completion_logps(together, 0.7), policy.completion_logps(apart, 0.7))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_shared_row_gives_the_gradient_of_rows_of_their_own(base_folder: Path, attention: str) -> None:
    gradients = []
    for which in (0, 1):
        policy = Policy.create(base_folder, FullPolicy(attention=attention), seed=0)  # type: ignore[arg-type]
        batch = apart_and_together(policy)[which]
        weights = torch.linspace(-1, 1, batch.completion_mask.numel()).reshape(batch.completion_mask.shape)
        (policy.completion_logps(batch, 1.0) * weights).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[0], gradients[1])


def test_what_a_policy_scores_is_in_the_order_asked(policy: Policy) -> None:
    prompts, completions = [PROMPT, OTHER, PROMPT, OTHER], [(8, 9), (9,), (10,), (3, 4, 5)]
    expected = [policy.score([p], [c], 1.0, tokens=10)[0] for p, c in zip(prompts, completions, strict=True)]
    scored = policy.score(prompts, completions, 1.0, tokens=100)
    assert [len(own) for own in scored] == [2, 1, 1, 3]
    for ours, alone in zip(scored, expected, strict=True):
        assert ours == pytest.approx(alone, abs=1e-5)


@given(pairs=st.lists(st.tuples(TOKENS, TOKENS), max_size=30), tokens=st.integers(1, 40), share=st.booleans())
def test_every_completion_is_in_one_row_of_its_prompt(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], tokens: int, share: bool
) -> None:
    prompts, completions = [prompt for prompt, _ in pairs], [completion for _, completion in pairs]
    batches = list(rows_of(prompts, completions, tokens, share=share))
    rows = [row for batch in batches for row in batch]
    assert Counter(number for row in rows for number in row) == Counter(range(len(pairs)))
    assert all(prompts[number] == prompts[row[0]] for row in rows for number in row)
    assert len(rows) == (len(set(prompts)) if share else len(pairs))
    for batch in batches:
        widest = max(len(prompts[row[0]]) + sum(len(completions[number]) for number in row) for row in batch)
        assert len(batch) * widest <= tokens or len(batch) == 1


def test_a_shared_row_ends_where_attention_would_cost_more_than_it_saves() -> None:
    long = (1,) * 200
    rows = [row for batch in rows_of([PROMPT] * 4, [long] * 4, 10_000, share=True) for row in batch]
    assert rows == [[0, 1], [2, 3]]
    assert len(PROMPT) + 3 * len(long) > SHARED_ROW


def test_a_state_or_a_window_that_would_cross_completions_keeps_rows_apart(full_policy: Policy) -> None:
    small = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 8}
    assert full_policy.shares_prompts
    recurrent = RwkvForCausalLM(RwkvConfig(**small, attention_hidden_size=8, context_length=64))
    windowed = MistralForCausalLM(MistralConfig(**small, **heads, sliding_window=4))
    unbounded = MistralForCausalLM(MistralConfig(**small, **heads, sliding_window=None))
    assert Policy(unbounded, full_policy.chat).shares_prompts
    for model in (recurrent, windowed):
        assert not Policy(model, full_policy.chat).shares_prompts
