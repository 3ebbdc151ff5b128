"""What a stage is: names of inputs and outputs, and one function between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2o_core.engines.base import RolloutEngine
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier
from tasks.parameters.experiment import Experiment
from tasks.running.journal import Journal, JournaledEngine, JournaledVerifier
from tasks.running.layout import Layout
from tasks.running.runtime import Runtime

Where = Literal["data", "base", "zero", "previous", "current", "report"]
"""``data``: the user's files. ``base``: what prepare makes. ``zero``: iteration 0. ``previous`` and ``current``:
iterations. ``report``: curves."""


class TrainingStopped(RuntimeError):
    """A run that stops itself: the numbers or the policy are not fit to go on. The message says where and the mend."""


@dataclass(frozen=True)
class Artifact:
    """A file or folder by name and place."""

    name: str
    where: Where

    def path(self, layout: Layout, iteration: int) -> Path:
        return folder_of(self.where, layout, iteration) / self.name


def folder_of(where: Where | Path, layout: Layout, iteration: int) -> Path:
    if isinstance(where, Path):
        return where
    folders = {
        "data": layout.sources.parent,
        "base": layout.base,
        "zero": layout.iteration(0),
        "report": layout.report,
        "current": layout.iteration(iteration),
        "previous": layout.iteration(iteration - 1),
    }
    return folders[where]


@dataclass
class StageIO:
    """What a stage's function gets: checked inputs, temporary places for outputs, settings, the warm runtime."""

    experiment: Experiment
    layout: Layout
    iteration: int
    stage: str
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    runtime: Runtime
    journal: Journal
    progress: Callable[[int, int], None] = lambda done, total: None
    counts: dict[str, int] = field(default_factory=dict)

    def engine(self, on_rows: Callable[[int], None] | None = None, *, policy: Path | None = None) -> RolloutEngine:
        """The experiment's engine, sampling from the policy in a folder, by default the stage's input."""
        folder, base = policy or self.inputs["policy"], self.inputs["base"]
        return JournaledEngine(
            lambda: self.runtime.engine(folder, base, self.experiment, on_rows),
            self.journal,
            unit=self.experiment.engine.completions_per_unit,
            on_rows=on_rows,
        )

    def verifier(self) -> AnswerVerifier:
        """The experiment's verifier."""
        return JournaledVerifier(self.runtime.verifier(self.experiment), self.journal)

    def seed(self, *path: int | str) -> int:
        """From (experiment seed, iteration, stage) and what is drawn."""
        return derive_seed(self.experiment.seed, self.iteration, self.stage, *path)


@dataclass(frozen=True)
class Stage:
    """``inputs`` by the key its function uses; ``outputs`` likewise, all in the folder ``where``.

    ``params`` are the dotted parameters the stage depends on: dvc.yaml says the same (a test compares them).
    """

    name: str
    run: Callable[[StageIO], None]
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, str]
    params: tuple[str, ...]
    where: Where | Path = "current"
    """A path: the stage stands beside the chain of stages, and writes to that folder."""
    per_iteration: bool = True
    gathers: tuple[str, ...] = ()
    """Files read from every iteration, keyed ``"<iteration>/<name>"``; one that an iteration lacks is left out."""

    def input_paths(self, layout: Layout, iteration: int, last_iteration: int) -> dict[str, Path]:
        paths = {key: artifact.path(layout, iteration) for key, artifact in self.inputs.items()}
        for index in range(last_iteration + 1) if self.gathers else ():
            candidates = {f"{index}/{name}": layout.iteration(index) / name for name in self.gathers}
            paths |= {key: path for key, path in candidates.items() if path.exists()}
        return paths

    @property
    def in_chain(self) -> bool:
        """One of an experiment's stages, with a name of its own in each iteration."""
        return not isinstance(self.where, Path)

    def units_folder(self, layout: Layout, iteration: int) -> Path:
        """Finished units while it runs. Beside the chain several may run for one iteration, each in its own folder."""
        return self.where / "units" if isinstance(self.where, Path) else layout.units(iteration, self.name)

    def output_folder(self, layout: Layout, iteration: int) -> Path:
        return folder_of(self.where, layout, iteration)
