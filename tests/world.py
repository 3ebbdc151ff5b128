"""A world with a known answer, for tests of the search: two phrases, each solves half of the problems."""

from __future__ import annotations

from collections.abc import Sequence

from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.types import Completion, Problem

POOL = ["alpha", "beta", "gamma", "delta"]
HARD = [Problem(f"p{i}", f"question {i}", str(i), "hard", "train") for i in range(12)]


class Killed(BaseException):
    """kill -9, as far as the code that is running can tell."""


class ScriptedEngine:
    """Solves even problems under 'alpha', odd ones under 'beta', none without them. It is a real engine as far as the
    Protocol goes, and the real verifier judges its answers. It counts calls and completions, and raises Killed at the
    ``dies_at``-th call. Log-probs are functions of each row's seed, so that a test sees which seed was used."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls = self.completions = 0
        self.dies_at = dies_at

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise Killed
        written = []
        for request in requests:
            number = int(request.question.split()[1])
            solved = ("alpha", "beta")[number % 2] in request.template.split("\n")
            text = f"\\boxed{{{number if solved else number + 100}}}"
            for sample in request.samples:
                logps = (-1.0 / (1 + request.seed(sample) % 97), 0.0)
                written.append(Completion(request.problem_id, sample, request.template, text, (1, 2), logps, False, 7))
        self.completions += len(written)
        return written
