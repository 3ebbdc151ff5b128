from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from p2o_core.batch import Batch
from p2o_core.engines import embedded
from p2o_core.engines.attention import NAME
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.engines.prefill import prefill, shared_beginnings
from p2o_core.policy import Policy

TEMPLATE = "Work through every step.\nBe polite."


def requests(template: str = "", samples: int = 3) -> list[RolloutRequest]:
    questions = ["sum 47 a+5 ?", "product 3 a*7 b*9 c*3 ?", "sum 1 a+2 b+2 ?"]
    return [RolloutRequest(f"p{i}", q, template, tuple(range(samples)), 11) for i, q in enumerate(questions)]


@pytest.mark.parametrize("template", ["", TEMPLATE])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_logps_are_the_trainers(policy: Policy, template: str, temperature: float) -> None:
    """Full weights and LoRA, bare and templated, T = 1 and not: engine and trainer agree within 1e-4."""
    completions = EmbeddedEngine(policy, rows_per_batch=5).generate(
        requests(template), Sampling(temperature, max_new_tokens=12)
    )
    prompts = [policy.chat.encode_prompt(r.question, r.template) for r in requests(template) for _ in r.samples]
    batch = Batch.collate(prompts, [c.token_ids for c in completions], policy.chat.pad_id)
    with torch.no_grad():
        logps = policy.completion_logps(batch, temperature)
    for row, completion in zip(logps, completions, strict=True):
        expected = torch.tensor(completion.logps)
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-4, rtol=0)
    assert [completion.prompt_tokens for completion in completions] == [len(prompt) for prompt in prompts]
    assert any(len(c.token_ids) > 1 for c in completions)


def test_logps_are_those_of_the_unpadded_model(full_policy: Policy) -> None:
    """Against the plain model, a row at a time: padding, shared prefill and dropped rows change nothing."""
    for completion in EmbeddedEngine(full_policy, rows_per_batch=64).generate(requests(), Sampling(1.0, 12)):
        question = requests()[int(completion.problem_id[1:])].question
        prompt = full_policy.chat.encode_prompt(question)
        with torch.no_grad():
            logits = full_policy.model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
        logps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = logps.gather(1, torch.tensor(completion.token_ids).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.logps), expected, atol=1e-4, rtol=0)


def test_query_heads_that_share_keys_see_what_transformers_shows_them() -> None:
    """Three query heads to a key head, padded rows; more than one new token a row is transformers' own business."""
    attention = AttentionInterface._global_mapping[NAME]
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 4, 2, 7, 8, generator=generator)
    mask = torch.ones(4, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., :3] = False
    for new in (1, 2):
        query = torch.randn(4, 6, new, 8, generator=generator)
        given = (module, query, keys, values, mask.expand(4, 1, new, 7))
        ours, theirs = attention(*given, scaling=0.3)[0], sdpa_attention_forward(*given, scaling=0.3)[0]
        torch.testing.assert_close(ours, theirs)


def test_a_policy_has_its_own_attention_again(full_policy: Policy) -> None:
    before = full_policy.model.config._attn_implementation
    EmbeddedEngine(full_policy, rows_per_batch=8).generate(requests(), Sampling(1.0, 2))
    assert full_policy.model.config._attn_implementation == before == "sdpa"


def test_order_and_batch_size_do_not_change_what_is_sampled(full_policy: Policy) -> None:
    one = EmbeddedEngine(full_policy, rows_per_batch=64).generate(requests(), Sampling(1.0, 12))
    shuffled = requests()
    random.Random(0).shuffle(shuffled)
    other = EmbeddedEngine(full_policy, rows_per_batch=3).generate(shuffled, Sampling(1.0, 12))
    key = lambda c: (c.problem_id, c.sample)  # noqa: E731
    assert [c.token_ids for c in sorted(one, key=key)] == [c.token_ids for c in sorted(other, key=key)]
    assert [(c.problem_id, c.sample) for c in one] == [(f"p{i}", s) for i in range(3) for s in range(3)]


def test_samples_follow_the_distribution(full_policy: Policy) -> None:
    """Chi-square of 4,000 first tokens against the model's own probabilities."""
    question = "sum 47 a+5 ?"
    many = [RolloutRequest("p", question, "", tuple(range(4000)), 3)]
    drawn = EmbeddedEngine(full_policy, rows_per_batch=4000).generate(many, Sampling(0.8, 1))
    with torch.no_grad():
        logits = full_policy.model(torch.tensor([full_policy.chat.encode_prompt(question)])).logits[0, -1]
    expected = (logits / 0.8).softmax(-1) * 4000
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in drawn]), minlength=len(expected))
    common = expected >= 5
    statistic = float((((counts - expected) ** 2) / expected)[common].sum())
    freedom = int(common.sum()) - 1
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_greedy_is_the_argmax_and_truncation_is_reported(full_policy: Policy) -> None:
    completions = EmbeddedEngine(full_policy, rows_per_batch=8).generate(requests(samples=2), Sampling(0.0, 4))
    for completion in completions:
        prompt = list(full_policy.chat.encode_prompt(requests()[int(completion.problem_id[1:])].question))
        for token in completion.token_ids:
            with torch.no_grad():
                assert token == int(full_policy.model(torch.tensor([prompt])).logits[0, -1].argmax())
            prompt.append(token)
        assert completion.logps == (0.0,) * len(completion.token_ids)
        assert completion.truncated == (completion.token_ids[-1] != full_policy.chat.eos_id)
        assert len(completion.token_ids) <= 4


