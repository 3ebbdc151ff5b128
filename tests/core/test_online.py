"""Search without a bill: posteriors from training rollouts, reflection on failures, Thompson sampling, and the
controls that are settings of it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.config import EvolveConfig, OnlineConfig
from p2o_core.cover import plan_templated
from p2o_core.search.adapter import COMPONENT
from p2o_core.search.online import reflect_on_failures
from p2o_core.search.posterior import STRENGTH, Posterior, Trial, with_evidence
from p2o_core.search.reflectors import PhraseReflector
from p2o_core.search.schedule import search_templates
from p2o_core.types import Evidence, HardSample, Problem, Template, TemplateSearch, VerdictStatus

KINDS = ("sum", "fall")


def problem(name: str, kind: str = "sum") -> Problem:
    return Problem(name, f"{name} ?", "7", "hard", "train", kind=kind)


def trial(template: str, solved: bool, kind: str = "sum", name: str = "p") -> Trial:
    status = VerdictStatus.CORRECT if solved else VerdictStatus.WRONG
    return Trial(problem(name, kind), template, "so 6", status, float(solved))


def archive(*texts: str) -> list[Template]:
    return [Template(index, text, (), (), kept=True) for index, text in enumerate(texts)]


class Scribe:
    """A reflector that writes down what it reads, and proposes "<parent>+<number>"."""

    def __init__(self) -> None:
        self.jobs: list[ReflectionJob] = []

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, Scribe]]:
        first = len(self.jobs)
        self.jobs += jobs
        texts = [f"{candidate[COMPONENT]}+{first + index}" for index, (candidate, _, _) in enumerate(jobs)]
        return [(ReflectionProposal({COMPONENT: text}), self) for text in texts]


def evolve(**online: object) -> EvolveConfig:
    return EvolveConfig(search="online", min_hard=1, minibatch=2, online=OnlineConfig(**online))


def reflect(known: list[Template], bare: list[Trial], templated: list[Trial], config: EvolveConfig, **more: object):
    scribe = Scribe()
    found = reflect_on_failures(
        known,
        bare,
        templated,
        scribe,
        config,
        iteration=3,
        rng=random.Random(0),
        **more,  # type: ignore[arg-type]
    )
    return found, scribe.jobs


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(KINDS)), max_size=30),
    st.floats(0, 1),
    st.integers(1, 4),
)
def test_evidence_counts_every_trial_and_forgets_by_the_discount(
    outcomes: list[tuple[bool, str]], discount: float, rounds: int
) -> None:
    templates = archive("a", "b")
    for _ in range(rounds):
        templates = with_evidence(templates, [trial("a", solved, kind) for solved, kind in outcomes], discount)
    weight = sum(discount**age for age in range(rounds))
    for kind in KINDS:
        mine = [solved for solved, other in outcomes if other == kind]
        evidence = templates[0].evidence.get(kind, Evidence())
        assert evidence.tried == pytest.approx(weight * len(mine))
        assert evidence.solved == pytest.approx(weight * sum(mine))
    assert templates[0].trials == rounds * len(outcomes)
    assert templates[1].trials == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(KINDS)), max_size=40),
    st.sampled_from([*KINDS, "unseen"]),
    st.booleans(),
)
def test_a_posterior_is_a_distribution_between_prior_and_evidence(
    outcomes: list[tuple[str, bool, str]], kind: str, by_kind: bool
) -> None:
    templates = with_evidence(archive("a", "b", "c"), [trial(t, solved, k) for t, solved, k in outcomes], 1.0)
    posterior, rng = Posterior(templates, by_kind=by_kind), random.Random(0)
    for template in templates:
        alpha, beta = posterior.beta(template.index, kind)
        assert min(alpha, beta) > 0
        assert alpha + beta == pytest.approx(STRENGTH + template.evidence.get(kind, Evidence()).tried)
        assert 0 <= posterior.sample(template.index, kind, rng) <= 1


def test_a_child_starts_as_its_parent_is_and_is_judged_by_its_own_rollouts() -> None:
    templates = [
        *archive("good", "bad"),
        Template(2, "child of good", (0,), (), True),
        Template(3, "of bad", (1,), (), True),
    ]
    tried = [trial("good", True)] * 8 + [trial("bad", False)] * 8
    posterior = Posterior(with_evidence(templates, tried, 1.0), by_kind=True)
    assert posterior.mean(2) == posterior.mean(0) > 0.8
    assert posterior.mean(3) == posterior.mean(1) < 0.1
    failed = Posterior(with_evidence(templates, [*tried, *[trial("child of good", False)] * 6], 1.0), by_kind=True)
    assert failed.mean(2) < 0.25 < posterior.mean(0)


def test_kinds_are_told_apart_where_problems_say_theirs() -> None:
    tried = [trial("adds", True, "sum")] * 6 + [trial("adds", False, "fall")] * 6
    templates = with_evidence(archive("adds"), tried, 1.0)
    posterior = Posterior(templates, by_kind=True)
    assert posterior.mean(0, "sum") > 0.8
    assert posterior.mean(0, "fall") < 0.2


def test_rollouts_draw_what_solves_their_kind_and_still_try_the_others() -> None:
    tried = [trial("adds", True, "sum")] * 9 + [trial("adds", False, "fall")] * 9
    tried += [trial("falls", False, "sum")] * 9 + [trial("falls", True, "fall")] * 9
    search = TemplateSearch("reflected", 1, templates=with_evidence(archive("adds", "falls"), tried, 1.0))
    problems = {kind: problem(kind, kind) for kind in KINDS}
    hard = [HardSample(kind, 0.0, near=False, mined_at=1) for kind in KINDS]

    def drawn(**online: object) -> Counter[tuple[str, str]]:
        plan = plan_templated(hard, problems, search, evolve(**online), iteration=1, rollouts=200, seed=0)
        assert [a.sample for a in plan] == [*range(200)] * 2
        return Counter((a.problem_id, a.template) for a in plan)

    thompson, uniform = drawn(), drawn(draw="uniform")
    assert thompson["sum", "adds"] > 190
    assert thompson["fall", "falls"] > 190
    assert thompson == drawn()
    assert all(70 < count < 130 for count in uniform.values())


def test_a_rollout_draws_among_kept_templates_only_and_a_group_may_share_one() -> None:
    templates = [*archive("a", "b", "c"), Template(3, "gone", (), (), kept=False)]
    search = TemplateSearch("reflected", 1, templates=templates)
    hard = [HardSample("p", 0.0, near=False, mined_at=1), HardSample("q", 0.0, near=False, mined_at=0)]
    problems = {name: problem(name) for name in "pq"}
    config = evolve().model_copy(update={"one_template_per_group": True})
    for seed in range(20):
        plan = plan_templated(hard, problems, search, evolve(), iteration=1, rollouts=8, seed=seed)
        assert {a.problem_id for a in plan} == {"p"}
        assert {a.template for a in plan} <= {"a", "b", "c"}
        shared = plan_templated(hard, problems, search, config, iteration=1, rollouts=8, seed=seed)
        assert len(shared) == 8
        assert len({a.template for a in shared}) == 1
    assert plan_templated(hard, problems, TemplateSearch(), evolve(), iteration=1, rollouts=8, seed=0) == []


def test_the_first_search_reflects_on_bare_failures_of_every_kind() -> None:
    bare = [trial("", False, kind, f"{kind}{i}") for kind in KINDS for i in range(5)] + [trial("", True, "sum", "easy")]
    found, jobs = reflect([], bare, [], evolve(first_reflections=6))
    assert len(found) == len(jobs) == 6
    assert all(template.kept and template.parents == () for template in found)
    read = [examples[COMPONENT] for _, examples, _ in jobs]
    assert all(len(examples) == 2 for examples in read)
    assert all(len({e["Inputs"][:3] for e in examples}) == 1 for examples in read)  # of one kind
    assert Counter(examples[0]["Inputs"][:3] for examples in read) == {"sum": 3, "fal": 3}
    assert {e["Feedback"] for examples in read for e in examples} == {"The answer is wrong; the correct answer is 7."}


def test_later_ones_also_build_on_templates_that_failed_somewhere() -> None:
    known = with_evidence(archive("good", "bad"), [trial("good", True)] * 9 + [trial("bad", False)] * 9, 1.0)
    templated = [trial("good", False, "sum", "p1"), trial("bad", False, "sum", "p2"), trial("retired", False)]
    found, jobs = reflect(known, [trial("", False)], templated, evolve(reflections=4, from_templated=0.5))
    assert sorted(candidate[COMPONENT] for candidate, _, _ in jobs) == ["", "", "bad", "good"]
    children = {template.text: template.parents for template in found if template.found_at == 3}
    assert sorted(children.values()) == [(), (), (0,), (1,)]
    assert [template.index for template in found] == list(range(6))


def test_the_front_keeps_the_best_of_every_kind_and_the_new_ones() -> None:
    tried = [trial("adds", True, "sum")] * 9 + [trial("adds", False, "fall")] * 9
    tried += [trial("falls", True, "fall")] * 3 + [trial("falls", False, "fall")] * 6
    tried += [trial("half", True, "sum")] * 5 + [trial("half", False, "sum")] * 5
    tried += [trial("half", False, "fall")] * 9
    tried += [trial("harms", False, kind) for kind in KINDS for _ in range(9)]
    known = with_evidence(archive("harms", "half", "falls", "adds"), tried, 1.0)
    found, _ = reflect(known, [trial("", False)], [], evolve(reflections=1, size=3))
    assert {template.text for template in found if template.kept} == {"adds", "falls", "+0"}


def test_controls_keep_everything_or_the_newest() -> None:
    known = with_evidence(archive("a", "b"), [trial("a", False)] * 50, 1.0)
    everything, _ = reflect(known, [trial("", False)], [], evolve(reflections=2, keep="all", size=1))
    assert all(template.kept for template in everything)
    newest, _ = reflect(known, [trial("", False)], [], evolve(reflections=2, keep="newest"))
    assert [template.kept for template in newest] == [False, False, True, True]


def test_a_stranger_s_failures_are_read_in_place_of_the_policy_s() -> None:
    strangers = [{"kind": kind, "question": f"{kind} of a stranger", "answer": "9", "feedback": "no"} for kind in KINDS]
    _, jobs = reflect([], [trial("", False, "fall")], [], evolve(reads="stranger"), strangers=strangers)
    assert {e["Inputs"] for _, examples, _ in jobs for e in examples[COMPONENT]} == {"fall of a stranger"}
    with pytest.raises(ValueError, match=r"strangers\.json"):
        reflect([], [trial("", False)], [], evolve(reads="stranger"))


def test_the_schedule_counts_every_iteration_and_reflects_when_due() -> None:
    config = evolve(discount=1.0).model_copy(update={"every": 3})
    hard, pool = [problem("p")], ["Add.", "Carry.", "Stop."]

    def search(previous: TemplateSearch, iteration: int, templated: list[Trial]) -> TemplateSearch:
        found, winners = search_templates(
            hard,
            previous,
            None,  # type: ignore[arg-type]  # an online search samples and judges nothing
            None,  # type: ignore[arg-type]
            pool,
            config,
            None,  # type: ignore[arg-type]
            iteration=iteration,
            seed=lambda name: iteration,
            bare=[trial("", False)],
            templated=templated,
        )
        assert winners == []
        return found

    first = search(TemplateSearch(), 1, [])
    assert first.status == "reflected"
    assert first.kept
    used = first.kept[0].text
    second = search(first, 2, [trial(used, True)])
    assert (second.status, second.searched_at) == ("carried", 1)
    assert second.templates[0].evidence == {"sum": Evidence(1.0, 1.0)}
    third = search(second, 3, [trial(used, False)])
    assert third.templates[0].evidence == {"sum": Evidence(1.0, 2.0)}
    fourth = search(third, 4, [])
    assert (fourth.status, fourth.searched_at) == ("reflected", 4)
    assert fourth.templates[0].trials == 2
    texts = [template.text for template in fourth.templates]
    assert len(texts) == len(set(texts))
    hard.clear()
    assert search(fourth, 7, []).templates == fourth.templates


def test_phrases_that_are_known_are_not_proposed_again() -> None:
    reflector = PhraseReflector(["a", "b"], max_phrases=1, rng=random.Random(0), known=["a"])
    assert [proposal.new_texts for proposal, _ in reflector.reflect_many([({COMPONENT: ""}, {}, [COMPONENT])])] == [
        {COMPONENT: "b"}
    ]


def test_from_nothing_a_whole_template_is_guessed() -> None:
    """GEPA builds templates up one phrase a step, and scores each."""
    nothing: list[ReflectionJob] = [({COMPONENT: ""}, {}, [COMPONENT])] * 12
    lengths = {}
    for whole in (False, True):
        reflector = PhraseReflector("abcdefgh", max_phrases=4, rng=random.Random(0), whole=whole)
        texts = [proposal.new_texts[COMPONENT] for proposal, _ in reflector.reflect_many(nothing)]
        lengths[whole] = {len(text.splitlines()) for text in texts}
    assert lengths == {False: {1}, True: {1, 2, 3, 4}}
