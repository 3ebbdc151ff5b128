"""Checks that end an update on NaN or infinity, in the step where it happens and not iterations later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from p2o_core.groups import Group, TrainingSample
from p2o_core.sharding.tensors import own_shard


class NotFinite(FloatingPointError):
    """The update met NaN or infinity. ``samples`` are the rows it came from, for inspection."""

    def __init__(self, what: str, samples: Sequence[TrainingSample]) -> None:
        ids = ", ".join(dict.fromkeys(sample.problem_id for sample in samples))
        super().__init__(f"{what} of {len(samples)} rollouts not finite ({ids[:200]}); the weights were not changed")
        self.what = what
        self.samples = list(samples)


class WeightsNotFinite(NotFinite):
    """A weight is NaN or infinite. ``samples`` are those of the step that caused it, or of the whole update when the
    weights were so before its first step."""

    def __init__(self, name: str, samples: Sequence[TrainingSample]) -> None:
        super().__init__("weights", samples)
        ids = ", ".join(dict.fromkeys(sample.problem_id for sample in samples))
        self.args = (
            f"weights not finite, first in {name}, at {len(samples)} rollouts ({ids[:200]}); the weights were "
            "not changed on disk",
        )


def check_start(parameters: Mapping[str, torch.Tensor], groups: Sequence[Group]) -> None:
    """Check that an update starts from finite weights and finite log-probs of the engine. It checks even if no group
    carries a signal, since then nothing else would.

    Raises:
        NotFinite: with the samples that are not finite.
    """
    samples = [sample for group in groups for sample in group]
    if broken := [s for s in samples if not all(map(math.isfinite, s.sampling_logps))]:
        raise NotFinite("sampling log-probs", broken)
    check_parameters(parameters, samples)


@torch.no_grad()
def check_parameters(parameters: Mapping[str, torch.Tensor], samples: Sequence[TrainingSample]) -> None:
    """Check that every weight is finite. One pass over the weights costs next to nothing beside a backward pass. Of
    several processes each looks at its own shards, and one that fails ends them all.

    Raises:
        WeightsNotFinite: the message names the first parameter that is not.
    """
    held = {name: own_shard(parameter) for name, parameter in parameters.items()}
    ends = {name: torch.stack(torch.aminmax(shard)).float() for name, shard in held.items() if shard.numel()}
    if not ends or bool(torch.isfinite(torch.stack(list(ends.values()))).all()):  # one answer from the device
        return
    raise WeightsNotFinite(next(name for name, end in ends.items() if not torch.isfinite(end).all()), samples)
