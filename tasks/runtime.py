"""What stays warm between the stages of one process: the policy and the verifier's workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from p2o_core.config import PolicyConfig, VerifyConfig
from p2o_core.verify import Verifier
from tasks.manifests import digest

if TYPE_CHECKING:  # torch is imported by the stages that need it, not by those that only read parquet
    from p2o_core.engines.embedded import EmbeddedEngine
    from p2o_core.policy import Policy


class Runtime:
    """Use as a context manager. One policy is kept, known by the digest of the folder it came from."""

    def __init__(self) -> None:
        self._policy: tuple[str, Policy] | None = None
        self._verifier: Verifier | None = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._verifier is not None:
            self._verifier.__exit__(None, None, None)
            self._verifier = None

    def verifier(self, config: VerifyConfig) -> Verifier:
        if self._verifier is None:
            self._verifier = Verifier(config.workers, config.timeout_s).__enter__()
        return self._verifier

    def policy(self, folder: Path, base: Path, config: PolicyConfig) -> Policy:
        """The policy saved in ``folder``, from memory when it is the one kept."""
        from p2o_core.policy import Policy

        key = digest(folder) + config.model_dump_json()
        if self._policy is None or self._policy[0] != key:
            self._policy = (key, Policy.load(folder, base, config))
        return self._policy[1]

    def policy_changed(self, policy: Policy, folder: Path, config: PolicyConfig) -> None:
        """The kept policy was trained and saved to ``folder``."""
        self._policy = (digest(folder) + config.model_dump_json(), policy)

    def forget_policy(self) -> None:
        """Before training in place: should training fail, no half-trained policy is handed out."""
        self._policy = None

    def engine(
        self, policy: Policy, rows_per_batch: int, on_rows: Callable[[int], None] | None = None
    ) -> EmbeddedEngine:
        from p2o_core.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(policy, rows_per_batch=rows_per_batch, on_rows=on_rows)
