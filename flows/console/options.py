"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from p2o_core.schemas import BadInput
from tasks.parameters.reading import read_yaml

Workspace = Annotated[Path, typer.Option(help="Folder with params.yaml and dvc.yaml.")]
Recipe = Annotated[str | None, typer.Option(help="A name in recipes/, or a file like params.yaml.")]
ArmName = Annotated[str | None, typer.Option(help="p2o or grpo (recipes/arms.yaml).")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="rollout.samples=4; repeatable.")]
Wait = Annotated[bool, typer.Option(help="For another run in the same workspace to end.")]


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``["rollout.samples=4"]`` to a dictionary; values are read as YAML."""
    settings = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise BadInput(f"--set {pair}: no '='. Mend: --set section.name=value.")
        settings[name] = read_yaml(value, f"--set {pair}")
    return settings
