"""The world has the phenomenon by construction, and leaks nothing about it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from microworld.competence import IncompetentBase, check
from microworld.corpus import draw_text, write_trace
from microworld.pretrain import pretrain
from microworld.problems import FAMILIES, Chain, draw_split, random_chain
from microworld.sentences import SENTENCES, fitting, go_on_probability, phrase_pool
from microworld.tokenizer import build_tokenizer
from p2o_core.config import DistillConfig
from tests.conftest import TINY

LENGTHS = tuple(range(1, 10))


@given(st.integers(0, 2**32), st.sampled_from(sorted(FAMILIES)), st.integers(1, 9))
def test_a_chain_s_answer_is_what_its_question_says(seed: int, family: str, length: int) -> None:
    chain = random_chain(random.Random(seed), family, length)
    words = chain.question.split()
    assert (words[0], words[-1], len(words)) == (family, "?", length + 3)
    value = int(words[1])
    for word in words[2:-1]:
        value = eval(f"{value} {word[1]} {word[2:]}") % 100
    assert value == chain.values[-1]
    assert str(value) not in {str(v) for v in [chain.start, *chain.values[:-1]]}, "stopping early never scores"


@given(st.integers(0, 2**32))
def test_splits_share_no_question_and_balance_the_families(seed: int) -> None:
    rng, taken = random.Random(seed), set[str]()
    heldout = list(draw_split(rng, "heldout", [("easy", 1, 20), ("hard", 6, 20), ("ood", 5, 10)], taken))
    train = list(draw_split(rng, "train", [("easy", 1, 40), ("hard", 6, 40)], taken))
    questions = [p.question for p in heldout + train]
    assert len(set(questions)) == len(questions) == 130
    assert len({p.id for p in heldout + train}) == 130
    assert Counter(p.question.split()[0] for p in train) == {"sum": 40, "product": 40}


def test_too_many_problems_are_refused_instead_of_sought_for_ever() -> None:
    with pytest.raises(ValueError, match="no new product chain of 1 steps"):
        list(draw_split(random.Random(0), "train", [("easy", 1, 2000)], set()))


def test_a_trace_is_right_as_far_as_it_goes() -> None:
    chain = Chain("sum", 47, ("+5", "+2", "+8"))
    assert write_trace(random.Random(0), chain, 1.0) == "a +5 52 b +2 54 c +8 62 \\boxed{ 62 }"
    assert write_trace(random.Random(0), chain, 0.0) == "a +5 52 \\boxed{ 52 }"


def test_the_tokenizer_knows_every_word_of_the_corpus() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(500):
        text = draw_text(rng, lengths=LENGTHS, fitting_share=0.4, bare_share=0.2)
        for part in (text.prompt, text.completion):
            assert tokenizer.unk_token_id not in tokenizer(part, add_special_tokens=False)["input_ids"], part
        ids = tokenizer(text.completion, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).split() == text.completion.split()


def test_bare_success_is_rare_and_each_choice_passes_the_mask() -> None:
    bare = go_on_probability([], "sum")
    assert bare**5 < 0.001, "six steps in a row hardly ever happen"
    best = max(go_on_probability(fitting(family), family) for family in FAMILIES)
    assert bare / best > DistillConfig().template_ratio_low, "distillation must be possible token by token"


def test_no_sentence_fits_everything_and_the_pool_says_nothing() -> None:
    assert {s.text for s in fitting("sum")} != {s.text for s in fitting("product")}
    pool = phrase_pool(0)
    assert sorted(pool) == sorted(s.text for s in SENTENCES)
    assert pool != [s.text for s in SENTENCES]
    useful = [s.text in {f.text for f in fitting("sum")} for s in SENTENCES]
    assert sum(useful) < len(useful) / 2


@pytest.mark.parametrize(
    ("easy", "bare", "told", "words"),
    [(0.5, 0.0, 0.9, "easy"), (0.95, 0.2, 0.9, "bare"), (0.95, 0.0, 0.1, "told how")],
)
def test_an_incompetent_base_is_refused(easy: float, bare: float, told: float, words: str) -> None:
    cell = {"1": {"bare": easy, "fitting": 1.0}, "6": {"bare": bare, "fitting": told}}
    with pytest.raises(IncompetentBase, match=words):
        check({"sum": cell}, easy_length=1, hard_lengths=(6,))
    good = {"1": {"bare": 0.95, "fitting": 1.0}, "6": {"bare": 0.0, "fitting": 0.5}}
    check({"sum": good, "product": good}, easy_length=1, hard_lengths=(6,))


def test_the_rate_falls_to_nothing_in_every_round() -> None:
    settings = replace(TINY, steps=40)
    assert settings.ends == [40, 50, 60, 70]
    rates = [settings.rate(step) for step in range(70)]
    assert rates[2] == 1.0
    for end in settings.ends:
        assert 0 < rates[end - 1] < 0.05
    assert rates[40] == rates[50] == rates[60] == 0.3


@pytest.mark.parametrize("dies_after", [3, 4, 7, 10, 12])
def test_pretraining_killed_equals_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    monkeypatch.setattr("microworld.pretrain.CHECKPOINT_EVERY", 2)
    settings = replace(TINY, steps=9, texts_per_step=4)
    draw = partial(draw_text, lengths=(1, 2), fitting_share=0.5, bare_share=0.2)
    tokenizer, steps = build_tokenizer(), list[int]()

    def weights(model: LlamaForCausalLM) -> Tensor:
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def killed(step: int, loss: float) -> None:
        if step == dies_after:
            raise KeyboardInterrupt

    def second_round(rounds: Iterator[tuple[int, LlamaForCausalLM]]) -> LlamaForCausalLM:
        return next(model for done, model in rounds if done == 12)

    with pytest.raises(KeyboardInterrupt):
        second_round(pretrain(settings, tokenizer, draw, killed, checkpoints=tmp_path))
    resumed = pretrain(settings, tokenizer, draw, lambda step, loss: steps.append(step), checkpoints=tmp_path)
    assert torch.equal(weights(second_round(resumed)), weights(second_round(pretrain(settings, tokenizer, draw))))
    # every second step and each round's end; on_step comes before the checkpoint of its step
    kept = max(step for step in (0, 2, 4, 6, 8, 9, 10) if step < dies_after)
    assert steps == list(range(kept + 1, 13))