def test_completions_are_scored_under_any_prompt(full_policy: Policy) -> None:
    """Against the plain model, a row at a time; at temperature 1, so that what was sampled there scores as it did."""
    engine = EmbeddedEngine(full_policy, rows_per_batch=64)
    sampled = engine.generate(requests(), Sampling(1.0, 12))
    asked = [
        LogprobRequest(c.problem_id, requests()[int(c.problem_id[1:])].question, template, c.token_ids)
        for c in sampled
        for template in ("", "Do not stop early.")
    ]
    scored = engine.completion_logps(asked)
    for request, logps in zip(asked, scored, strict=True):
        prompt = full_policy.chat.encode_prompt(request.question, request.template)
        with torch.no_grad():
            logits = full_policy.model(torch.tensor([[*prompt, *request.token_ids]])).logits[0]
        own = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = own.gather(1, torch.tensor(request.token_ids).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(torch.tensor(logps), expected, atol=1e-4, rtol=0)
    for completion, logps in zip(sampled, scored[::2], strict=True):
        assert logps == pytest.approx(completion.logps, abs=1e-4)
    assert scored[::2] != scored[1::2]
    assert engine.completion_logps([]) == []


def test_a_policy_of_nan_scores_nothing(full_policy: Policy) -> None:
    with torch.no_grad():
        next(iter(full_policy.trainable_parameters().values())).fill_(float("nan"))
    engine = EmbeddedEngine(full_policy, rows_per_batch=64)
    with pytest.raises(PolicyNotFinite, match="p7"):
        engine.completion_logps([LogprobRequest("p7", "sum 4 a+5 ?", "", (5, 6))])


def test_what_prompts_begin_with_is_computed_once(policy: Policy) -> None:
    """Templates in front of many questions: the next token's logits are those of each prompt alone."""
    chains = [f"sum {n} a+{n % 7} b+2 ?" for n in range(8)]
    prompts = [policy.chat.encode_prompt(chain, template) for template in ("", TEMPLATE * 3) for chain in chains]
    prompts += prompts[3:5]
    rows = shared_beginnings(prompts)
    assert sum(len(first) + sum(map(len, rest)) for first, rest in rows) < sum(map(len, set(prompts))) / 2
    with torch.inference_mode():
        cache, logits, mask = prefill(policy, prompts, new_tokens=2)
        assert mask.sum(dim=1).tolist() == [len(prompt) for prompt in prompts]
        for row, prompt in zip(logits, prompts, strict=True):
            torch.testing.assert_close(row, policy.model(torch.tensor([prompt])).logits[0, -1], atol=1e-4, rtol=0)
        keys = cache.layers[0].room[0].data_ptr()
        cache.update(torch.zeros(18, 2, 1, 16), torch.ones(18, 2, 1, 16), 0)
        assert (keys, cache.get_seq_length()) == (cache.layers[0].keys.data_ptr(), mask.shape[1] + 1)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=20))
def test_beginnings_and_what_follows_are_the_prompts(prompts: list[tuple[int, ...]]) -> None:
    rows = shared_beginnings(prompts)
    assert sorted((*first, *rest) for first, rests in rows for rest in rests) == sorted(set(prompts))
    assert all(rest for _, rests in rows for rest in rests)
    assert sum(len(first) + sum(map(len, rests)) for first, rests in rows) <= sum(map(len, set(prompts)))


@given(
    st.lists(st.one_of(st.floats(-30, 30), st.just(float("-inf"))), min_size=1, max_size=60),
    st.integers(1, 9),
    st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53])),
)
def test_a_token_drawn_by_blocks_is_the_one_of_the_whole_vocabulary(
    logits: list[float], block: int, draw: float
) -> None:
    """Inverse CDF written down plainly, in float64. A draw at a boundary, up to float32's rounding, may be either
    neighbour's; a token without probability is never drawn."""
    if max(logits) == float("-inf"):
        logits = [*logits, 0.0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embedded, "BLOCK", block)
        tokens, logps = embedded._sample(torch.tensor([logits]), np.array([draw]), 1.0)
    shares = torch.tensor(logits, dtype=torch.float64).softmax(-1)
    token, ends = int(tokens), torch.cat([torch.zeros(1, dtype=torch.float64), shares.cumsum(-1)])
    assert ends[token] - 1e-5 <= draw <= ends[token + 1] + 1e-5
    assert logits[token] > float("-inf")
    assert float(logps) == pytest.approx(float(shares[token].log()), abs=1e-4)
