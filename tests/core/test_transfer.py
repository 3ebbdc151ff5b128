"""What bare training can take over from a template: the formula, and what the update measures for nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.config import FullPolicy
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Batch, Policy
from p2o_core.schemas import BadInput, read_rows, write_rows
from p2o_core.transfer import TemplatedOutcome, mean_log_ratio, templated_outcomes, transfer_weight
from p2o_core.types import Completion, Judged, VerdictStatus
from p2o_core.update import update_policy
from tests.core.test_update import CONFIG, TEMPLATE, flat_group, mixed_groups

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
    _, ratios = update_policy(policy, optimizer, [*groups, silent], config, temperature=0.8, seed=0)
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
