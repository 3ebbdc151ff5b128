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

STATE_FILE = "state.safetensors"
"""In a folder of its own, never the policy's: engines read every safetensors file beside a config as weights, and the
moments, twice the size of the weights, are of no use to whoever samples."""


class PolicyOptimizer:
    """AdamW with linear warm-up; ``steps_done`` counts over all iterations and drives the schedule."""

    def __init__(self, policy: Policy, config: DistillConfig) -> None:
        self.parameters = policy.trainable_parameters()
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
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
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
        """Write moments and step counts by parameter name."""
        tensors = {"steps_done": torch.tensor(self.steps_done)} | state_tensors(self.adamw, self.parameters)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / STATE_FILE)

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
        optimizer.state[parameter][entry] = value if entry == "step" else value.to(parameter.device)


def release_memory() -> None:
    """Free the memory of deleted models and optimisers, on a GPU for other processes too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
