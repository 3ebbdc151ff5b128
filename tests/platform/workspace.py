"""A folder that holds what a clone holds, and the commands in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.versioning.pipeline import write_pipeline
from tasks.parameters.experiment import load_experiment
from tests.conftest import BIN

REPOSITORY = Path(__file__).parents[2]
MANAGED = ("PREFECT_", "MLFLOW_", "DVC_")


@dataclass(frozen=True)
class Workspace:
    """A folder that holds what a clone holds, with the tests' params.yaml."""

    root: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its own."""

    @property
    def run(self) -> Path:
        return self.root / "data" / "runs" / "tiny"

    def sh(self, command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell command there, with the environment's programs first and no inherited settings."""
        done = subprocess.run(
            command,
            check=False,  # the callers that expect failure look at the status
            shell=True,
            cwd=self.root,
            env=environment() | dict(self.settings),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def long(self, command: str) -> None:
        """Run one that may take its time on a busy machine; its output is in run.log."""
        self.sh(f"{command} > run.log 2>&1", timeout=1500)

    def on_its_own(self) -> Workspace:
        """With Prefect's server and its database inside."""
        return Workspace(self.root)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(MANAGED)}
    return inherited | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "true"}


def new_workspace(folder: Path) -> Workspace:
    folder.mkdir(parents=True)
    for name in (".gitignore", ".dvcignore", "mlproject", "prefect.yaml", "recipes"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    shutil.copyfile(Path(__file__).with_name("params.yaml"), folder / "params.yaml")
    write_pipeline(folder, load_experiment(folder / "params.yaml").iterations)
    shutil.copyfile(Path(__file__).with_name("comparisons.yaml"), folder / "recipes" / "comparisons.yaml")
    shutil.copytree(REPOSITORY / "data" / "sources", folder / "data" / "sources")
    workspace = Workspace(folder)
    workspace.sh("git init -q && dvc init -q")
    return workspace
