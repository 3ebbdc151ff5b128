"""Arms: named sets of parameters on top of a recipe (recipes/arms.yaml)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from p2o_core.schemas import BadInput
from tasks.parameters.experiment import PARAMS_FILE, check_experiment
from tasks.parameters.reading import read_yaml

ARMS_FILE = Path("recipes") / "arms.yaml"


def arm_settings(arm: str, home: Path, own: Mapping[str, dict[str, Any]] = MappingProxyType({})) -> dict[str, Any]:
    """The parameters an arm sets, by dotted name. ``own`` are a comparison's arms, which go before those of
    recipes/arms.yaml. Raises BadInput for an arm that is in neither."""
    if arm in own:
        return own[arm]
    path = home / ARMS_FILE
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: run in a clone, or name one with --workspace.")
    try:
        arms = read_yaml(path.read_text(encoding="utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: is no UTF-8 ({error.reason} at byte {error.start}). Mend: save it as UTF-8."
        ) from error
    if not isinstance(arms, dict) or not all(isinstance(settings, dict) for settings in arms.values()):
        raise BadInput(f"{path}: is no mapping of arms to their parameters. Mend: write `name: {{parameter: value}}`.")
    if arm not in arms:
        raise BadInput(
            f"{path}: no arm {arm!r}. Mend: one of {', '.join(dict.fromkeys([*own, *arms]))}, or add it there."
        )
    return arms[arm]


def apply_settings(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Set dotted parameters in the content of a params.yaml; ``"*2"`` multiplies what is there, or the default.

    Raises:
        BadInput: ``"*2"`` of a parameter that is not there and has no default.
    """
    before = copy.deepcopy(content)
    for dotted, value in settings.items():
        *path, last = dotted.split(".")
        section = content
        for part in path:
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise BadInput(f"unknown parameter {dotted!r}: {part!r} is a value. Mend: correct its name.")
        if isinstance(value, str) and value.startswith("*"):
            number = section[last] if last in section else _default(before, dotted)
            section[last] = type(number)(number * float(value[1:]))
        else:
            section[last] = value


def _default(content: Mapping[str, Any], dotted: str) -> Any:
    value: Any = check_experiment(yaml.safe_dump(content), name=PARAMS_FILE).model_dump(mode="json")
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise BadInput(f"{ARMS_FILE}: there is no parameter {dotted!r} to multiply. Mend: correct its name.")
    return value
