"""What stays warm between the stages of one process: the engine, the trainer's policy and the verifier's workers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from p2o_core.config import EmbeddedEngineConfig, PolicyConfig, RayEngineConfig, VllmEngineConfig
from p2o_core.digests import digest
from p2o_core.schemas import BadInput
from p2o_core.types import AnswerVerifier
from p2o_core.verify import Verifier
from p2o_core.witness import check_served, read_witness

if TYPE_CHECKING:  # torch is imported by the stages that need it, not by those that only read parquet
    from p2o_core.cluster.connection import Cluster
    from p2o_core.cluster.engine import RayEngine
    from p2o_core.engines.base import RolloutEngine
    from p2o_core.engines.server import ServerEngine
    from p2o_core.engines.vllm import VllmEngine
    from p2o_core.policy import Policy
    from tasks.parameters.experiment import Experiment

OnRows = Callable[[int], None]
SecretResolver = Callable[[str, str], str]
"""Takes the names of an environment variable and of a block in a store; returns the secret, blank for none."""
KEPT = 2
"""Policies in memory at most: the one in training, and the reference that reflects."""


def environment_secret(variable: str, block: str) -> str:
    """The environment variable's value, blank when it is not set. Knows no store.

    Raises:
        BadInput: a block is wanted, and there is no store to ask.
    """
    value = os.environ.get(variable, "") if variable else ""
    if block and not value:
        raise BadInput(f"no store of secrets is at hand for block {block!r}. Mend: set {variable or 'a variable'}.")
    return value


class Runtime:
    """Use as a context manager. Policies are kept under the digest of the folder they came from, the one in training
    and the reference at most; the embedded engine samples from these, the others have a copy of their own."""

    def __init__(self, secret: SecretResolver | None = None) -> None:
        self.secret = secret or environment_secret
        self._policies: dict[str, Policy] = {}
        self._verifier: AnswerVerifier | None = None
        self._open = ExitStack()  # closes the verifier's workers, vLLM and Ray
        self._vllm: tuple[str, VllmEngine] | None = None
        self._server: tuple[str, ServerEngine] | None = None
        self._cluster: Cluster | None = None
        self._ray: tuple[str, RayEngine] | None = None
        self._served = ""  # digest of the policy that the engine was seen to serve

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        self._verifier = None
        self._open.close()

    def verifier(self, experiment: Experiment) -> AnswerVerifier:
        """The experiment's verifier, in processes beside this one or on the engine's cluster."""
        config, engine = experiment.verify, experiment.engine
        if self._verifier is None and isinstance(engine, RayEngineConfig) and engine.verifiers:
            from p2o_core.cluster.verifier import RayVerifier

            self._connected(engine, experiment)
            verifier = RayVerifier(config, engine)
            self._open.callback(verifier.close)
            self._verifier = verifier
        elif self._verifier is None:
            self._verifier = self._open.enter_context(Verifier(config.workers, config.timeout_s))
        return self._verifier

    def engine(self, policy: Path, base: Path, experiment: Experiment, on_rows: OnRows | None = None) -> RolloutEngine:
        """The experiment's engine, sampling from the policy in a folder (``base`` itself: the reference policy)."""
        config = experiment.engine
        if isinstance(config, EmbeddedEngineConfig):
            from p2o_core.engines.embedded import EmbeddedEngine

            kept = self.trainer(policy, base, experiment.policy)
            return EmbeddedEngine(kept, rows_per_batch=config.rows_per_batch, on_rows=on_rows)
        if isinstance(config, VllmEngineConfig):
            engine = self._started_vllm(base, experiment.policy, config)
            engine.on_rows = on_rows
            engine.use(policy)
            self._check_served(engine, policy, "vLLM")
            return engine
        if isinstance(config, RayEngineConfig):
            spread = self._started_ray(base, experiment, config)
            spread.on_rows = on_rows
            spread.use(policy)
            self._check_served(spread, policy, "Ray's actor")
            return spread
        from p2o_core.engines.server import ServerEngine

        key = f"{policy.resolve()}:{_key(policy, experiment.policy)}{config.model_dump_json()}"
        if self._server is None or self._server[0] != key:
            self._server = (key, ServerEngine(base, policy, config))
        self._server[1].on_rows = on_rows or (lambda rows: None)
        return self._server[1]

    def _check_served(self, engine: RolloutEngine, policy: Path, where: str) -> None:
        """After each swap. A server engine checks its servers itself, as each of them joins."""
        served = digest(policy)
        if served != self._served and (witness := read_witness(policy)) is not None:
            (logps,) = engine.completion_logps([witness.request])
            check_served(logps, witness, where)
        self._served = served

    def trainer(self, policy: Path, base: Path, config: PolicyConfig) -> Policy:
        """The policy saved in a folder, from memory when it is the one kept; an engine of its own sleeps meanwhile."""
        from p2o_core.policy import Policy

        self._sleep()
        key = _key(policy, config)
        if key in self._policies:
            self._policies[key] = self._policies.pop(key)  # used last
        else:
            while len(self._policies) >= KEPT:
                del self._policies[next(iter(self._policies))]
            self._policies[key] = Policy.load(policy, base, config)
        return self._policies[key]

    def policy_changed(self, policy: Policy, folder: Path, config: PolicyConfig) -> None:
        """The kept policy was trained and saved to ``folder``."""
        self._policies[_key(folder, config)] = policy

    def leave_device(self) -> None:
        """Make room for processes that train: policies are read again when needed, an engine of its own sleeps."""
        from p2o_core.optimizer import release_memory

        self.forget_policies()
        self._sleep()
        release_memory()

    def _sleep(self) -> None:
        if self._vllm is not None:
            self._vllm[1].sleep()
            self._served = ""  # what wakes up is looked at again

    def forget_policies(self) -> None:
        """Before training in place: should training fail, no half-trained policy is handed out."""
        self._policies.clear()

    def _started_vllm(self, base: Path, policy: PolicyConfig, config: VllmEngineConfig) -> VllmEngine:
        from p2o_core.engines.vllm import VllmEngine

        self.forget_policies()  # engine and trainer share one device: the trainer's copy is read again when needed
        key = _key(base, policy) + config.model_dump_json()
        if self._vllm is None or self._vllm[0] != key:
            self._close_vllm()
            self._vllm = (key, VllmEngine(base, policy, config))
            self._open.callback(self._close_vllm)
        return self._vllm[1]

    def _started_ray(self, base: Path, experiment: Experiment, config: RayEngineConfig) -> RayEngine:
        from p2o_core.cluster.engine import RayEngine

        key = _key(base, experiment.policy) + config.model_dump_json()
        if self._ray is None or self._ray[0] != key:
            self._close_ray()
            cluster = self._connected(config, experiment)
            self._ray = (key, RayEngine(base, experiment.policy, config, cluster))
            self._open.callback(self._close_ray)
        return self._ray[1]

    def _close_ray(self) -> None:
        if self._ray is not None:
            self._ray[1].close()
            self._ray = None

    def _connected(self, config: RayEngineConfig, experiment: Experiment) -> Cluster:
        from p2o_core.cluster.connection import Cluster

        if self._cluster is None:
            slots = config.processors(experiment.threads, experiment.verify.workers)
            gpus = math.ceil(config.actors * config.gpus(experiment.policy))
            self._cluster = Cluster(config.address, slots=slots, gpus=gpus)
            self._open.callback(self._cluster.close)
        return self._cluster

    def _close_vllm(self) -> None:
        if self._vllm is not None:
            self._vllm[1].close()
            self._vllm = None


def _key(folder: Path, config: PolicyConfig) -> str:
    return digest(folder) + config.model_dump_json()
