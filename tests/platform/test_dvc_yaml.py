"""dvc.yaml says what the code does: the same inputs, outputs and parameters for every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from flows.versioning.versions import PARAMETERS
from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path
from tests.platform.workspace import REPOSITORY

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
EXPERIMENT = load_experiment(REPOSITORY / "params.yaml")
LAYOUT = Layout(REPOSITORY, EXPERIMENT.experiment)


def filled(text: str, iteration: int) -> str:
    values = {"${experiment}": EXPERIMENT.experiment, "${key}": str(iteration), "${item}": str(iteration - 1)}
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def paths(entries: list, iteration: int) -> set[str]:
    return {filled(entry if isinstance(entry, str) else next(iter(entry)), iteration) for entry in entries}


@pytest.mark.parametrize("name", [name for name in PIPELINE if name != PARAMETERS])
def test_stage(name: str) -> None:
    stage = STAGES["evaluate" if name == "baseline" else name]
    iteration = 3 if "foreach" in PIPELINE[name] else 0
    entry = PIPELINE[name].get("do", PIPELINE[name])
    suffix = f" --iteration {iteration}" if stage.per_iteration else ""
    assert filled(entry["cmd"], iteration) == f"p2o stage {stage.name}{suffix}"
    assert entry["params"] == [{LAYOUT.relative(LAYOUT.parameters): list(stage.params)}]
    outputs = paths(entry["outs"] + entry.get("metrics", []) + entry.get("plots", []), iteration)
    folder = stage.output_folder(LAYOUT, iteration)
    written = {LAYOUT.relative(folder / file) for file in stage.outputs.values()}
    assert outputs == written | {LAYOUT.relative(manifest_path(folder, stage.name))}
    reads = {LAYOUT.relative(artifact.path(LAYOUT, iteration)) for artifact in stage.inputs.values()}
    if stage.gathers:
        reads = {LAYOUT.relative(LAYOUT.run)}
    assert paths(entry["deps"], iteration) == reads


def test_every_stage_is_there() -> None:
    assert {"evaluate" if name == "baseline" else name for name in PIPELINE} - {PARAMETERS} == set(STAGES)
    assert Path(REPOSITORY / "mlproject").exists()


@pytest.mark.parametrize(
    "path", [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "recipes").glob("*.yaml"))], ids=str
)
def test_dvc_reads_our_parameters(path: Path) -> None:
    """Its parser is stricter than PyYAML's: it refuses a key that is there twice."""
    assert load_yaml(str(path))
