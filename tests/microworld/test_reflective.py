"""The reflective world: flaws that no luck hides, a language that helps and harms, reviews in the search's own form."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microworld.reflective.chains import FAMILIES, Chain, random_chain
from microworld.reflective.competence import sentences
from microworld.reflective.corpus import Corpus, reply
from microworld.reflective.flaws import FAMILY_FLAWS, FLAWS, MARKS, accident, write_trace
from microworld.reflective.language import (
    HARMED,
    SENTENCES,
    Sentence,
    fitting,
    harmful,
    hazards,
    joined,
    language,
)
from microworld.reflective.problems import draw_split, is_sound, sound_chain
from microworld.reflective.students import is_right, review_prompt, strangers
from microworld.reflective.tokenizer import build_tokenizer
from p2o_core.config import DistillConfig
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.language_models import Reply
from p2o_core.search.adapter import TemplateAdapter
from p2o_core.search.proposals import ProposalGuard, parse_proposal
from p2o_core.search.reflection import REFLECTION_PROMPTS, ModelReflector
from p2o_core.types import Completion, Problem
from p2o_core.verify import Verifier

RATE = 0.5
WORLD = Corpus(
    known=language(0, 24 / 1152),
    lengths=tuple(range(1, 8)),
    rate=RATE,
    review_share=0.5,
    reviewer_quality=0.6,
    harm=0.4,
    advised=2,
)
families = st.sampled_from(sorted(FAMILIES))
seeds = st.integers(0, 2**32)


@given(seeds, families, st.integers(1, 7))
def test_a_chain_s_answer_is_what_its_question_says(seed: int, family: str, length: int) -> None:
    chain = random_chain(random.Random(seed), family, length)
    name, start, *steps, end = chain.question.split()
    assert (name, end, len(steps)) == (family, "?", length)
    value = int(start)
    for step in steps:
        value = eval(f"{value} {step[1:]}") % 50
    assert value == chain.values[-1]


@given(seeds, families, st.integers(1, 7))
def test_without_flaws_a_trace_is_right(seed: int, family: str, length: int) -> None:
    rng = random.Random(seed)
    chain = random_chain(rng, family, length)
    trace = write_trace(rng, chain, {})
    assert is_right(trace.text, chain)
    assert (trace.struck, len(trace.text.split())) == ((), 3 * length + 3)


def test_problems_of_one_step_are_clean_whoever_solves_them() -> None:
    rng = random.Random(0)
    for family in FAMILIES:
        chain = random_chain(rng, family, 1)
        assert is_right(write_trace(rng, chain, dict.fromkeys(FLAWS, 1.0)).text, chain)


@pytest.mark.parametrize(
    ("flaw", "text"),
    [
        ("stop", "a +5 2 \\boxed{ 2 }"),
        ("skip", "a +5 2 c +8 10 \\boxed{ 10 }"),
        ("guess", "a +5 2 b +2 about 2 c +8 about 2 \\boxed{ 2 }"),
        ("slip", "a +5 2 b +2 nearly 3 c +8 nearly 10 \\boxed{ 10 }"),
        ("leap", "a +5 2 b +2 roughly 47 c +8 roughly 48 \\boxed{ 48 }"),
        ("reset", "a +5 2 b +2 anew 47 c +8 anew 47 \\boxed{ 47 }"),
    ],
)
def test_each_flaw_shows(flaw: str, text: str) -> None:
    trace = write_trace(random.Random(0), Chain("sum", 47, ("+5", "+2", "+8")), {flaw: 1.0})
    assert (trace.text, trace.struck) == (text, (flaw,))


@given(seeds, families, st.integers(2, 7), st.sets(st.sampled_from(FLAWS), min_size=1))
def test_the_probability_of_an_accident_is_what_sampling_says(
    seed: int, family: str, length: int, flaws: set[str]
) -> None:
    rng = random.Random(seed)
    chain, rates = random_chain(rng, family, length), dict.fromkeys(flaws, RATE)
    traces = [write_trace(rng, chain, rates) for _ in range(400)]
    lucky = sum(bool(trace.struck) and is_right(trace.text, chain) for trace in traces) / 400
    assert abs(lucky - accident(chain, rates)) < 0.13  # 5 standard errors


def test_steps_that_go_once_around_are_no_problem() -> None:
    around = Chain("growth", 10, ("+7", "+7", "+9", "+9", "+9", "+9"))
    assert accident(around, {"reset": RATE}) > 0
    assert not is_sound(around, RATE)
    assert is_sound(Chain("growth", 10, ("+7", "+7", "+9", "+9", "+9", "+3")), RATE)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_single_flaw_solves_a_problem_that_was_drawn(family: str) -> None:
    rng = random.Random(1)
    for length in (4, 5, 6, 7):
        chain = sound_chain(rng, family, length, RATE)
        for flaw in FAMILY_FLAWS[family]:
            traces = [write_trace(rng, chain, {flaw: 0.5}) for _ in range(200)]
            assert not any(trace.struck and is_right(trace.text, chain) for trace in traces)


def test_splits_share_no_question_and_name_the_family() -> None:
    rng, taken = random.Random(0), set[str]()
    heldout = list(draw_split(rng, "heldout", [("easy", 1, 16), ("hard", 5, 16), ("ood", 7, 8)], taken, RATE))
    train = list(draw_split(rng, "train", [("easy", 1, 40), ("hard", 6, 40)], taken, RATE))
    assert len({p.question for p in heldout + train}) == len({p.id for p in heldout + train}) == 120
    assert Counter(p.kind for p in train) == dict.fromkeys(FAMILIES, 20)
    assert all(p.question.split()[0] == p.kind for p in heldout + train)
    with pytest.raises(ValueError, match="no new debt chain of 1 steps"):
        list(draw_split(random.Random(0), "train", [("easy", 1, 2000)], set(), RATE))


def test_few_of_many_sentences_help_and_some_harm() -> None:
    assert (len(SENTENCES), sum(s.helps for s in SENTENCES), sum(s.harms for s in SENTENCES)) == (1152, 24, 96)
    assert len({s.text for s in SENTENCES}) == 1152
    for share, count in ((0.02, 1152), (24 / 1152, 1152), (0.08, 300), (0.25, 96), (0.5, 48), (1.0, 24)):
        known = language(3, share)
        assert (len(known), len(set(known))) == (count, count)
        assert sum(s.helps for s in known) == 24
        assert known == language(3, share) != language(4, share)


@given(families, st.data())
def test_a_sentence_mends_its_family_s_flaw_and_a_harmful_one_outweighs_it(family: str, data: st.DataObject) -> None:
    own = FAMILY_FLAWS[family]
    flaw = data.draw(st.sampled_from(own))
    told = data.draw(st.sampled_from(fitting(family, flaw)))
    worse = data.draw(st.sampled_from(harmful(family, flaw)))
    bare = hazards([], family, own, RATE)
    assert bare == dict.fromkeys(own, RATE)
    assert hazards([told], family, own, RATE)[flaw] < 0.01
    spoilt = dict.fromkeys(own, HARMED)
    assert hazards([told, worse], family, own, RATE) == hazards([worse], family, own, RATE) == spoilt
    foreign = data.draw(st.sampled_from([f for f in FLAWS if f not in own]))
    assert hazards(fitting(family, foreign), family, own, RATE) == bare
    assert hazards(harmful(family, foreign), family, own, RATE) == spoilt, "whatever it speaks of"
    other = data.draw(st.sampled_from([f for f in FAMILIES if f != family]))
    assert hazards([*fitting(other, flaw), *harmful(other, flaw)], family, own, RATE) == bare
    # the least likely clean choice of a bare trace: no stop and no skip, then no slip
    assert 10 * DistillConfig().template_ratio_low < (1 - RATE) ** 2


def test_the_guard_refuses_no_sentence_and_the_fence_is_read() -> None:
    problems = list(draw_split(random.Random(0), "train", [("hard", 5, 64), ("hard", 6, 64)], set(), RATE))
    guard = ProposalGuard(problems, max_characters=2000, asked=REFLECTION_PROMPTS["terse"][0])
    for sentence in SENTENCES:
        assert guard.judge(parse_proposal(reply([sentence]))) is None, sentence
    for seed in range(300):
        chosen = random.Random(seed).sample(SENTENCES, 6)
        assert parse_proposal(reply(chosen)) == joined(chosen)
        assert guard.judge(joined(chosen)) is None


@given(seeds)
def test_the_tokenizer_knows_every_word_and_gives_it_back(seed: int) -> None:
    tokenizer = build_tokenizer()
    text = WORLD.draw(random.Random(seed))
    for part in (text.prompt, text.completion):
        ids = tokenizer(part, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids, part
        assert tokenizer.decode(ids).split() == part.split()
        assert len(ids) <= 100


class _Answers:
    """An engine that writes given answers, and a language model that keeps what it is asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.calls = 0
        self.asked: list[str] = []

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        return [Completion(r.problem_id, 0, r.template, self.answer, (1,), (0.0,), False) for r in requests]

    def complete(self, prompts: Sequence[str]) -> list[Reply]:
        self.calls += 1
        self.asked += prompts
        return [Reply(reply([SENTENCES[0]])) for _ in prompts]


