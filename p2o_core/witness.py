"""Does an engine serve the policy that it was given? A completion that the last update trained on tells.

An engine that goes on with the weights before the update, with the base model, or with a layer that it never filled
answers as readily as the right one; its wrong answers look like hard samples. So each update leaves a witness in the
policy's folder: a completion, with the trainer's log-probs before and after the update. Whoever loads the policy into
an engine of its own has it scored there, and :func:`check_served` compares.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from p2o_core.config import DistillConfig
from p2o_core.engines.base import LogprobRequest
from p2o_core.schemas import read_record, write_record

if TYPE_CHECKING:  # torch is not imported by those who only compare numbers
    from p2o_core.groups import Group, TrainingSample
    from p2o_core.policy import Policy

FILE = "witness.json"
TOKENS = 128
"""Of the completion at most: enough to tell policies apart, and few for an engine that scores a prompt."""
LARGEST_GAP = 0.3
"""Nats a token, the mean of |engine - trainer|. bfloat16 engines are a tenth of it away from a float32 trainer; output
layers that are zero, another model's weights, or another tokenizer are several nats away."""
FEWEST_TOKENS = 8
"""Below, a regression says nothing."""
DEVIATIONS = 4.0
"""Standard errors by which an engine must be nearer to the old policy than half-way."""


class OtherPolicyServed(RuntimeError):
    """An engine's log-probs are not those of the policy that it was given."""


@dataclass(frozen=True)
class Witness:
    """A completion under the bare prompt, C tokens of it, with C log-probs at temperature 1 of the policy ``before``
    and ``after`` an update: witness.json."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def request(self) -> LogprobRequest:
        return LogprobRequest(self.problem_id, "", "", self.token_ids, prompt_ids=self.prompt_ids)


def read_witness(policy: Path) -> Witness | None:
    """Of a policy that no update made there is none."""
    return read_record(policy / FILE, Witness) if (policy / FILE).exists() else None


class Witnessing:
    """Takes a completion's log-probs when it is made, before an update, and again when it saves. Several processes that
    train one policy make the same calls."""

    def __init__(self, policy: Policy, groups: Sequence[Group], config: DistillConfig) -> None:
        self.policy = policy
        self.tokens = config.tokens_per_microbatch
        self.sample = max(_candidates(groups, config), key=_moves_most, default=None)
        self.before = self._logps(self.sample) if self.sample else ()

    def save(self, folder: Path, *, updated: bool, previous: Path) -> None:
        """Put the witness into the new policy's ``folder``; without an update, that of the ``previous`` one."""
        if updated and self.sample:
            sample, after = self.sample, self._logps(self.sample)
            if self.policy.team.first:
                ids = sample.completion_ids[:TOKENS]
                write_record(folder / FILE, Witness(sample.problem_id, sample.prompt_ids, ids, self.before, after))
        elif self.policy.team.first and (previous / FILE).exists():
            shutil.copyfile(previous / FILE, folder / FILE)

    def _logps(self, sample: TrainingSample) -> tuple[float, ...]:
        ids = sample.completion_ids[:TOKENS]
        (logps,) = self.policy.score([sample.prompt_ids], [ids], 1.0, tokens=self.tokens)
        return logps


def _candidates(groups: Sequence[Group], config: DistillConfig) -> Iterator[TrainingSample]:
    """Those whose gradient is taken at the bare prompt, in groups with a signal."""
    for group in groups:
        if len({sample.reward for sample in group}) > 1:
            yield from (sample for sample in group if config.context == "bare" or not sample.templated)


def _moves_most(sample: TrainingSample) -> tuple[bool, int]:
    """Rewarded, and long."""
    return sample.reward > 0, min(len(sample.completion_ids), TOKENS)


def check_served(served: Sequence[float], witness: Witness, where: str) -> None:
    """Compare an engine's log-probs with the trainer's.

    What the engine's say of the update is a regression, ``served - before = share * (after - before) + noise``: the
    share is 1 for the new policy and 0 for the old one, and the noise says how sure that is. An update too small for
    the engine's precision is not judged.

    >>> update = Witness("p", (1,), (2,) * 8, before=(-1.0,) * 8, after=(-1.0, -0.9) * 4)
    >>> check_served([-1.001, -0.899] * 4, update, "here")
    >>> check_served([-1.001, -0.999] * 4, update, "here")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    p2o_core.witness.OtherPolicyServed: here serves the policy from before the last update ...

    Raises:
        OtherPolicyServed: the engine is far from the trainer, or nearer to the policy from before the update.
    """
    engine, before, after = (np.array(values) for values in (served, witness.before, witness.after))
    gap = float(np.abs(engine - after).mean())
    if gap > LARGEST_GAP:
        raise OtherPolicyServed(
            f"{where} serves another model: its log-probs of a completion of {witness.problem_id} are {gap:.2f} nats a "
            f"token from the trainer's. {_MEND}"
        )
    moved = after - before
    if len(moved) < FEWEST_TOKENS or not moved.any():
        return
    share = float((engine - before) @ moved / (moved @ moved))
    noise = engine - before - share * moved
    error = float(np.sqrt(noise @ noise / (len(moved) - 1) / (moved @ moved)))
    if share + DEVIATIONS * error < 0.5:
        raise OtherPolicyServed(
            f"{where} serves the policy from before the last update: of the change in the log-probs of a completion of "
            f"{witness.problem_id} it shows {share:.0%}, ±{error:.0%}. {_MEND}"
        )


_MEND = (
    "Nothing was sampled from it. Mend: start the engine again (a server: look whether it serves this base, and reads "
    "this folder), then the run; it goes on here."
)
