"""dvc.yaml is written from the stages and params.yaml's number of iterations, and DVC follows an edit of either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from flows.versioning.pipeline import BASELINE, PARAMETERS, pipeline, pipeline_text, write_pipeline
from flows.versioning.versions import Versions
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import check_experiment, load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path
from tests.platform.workspace import REPOSITORY, Workspace

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
EXPERIMENT = load_experiment(REPOSITORY / "params.yaml")
LAYOUT = Layout(REPOSITORY, EXPERIMENT.experiment)
OWN = {"plot": {"cmd": "echo plot", "deps": ["data/reports/${experiment}/curves.csv"]}}


def test_the_file_is_up_to_date() -> None:
    written = (REPOSITORY / "dvc.yaml").read_text()
    assert written == pipeline_text(REPOSITORY, EXPERIMENT.iterations), "mend: `p2o resolve`"


def filled(text: str, iteration: int) -> str:
    values = {"${experiment}": EXPERIMENT.experiment, "${key}": str(iteration), "${item}": str(iteration - 1)}
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def paths(entries: list, iteration: int) -> set[str]:
    return {filled(entry if isinstance(entry, str) else next(iter(entry)), iteration) for entry in entries}


@pytest.mark.parametrize("name", [name for name in PIPELINE if name != PARAMETERS])
def test_stage(name: str) -> None:
    """DVC's reading of a stage is the runner's: the same files in, the same files out."""
    stage = STAGES["evaluate" if name == BASELINE else name]
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
    assert {"evaluate" if name == BASELINE else name for name in PIPELINE} - {PARAMETERS} == set(STAGES)
    assert pipeline(3)["vars"] == [{"previous": {"1": 0, "2": 1, "3": 2}}]


def test_stages_of_ones_own_stay(tmp_path: Path) -> None:
    """Beside ours, which are written anew whatever was done to them."""
    assert write_pipeline(tmp_path, 2)
    content = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    content["stages"] |= OWN | {"mine": {"cmd": "false"}}
    content["artifacts"] = {"policy": {"path": "other"}, "mine": {"path": "data"}}
    content |= {"vars": [*content["vars"], {"colour": "red"}, "more.yaml"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(content))
    assert write_pipeline(tmp_path, 5)
    made = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    assert made["stages"] == pipeline(5)["stages"] | OWN
    assert made["vars"] == [*pipeline(5)["vars"], {"colour": "red"}, "more.yaml"]
    assert made["artifacts"] == pipeline(5)["artifacts"] | {"mine": {"path": "data"}}
    assert made["artifacts"]["policy"]["path"] == "data/runs/${experiment}/5/policy"
    assert not write_pipeline(tmp_path, 5)


def test_dvc_follows_the_number_of_iterations(fresh: Callable[[], Workspace]) -> None:
    """`dvc repro` has read dvc.yaml before it can be written anew: it stops before anything is trained, says so, and
    the same command then has the iterations that params.yaml wants."""
    workspace = fresh()
    workspace.edit("params.yaml", "iterations: 2", "iterations: 3")
    stopped = workspace.sh("dvc repro", check=False)
    assert stopped.returncode != 0
    assert "dvc.yaml: it was not that of 3 iterations" in stopped.stderr
    assert "Mend: the same command again" in stopped.stderr
    assert not (workspace.root / "data" / "base").exists(), "nothing was run"
    workspace.sh("dvc repro parameters")
    listed = workspace.sh("dvc stage list --name-only").stdout.split()
    assert "evaluate@3" in listed
    assert "evaluate@4" not in listed
    assert workspace.sh("p2o pipeline").stdout == (workspace.root / "dvc.yaml").read_text()


@pytest.mark.parametrize(("kind", "names"), [("copy", 1), ("hardlink", 2)])
def test_recording_leaves_outputs_alone(fresh: Callable[[], Workspace], kind: str, names: int) -> None:
    """DVC's commit writes no output anew: its digest is known. A link to the cache that saves room is still made."""
    workspace = fresh()
    workspace.sh(f"dvc config cache.type {kind} && p2o resolve")
    written = workspace.root / "data" / "params.json"
    before = written.stat()
    Versions(workspace.root).commit(PARAMETERS)
    after = written.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert after.st_nlink == names
    assert PARAMETERS not in workspace.sh("dvc status --json").stdout


@pytest.mark.parametrize("said", ["3", "{'1': 0, '2': 1, '3': 2}", "{1: 0, 2: 1, 3: 2}"])
def test_the_mapping_of_earlier_versions_is_read(said: str) -> None:
    text = f"experiment: x\niterations: {said}\nrollout: {{problems: 4, max_new_tokens: 4}}\n"
    assert check_experiment(f"{text}evaluate: {{max_new_tokens: 4}}\n", name="params.yaml").iterations == 3


@pytest.mark.parametrize("said", ["{'1': 0, '3': 2}", "{'1': 0, '2': 0}", "{}", "0", "-1", "ten", "2.5", "[1, 2]"])
def test_no_number_of_iterations(said: str) -> None:
    text = f"experiment: x\niterations: {said}\nrollout: {{problems: 4, max_new_tokens: 4}}\n"
    with pytest.raises(BadInput, match=r"params.yaml: line 2: parameter 'iterations'"):
        check_experiment(f"{text}evaluate: {{max_new_tokens: 4}}\n", name="params.yaml")


@pytest.mark.parametrize(
    "path", [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "recipes").glob("*.yaml"))], ids=str
)
def test_dvc_reads_our_parameters(path: Path) -> None:
    """Its parser is stricter than PyYAML's: it refuses a key that is there twice."""
    assert load_yaml(str(path))


def test_a_newcomer_s_params_yaml_is_short() -> None:
    """What they would change; everything else has a default."""
    assert len((REPOSITORY / "params.yaml").read_text().splitlines()) <= 30
