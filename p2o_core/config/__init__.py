"""Settings of the algorithm, one section a stage. Every field says its unit and where its default comes from."""

from p2o_core.config.engines import (
    AnyEngine,
    EmbeddedEngineConfig,
    EngineConfig,
    RayEngineConfig,
    ServerEngineConfig,
    VllmEngineConfig,
)
from p2o_core.config.policy import AnyPolicy, FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.config.search import (
    AnyReflector,
    DemonstrationReflectorConfig,
    EvolveConfig,
    OnlineConfig,
    PhraseReflectorConfig,
    SelfReflectorConfig,
    TeacherReflectorConfig,
)
from p2o_core.config.section import Dtype, PromptStyle, ReflectionPrompt, Section, Share, Url, variant_of
from p2o_core.config.stages import (
    Aggregation,
    DistillConfig,
    EvaluateConfig,
    HealthConfig,
    MineConfig,
    RolloutConfig,
    VerifyConfig,
)

__all__ = [
    "Aggregation",
    "AnyEngine",
    "AnyPolicy",
    "AnyReflector",
    "DemonstrationReflectorConfig",
    "DistillConfig",
    "Dtype",
    "EmbeddedEngineConfig",
    "EngineConfig",
    "EvaluateConfig",
    "EvolveConfig",
    "FullPolicy",
    "HealthConfig",
    "LoraPolicy",
    "MineConfig",
    "OnlineConfig",
    "PhraseReflectorConfig",
    "PolicyConfig",
    "PromptStyle",
    "RayEngineConfig",
    "ReflectionPrompt",
    "RolloutConfig",
    "Section",
    "SelfReflectorConfig",
    "ServerEngineConfig",
    "Share",
    "TeacherReflectorConfig",
    "Url",
    "VerifyConfig",
    "VllmEngineConfig",
    "variant_of",
]
