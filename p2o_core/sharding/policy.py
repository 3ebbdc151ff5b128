"""A policy that several processes train together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from p2o_core.batch import Batch
from p2o_core.config import LoraPolicy, PolicyConfig
from p2o_core.policy import Policy
from p2o_core.sharding.team import Team


def loaded_by(team: Team, folder: Path, base: Path, config: PolicyConfig) -> Policy:
    """The policy saved in a folder (:meth:`Policy.load`), in the hands of several processes.

    All weights are trained: each process keeps its shard of weights, gradients and moments (FSDP2), and has a layer
    whole while it computes it. An adapter is trained: each process keeps all of it and of the frozen base, and adds up
    the adapter's gradient once a step (:meth:`Team.sum_gradients`); that is what DDP comes to for a step of many
    micro-batches, and the base need not be gathered.
    """
    if isinstance(config, LoraPolicy):
        policy = Policy.load(folder, base, config.model_copy(update={"device": str(team.device)}))
        return Policy(policy.model, policy.chat, config, team)
    # a GPU takes its shards layer by layer; it need not hold all at once
    return ShardedPolicy(Policy.load(folder, base, config.model_copy(update={"device": "cpu"})), team)


class ShardedPolicy(Policy):
    """Full weights in shards, one a process: the decoder layers each by themselves, then all that is left."""

    def __init__(self, policy: Policy, team: Team) -> None:
        super().__init__(policy.model, policy.chat, policy.config, team)
        mesh = init_device_mesh(team.device.type, (team.size,))
        # autocast is the mixed precision, as in one process; sums of gradients are float32 also of bfloat16 weights
        precision = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        self._pass = _Pass(self.model, super().completion_logps)
        for module in (*layers, self._pass):
            # the outermost too: a pass without a backward pass would leave its weights gathered, and old after a step
            fully_shard(module, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)  # the loss has the whole mini-batch's denominator: sums, no means
            module.set_force_sum_reduction_for_comms(True)

    def completion_logps(self, batch: Batch, temperature: float) -> Tensor:
        """See :meth:`Policy.completion_logps`."""
        logps: Tensor = self._pass(batch, temperature)
        return logps

    def _whole_state(self) -> dict[str, Tensor]:
        buffers = {name: value for name, value in self.model.state_dict().items() if not isinstance(value, DTensor)}
        return buffers | self.whole_parameters()


class _Pass(torch.nn.Module):
    """A policy's pass as a module, since FSDP gathers weights around a module's ``forward``: the output layer's too,
    which :mod:`p2o_core.output_layer` reads without calling it."""

    def __init__(self, model: torch.nn.Module, logps: Callable[[Batch, float], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._logps = logps

    def forward(self, batch: Batch, temperature: float) -> Tensor:
        return self._logps(batch, temperature)
