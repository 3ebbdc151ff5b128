"""Dynamic sampling: new problems stand in for those without a signal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from p2o_core.config import RolloutConfig
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.mining import rewards_by_problem
from p2o_core.rollout import gold_answers, iteration_problems, judge, sample_iteration
from p2o_core.types import AnswerVerifier, Completion, Problem
from p2o_core.verify import Verifier
from tasks.running.journal import Journal, JournaledEngine, JournaledVerifier
from tests.world import Killed, ScriptedEngine

TRAIN = [Problem(f"p{i}", f"question {i}", str(i), "any", "train") for i in range(60)]
ASKED = {"params": "abc"}


class Sometimes(ScriptedEngine):
    """Solves every third problem with its even samples, the next one always, the one after never."""

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        written = super().generate(requests, sampling)
        return [self._answered(completion) for completion in written]

    def _answered(self, completion: Completion) -> Completion:
        number = int(completion.problem_id[1:])
        right = (completion.sample % 2 == 0, True, False)[number % 3]
        text = f"\\boxed{{{number if right else number + 100}}}"
        return Completion(completion.problem_id, completion.sample, "", text, (1, 2), completion.logps, False)


def sample(
    engine: RolloutEngine, verifier: AnswerVerifier, rounds: int, *, problems: int = 6, train: int = 60
) -> list[Completion]:
    config = RolloutConfig(problems=problems, samples=2, max_new_tokens=4, resample_rounds=rounds)
    return sample_iteration(engine, lambda: verifier, TRAIN[:train], config, iteration=2, seed=5)


def with_signal(completions: Sequence[Completion], verifier: Verifier) -> list[str]:
    rewards = rewards_by_problem(judge(verifier, completions, gold_answers(TRAIN)))
    return [problem for problem, values in rewards.items() if len(set(values)) > 1]


def test_problems_are_drawn_until_enough_have_a_signal(verifier: Verifier) -> None:
    done = sample(Sometimes(), verifier, 20)
    asked = [completion.problem_id for completion in done]
    assert len(with_signal(done, verifier)) == 6, "as many as the iteration has problems, and none to be thrown away"
    assert asked[:12] == [p.id for p in iteration_problems(TRAIN, 2, 6, seed=5) for _ in range(2)]
    assert all(asked.count(problem) == 2 for problem in asked), "a problem is asked once"
    assert sample(Sometimes(), verifier, 20) == done


def test_a_round_draws_what_is_missing_and_rounds_end(verifier: Verifier) -> None:
    sizes, found = [], []
    for rounds in range(4):
        done = sample(Sometimes(), verifier, rounds)
        sizes.append(len({completion.problem_id for completion in done}))
        found.append(len(with_signal(done, verifier)))
    drawn = [later - earlier for earlier, later in pairwise(sizes)]
    assert sizes[0] == 6
    assert drawn == [6 - signals for signals in found[:-1]]
    assert found[0] < 6


def test_a_train_split_without_enough_of_them_is_asked_once(verifier: Verifier) -> None:
    done = sample(Sometimes(), verifier, 99, problems=9, train=15)
    assert sorted({c.problem_id for c in done}) == sorted(problem.id for problem in TRAIN[:15])
    assert len(done) == 30


def test_without_rounds_no_verdict_is_asked_for() -> None:
    def started() -> AnswerVerifier:
        raise AssertionError("the verifier was started")

    config = RolloutConfig(problems=6, samples=2, max_new_tokens=4)
    assert len(sample_iteration(Sometimes(), started, TRAIN, config, iteration=1, seed=0)) == 12


def test_killed_and_started_again_equals_one_go(tmp_path: Path, verifier: Verifier) -> None:
    whole = Sometimes()
    undisturbed = sample(JournaledEngine(lambda: whole, Journal(tmp_path / "whole", ASKED), unit=4), verifier, 20)
    assert whole.calls > 4
    for dies_at in range(1, whole.calls + 1):
        first, second = Sometimes(dies_at), Sometimes()
        for engine in (first, second):
            journal = Journal(tmp_path / f"at-{dies_at}", ASKED)
            journaled = JournaledEngine(lambda engine=engine: engine, journal, unit=4)  # type: ignore[misc]
            if engine is first:
                with pytest.raises(Killed):
                    sample(journaled, JournaledVerifier(verifier, journal), 20)
            else:
                assert sample(journaled, JournaledVerifier(verifier, journal), 20) == undisturbed
        assert first.completions + second.completions == whole.completions
