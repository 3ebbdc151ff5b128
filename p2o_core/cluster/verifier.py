"""Verification on the cluster: actors, each with a verifier and its processes."""

from __future__ import annotations

from collections.abc import Sequence

from p2o_core.cluster.crew import Crew
from p2o_core.cluster.workers import VerifierWorker, code_digest
from p2o_core.config import RayEngineConfig, VerifyConfig
from p2o_core.types import Gold, Verdict, VerdictStatus

PAIRS = 64
"""Answers a part. They have no influence on each other's verdicts."""


class RayVerifier:
    """See :class:`p2o_core.types.AnswerVerifier`; verdicts are those of one :class:`p2o_core.verify.Verifier`."""

    def __init__(self, config: VerifyConfig, ray: RayEngineConfig) -> None:
        self.crew = Crew(
            VerifierWorker,
            (config,),
            count=ray.verifiers,
            in_flight=ray.in_flight,
            restarts=ray.restarts,
            patience_s=ray.patience_s,
            expected=code_digest(),
            num_cpus=config.workers,
        )

    def verify(self, pairs: Sequence[tuple[str, Gold]]) -> list[Verdict]:
        """One verdict for each ``(response, gold)``, in order. Equal pairs are checked once.

        Raises:
            VerifierUnavailable: an actor cannot start its workers.
            EngineUnavailable: see :meth:`p2o_core.cluster.crew.Crew.work`.
        """
        distinct = list(dict.fromkeys(pairs))
        parts = [distinct[first : first + PAIRS] for first in range(0, len(distinct), PAIRS)]
        verdicts: dict[tuple[str, Gold], Verdict] = {}
        for number, judged in self.crew.work([("verify", part) for part in parts]):
            told = (Verdict(VerdictStatus(status), reward, read) for status, reward, read in judged)
            verdicts |= zip(parts[number], told, strict=True)
        return [verdicts[pair] for pair in pairs]

    def close(self) -> None:
        """End the actors."""
        self.crew.close()
