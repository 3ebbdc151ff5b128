from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from gepa.core.adapter import EvaluationBatch

from p2o_core.config import EvolveConfig, PhraseReflectorConfig
from p2o_core.cover import solvers
from p2o_core.engines.base import Sampling
from p2o_core.search.adapter import TemplateAdapter
from p2o_core.search.evolve import evolve_templates, split_hard
from p2o_core.search.racing import Race
from p2o_core.search.reflectors import PhraseReflector
from p2o_core.search.sampling import draw_without_replacement
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from p2o_core.verify import Verifier
from tests.world import HARD, POOL, ScriptedEngine


def search(verifier: Verifier, seed: int = 3, archive: Sequence[str] = (), **settings: object):
    scene = {"dev_size": 6, "minibatch": 2, "parents": 4, "samples_per_score": 2, "max_metric_calls": 250}
    config = EvolveConfig(**scene | settings)
    engine = ScriptedEngine()
    evolution = evolve_templates(
        HARD, engine, verifier, POOL, config, Sampling(1.0, 8), seed=derive_seed(seed), archive=archive
    )
    return evolution, engine


def test_search_finds_what_works_and_keeps_a_cover(verifier: Verifier) -> None:
    evolution, engine = search(verifier)
    assert evolution.templates[0].text == "", "the search starts from the empty template"
    covered = {
        problem
        for problem, solvers in solvers(evolution.kept, evolution.dev_ids, 1.0).items()
        if any(template.index in solvers for template in evolution.kept)
    }
    assert covered == set(evolution.dev_ids)
    for template in evolution.kept:
        assert {"alpha", "beta"} & set(template.text.split("\n"))
    assert all(parent < t.index for t in evolution.templates for parent in t.parents)
    cost = evolution.cost
    assert cost.completions == 2 * cost.metric_calls, "k rollouts a score, rejected candidates counted"
    assert cost.tokens == 2 * cost.completions
    assert cost.prompt_tokens == 7 * cost.completions, "each completion's whole prompt"
    assert engine.calls <= 3 * cost.steps + 1, "parents, children and accepted dev scores: a batched call each"


def test_scores_are_the_front_of_gepa(verifier: Verifier) -> None:
    """Each template's dev scores are what its text earns in this world."""
    evolution, _ = search(verifier)
    for template in evolution.templates:
        for problem_id, score in zip(evolution.dev_ids, template.scores, strict=True):
            word = ("alpha", "beta")[int(problem_id[1:]) % 2]
            assert score == float(word in template.text.split("\n"))


def test_search_is_a_function_of_its_seed(verifier: Verifier) -> None:
    first, again, other = (search(verifier, seed)[0] for seed in (3, 3, 4))
    assert first == again
    assert first.dev_ids != other.dev_ids


def test_an_archive_is_scored_before_anything_new(verifier: Verifier) -> None:
    evolution, _ = search(verifier, archive=["alpha", "beta"])
    assert [template.text for template in evolution.templates[:3]] == ["", "alpha", "beta"]
    assert [template.parents for template in evolution.templates[1:3]] == [(0,), (0,)]
    covered = [max(pair) for pair in zip(*(template.scores for template in evolution.templates[1:3]), strict=True)]
    assert covered == [1.0] * 6, "what worked before covers all from the first step on"


def test_found_at_is_what_had_been_spent(verifier: Verifier) -> None:
    evolution, _ = search(verifier)
    spent = [template.found_at for template in evolution.templates]
    assert spent[0] == len(evolution.dev_ids)
    assert spent == sorted(spent)
    assert spent[-1] <= evolution.cost.metric_calls


def test_winners_are_what_the_kept_scores_come_from(verifier: Verifier) -> None:
    evolution, _ = search(verifier)
    assert len(evolution.winners) == 2 * len(evolution.kept) * len(evolution.dev_ids)
    assert {c.template for c in evolution.winners} == {template.text for template in evolution.kept}
    assert {c.problem_id for c in evolution.winners} == set(evolution.dev_ids)


def scored(items: list, seen: list) -> list[EvaluationBatch]:
    """Every candidate scores the number its text says on each problem; ``seen`` notes who was asked what."""
    seen += [(candidate["template"], [p.id for p in problems]) for candidate, problems in items]
    return [
        EvaluationBatch(
            outputs=[""] * len(problems),
            scores=[float(candidate["template"].split()[int(p.id[1:])]) for p in problems],
            trajectories=[{}] * len(problems),
        )
        for candidate, problems in items
    ]


def test_a_race_drops_who_is_behind_and_wins_nothing() -> None:
    dev, seen = HARD[:4], []
    race = Race(dev)
    assert race.is_race([({}, dev)])
    assert not race.is_race([({}, dev[:2])])

    def run(*texts: str) -> list[list[float]]:
        return [r.scores for r in race.run([({"template": text}, dev) for text in texts], lambda i: scored(i, seen))]

    assert run("1 0 1 1") == [[1, 0, 1, 1]], "the first one has nobody to be behind of"
    seen.clear()
    slow, specialist, close = "0 0 1 1", "0 .2 0 1", ".5 0 0 0"
    assert run(slow, specialist, close) == [[0, 0, 0, 0], [0, 0.2, 0, 1], [0.5, 0, 0, 0]]
    assert [text for text, ids in seen if ids == ["p2", "p3"]] == [specialist, close], "not the one that was dropped"
    assert race.dropped == 1


