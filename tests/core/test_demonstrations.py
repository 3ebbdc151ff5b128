"""Demonstrations: their text form, the pool of the policy's own answers, the reflector, and what a problem may see."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microworld.tokenizer import CHAT_TEMPLATE
from p2o_core import Memory
from p2o_core.config import DemonstrationReflectorConfig, EvolveConfig, RolloutConfig
from p2o_core.demonstrations import (
    Demonstration,
    DemonstrationPool,
    capped,
    final_answer,
    is_clean,
    shape,
    without_own,
)
from p2o_core.demonstrations import pool_of as iteration_pool
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.policy import Policy
from p2o_core.rollout import sample_templated
from p2o_core.search.demonstrations import DemonstrationReflector
from p2o_core.search.evolve import evolve_templates
from p2o_core.search.proposals import ProposalGuard, Refusal
from p2o_core.search.reflectors import PhraseReflector
from p2o_core.search.schedule import draw_templates, search_templates
from p2o_core.seeding import derive_seed
from p2o_core.templates import (
    ASSISTANT,
    USER,
    Parts,
    Turn,
    apply_template,
    chat_messages,
    join_templates,
    malformed,
    parse_template,
)
from p2o_core.types import Assignment, Completion, Problem, TemplateSearch
from p2o_core.verify import Verifier
from tests.core.test_iteration import iterate

SETTINGS = DemonstrationReflectorConfig()
MARKS = (USER, ASSISTANT, f"\\{USER}", f"\\\\{ASSISTANT}", f"{USER} ", f" {USER}", "===", "\\", "\n", "\r", "", "a")
texts = st.one_of(
    st.text(), st.lists(st.sampled_from(MARKS)).map("\n".join), st.lists(st.sampled_from(MARKS)).map("".join)
)


@given(instruction=texts, turns=st.lists(st.builds(Turn, texts, texts), max_size=3))
def test_the_text_form_gives_back_what_it_was_made_of(instruction: str, turns: list[Turn]) -> None:
    parts = Parts(instruction, tuple(turns))
    assert parse_template(str(parts)) == parts


@given(text=texts)
def test_any_text_is_a_template(text: str) -> None:
    parts = parse_template(text)
    assert parse_template(str(parts)) == parts
    if USER not in text.split("\n") and "\\" not in text:
        assert parts == Parts(text), "an instruction, to the byte"


@given(text=st.text(), question=st.text())
def test_instructions_mean_what_they_did(text: str, question: str) -> None:
    if "===" not in text:
        assert chat_messages(text, question, str) == [{"role": "user", "content": apply_template(text, question)}]


@pytest.mark.parametrize(
    "text",
    [
        f"{USER}\na",
        f"{ASSISTANT}\na\n{USER}\nb",
        f"{USER}\na\n{ASSISTANT}\nb\n{USER}\nc",
        f"{USER}\n{ASSISTANT}\nb",
        f"{USER}\na\n{ASSISTANT}\n ",
        f"do\n{ASSISTANT}\nb",
    ],
)
def test_half_demonstrations_are_noticed(text: str) -> None:
    assert malformed(text)
    assert not malformed(f"{USER}\na\n{ASSISTANT}\nb"), "and whole ones are none"
    guard = ProposalGuard([], max_characters=200)
    assert guard.judge(f"Write digits only.\n{text}") is Refusal.RESIDUE, "no model writes demonstrations"


def test_templates_written_by_hand_are_phrases() -> None:
    by_hand = [
        f"Digits.\n{USER}\n{word}\n{ASSISTANT}\n{n}\n{USER}\nx{word}\n{ASSISTANT}\n{n}0"
        for word, n in (("one", 1), ("two", 2))
    ]
    reflector = PhraseReflector(by_hand, max_phrases=1, rng=random.Random(0))
    assert {reflector.random_template() for _ in range(20)} == set(by_hand)
    parent = ""
    for _ in range(10):
        parent = reflector.reflect({"template": parent}, {}, ["template"])[0].new_texts["template"]
        assert parent in by_hand
    assert parse_template(join_templates(by_hand)).turns[2] == Turn("two", "2")


def problem(n: int, split: str = "train", tier: str = "easy") -> Problem:
    return Problem(f"p{n}", f"Write n{n} in digits.", str(n), tier, split)


def said(asked: Problem, text: str, *, tokens: int = 3, truncated: bool = False) -> Completion:
    return Completion(asked.id, 0, "", text, tuple(range(tokens)), (0.0,) * tokens, truncated)


def pool_of(*answers: tuple[int, str], **settings: object) -> DemonstrationPool:
    pool = DemonstrationPool(SETTINGS.model_copy(update=settings), iteration=4)
    asked = [problem(n) for n, _ in answers]
    pool.learn(asked, [said(p, text) for p, (_, text) in zip(asked, answers, strict=True)], [True] * len(asked))
    return pool


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("571", True),
        ("The number is 571.", True),
        ("\\boxed{571}", True),
        ("5 hundreds, 7 tens and 1.\nSo it is \\boxed{571}.", True),
        ("571.", False),
        ("**571**", False),
        ("'571'", False),
        ("571 571", False),
        ("$571", False),
        ("0571", False),
        ("5,71", False),
        ("571.0", False),
        (" 571", False),
        ("571\n", False),
        ("It is 571.\nIt is 571.", False),
        ("571 571 571 571 so 571 571 571 571", False),
        ("The number is 571.\n\nQuestion: Write one in digits.", False),
        ("The number is 571.\nUser: and two?", False),
        ("The number is 571. I like cats.\nCats are nice.", False),
        ("The number is 571.<|im_end|>", False),
        ("<think>\nhm\n</think>\nIt is 571.", False),
        ("### Answer\nIt is 571.", False),
        ("```\nx = 571\n```", False),
    ],
)
def test_only_clean_answers_are_shown(text: str, clean: bool) -> None:
    assert is_clean(text, ["571"]) is clean


def test_the_pool_takes_verified_finished_answers_to_train_problems() -> None:
    pool = DemonstrationPool(SETTINGS, iteration=4)
    train, heldout = problem(12), problem(13, "heldout")
    asked = [train, train, train, heldout, train]
    answers = [said(train, "12"), said(train, "It is 12."), said(train, "So 12.", truncated=True), said(heldout, "13")]
    pool.learn(asked, [*answers, said(train, "Thus 12.", tokens=999)], [True, False, True, True, True])
    assert pool.rows == [Demonstration("p12", "Write n12 in digits.", "12", 3, 4, "easy")]


def test_the_pool_prefers_short_answers_and_keeps_few_a_problem() -> None:
    pool = DemonstrationPool(SETTINGS, iteration=1)
    p = problem(12)
    for tokens, text in ((9, "It is surely 12."), (6, "It is 12."), (3, "12")):
        pool.learn([p], [said(p, text, tokens=tokens)], [True])
    assert [row.answer for row in pool.rows] == ["12", "It is 12."]
    later = DemonstrationPool(SETTINGS.model_copy(update={"size": 1}), pool.rows, iteration=2)
    later.learn([p], [said(p, "12")], [True])
    assert [(row.answer, row.iteration) for row in later.rows] == [("12", 1)], "told twice, it keeps its date"


def test_no_shape_is_drawn_above_its_share() -> None:
    pool = pool_of(*((n, str(n)) for n in range(10, 90)), *((n, f"It is {n}.") for n in range(90, 99)))
    rng = random.Random(0)
    drawn = [pool.draw(rng) for _ in range(2000)]
    bare = sum(shape(turn.answer) == "#" for turn in drawn if turn)
    assert 0.45 < bare / 2000 < 0.55, "80 of 89 answers, half of the draws"
    assert capped([7], 0.5) == [7.0], "where there is no other it may have all"
    assert {shape(turn.answer) for turn in (pool.draw(rng, unlike="#") for _ in range(50)) if turn} == {"it is #."}


def test_a_set_shows_different_questions_and_answers() -> None:
    pool = pool_of(*((n, str(n)) for n in range(10, 14)))
    for seed in range(30):
        turns = pool.draw_set(random.Random(seed))
        assert len({turn.question for turn in turns}) == len({final_answer(turn.answer) for turn in turns}) == 3
    assert len(pool_of((10, "10")).draw_set(random.Random(0))) == 1


def test_proposals_are_sets_of_the_pool() -> None:
    pool = pool_of(*((n, str(n)) for n in range(10, 30)), *((n, f"It is {n}.") for n in range(30, 40)))
    rows = {Turn(row.question, row.answer) for row in pool.rows}
    reflector = DemonstrationReflector(pool, rng=random.Random(1), archive=["archived"])
    jobs = [({"template": "Digits."}, {}, ["template"])] * 2
    first, second = (proposal.new_texts["template"] for proposal, _ in reflector.reflect_many(jobs))
    assert first == "archived"
    parent, sizes, seen = second, set(), set()
    for _ in range(60):
        parts = parse_template(parent)
        assert parts.instruction == "Digits.", "an instruction stays"
        assert 1 <= len(parts.turns) <= 3
        assert set(parts.turns) <= rows
        assert len({turn.question for turn in parts.turns}) == len(parts.turns)
        sizes.add(len(parts.turns))
        assert parent not in seen
        seen.add(parent)
        parent = reflector.reflect({"template": parent}, {}, ["template"])[0].new_texts["template"]
    assert sizes == {1, 2, 3}
    empty = DemonstrationReflector(DemonstrationPool(SETTINGS), rng=random.Random(1))
    assert empty.reflect({"template": ""}, {}, ["template"])[0].new_texts == {}


@pytest.mark.parametrize(
    ("turn", "asked", "shown"),
    [
        (Turn("Write n12 in digits.", "12"), problem(12), False),
        (Turn("  write N12 in  digits. ", "The result is unclear."), problem(12), False),
        (Turn("What is 6 + 6?", "It is 12."), problem(12), False),
        (Turn("What is 6 + 6?", "12.0"), problem(12), False),
        (Turn("What is 6 + 6?", "12, then 13"), problem(12), True),
        (Turn("Write n13 in digits.", "13"), problem(12), True),
        (Turn("Half of it?", "\\boxed{\\frac{1}{2}}"), replace(problem(1), answer="0.5"), False),
        (Turn("Who?", "\\boxed{x+1}"), replace(problem(1), answer="x + 1"), False),
        (Turn("Is it?", "yes"), replace(problem(1), answer="yes"), True),
    ],
)
def test_a_problem_sees_neither_its_question_nor_its_answer(turn: Turn, asked: Problem, shown: bool) -> None:
    other = Turn("Write n77 in digits.", "77")
    template = str(Parts("Digits.", (turn, other)))
    assert without_own(template, asked) == (template if shown else str(Parts("Digits.", (other,))))
    assert without_own("Say 12.", asked) == "Say 12.", "instructions are the proposal guard's"


class Shown:
    """Answers rightly under demonstrations, two times of three, and notes every request."""

    def __init__(self) -> None:
        self.requests: list[RolloutRequest] = []

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        self.requests += requests
        gold = [request.question.split()[1][1:] for request in requests]
        return [
            Completion(r.problem_id, s, r.template, n if right else "?", (1, 2), (0.0, 0.0), False)
            for r, n in zip(requests, gold, strict=True)
            for s in r.samples
            for right in [parse_template(r.template).turns and r.seed(s) % 3]
        ]


HARD = [problem(n, tier="hard") for n in range(100, 116)]
SCENE = EvolveConfig(dev_size=6, minibatch=2, parents=4, max_metric_calls=150, min_hard=2, reflector=SETTINGS)


def own_pairs(requests: Sequence[RolloutRequest]) -> list[RolloutRequest]:
    return [r for r in requests if any(t.question == r.question for t in parse_template(r.template).turns)]


def test_a_search_shows_what_it_found_on_the_way(verifier: Verifier) -> None:
    """The second round: hard problems that a set solved are in later sets, and never shown to themselves."""
    pool, engine = pool_of((10, "10"), (11, "It is 11."), (12, "12")), Shown()
    found = evolve_templates(
        HARD, engine, verifier, [], SCENE, Sampling(1.0, 8), seed=derive_seed(3), demonstrations=pool
    )
    hard = {problem.question for problem in HARD}
    assert {row.tier for row in pool.rows} == {"easy", "hard"}
    assert any(turn.question in hard for r in engine.requests for turn in parse_template(r.template).turns)
    assert own_pairs(engine.requests) == []
    assert found.kept
    assert max(t.mean_score for t in found.kept) > 0.5
    again = pool_of((10, "10"), (11, "It is 11."), (12, "12"))
    repeated = evolve_templates(
        HARD, Shown(), verifier, [], SCENE, Sampling(1.0, 8), seed=derive_seed(3), demonstrations=again
    )
    assert (repeated.templates, again.rows) == (found.templates, pool.rows)


def test_a_templated_rollout_does_not_see_its_own_pair() -> None:
    template, engine = str(Parts("", (Turn(HARD[0].question, "100"), Turn("Write n7 in digits.", "7")))), Shown()
    plan = [Assignment(p.id, 0, 1, template) for p in HARD[:3]]
    config = RolloutConfig(problems=1, samples=2, max_new_tokens=8)
    sample_templated(engine, {p.id: p for p in HARD}, plan, [], config, 0)
    assert own_pairs(engine.requests) == []
    assert [len(parse_template(r.template).turns) for r in engine.requests] == [1, 2, 2]


def test_random_sets_are_a_control_and_nothing_to_show_is_said(verifier: Verifier) -> None:
    pool = pool_of(*((n, str(n)) for n in range(10, 30)))
    drawn = draw_templates([], SCENE, 5, pool)
    assert [t.text for t in drawn] == [t.text for t in draw_templates([], SCENE, 5, pool)]
    assert len(drawn) == 4
    assert all(len(parse_template(t.text).turns) == 3 and t.kept for t in drawn)
    rollout = RolloutConfig(problems=1, max_new_tokens=8)
    search, _ = search_templates(
        HARD,
        TemplateSearch(),
        Shown(),
        verifier,
        [],
        SCENE,
        rollout,
        iteration=1,
        seed=derive_seed,
        demonstrations=DemonstrationPool(SETTINGS),
    )
    assert (search.status, search.kept) == ("no_demonstrations", [])


def test_the_pool_travels_with_the_iteration(full_policy: Policy, verifier: Verifier) -> None:
    """The real engine and update, on a chat template with turns."""
    full_policy.chat.tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "<user> ", "{% if message['role'] == 'user' %}<user>{% else %} <assistant>{% endif %} "
    )
    known = Demonstration("q", "sum 3 a+2 ?", "\\boxed{ 5 }", 4, 1, "easy")
    evolve = {"search": "random", "reflector": {"type": "demonstrations"}}
    done = iterate(full_policy, verifier, Memory(demonstrations=[known]), 1, evolve=evolve)
    assert done.search.status == "drawn"
    assert {c.template for c in done.templated} == {f"{USER}\n{known.question}\n{ASSISTANT}\n{known.answer}"}
    assert known in done.memory.demonstrations
    longer = {s.sampling_prompt_ids for g in done.groups for s in g if s.templated}
    assert all(len(ids) > len(full_policy.chat.encode_prompt("sum 3 a+5 b+2 ?")) for ids in longer)
    assert iterate(full_policy, verifier, Memory(), 1, evolve=evolve).search.status == "no_demonstrations"


def test_written_demonstrations_are_there_from_the_start_and_once(full_policy: Policy, verifier: Verifier) -> None:
    """A policy that has answered nothing yet can show what a person wrote; iterations on, no turn is there twice."""
    full_policy.chat.tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "<user> ", "{% if message['role'] == 'user' %}<user>{% else %} <assistant>{% endif %} "
    )
    shown = Turn("sum 3 a+2 ?", "\\boxed{ 5 }")
    phrases = [str(Parts("", (shown,))), str(Parts("Go on.", (shown, Turn("sum 1 a+1 ?", "\\boxed{ 2 }")))), "Count."]
    evolve = EvolveConfig(reflector=DemonstrationReflectorConfig(written=True))
    pool = iteration_pool(evolve, [], phrases)
    assert {(row.question, row.answer, row.tier) for row in pool.rows} == {
        ("sum 3 a+2 ?", "\\boxed{ 5 }", "written"),
        ("sum 1 a+1 ?", "\\boxed{ 2 }", "written"),
    }
    assert iteration_pool(evolve, pool.rows, phrases).rows == pool.rows
    assert iteration_pool(EvolveConfig(reflector=DemonstrationReflectorConfig()), [], phrases).rows == []
    sections = {"search": "random", "reflector": {"type": "demonstrations", "written": True}}
    done = iterate(full_policy, verifier, Memory(), 1, evolve=sections, phrases=phrases[:2])
    assert done.search.status == "drawn"
    assert all("sum 3 a+2 ?" in c.template or "sum 1 a+1 ?" in c.template for c in done.templated)
