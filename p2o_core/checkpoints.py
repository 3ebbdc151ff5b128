"""Checkpoints between optimiser steps: a killed update goes on at its last step and ends in the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from p2o_core.digests import is_whole, short_digest
from p2o_core.groups import Group, TrainingSample
from p2o_core.optimizer import PolicyOptimizer, write_state
from p2o_core.policy import Policy
from p2o_core.schemas import read_record, read_rows, write_record, write_rows, written_whole
from p2o_core.sharding.team import ALONE, Team
from p2o_core.sharding.tensors import sharded_like
from p2o_core.update_report import RunningMeans

OPTIMIZER = "optimizer"
"""The optimiser's folder in a step's."""


class LastStep:
    """Keeps the last step's state as ``<folder>/step-<number>-<digest of the content>``. It skips a damaged state and
    deletes an older one once the new one is in place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, step: int, write: Callable[[Path], object]) -> None:
        """``write`` fills the folder it is given."""
        with written_whole(self.folder / "step", lambda draft: name) as draft:
            draft.mkdir()
            write(draft)
            name = f"step-{step:05d}-{short_digest(draft)}"
        for path in self.folder.glob("step-*"):
            if path.name != name:
                shutil.rmtree(path)

    def get(self) -> tuple[int, Path] | None:
        """Return the last undamaged step and its folder, or None."""
        path = last_whole(self.folder, "step-*")
        return None if path is None else (int(path.name.split("-")[1]), path)


def last_whole(folder: Path, pattern: str) -> Path | None:
    """Return the last path whose content matches the digest in its name, or None."""
    return next((path for path in sorted(folder.glob(pattern), reverse=True) if is_whole(path)), None)


class UpdateCheckpoints:
    """Of one update, in ``folder``: the old log-probs, and after every ``every``-th step weights, optimiser and
    ``means`` (what the update's report adds up). Without a folder nothing is kept.

    Of a ``team`` each process calls every method, and the first one writes; what is written does not say how many they
    were, so that any number goes on from it.
    """

    def __init__(self, folder: Path | None = None, *, every: int = 1, team: Team = ALONE) -> None:
        self.folder = folder
        self.every = every
        self.team = team

    def old_logps(self, compute: Callable[[], list[Group]]) -> list[Group]:
        """Return the groups with their old log-probs, loaded if an earlier process saved them, else computed and saved.
        They belong to the policy at the start of the update, which no longer exists after the first step. Each problem
        has one group."""
        if self.folder is None:
            return compute()
        kept = last_whole(self.folder, "groups-*.parquet")
        if kept is not None:
            return [list(group) for _, group in groupby(read_rows(kept, TrainingSample), key=lambda s: s.problem_id)]
        groups = compute()
        if self.team.first:
            with written_whole(
                self.folder / "groups.parquet", lambda draft: f"groups-{short_digest(draft)}.parquet"
            ) as draft:
                write_rows(draft, [sample for group in groups for sample in group], TrainingSample)
        return groups

    def save(self, step: int, planned: int, policy: Policy, optimizer: PolicyOptimizer, means: RunningMeans) -> None:
        """After step ``step`` of ``planned``; not after the last one, since the stage saves the policy next."""
        if self.folder is None or step == planned or step % self.every:
            return

        weights, state = policy.whole_parameters(), optimizer.whole_state()
        total = means.total(self.team)

        def write(folder: Path) -> None:
            save_file(weights, folder / "weights.safetensors")
            write_state(folder / OPTIMIZER, state)
            write_record(folder / "progress.json", total)

        if self.team.first:
            LastStep(self.folder).put(step, write)

    def restore(self, policy: Policy, optimizer: PolicyOptimizer) -> tuple[int, RunningMeans]:
        """Put the last checkpoint into policy and optimiser. Returns its step and means: 0 and none without one.

        Raises:
            ValueError: the checkpoint is of another policy.
        """
        last = LastStep(self.folder).get() if self.folder is not None else None
        if last is None:
            return 0, RunningMeans()
        step, path = last
        parameters, weights = policy.trainable_parameters(), load_file(path / "weights.safetensors")
        if parameters.keys() != weights.keys():
            raise ValueError(f"{path}: weights of another policy. Mend: delete {self.folder} and start again.")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(sharded_like(weights[name], parameter))
        optimizer.load(path / OPTIMIZER)
        return step, read_record(path / "progress.json", RunningMeans).share(self.team)
