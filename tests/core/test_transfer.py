"""What bare training can take over from a template: the formula, and what the update measures for nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.batch import Batch
from p2o_core.config import EvolveConfig, FullPolicy
from p2o_core.cover import assign_templates
from p2o_core.engines.base import Sampling
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.schemas import BadInput, read_json, read_rows, write_record, write_rows
from p2o_core.search.adapter import TemplateAdapter
from p2o_core.search.evolve import Evolution, evolve_templates, scored_on_fresh, split_hard
from p2o_core.seeding import derive_seed
from p2o_core.transfer import TemplatedOutcome, mean_log_ratio, templated_outcomes, transfer_weight
from p2o_core.types import Completion, Judged, Problem, SearchCost, Template, TemplateSearch, VerdictStatus
from p2o_core.update import update_policy
from p2o_core.verify import Verifier
from tasks.summary import _transfer_row
from tests.core.test_update import CONFIG, TEMPLATE, flat_group, mixed_groups
from tests.world import HARD, POOL, ScriptedEngine

RATIOS = st.lists(st.floats(-5, 5), min_size=1)


def test_the_weight_is_hill_s() -> None:
    """exp(min(Δ, 0) / τ), worked out by hand."""
    assert transfer_weight([-0.3], 0.3) == pytest.approx(1 / math.e)
    assert transfer_weight([-1.2, 0.0, -0.6], 0.3) == pytest.approx(math.exp(-2))
    assert transfer_weight([-0.6], 0.6) == pytest.approx(1 / math.e)
    assert transfer_weight([-1.0, 3.0], 0.3) == 1.0, "the mean is cut, not its parts"
    assert transfer_weight([], 0.3) == 1.0
    assert mean_log_ratio([-3.0, -1.0, -0.5], [-1.0, -1.0, -1.0]) == pytest.approx(-0.5)


@given(RATIOS, st.floats(0.01, 10))
def test_the_weight_stays_in_bounds_and_falls_with_reliance(ratios: list[float], tau: float) -> None:
    weight = transfer_weight(ratios, tau)
    assert 0 <= weight <= 1
    assert transfer_weight([ratio - 0.1 for ratio in ratios], tau) <= weight
    assert transfer_weight(ratios, 2 * tau) >= weight


@pytest.mark.parametrize("tau", [0.0, -0.3, math.nan])
def test_a_tau_that_is_none_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be above 0"):
        transfer_weight([-0.1], tau)


@pytest.mark.parametrize(("bare", "templated"), [([], []), ([-1.0], [-1.0, -2.0])])
def test_log_probs_that_do_not_fit_are_refused(bare: list[float], templated: list[float]) -> None:
    with pytest.raises(ValueError, match=r"without tokens|zip\(\)"):
        mean_log_ratio(bare, templated)


def measured(policy: Policy, prompt: tuple[int, ...], completion: tuple[int, ...], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        return policy.completion_logps(Batch.collate([prompt], [completion], policy.chat.pad_id), temperature)[0]


@pytest.mark.parametrize("settings", [{}, {"engine_ratio": "truncated", "engine_ratio_templated": "measured"}])
def test_the_update_measures_correct_templated_samples(base_folder: Path, settings: dict[str, str]) -> None:
    """At the sampling temperature, before the first step, and only where there is a signal."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    groups = mixed_groups(policy, temperature=0.8)
    expected = {}
    for group in groups:
        under_template = policy.chat.encode_prompt(group[2].problem_id, TEMPLATE)
        bare, templated = (
            measured(policy, prompt, group[2].completion_ids, 0.8) for prompt in (group[2].prompt_ids, under_template)
        )
        expected[group[2].problem_id, group[2].sample] = float((bare - templated).mean())
    config = CONFIG.model_copy(update=settings | {"groups_per_minibatch": 1})
    if settings:
        groups = [
            [
                type(s)(**vars(s) | {"sampling_prompt_ids": policy.chat.encode_prompt(s.problem_id, t)})
                for s, t in zip(group, ("", "", TEMPLATE), strict=True)
            ]
            for group in groups
        ]
    optimizer = PolicyOptimizer(policy, config)
    silent = flat_group(policy, 1.0)
    report, ratios = update_policy(policy, optimizer, [*groups, silent], config, temperature=0.8, seed=0)
    assert report.metrics["transfer_log_ratio"] == pytest.approx(sum(expected.values()) / 4, abs=1e-5)
    assert ratios == pytest.approx(expected, abs=1e-5)
    assert len(set(ratios.values())) == len(groups), "of different completions"


@pytest.mark.parametrize("off", [{"context": "templated"}, {"enabled": False}])
def test_without_a_bare_update_nothing_is_measured(full_policy: Policy, off: dict) -> None:
    config = CONFIG.model_copy(update=off)
    optimizer = PolicyOptimizer(full_policy, config)
    _, ratios = update_policy(full_policy, optimizer, mixed_groups(full_policy), config, temperature=1.0, seed=0)
    assert ratios == {}