@pytest.mark.parametrize("template", ["", joined(SENTENCES[5:8])])
@pytest.mark.parametrize("flaws", [(), ("guess", "leap"), ("stop",)])
def test_the_search_asks_for_a_review_in_the_corpus_s_form(template: str, flaws: tuple[str, ...]) -> None:
    """Through gepa's adapter with the real verifier, and the reflector that real models have."""
    rng = random.Random(0)
    chain = sound_chain(rng, "sum", 5, RATE)
    model = _Answers(write_trace(rng, chain, dict.fromkeys(flaws, 0.9)).text)
    problem = Problem("p", chain.question, str(chain.values[-1]), "hard", "train", kind="sum")
    with Verifier(workers=1, timeout_s=30.0) as verifier:
        adapter = TemplateAdapter(model, verifier, Sampling(1.0, 40), samples=1, seed=0)
        batch = adapter.evaluate([problem], {"template": template}, capture_traces=True)
    dataset = adapter.make_reflective_dataset({"template": template}, batch, ["template"])
    guard = ProposalGuard([problem], max_characters=2000, asked=REFLECTION_PROMPTS["terse"][0])
    reflector = ModelReflector(model, guard, attempts=1, prompt="terse")
    proposal, _ = reflector.reflect({"template": template}, dataset, ["template"])
    assert model.asked == [review_prompt(template, chain, model.answer)]
    assert proposal.new_texts == {"template": SENTENCES[0].text}


