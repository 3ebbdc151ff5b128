"""The engines: what generates completions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from p2o_core.config.policy import PolicyConfig
from p2o_core.config.section import Section, Share, Url, variant_of


class EmbeddedEngineConfig(Section):
    """transformers in this process. The default: exact, reproducible to the byte, on CPU or one GPU."""

    type: Literal["embedded"] = "embedded"
    rows_per_batch: PositiveInt = Field(
        512, description="completions decoded side by side; part of what decides the bytes"
    )

    @property
    def completions_per_unit(self) -> int:
        """A batch is what a killed stage loses at most."""
        return self.rows_per_batch


class VllmEngineConfig(Section):
    """vLLM in this process, on CPU or GPU; adapters and weights are swapped without a restart."""

    type: Literal["vllm"] = "vllm"
    max_model_len: PositiveInt = Field(..., description="tokens of prompt and completion together at most")
    max_sequences: PositiveInt = Field(256, description="completions decoded side by side at most")
    cpu_cache_gib: PositiveInt = Field(2, description="key-value cache on CPU, GiB")
    gpu_memory: Share = Field(0.85, description="share of the GPU's memory while awake; asleep nearly nothing")
    sleep: bool = Field(True, description="GPU: give weights and cache back while the trainer works")
    tensor_parallel: PositiveInt = Field(1, description="GPUs a copy of the model is spread over")
    completions_per_unit: PositiveInt = Field(1024, description="completions that a killed stage loses at most")


class ServerEngineConfig(Section):
    """One or many vLLM servers (``p2o serve``) behind OpenAI's protocol; adapters are loaded at run time."""

    type: Literal["server"] = "server"
    urls: tuple[Url, ...] = Field(..., min_length=1, description="base URLs, as http://127.0.0.1:8001")
    concurrency: PositiveInt = Field(32, description="requests in flight a server at most: the back-pressure")
    timeout_s: PositiveFloat = Field(600.0, description="seconds a completion may take")
    retries: PositiveInt = Field(5, description="times a request is tried again, on whichever server is well")
    patience_s: PositiveFloat = Field(300.0, description="seconds without any healthy server before giving up")
    api_key_env: str = Field("", description="environment variable with the servers' API key; blank for none")
    completions_per_unit: PositiveInt = Field(1024, description="completions that a killed stage loses at most")


class RayEngineConfig(Section):
    """Actors of a Ray cluster, each with one of our engines on a device of its own. Needs the extra ``scale``."""

    type: Literal["ray"] = "ray"
    engine: Annotated[EmbeddedEngineConfig | VllmEngineConfig, Field(discriminator="type"), variant_of("embedded")] = (
        EmbeddedEngineConfig()
    )
    address: str = Field(
        "",
        pattern=r"^([A-Za-z0-9._-]+:\d+|\[[0-9a-fA-F:]+\]:\d+)?$",
        description="host:port of a cluster that runs; blank: one on this machine, which ends with the run",
    )
    actors: PositiveInt = Field(2, description="engines, a device each; no part of what decides the bytes")
    verifiers: NonNegativeInt = Field(
        2, description="actors that verify, verify.workers processes each; 0: verification stays in this process"
    )
    in_flight: PositiveInt = Field(2, description="shards at an actor at most, one of them at work: the back-pressure")
    gpus_per_actor: float | None = Field(
        None,
        ge=0,
        description="GPUs an actor takes; by default one (vLLM: tensor_parallel), none with policy.device cpu",
    )
    restarts: NonNegativeInt = Field(
        3, description="times an actor that died is started again, and a shard tried again"
    )
    patience_s: PositiveFloat = Field(600.0, description="seconds without any actor before giving up")

    places: ClassVar[frozenset[str]] = frozenset(
        {"address", "actors", "verifiers", "in_flight", "gpus_per_actor", "restarts", "patience_s"}
    )
    """Fields that say where the work is done and change no byte of it."""

    def processors(self, threads: int, workers: int) -> int:
        """What all actors take: an engine ``threads``, a verifier ``workers``."""
        return self.actors * threads + self.verifiers * workers

    @property
    def completions_per_unit(self) -> int:
        """A shard is what one process would compute at once, and what a killed stage loses at most of each actor."""
        return self.engine.completions_per_unit

    def gpus(self, policy: PolicyConfig) -> float:
        """GPUs an actor takes where the policy is trained as in ``policy``."""
        if self.gpus_per_actor is not None:
            return self.gpus_per_actor
        if policy.device == "cpu":
            return 0
        return self.engine.tensor_parallel if isinstance(self.engine, VllmEngineConfig) else 1


EngineConfig = EmbeddedEngineConfig | VllmEngineConfig | ServerEngineConfig | RayEngineConfig
AnyEngine = Annotated[EngineConfig, Field(discriminator="type"), variant_of("embedded")]