def test_outcomes_are_rows(tmp_path: Path) -> None:
    """A rollout that was not measured is null in the file, and None again."""
    templated = [Completion("p0", sample, TEMPLATE, "", (1,), (-0.5,), False) for sample in (2, 3)]
    judged = [
        Judged("p0", sample, status, reward, "")
        for sample, status, reward in ((2, VerdictStatus.CORRECT, 1.0), (3, VerdictStatus.WRONG, 0.0))
    ]
    rows = templated_outcomes(templated, judged, {("p0", 2): -0.25, ("p0", 0): 9.0})
    assert rows == [TemplatedOutcome("p0", 2, TEMPLATE, 1.0, -0.25), TemplatedOutcome("p0", 3, TEMPLATE, 0.0, None)]
    write_rows(tmp_path / "transfer.parquet", rows, TemplatedOutcome)
    assert read_rows(tmp_path / "transfer.parquet", TemplatedOutcome) == rows
    write_rows(tmp_path / "none.parquet", [], TemplatedOutcome)
    assert read_rows(tmp_path / "none.parquet", TemplatedOutcome) == []
    write_rows(tmp_path / "other.parquet", judged, Judged)
    with pytest.raises(BadInput, match="column 'template' is missing"):
        read_rows(tmp_path / "other.parquet", TemplatedOutcome)


def search(
    verifier: Verifier, temperature: float = 1.0, archive: Sequence[str] = (), **settings: object
) -> tuple[Evolution, ScriptedEngine]:
    scene = {"dev_size": 6, "minibatch": 4, "parents": 4, "samples_per_score": 2, "max_metric_calls": 250}
    engine = ScriptedEngine()
    config = EvolveConfig(**scene | settings)
    sampling = Sampling(temperature, 8)
    evolution = evolve_templates(HARD, engine, verifier, POOL, config, sampling, seed=3, archive=archive)
    return evolution, engine


@pytest.mark.parametrize(("temperature", "passes"), [(1.0, 1), (0.7, 2)])
def test_a_score_is_the_rescue_times_the_transfer(verifier: Verifier, temperature: float, passes: int) -> None:
    """In this world 'gamma' makes what it helps with hang on it: Δ is about -1 with it, about 0 without. At temperature
    1 the sampled log-probs stand for the templated pass."""
    evolution, engine = search(verifier, temperature, ["alpha\ngamma", "beta"], transfer_tau=0.5)
    assert evolution.templates[0].transfer == 0.0
    assert evolution.templates[0].log_ratio is None, "nothing correct"
    hanging = set()
    for template in evolution.templates[1:]:
        phrases = template.text.split("\n")
        for problem_id, rate in zip(evolution.dev_ids, template.scores, strict=True):
            assert rate == float(("alpha", "beta")[int(problem_id[1:]) % 2] in phrases), "scores stay rescue rates"
        if not template.mean_score:
            continue
        hanging.add("gamma" in phrases)
        if temperature != 1:
            assert template.log_ratio == (-1.0 if "gamma" in phrases else 0.0)
            assert template.transfer == pytest.approx(template.mean_score * math.exp(template.log_ratio / 0.5))
        elif "gamma" in phrases:
            assert template.transfer < 0.5 * template.mean_score
        assert template.weight == template.transfer
    assert hanging == {True, False}, "both kinds were met"
    assert evolution.cost.scored_tokens == 2 * engine.scored
    assert engine.scored % passes == 0
    assert evolution.cost.tokens == 2 * engine.completions, "scored tokens are not generated ones"


def test_what_hangs_on_its_template_is_drawn_rarely() -> None:
    kept = [
        Template(0, "plain", (), (0.5,), kept=True, weight=0.5),
        Template(1, "hangs", (), (1.0,), kept=True, weight=0.0625),
        Template(2, "old", (), (0.4375,), kept=True),
    ]
    drawn = assign_templates(["p"], kept, {}, rollouts=4000, one_per_group=False, rng=random.Random(1))
    shares = [sum(a.template_index == index for a in drawn) / 4000 for index in range(3)]
    assert shares == pytest.approx([0.5, 0.0625, 0.4375], abs=0.03)


def test_off_is_as_it_was(verifier: Verifier, tmp_path: Path) -> None:
    """No template says more than before, nothing is scored, and the file has no new field but the cost's zero."""
    evolution, engine = search(verifier)
    assert engine.scored == evolution.cost.scored_tokens == 0
    write_record(tmp_path / "t.json", TemplateSearch("searched", 1, evolution.dev_ids, evolution.templates))
    for template in read_json(tmp_path / "t.json")["templates"]:
        assert not {"log_ratio", "transfer", "fresh", "weight"} & set(template)
    assert {t.drawing_weight == t.mean_score for t in evolution.templates} == {True}