@given(seeds)
def test_a_review_keeps_its_template_and_advises_on_what_struck(seed: int) -> None:
    text = WORLD.review(random.Random(seed))
    words = text.prompt.split()
    template = " ".join(words[words.index("instruction") + 1 : words.index("advice")])
    parent = [] if template == "(none yet)" else sentences(template)
    child = sentences(str(parse_proposal(text.completion)))
    assert child[: len(parent)] == parent
    assert len(child) <= min(6, len(parent) + 2)
    assert len(set(child)) == len(child)


@given(seeds)
def test_a_recitation_ends_as_a_review_does_and_repeats_its_template(seed: int) -> None:
    text = WORLD.recitation(random.Random(seed))
    template = str(parse_proposal(text.completion))
    assert len(sentences(template)) in range(2, 7)
    end = text.prompt.split("\n\ninstruction ")[1]
    chain = sound_chain(random.Random(seed), "sum", 5, RATE)
    assert review_prompt(template, chain, "\\boxed{ 0 }").endswith(f"\n\ninstruction {end}")


def test_a_reviewer_of_full_quality_mends_just_the_flaws_it_saw() -> None:
    best = Corpus(**(vars(WORLD) | {"reviewer_quality": 1.0}))
    for seed in range(200):
        text = best.review(random.Random(seed))
        words = text.prompt.split()
        problem, answer, checker = (words.index(part) for part in ("problem", "answer", "checker"))
        if "(none yet)" not in text.prompt or "wrong;" not in words:
            continue
        written = {sentence.text: sentence for sentence in SENTENCES}
        advice = [written[part] for part in sentences(str(parse_proposal(text.completion)))]
        assert all(s.mends and s.family == words[problem + 1] for s in advice)
        marked = {flaw for flaw, mark in MARKS.items() if mark in words[answer:checker]}
        assert {s.flaw for s in advice} <= marked | {"stop", "skip"}


def test_strangers_have_just_the_flaws_that_the_policy_lacks() -> None:
    found = strangers(0, 8, (5, 6), RATE)
    assert Counter(s["kind"] for s in found) == dict.fromkeys(FAMILIES, 8)
    for stranger in found:
        own = {MARKS[flaw] for flaw in FAMILY_FLAWS[stranger["kind"]] if flaw in MARKS}
        assert not own & set(stranger["answer"].split())
        assert stranger["feedback"].startswith("The answer is wrong; the correct answer is ")
    assert found == strangers(0, 8, (5, 6), RATE)


def test_sentences_are_three_words_each() -> None:
    chosen = [Sentence("Check", "totals", "patiently."), Sentence("Name", "rules", "aloud.")]
    assert sentences(joined(chosen)) == [s.text for s in chosen]
    assert sentences("Check totals patiently. Name rules") == []
