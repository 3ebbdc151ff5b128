"""What a person chooses when a run is started from Prefect's page: types for its form, and names for its list.

The choices are looked up when the form is made, in the clone in which the deployments are registered. What the form
cannot know (a setting's name, a recipe that was removed) the flow refuses before it works: BadInput, with field and
mend.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flows.versioning.workspace import preview, recipe_names
from p2o_core.schemas import BadInput
from tasks.parameters.arms import ARMS_FILE
from tasks.running.layout import home

COMPARISONS_FILE = Path("recipes") / "comparisons.yaml"


class OneOf:
    """A list to choose from in the form; a blank stands for none. ``names`` is asked when the form is made."""

    def __init__(self, names: Callable[[], list[str]], *, blank: bool = True) -> None:
        self.names = names
        self.blank = blank

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        if names := self.names():
            made["enum"] = [""] * self.blank + names
        return made


def _keys(file: Path) -> list[str]:
    path = home(Path()) / file
    return list(yaml.safe_load(path.read_text(encoding="utf-8-sig"))) if path.exists() else []


RecipeName = Annotated[str, OneOf(lambda: recipe_names(Path()))]
ArmName = Annotated[str, OneOf(lambda: _keys(ARMS_FILE))]
ComparisonName = Annotated[str, OneOf(lambda: _keys(COMPARISONS_FILE), blank=False)]
Seed = Annotated[int | None, Field(ge=0)]
Count = Annotated[int | None, Field(ge=1)]
Iteration = Annotated[int | None, Field(ge=0)]
Settings = dict[str, Any] | None


def experiment_name(parameters: dict[str, Any]) -> str:
    """What a run of these parameters is about: experiment, arm and seed. Parameters that are refused when the run
    begins name it as they stand."""
    asked = {name: parameters.get(name) for name in ("recipe", "arm", "seed")}
    try:
        start = Path(parameters.get("workspace") or ".")
        experiment, _ = preview(start, overrides=parameters.get("settings"), **asked)
    except (BadInput, OSError):
        return " · ".join(f"{name} {value}" for name, value in asked.items() if value not in (None, "")) or "refused"
    return f"{experiment.experiment} · {experiment.arm} · seed {experiment.seed}"


def run_name(prefix: str = "") -> Callable[[], str]:
    """A flow's ``flow_run_name``: asked once a run, within it."""

    def name() -> str:
        from prefect.runtime import flow_run

        return prefix + experiment_name(flow_run.parameters)

    return name
