"""AdamW; safetensors carry its state from iteration to iteration."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from p2o_core.config import DistillConfig
from p2o_core.policy import Policy
from p2o_core.sharding.tensors import sharded_like, whole

STATE_FILE = "state.safetensors"
"""In a folder of its own, never the policy's: engines read every safetensors file beside a config as weights, and the
moments, twice the size of the weights, are of no use to whoever samples."""


class PolicyOptimizer:
    """AdamW with linear warm-up; ``steps_done`` counts over all iterations and drives the schedule. Of weights in
    shards the moments are in shards too; the files hold whole ones."""

    def __init__(self, policy: Policy, config: DistillConfig) -> None:
        self.parameters = policy.trainable_parameters()
        self.team = policy.team
        self.config = config
        self.steps_done = 0
        self.adamw = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=config.weight_decay,
        )

    def step(self) -> float:
        """Clip the gradient, step, clear the gradient. Returns the gradient's norm before clipping.

        Raises:
            FloatingPointError: the gradient is NaN or infinite; the weights are as they were.
        """
        parameters = list(self.parameters.values())
        self.team.sum_gradients(parameters)
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        torch.nn.utils.clip_grads_with_norm_(parameters, self.config.max_grad_norm, norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm.item()} at optimiser step {self.steps_done + 1}; the weights were not "
                "changed. Mend: lower distill.learning_rate, or look for rewards or log-probs out of range."
            )
        warmup = self.config.warmup_steps
        scale = min(1.0, (self.steps_done + 1) / warmup) if warmup else 1.0
        self.adamw.param_groups[0]["lr"] = self.config.learning_rate * scale
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.steps_done += 1
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write moments and step counts by parameter name. Of several processes each calls it, the first one writes."""
        state = self.whole_state()
        if self.team.first:
            write_state(folder, state)

    def whole_state(self) -> dict[str, Tensor]:
        """What :meth:`save` writes; empty in all processes but the first, and each has to ask."""
        state = {"steps_done": torch.tensor(self.steps_done)} | state_tensors(self.adamw, self.parameters)
        gathered = ((key, whole(value)) for key, value in state.items())
        return {key: value.cpu() for key, value in gathered if self.team.first}

    def load(self, folder: Path) -> None:
        """Continue from :meth:`save`.

        Raises:
            FileNotFoundError: the folder has no state.
            ValueError: the state belongs to other parameters.
        """
        path = folder / STATE_FILE
        tensors = load_file(path, device="cpu")
        self.steps_done = int(tensors.pop("steps_done"))
        try:
            load_state_tensors(self.adamw, self.parameters, tensors)
        except KeyError as error:
            raise ValueError(f"{path}: state for a parameter the policy does not train: {error}") from error


def write_state(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write an optimiser's :meth:`PolicyOptimizer.whole_state`, for :meth:`PolicyOptimizer.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / STATE_FILE)


def state_tensors(optimizer: Optimizer, parameters: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """Return an optimiser's moments and step counts as ``<entry>/<parameter's name>``, for safetensors."""
    return {
        f"{entry}/{name}": value
        for name, parameter in parameters.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_tensors(
    optimizer: Optimizer, parameters: Mapping[str, Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Continue from :func:`state_tensors`. Raises KeyError for a parameter that is not there."""
    for key, value in tensors.items():
        entry, name = key.split("/", 1)
        parameter = parameters[name]
        optimizer.state[parameter][entry] = value if entry == "step" else sharded_like(value, parameter)


def release_memory() -> None:
    """Free the memory of deleted models and optimisers, on a GPU for other processes too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
