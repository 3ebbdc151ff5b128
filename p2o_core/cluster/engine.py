"""The ``ray`` engine: completions from actors, each with an engine of ours on a device of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from p2o_core.cluster.connection import Cluster
from p2o_core.cluster.crew import Call, Crew
from p2o_core.cluster.weights import Weights, sent
from p2o_core.cluster.workers import KEPT, Assignment, EngineWorker, versions
from p2o_core.config import EmbeddedEngineConfig, PolicyConfig, RayEngineConfig
from p2o_core.digests import digest
from p2o_core.engines.base import LogprobRequest, RolloutRequest, Sampling, shards
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.embedded import batches
from p2o_core.policy import ADAPTER_CONFIG
from p2o_core.prompts import Chat
from p2o_core.types import Completion


@dataclass
class Swaps:
    """What was put into the object store since the engine was made: ``count`` folders, ``size`` bytes together, and
    those of the ``last`` one. Every node fetches each once."""

    count: int = 0
    size: int = 0
    last: int = 0


class RayEngine:
    """See :class:`p2o_core.engines.base.SpreadingEngine`.

    A part is what one process would compute in one batch (embedded) or one call (vLLM), so the completions are those of
    one process, to the byte, whatever the number of actors: torch's threads are this process's, and an actor whose code
    or packages are others is refused. Each answer says which files its policy was loaded from.
    """

    def __init__(self, base: Path, policy: PolicyConfig, config: RayEngineConfig, cluster: Cluster) -> None:
        gpus = config.gpus(policy)
        self.base = base
        self.config = config
        self.on_rows: Callable[[int], None] | None = None
        self.swaps = Swaps()
        self._sent: dict[str, Weights] = {}  # by digest, used last comes last
        self._folder = base
        threads = torch.get_num_threads()
        here = policy.model_copy(update={"device": "cuda" if gpus else "cpu"})  # Ray shows an actor its own cards only
        self.crew = Crew(
            EngineWorker,
            (here, config.engine, threads, cluster.scratch),
            count=config.actors,
            in_flight=config.in_flight,
            restarts=config.restarts,
            patience_s=config.patience_s,
            expected=versions(),
            num_cpus=threads,
            num_gpus=gpus,
        )

    def use(self, policy: Path) -> None:
        """Sample from the policy in this folder from now on: an adapter, full weights, or the base itself. What the
        object store does not have yet is sent with the next call."""
        self._folder = policy

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """See :class:`p2o_core.engines.base.RolloutEngine`.

        Raises:
            EngineUnavailable: see :meth:`p2o_core.cluster.crew.Crew.work`.
        """
        if not isinstance(self.config.engine, EmbeddedEngineConfig):
            parts = list(shards(requests, self.config.completions_per_unit))
            answers = dict(self.generate_parts(parts, sampling))
            return [completion for number in range(len(parts)) for completion in answers[number]]
        chunks = list(batches(requests, self._chat, self.config.engine.rows_per_batch))
        rows: dict[tuple[int, int], Completion] = {}
        for number, completions in self.generate_parts([[requests[i] for i in chunk] for chunk in chunks], sampling):
            places = [(index, sample) for index in chunks[number] for sample in requests[index].samples]
            rows |= zip(places, completions, strict=True)
        return [rows[index, sample] for index, request in enumerate(requests) for sample in request.samples]

    def generate_parts(
        self, parts: Sequence[Sequence[RolloutRequest]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See :class:`p2o_core.engines.base.SpreadingEngine`."""
        assignment = self._assignment()
        for number, completions in self._answers([("generate", assignment, part, sampling) for part in parts]):
            if self.on_rows:
                self.on_rows(len(completions))
            yield number, completions

    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """See :class:`p2o_core.engines.base.RolloutEngine`. One actor scores them all, in one process's batches."""
        if not requests:
            return []
        ((_, scored),) = self._answers([("completion_logps", self._assignment(), list(requests))])
        return scored

    def close(self) -> None:
        """End the actors; the engine cannot be used again."""
        self.crew.close()

    @cached_property
    def _chat(self) -> Chat:
        return Chat.load(self.base)  # the policy's own tokenizer is a copy of it

    def _answers(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        for number, answer in self.crew.work(calls):
            expected = calls[number][1].policy.digest
            if answer.served != expected:
                raise EngineUnavailable(
                    f"an actor samples from policy {answer.served[:12]}, {expected[:12]} was sent. Mend: look for full "
                    "or failing disks on the nodes, and start again."
                )
            yield number, answer.value

    def _assignment(self) -> Assignment:
        policy = self._weights(self._folder)
        needs_base = (
            not isinstance(self.config.engine, EmbeddedEngineConfig) or (self._folder / ADAPTER_CONFIG).exists()
        )
        base = self._weights(self.base) if needs_base else None
        for old in [key for key in self._sent if base is None or key != base.digest][:-KEPT]:
            del self._sent[old]
        return Assignment(policy, base, frozenset(self._sent))

    def _weights(self, folder: Path) -> Weights:
        key = digest(folder)
        if key not in self._sent:
            self._sent[key] = sent(folder)
            size = self._sent[key].size
            self.swaps = Swaps(self.swaps.count + 1, self.swaps.size + size, size)
        self._sent[key] = self._sent.pop(key)
        return self._sent[key]