@given(st.integers(2, 60), st.integers(1, 40), st.integers(0, 60), st.integers(0, 9))
def test_the_parts_of_the_hard_set_are_disjoint(hard: int, dev_size: int, fresh_size: int, seed: int) -> None:
    fresh_size = min(fresh_size, hard - 2)
    problems = [Problem(str(i), "q", "1", "hard", "train") for i in range(hard)]
    split = split_hard(problems, dev_size, random.Random(seed), fresh_size)
    ids = [problem.id for part in split for problem in part]
    assert sorted(ids) == sorted(problem.id for problem in problems), "each in one part"
    assert len(split.fresh) == fresh_size
    assert split.train
    assert split.dev


def test_the_template_set_is_scored_on_fresh_problems(verifier: Verifier) -> None:
    """The fresh problems are none that the search saw; the cost counts them, and draws follow them."""
    evolution, engine = search(verifier, fresh_size=4, min_hard=6)
    assert [template.fresh is not None for template in evolution.templates] == [t.kept for t in evolution.templates]
    spent = evolution.cost
    assert spent.completions == 2 * spent.metric_calls == engine.completions
    assert len(evolution.winners) == 2 * len(evolution.kept) * len(evolution.dev_ids)
    train, dev, fresh = split_hard(HARD, 6, random.Random(derive_seed(3, "split")), 4)
    assert [problem.id for problem in dev] == evolution.dev_ids
    for template in evolution.kept:
        solved = [("alpha", "beta")[int(problem.id[1:]) % 2] in template.text.split("\n") for problem in fresh]
        assert template.weight == template.fresh == sum(solved) / 4
    assert len(train) + len(dev) + len(fresh) == len(HARD)


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["alpha", "beta"], ["alpha"]),  # none of the fresh problems below is beta's
        (["beta", "delta"], ["beta", "delta"]),  # all fail: none is worse than another
        (["alpha", "alpha\ndelta"], ["alpha", "alpha\ndelta"]),
    ],
)
def test_who_rescues_no_fresh_problem_leaves(verifier: Verifier, texts: list[str], kept: list[str]) -> None:
    adapter = TemplateAdapter(ScriptedEngine(), verifier, Sampling(1.0, 8), samples=2, seed=0)
    found = [Template(index, text, (), (1.0,), kept=True) for index, text in enumerate(texts)]
    dropped = Template(2, "gamma", (), (0.0,), kept=False)
    rescored = scored_on_fresh([*found, dropped], HARD[:8:2], adapter)
    assert [template.text for template in rescored if template.kept] == kept
    assert rescored[-1] == dropped
    assert scored_on_fresh(found, [], adapter) == found
    assert adapter.metric_calls == 8


def test_fresh_and_transfer_together(verifier: Verifier) -> None:
    """The weight is then the transfer score on fresh problems."""
    adapter = TemplateAdapter(ScriptedEngine(), verifier, Sampling(0.7, 8), samples=2, seed=0, tau=0.5)
    found = [Template(0, "alpha\ngamma", (), (1.0,), kept=True, transfer=0.9, weight=0.9)]
    (template,) = scored_on_fresh(found, HARD[:4], adapter)
    assert (template.fresh, template.transfer) == (0.5, 0.9)
    assert template.weight == pytest.approx(0.5 * math.exp(-2))


@pytest.mark.parametrize("settings", [{"transfer_tau": 0.0}, {"transfer_tau": -1.0}, {"fresh_size": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        EvolveConfig(**settings)


def test_fresh_problems_must_leave_some() -> None:
    assert EvolveConfig(min_hard=10, fresh_size=8)
    with pytest.raises(ValueError, match=r"fresh_size=9 leaves 1 of the smallest hard set \(min_hard=10\)"):
        EvolveConfig(min_hard=10, fresh_size=9)


def test_the_summary_shows_both_rates() -> None:
    """Dev and fresh rate of the same templates, also of those that left for their fresh rate."""
    templates = [
        Template(0, "", (), (0.0, 0.0), kept=False, transfer=0.0, weight=0.0),
        Template(1, "a", (0,), (1.0, 0.5), kept=True, log_ratio=-0.2, transfer=0.5, fresh=0.5, weight=0.4),
        Template(2, "b", (0,), (0.0, 0.5), kept=False, log_ratio=-0.4, transfer=0.1, fresh=0.0, weight=0.0),
    ]
    row = _transfer_row(TemplateSearch("searched", 1, ["p", "q"], templates, SearchCost(scored_tokens=9)))
    assert row == {
        "evolve/transfer_score": 0.5,
        "evolve/log_ratio": -0.2,
        "gepa_scored_tokens": 9,
        "evolve/dev_rate": 0.5,
        "evolve/fresh_rate": 0.25,
        "evolve/selection_bias": 0.25,
    }
    assert _transfer_row(TemplateSearch("drawn", 1, templates=[Template(0, "a", (), (), kept=True)])) == {}
