"""Where every artefact of an experiment lives, relative to its workspace (the folder with params.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEMPORARY = (".dvc", "tmp", "exps")


@dataclass(frozen=True)
class Layout:
    """Paths of one experiment. ``workspace`` holds params.yaml, dvc.yaml and data/."""

    workspace: Path
    experiment: str

    @property
    def params(self) -> Path:
        return self.workspace / "params.yaml"

    @property
    def parameters(self) -> Path:
        """params.yaml with every default: DVC's stages depend on it."""
        return self.workspace / "data" / "params.json"

    @property
    def base(self) -> Path:
        """What ``prepare`` makes and all experiments of the workspace share: problems, phrases, base policy."""
        return self.workspace / "data" / "base"

    @property
    def sources(self) -> Path:
        """The user's own files, which ``prepare: {type: files}`` reads."""
        return self.workspace / "data" / "sources"

    @property
    def run(self) -> Path:
        return self.workspace / "data" / "runs" / self.experiment

    @property
    def report(self) -> Path:
        """Curves over all iterations. Not inside ``run``, on which the summary stage depends as a whole."""
        return self.workspace / "data" / "reports" / self.experiment

    @property
    def evaluations(self) -> Path:
        """Benchmarks measured beside the chain of stages (`p2o evaluate`)."""
        return self.workspace / "data" / "evaluations" / self.experiment

    def units(self, iteration: int, stage: str) -> Path:
        """Finished units of a stage that is still running; gone when it is finished."""
        return self.all_units / str(iteration) / stage

    @property
    def all_units(self) -> Path:
        return self.workspace / "data" / "units" / self.experiment

    def rejected(self, iteration: int) -> Path:
        """Rollouts whose numbers stopped an update, for inspection; completions that stopped another stage lie beside
        them."""
        return self.workspace / "data" / "rejected" / self.experiment / str(iteration) / "rollouts.parquet"

    @property
    def timings(self) -> Path:
        """Seconds each stage took; outside DVC, since two runs never take the same time."""
        return self.workspace / "data" / "timings" / f"{self.experiment}.json"

    def iteration(self, iteration: int) -> Path:
        """Iteration 0 holds the policy and the (empty) templates the first one starts from."""
        return self.run / str(iteration)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.workspace).as_posix()


def home(start: Path) -> Path:
    """The nearest folder upwards with an ``mlproject``: there the MLflow and Prefect databases live. For a temporary
    workspace that is the clone's, since DVC deletes the temporary one."""
    start = (temporary_of(start) or start).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / "mlproject").exists()), start)


def temporary_of(workspace: Path) -> Path | None:
    """The clone that this is a temporary workspace of, as `dvc exp run --queue` and `--temp` make them; else None."""
    inside = [f for f in workspace.resolve().parents if f.parts[-3:] == TEMPORARY]
    return inside[0].parents[2] if inside else None