def test_racing_costs_less_and_covers_as_much(verifier: Verifier) -> None:
    """The same templates in the same steps; the one that raced out was not scored on three of six dev instances."""
    scene = {"seed": 5, "max_metric_calls": 111}
    raced, whole = search(verifier, racing=True, **scene)[0], search(verifier, **scene)[0]
    assert [t.text for t in raced.templates] == [t.text for t in whole.templates]
    assert (raced.cost.steps, raced.cost.raced_out, whole.cost.raced_out) == (whole.cost.steps, 1, 0)
    assert raced.cost.metric_calls == whole.cost.metric_calls - 3
    for evolution in (raced, whole):
        assert {i for t in evolution.kept for i, score in enumerate(t.scores) if score >= 1.0} == set(range(6))
        assert evolution.cost.completions == 2 * evolution.cost.metric_calls


@pytest.mark.parametrize("racing", [False, True])
@pytest.mark.parametrize(
    ("wanted", "traced"), [({}, True), ({"capture_traces": True}, True), ({"capture_traces": False}, False)]
)
def test_gepa_s_old_and_new_call_give_the_same_scores(
    verifier: Verifier, racing: bool, wanted: dict[str, bool], traced: bool
) -> None:
    """gepa 0.1.4 calls ``batch_evaluate(items)``; the next version ``batch_evaluate(items, capture_traces=…)``."""
    race = Race(HARD[:4]) if racing else None
    adapter = TemplateAdapter(ScriptedEngine(), verifier, Sampling(1.0, 8), samples=2, seed=0, race=race)
    adapter.batch_evaluate([({"template": "alpha\nbeta"}, HARD[:4])], **wanted)  # whom the others are behind
    results = adapter.batch_evaluate([({"template": text}, HARD[:4]) for text in ("alpha", "gamma")], **wanted)
    assert [result.scores for result in results] == [[1, 0, 1, 0], [0, 0, 0, 0]]
    assert [result.trajectories is not None for result in results] == [traced, traced]
    assert all(len(result.trajectories) == 4 for result in results if result.trajectories is not None)
    assert not racing or adapter.race.dropped == 1


def test_random_templates_use_the_pool_and_nothing_that_is_excluded() -> None:
    reflector = PhraseReflector(POOL, max_phrases=3, rng=random.Random(0), exclude=("alpha",))
    drawn = [tuple(reflector.random_template().split("\n")) for _ in range(200)]
    assert {phrase for phrases in drawn for phrase in phrases} == {"beta", "gamma", "delta"}
    assert Counter(len(phrases) for phrases in drawn).keys() == {1, 2, 3}
    assert all(len(set(phrases)) == len(phrases) for phrases in drawn)


def test_a_budget_for_a_single_proposal_is_refused() -> None:
    assert EvolveConfig(dev_size=6, minibatch=2, max_metric_calls=36)
    with pytest.raises(ValueError, match="allows hardly one proposal"):
        EvolveConfig(dev_size=6, minibatch=2, max_metric_calls=35)


@pytest.mark.parametrize(("hard", "dev_size", "expected"), [(450, 300, 300), (449, 300, 224), (12, 6, 6), (8, 6, 4)])
def test_split(hard: int, dev_size: int, expected: int) -> None:
    problems = [Problem(str(i), "q", "1", "hard", "train") for i in range(hard)]
    train, dev = split_hard(problems, dev_size, random.Random(0))
    assert len(dev) == expected
    assert {p.id for p in train} | {p.id for p in dev} == {p.id for p in problems}
    assert not {p.id for p in train} & {p.id for p in dev}


def test_parents_are_distinct_and_weighted() -> None:
    weights = Counter({0: 6, 1: 3, 2: 1})
    draws = [draw_without_replacement(weights, 2, random.Random(seed)) for seed in range(3000)]
    assert all(len(set(draw)) == 2 for draw in draws)
    first = Counter(draw[0] for draw in draws)
    assert abs(first[0] / 3000 - 0.6) < 0.04
    assert sorted(draw_without_replacement(weights, 16, random.Random(0))) == [0, 1, 2]


def test_phrase_reflector_only_uses_its_pool_and_does_not_repeat_itself() -> None:
    settings = PhraseReflectorConfig(max_phrases=3)
    reflector = PhraseReflector(POOL, max_phrases=settings.max_phrases, rng=random.Random(0))
    proposals: list[str] = []
    parent = {"template": ""}
    for _ in range(25):
        ((proposal, _),) = reflector.reflect_many([(parent, {}, ["template"])])
        proposals.append(proposal.new_texts["template"])
        parent = {"template": random.Random(len(proposals)).choice(proposals)}
    for text in proposals:
        phrases = text.split("\n")
        assert set(phrases) <= set(POOL)
        assert len(phrases) == len(set(phrases)) <= 3
    assert len(set(proposals)) >= 20
