"""dvc.yaml, written from the stages: what each reads, writes and depends on is said once, at its ``STAGE``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from p2o_core.schemas import write_text
from tasks.parameters.reading import read_yaml
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path
from tasks.running.stage import Stage, Where, folder_of
from tasks.running.storage import storage_errors

PIPELINE_FILE = "dvc.yaml"
PARAMETERS = "parameters"
"""The stage of dvc.yaml that writes data/params.json."""
BASELINE = "baseline"
"""The stage of dvc.yaml that evaluates iteration 0."""
METRICS = ("metrics.json", "mining.json", "summary.json")
PLOTS = {
    "curves.csv": {
        "x": "iteration",
        "y": "accuracy/mean",
        "title": "Held-out accuracy, mean of the difficulties, bare prompt",
    }
}
HEADER = """\
# The same stages as flows/train.py runs, one command each. Written by `p2o run` and `dvc repro` (`p2o resolve`) from
# the stages in tasks/ and the number of iterations in params.yaml; stages and artifacts of your own stay, at the end.
# previous: the iteration that each one starts from. DVC can walk through a mapping, but not count.
"""
LAYOUT = Layout(Path(), "${experiment}")


def node(stage: Stage, iteration: int) -> str:
    """The stage's name in dvc.yaml."""
    if stage.name == "evaluate" and iteration == 0:
        return BASELINE
    return f"{stage.name}@{iteration}" if stage.per_iteration else stage.name


def pipeline(iterations: int) -> dict[str, Any]:
    """What dvc.yaml says for so many iterations. ``${experiment}`` is params.yaml's."""
    stages: dict[str, Any] = {
        PARAMETERS: {"cmd": "p2o resolve", "deps": [LAYOUT.params.name], "outs": [LAYOUT.parameters.as_posix()]}
    }
    for stage in STAGES.values():
        if not stage.per_iteration:
            stages[stage.name] = _entry(stage, "0")
        else:
            stages[stage.name] = {"foreach": "${previous}", "do": _entry(stage, "${key}")}
        if stage.name == "init":
            stages[BASELINE] = _entry(STAGES["evaluate"], "0")
    previous = {str(i): i - 1 for i in range(1, iterations + 1)}
    return {"vars": [{"previous": previous}], "stages": stages, "artifacts": _artifacts(LAYOUT.iteration(iterations))}


def _artifacts(last: Path) -> dict[str, Any]:
    """What others take from the last iteration, by name: `dvc artifacts get`."""
    return {
        "policy": {"path": (last / "policy").as_posix(), "type": "model", "desc": "The trained policy, or its adapter"},
        "templates": {
            "path": (last / "templates.json").as_posix(),
            "type": "prompts",
            "desc": "The last search's templates with scores and parents",
        },
    }


def _entry(stage: Stage, iteration: str) -> dict[str, Any]:
    """One stage: its command, what it reads, the parameters it depends on, what it writes."""

    def place(where: Where, name: str) -> str:
        between = {"current": iteration, "previous": "${item}"}
        folder = LAYOUT.run / between[where] if where in between else folder_of(where, LAYOUT, 0)
        return (folder / name).as_posix()

    assert not isinstance(stage.where, Path), "stages beside the chain are not in dvc.yaml"
    named = f"{stage.name} --iteration {iteration}" if stage.per_iteration else stage.name
    reads = [place(artifact.where, artifact.name) for artifact in stage.inputs.values()]
    outputs = [*stage.outputs.values(), manifest_path(Path(), stage.name).name]
    entry = {
        "cmd": f"p2o stage {named}",
        "deps": [LAYOUT.run.as_posix()] if stage.gathers else reads,
        "params": [{LAYOUT.parameters.as_posix(): list(stage.params)}],
        "outs": [place(stage.where, name) for name in outputs if name not in (*METRICS, *PLOTS)],
        "metrics": [place(stage.where, name) for name in outputs if name in METRICS],
        "plots": [{place(stage.where, name): PLOTS[name]} for name in outputs if name in PLOTS],
    }
    return {name: said for name, said in entry.items() if said}


def pipeline_text(workspace: Path, iterations: int) -> str:
    """The dvc.yaml of a workspace, with the stages and other entries that its present one has beside ours.

    Raises:
        BadInput: the present one is no YAML.
    """
    made, path = pipeline(iterations), workspace / PIPELINE_FILE
    present = read_yaml(path.read_text(), path) if path.exists() else None
    if isinstance(present, dict):
        for section in ("stages", "artifacts"):
            entries = present.get(section) or {}
            made[section] |= {name: entry for name, entry in entries.items() if name not in made[section]}
        others = present.get("vars") or []
        made["vars"] += [entry for entry in others if not isinstance(entry, dict) or "previous" not in entry]
        made |= {name: entry for name, entry in present.items() if name not in made}
    return HEADER + yaml_text(made)


def write_pipeline(workspace: Path, iterations: int) -> bool:
    """Write the workspace's dvc.yaml unless it is up to date. Returns whether it had to be written."""
    text, path = pipeline_text(workspace, iterations), workspace / PIPELINE_FILE
    if path.exists() and path.read_text() == text:
        return False
    with storage_errors(workspace):
        write_text(path, text)
    return True


class _Dumper(yaml.SafeDumper):
    """Short lists stand on one line, and the mapping of iterations does."""


def _list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    short = not any(isinstance(value, (list, dict)) for value in values) and sum(map(len, map(str, values))) < 80
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=short)


def _mapping(dumper: _Dumper, values: dict[str, Any]) -> yaml.Node:
    counts = all(type(value) is int and name.isdigit() for name, value in values.items())
    return dumper.represent_mapping("tag:yaml.org,2002:map", values, flow_style=counts)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)


def yaml_text(content: Mapping[str, Any]) -> str:
    """YAML in the given order."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
