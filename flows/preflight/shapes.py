"""A model's shape, and the memory and disk that follow from it. All estimates are in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field, PositiveInt

from p2o_core.config import LoraPolicy, PolicyConfig, Section
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment
from tasks.parameters.worlds import WorldPrepare
from tasks.problems.base_policy import GgufPolicy, HubPolicy
from tasks.running.layout import Layout, home

GIB = 2**30
MODELS_FILE = Path("recipes") / "models.yaml"
WIDTH = {"float32": 4, "bfloat16": 2}
MARGIN = 1.2
"""What allocators, kernels and the CUDA context take on top."""


class Shape(Section):
    """What memory and speed depend on."""

    parameters: PositiveInt = Field(..., description="all weights")
    layers: PositiveInt = Field(..., description="depth")
    hidden: PositiveInt = Field(..., description="width")
    kv_width: PositiveInt = Field(..., description="key heads times their size; keys and values are cached")
    vocabulary: PositiveInt = Field(..., description="tokens")

    def trainable(self, policy: PolicyConfig) -> int:
        """Parameters with a gradient. An adapter on all linear layers: about seven of them a layer, each rank times
        the sum of its sides, the feed-forward sides being some three times the width."""
        if not isinstance(policy, LoraPolicy):
            return self.parameters
        return self.layers * policy.rank * 22 * self.hidden


def shape_of(experiment: Experiment, layout: Layout) -> Shape | None:
    """From the base policy on disk, from recipes/models.yaml, or None when neither knows it.

    Raises:
        BadInput: recipes/models.yaml is not as it should be.
    """
    prepared = layout.base / "policy"
    if (prepared / "config.json").exists():
        return _read(prepared)
    if isinstance(experiment.prepare, WorldPrepare):
        return _world(experiment.prepare)
    policy = experiment.prepare.policy
    names = {HubPolicy: "id", GgufPolicy: "package"}
    name = getattr(policy, names.get(type(policy), "type"))
    path = home(layout.workspace) / MODELS_FILE
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    try:
        return Shape.model_validate(known[name]) if name in known else None
    except ValueError as error:
        raise BadInput(f"{path}: entry {name!r}: {error}. Mend: correct its fields.") from error


def _read(folder: Path) -> Shape:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_width=(config.num_key_value_heads or heads) * head_size,
        vocabulary=config.vocab_size,
    )


def _world(prepare: WorldPrepare) -> Shape:
    """The tiny Llama: four attention matrices and three of the feed-forward layer."""
    width = prepare.hidden_size
    return Shape(
        parameters=prepare.layers * (4 + 3 * prepare.feed_forward) * width**2 + 200 * width,
        layers=prepare.layers,
        hidden=width,
        kv_width=width,
        vocabulary=200,
    )


@dataclass(frozen=True)
class Memory:
    """Bytes by part, without the margin.

    >>> print(Memory({"weights": 3 * 2**30, "cache": 2**29}))
    4.2 GiB (weights 3.0, cache 0.5, and a fifth on top)
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """With the margin."""
        return int(sum(self.parts.values()) * MARGIN)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:,.1f}" for name, size in self.parts.items())
        return f"{self.total / GIB:,.1f} GiB ({parts}, and a fifth on top)" if parts else "none"


def trainer_memory(experiment: Experiment, shape: Shape) -> Memory:
    """Of one process. Of full weights each of several processes holds its share, and whole the layer at hand and the
    embedding, with their gradients (:mod:`p2o_core.sharding.policy`)."""
    from p2o_core.output_layer import CPU_CHUNK, CUDA_CHUNK

    policy, tokens = experiment.policy, experiment.distill.tokens_per_microbatch
    width, trainable = WIDTH[policy.dtype], shape.trainable(policy)
    weights = shape.parameters * width + (trainable * width if isinstance(policy, LoraPolicy) else 0)
    gradients, moments = trainable * width, 2 * trainable * width
    if policy.processes > 1 and not isinstance(policy, LoraPolicy):
        whole = (shape.parameters // shape.layers + shape.vocabulary * shape.hidden) * width
        weights, gradients = weights // policy.processes + whole, gradients // policy.processes + whole
        moments //= policy.processes
    # kept for the backward pass: a hidden state a layer, or with everything within a layer some 16 of them
    width = WIDTH[policy.engine_dtype]
    activations = tokens * shape.layers * shape.hidden * width * (2 if policy.checkpointing else 16)
    at_once = min(tokens * shape.vocabulary, CPU_CHUNK if policy.device == "cpu" else CUDA_CHUNK)
    logits = at_once * (width + 4 + 4)  # as computed, scaled, their gradient
    parts = {"weights": weights, "gradients": gradients, "moments": moments}
    return Memory(parts | {"activations": activations, "logits": logits})


def engine_memory(experiment: Experiment, shape: Shape) -> Memory:
    """Of an engine of its own; the embedded one samples from the trainer's weights, unless it is an actor's. Of several
    actors, which have a device each, it is one's."""
    engine, width = experiment.sampler, WIDTH[experiment.policy.engine_dtype]
    length = experiment.rollout.max_new_tokens
    a_token = 2 * shape.layers * shape.kv_width * width
    if engine.type == "server":
        return Memory({})  # another process, perhaps another machine
    if engine.type == "embedded":
        rows = min(engine.rows_per_batch, experiment.rollout.problems * experiment.rollout.samples)
        weights = shape.parameters * WIDTH[experiment.policy.dtype] if experiment.engine.type == "ray" else 0
        return Memory({"weights": weights, "cache": rows * length * a_token})
    cache = engine.cpu_cache_gib * 2**30 if experiment.policy.device == "cpu" else engine.max_model_len * a_token
    return Memory({"weights": shape.parameters * width, "cache": cache})


def disk_need(experiment: Experiment, shape: Shape) -> int:
    """The base policy and every iteration's policy with its optimiser, in the workspace and in DVC's cache."""
    width, trainable = WIDTH[experiment.policy.dtype], shape.trainable(experiment.policy)
    saved = trainable * width * 3  # weights (or adapter) and two moments
    return 2 * (shape.parameters * width + (experiment.iterations + 1) * saved)
