"""Arms: named sets of parameters on top of a recipe (recipes/arms.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from p2o_core.schemas import BadInput

ARMS_FILE = Path("recipes") / "arms.yaml"


def arm_settings(arm: str, home: Path) -> dict[str, Any]:
    """The parameters an arm sets, by dotted name. Raises BadInput for an arm that is not in recipes/arms.yaml."""
    path = home / ARMS_FILE
    arms = yaml.safe_load(path.read_text())
    if arm not in arms:
        raise BadInput(f"{path}: no arm {arm!r}. Mend: one of {', '.join(arms)}, or add it there.")
    return arms[arm]


def apply_settings(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Set dotted parameters in the content of a params.yaml; ``"*2"`` multiplies the value that is there."""
    for dotted, value in settings.items():
        *path, last = dotted.split(".")
        section = content
        for part in path:
            section = section.setdefault(part, {})
        factor = value.removeprefix("*") if isinstance(value, str) and value.startswith("*") else None
        section[last] = type(section[last])(section[last] * float(factor)) if factor else value
