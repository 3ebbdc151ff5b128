"""What runs in an actor. Calls carry all they need, so an actor that was restarted needs no second introduction."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2o_core.cluster.weights import Shelf, Weights
from p2o_core.config import EmbeddedEngineConfig, PolicyConfig, VerifyConfig, VllmEngineConfig
from p2o_core.digests import digest
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutEngine, RolloutRequest, Sampling
from p2o_core.schemas import BadInput
from p2o_core.types import Completion
from p2o_core.verify import Verifier, VerifierUnavailable

if TYPE_CHECKING:
    from p2o_core.engines.vllm import VllmEngine
    from p2o_core.policy import Policy

KEPT = 2
"""Policies in an actor's memory at most: the one in training, and the reference that reflects."""
TYPED: dict[str, type[Exception]] = {t.__name__: t for t in (BadInput, ValueError, VerifierUnavailable)}
"""Errors that mean something to the caller, beside :class:`PolicyNotFinite`. Others come as Ray sends them."""


@dataclass(frozen=True)
class Failure:
    """A typed error on its way to the caller, as plain data; ``rows`` are those of a policy that is not finite."""

    kind: str
    text: str
    rows: tuple[Completion, ...] = ()

    def error(self) -> Exception:
        """The error itself."""
        return PolicyNotFinite(self.rows) if self.kind == PolicyNotFinite.__name__ else TYPED[self.kind](self.text)


@dataclass(frozen=True)
class Assignment:
    """What to sample from: a policy, the ``base`` below it where that is needed, and the digests of the policies that
    will be asked for again."""

    policy: Weights
    base: Weights | None
    kept: frozenset[str]


@dataclass(frozen=True)
class Answer:
    """``value``, and the digest of the files that the policy which gave it was loaded from."""

    served: str
    value: Any


def versions() -> dict[str, str]:
    """What has to be the same on all nodes for the same bytes: our own code, torch, transformers and Python."""
    import torch
    import transformers

    code = {"p2o_core": code_digest(), "python": sys.version.split()[0]}
    return code | {"torch": torch.__version__, "transformers": transformers.__version__}


class EngineWorker:
    """An engine on one device. ``threads`` are torch's, ``scratch`` is where policies are unpacked (:class:`Shelf`)."""

    def __init__(
        self, policy: PolicyConfig, engine: EmbeddedEngineConfig | VllmEngineConfig, threads: int, scratch: str
    ) -> None:
        self.policy = policy
        self.engine = engine
        self.threads = threads
        self._scratch = scratch
        self._shelf: Shelf | None = None
        self._policies: dict[str, Policy] = {}
        self._vllm: VllmEngine | None = None

    def ready(self) -> dict[str, str]:
        """The sign of life: :func:`versions`, for which everything large is imported."""
        self._started()
        return versions()

    def generate(
        self, assignment: Assignment, requests: Sequence[RolloutRequest], sampling: Sampling
    ) -> Answer | Failure:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        return self._answer(assignment, lambda engine: engine.generate(requests, sampling))

    def completion_logps(self, assignment: Assignment, requests: Sequence[LogprobRequest]) -> Answer | Failure:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        return self._answer(assignment, lambda engine: engine.completion_logps(requests))

    def close(self) -> None:
        if self._vllm is not None:
            self._vllm.close()
        if self._shelf is not None:
            self._shelf.close()

    def _answer(self, assignment: Assignment, ask: Callable[[RolloutEngine], object]) -> Answer | Failure:
        try:
            engine, served = self._pointed(assignment)
            return Answer(served, ask(engine))
        except PolicyNotFinite as error:
            return Failure(PolicyNotFinite.__name__, str(error), tuple(error.completions))
        except tuple(TYPED.values()) as error:
            return _failure(error)

    def _pointed(self, assignment: Assignment) -> tuple[RolloutEngine, str]:
        """The engine, sampling from the policy, and the digest of the policy's files as they lie on this node."""
        folder = self._unpacked(assignment.policy, assignment)
        base = self._unpacked(assignment.base, assignment) if assignment.base else folder
        served = digest(folder)
        if isinstance(self.engine, EmbeddedEngineConfig):
            from p2o_core.engines.embedded import EmbeddedEngine

            return EmbeddedEngine(self._loaded(folder, base, served), rows_per_batch=self.engine.rows_per_batch), served
        if self._vllm is None:
            from p2o_core.engines.vllm import VllmEngine

            self._vllm = VllmEngine(base, self.policy, self.engine)
        self._vllm.use(folder)
        return self._vllm, served

    def _unpacked(self, weights: Weights, assignment: Assignment) -> Path:
        return self._started().folder_of(weights, assignment.kept)

    def _started(self) -> Shelf:
        """Once an actor's life; one that Ray restarted between two calls is not asked for a sign of life before."""
        if self._shelf is None:
            import ray

            from p2o_core.policy import settle_arithmetic

            settle_arithmetic(self.threads)
            self._shelf = Shelf(self._scratch, ray.get_runtime_context().get_job_id())
        return self._shelf

    def _loaded(self, folder: Path, base: Path, served: str) -> Policy:
        from p2o_core.policy import Policy

        if served not in self._policies:
            while len(self._policies) >= KEPT:
                del self._policies[next(iter(self._policies))]
            self._policies[served] = Policy.load(folder, base, self.policy)
        self._policies[served] = self._policies.pop(served)  # used last
        return self._policies[served]


class VerifierWorker:
    """A verifier whose processes run beside the actor: there, and nowhere else, is model output parsed."""

    def __init__(self, config: VerifyConfig) -> None:
        self.verifier = Verifier(config.workers, config.timeout_s)

    def ready(self) -> str:
        """The sign of life: our own code's digest."""
        return code_digest()

    def verify(self, pairs: Sequence[tuple[str, Any]]) -> list[tuple[str, float, str]] | Failure:
        """Status, reward and what was read of each pair; see :class:`p2o_core.verify.Verifier`."""
        try:
            return [(v.status.value, v.reward, v.extracted) for v in self.verifier.verify(pairs)]
        except VerifierUnavailable as error:
            return _failure(error)

    def close(self) -> None:
        self.verifier.__exit__(None, None, None)


def _failure(error: Exception) -> Failure:
    kind = next(name for name, known in TYPED.items() if isinstance(error, known))
    return Failure(kind, str(error))


def code_digest() -> str:
    import hashlib

    folder = Path(__file__).parent.parent
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest(path)}\n".encode())
    return whole.hexdigest()[:12]
