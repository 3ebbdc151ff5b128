"""Rollout engines behind one Protocol. ``embedded`` (transformers) is the default."""

from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine

__all__ = ["EmbeddedEngine", "RolloutEngine", "RolloutRequest", "Sampling"]
