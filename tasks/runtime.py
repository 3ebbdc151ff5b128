"""What stays warm between the stages of one process: the engine, the trainer's policy and the verifier's workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from p2o_core.config import EmbeddedEngineConfig, PolicyConfig, VerifyConfig, VllmEngineConfig
from p2o_core.verify import Verifier
from tasks.manifests import digest

if TYPE_CHECKING:  # torch is imported by the stages that need it, not by those that only read parquet
    from p2o_core.engines.base import RolloutEngine
    from p2o_core.engines.vllm import VllmEngine
    from p2o_core.policy import Policy
    from tasks.experiment import Experiment

OnRows = Callable[[int], None]


class Runtime:
    """Use as a context manager. One policy is kept, known by the digest of the folder it came from; the embedded
    engine samples from that very policy, the others have a copy of their own."""

    def __init__(self) -> None:
        self._policy: tuple[str, Policy] | None = None
        self._verifier: Verifier | None = None
        self._vllm: tuple[str, VllmEngine] | None = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._verifier is not None:
            self._verifier.__exit__(None, None, None)
            self._verifier = None
        self._close_vllm()

    def verifier(self, config: VerifyConfig) -> Verifier:
        if self._verifier is None:
            self._verifier = Verifier(config.workers, config.timeout_s).__enter__()
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
            return engine
        from p2o_core.engines.server import ServerEngine

        return ServerEngine(base, policy, config, on_rows=on_rows)

    def trainer(self, policy: Path, base: Path, config: PolicyConfig) -> Policy:
        """The policy saved in a folder, from memory when it is the one kept; an engine of its own sleeps meanwhile."""
        from p2o_core.policy import Policy

        if self._vllm is not None:
            self._vllm[1].sleep()
        key = _key(policy, config)
        if self._policy is None or self._policy[0] != key:
            self._policy = None  # two policies need twice the memory
            self._policy = (key, Policy.load(policy, base, config))
        return self._policy[1]

    def policy_changed(self, policy: Policy, folder: Path, config: PolicyConfig) -> None:
        """The kept policy was trained and saved to ``folder``."""
        self._policy = (_key(folder, config), policy)

    def forget_policy(self) -> None:
        """Before training in place: should training fail, no half-trained policy is handed out."""
        self._policy = None

    def _started_vllm(self, base: Path, policy: PolicyConfig, config: VllmEngineConfig) -> VllmEngine:
        from p2o_core.engines.vllm import VllmEngine

        self.forget_policy()  # engine and trainer share one device: the trainer's copy is read again when needed
        key = _key(base, policy) + config.model_dump_json()
        if self._vllm is None or self._vllm[0] != key:
            self._close_vllm()
            self._vllm = (key, VllmEngine(base, policy, config))
        return self._vllm[1]

    def _close_vllm(self) -> None:
        if self._vllm is not None:
            self._vllm[1].close()
            self._vllm = None


def _key(folder: Path, config: PolicyConfig) -> str:
    return digest(folder) + config.model_dump_json()
