"""The library by itself: ``p2o_iteration`` without the platform, and the example that shows it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from p2o_core import Iteration, IterationConfig, Memory, p2o_iteration
from p2o_core.config import DistillConfig, EvolveConfig, RolloutConfig
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.search.schedule import is_due
from p2o_core.types import Problem, TemplateSearch
from p2o_core.verify import Verifier
from tests.core.test_update import weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_iteration.py"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import p2o_core", ["torch", "transformers", "gepa", "prefect", "mlflow", "dvc"]),
        ("from p2o_core import p2o_iteration", ["prefect", "mlflow", "dvc", "tasks", "flows"]),
    ],
)
def test_the_library_comes_without_the_platform(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import p2o_core

    assert callable(p2o_core.p2o_iteration)
    with pytest.raises(AttributeError, match="no attribute 'p2o'"):
        _ = p2o_core.p2o


def test_the_example_runs() -> None:
    """From a base that was hardly trained: all is hard, and nothing is rescued."""
    main = runpy.run_path(str(EXAMPLE))["main"]
    main.__globals__["BASE"] = main.__globals__["TINY"](seed=0, steps=5)
    done = main()
    assert len({sample.problem_id for sample in done.hard}) == len(done.bare) / 6 == 24
    assert done.report.status == "no_signal"


@pytest.mark.slow
def test_the_example_rescues_hard_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """Hard problems are found, a template solves some of them, and the update gets a signal that the bare completions
    do not have."""
    done = runpy.run_path(str(EXAMPLE))["main"]()
    hard = {sample.problem_id for sample in done.hard if not sample.near}
    bare, templated = done.verdicts[: len(done.bare)], done.verdicts[len(done.bare) :]
    assert len(hard) >= 6
    assert not any(verdict.reward for verdict in bare if verdict.problem_id in hard)
    rescued = {verdict.problem_id for verdict in templated if verdict.reward} & hard
    assert rescued
    with_signal = {g[0].problem_id for g in done.groups if len({sample.reward for sample in g}) > 1}
    assert rescued <= with_signal
    assert done.report.groups_with_signal == len(with_signal)
    assert done.report.steps >= 1
    assert f"hard at the bare prompt: {len(done.hard)} of 24" in capsys.readouterr().out


TRAIN = [Problem(f"p{n}", f"sum {n} a+5 b+2 ?", str(n + 7), "hard", "train") for n in range(8)]
ROLLOUT = RolloutConfig(problems=4, samples=2, temperature=1.0, max_new_tokens=6)
SEARCH = {"min_hard": 2, "dev_size": 2, "minibatch": 1, "parents": 2, "max_metric_calls": 15}


PHRASES = ["Go on.", "Be careful.", "Count."]


def iterate(
    policy: Policy,
    verifier: Verifier,
    memory: Memory,
    number: int,
    *,
    phrases: Sequence[str] = PHRASES,
    **sections: dict,
) -> Iteration:
    config = IterationConfig(
        ROLLOUT,
        evolve=EvolveConfig(**SEARCH | sections.get("evolve", {})),
        distill=DistillConfig(templated_samples=3, **sections.get("distill", {})),
    )
    optimizer, engine = PolicyOptimizer(policy, config.distill), EmbeddedEngine(policy, rows_per_batch=64)
    return p2o_iteration(policy, optimizer, engine, verifier, TRAIN, phrases, config, memory, iteration=number, seed=0)


def test_without_search_it_is_grpo(full_policy: Policy, verifier: Verifier) -> None:
    done = iterate(full_policy, verifier, Memory(), 1, evolve={"enabled": False})
    assert (done.search.status, done.plan, done.templated) == ("off", [], [])
    assert [len(group) for group in done.groups] == [2] * 4


def test_without_distillation_nothing_is_trained(full_policy: Policy, verifier: Verifier) -> None:
    before = weights(full_policy)
    done = iterate(full_policy, verifier, Memory(), 1, evolve={"search": "random"}, distill={"enabled": False})
    assert (done.report.status, done.templated) == ("off", [])
    assert len(done.plan) == 3 * len(done.hard) > 0, "planned as the stage does, and not sampled"
    assert torch.equal(weights(full_policy), before)


def test_templates_are_carried_until_the_next_search_is_due(full_policy: Policy, verifier: Verifier) -> None:
    every_other = {"search": "random", "every": 2}
    first = iterate(full_policy, verifier, Memory(), 1, evolve=every_other)
    assert first.search.status == "drawn"
    assert len(first.search.kept) == 2
    assert len(first.plan) == len(first.templated) == 3 * len(first.hard)
    assert {c.sample for c in first.templated} == {2, 3, 4}, "numbered behind the bare ones"
    second = iterate(full_policy, verifier, first.memory, 2, evolve=every_other)
    assert (second.search.status, second.search.templates) == ("carried", first.search.templates)
    assert {c.problem_id for c in first.bare}.isdisjoint(c.problem_id for c in second.bare), "the epoch goes on"
    assert iterate(full_policy, verifier, second.memory, 3, evolve=every_other).search.searched_at == 3


def test_a_search_is_due_from_first_on_and_then_every_so_often() -> None:
    config = EvolveConfig(first=2, every=3)
    assert [is_due(TemplateSearch(), config, n) for n in (1, 2, 3)] == [False, True, True]
    assert [is_due(TemplateSearch(searched_at=2), config, n) for n in (3, 4, 5)] == [False, False, True]


def test_random_draws_without_a_pool_are_refused_with_the_configuration() -> None:
    with pytest.raises(ValueError, match="search=random draws phrases or demonstrations, and the reflector is 'self'"):
        EvolveConfig(search="random", reflector={"type": "self"})
