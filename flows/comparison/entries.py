"""What a comparison runs: an entry of recipes/comparisons.yaml, copied into its workspace as comparison.yaml."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, ValidationError, ValidationInfo, field_validator, model_validator

from p2o_core.config import Section
from p2o_core.schemas import BadInput

FILE = "comparison.yaml"
WORLD_NAME = r"^[a-z0-9][a-z0-9.-]*$"


class World(Section):
    """One point of the difficulty sweep: the recipe with other problems."""

    name: str = Field(..., pattern=WORLD_NAME, description="name of the point")
    settings: dict[str, Any] = Field(..., description="dotted parameters, prepare.hard_lengths for example")


class Comparison(Section):
    """What ``p2o compare`` runs."""

    recipe: Path = Field(..., description="params.yaml that all arms share, relative to the repository")
    arms: tuple[str, ...] = Field(..., description="arms of recipes/arms.yaml; none: only those of the sweep are run")
    own_arms: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="arms of this comparison only, or in place of those in recipes/arms.yaml"
    )
    seeds: PositiveInt = Field(5, description="seeds for every arm and base")
    first_seed: int = Field(0, ge=0, description="the first of them; 99 for a pilot whose runs the others never see")
    bases: PositiveInt = Field(
        1, description="base policies and problem sets, from prepare.seed on; every arm and seed is run on each"
    )
    budget_tokens: PositiveInt | None = Field(
        ..., description="generated tokens an arm may spend, search included; null: equal iterations instead"
    )
    max_iterations: PositiveInt = Field(..., description="iterations at most, also within the budget")
    settings: dict[str, Any] = Field(default_factory=dict, description="dotted parameters for all arms")
    budgets: tuple[PositiveInt, ...] = Field(
        (), description="smaller budgets that the claims are measured at too, from the same runs; none: 25, 50, 75 %"
    )
    claims: tuple[str, ...] = Field(
        ("V1", "V2", "V3", "V4", "V5", "S9"), description="what the report gives a verdict on, by name"
    )
    sweep: tuple[World, ...] = Field((), description="worlds of other difficulty")
    grid: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="further worlds of the sweep, every combination of these: dotted parameter to its values by name, "
        "prepare.seed: {a: 1, b: 2} for example; a world's name is theirs with dashes between",
    )
    sweep_arms: tuple[str, ...] = Field((), description="arms run in them")
    sweep_seeds: PositiveInt = Field(2, description="seeds there")
    sweep_bases: PositiveInt = Field(1, description="bases of each of these worlds")
    project: str = Field("p2o-compare", description="MLflow experiment that holds the runs")

    @field_validator("budgets")
    @classmethod
    def _are_within_the_budget(cls, budgets: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        whole = info.data.get("budget_tokens")
        if whole is not None and max(budgets, default=0) > whole:
            raise ValueError(f"{list(budgets)} reach beyond budget_tokens={whole}")
        return budgets

    @field_validator("grid")
    @classmethod
    def _values_have_names(cls, grid: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for setting, values in grid.items():
            if not values:
                raise ValueError(f"{setting} has no values")
            for name in values:
                if not re.fullmatch(WORLD_NAME, name):
                    raise ValueError(f"{setting} has a value named {name!r}, which is not like {WORLD_NAME}")
        return grid

    @model_validator(mode="after")
    def _there_is_something_to_run(self) -> Comparison:
        if not self.arms and not (self.worlds and self.sweep_arms):
            raise ValueError("neither arms, nor a sweep or grid with sweep_arms: nothing to run")
        doubled = [name for name, count in Counter(world.name for world in self.worlds).items() if count > 1]
        if doubled:
            raise ValueError(f"sweep and grid have more than one world named {', '.join(doubled)}")
        return self

    @property
    def worlds(self) -> list[World]:
        """Those of the sweep, then those of the grid."""
        combinations = product(*(values.items() for values in self.grid.values())) if self.grid else ()
        grid = [
            World(
                name="-".join(name for name, _ in values),
                settings={setting: value for setting, (_, value) in zip(self.grid, values, strict=True)},
            )
            for values in combinations
        ]
        return [*self.sweep, *grid]


def load_comparison(path: Path) -> Comparison:
    """Read a comparison.yaml. Raises BadInput."""
    if not path.exists():
        raise BadInput(f"{path}: no comparison here. Mend: `p2o compare` makes one.")
    return check_comparison(yaml.safe_load(path.read_text()), path)


def check_comparison(content: Any, source: object) -> Comparison:
    """The entry, checked. Raises BadInput, which names each wrong field; ``the entry`` where several together are."""
    try:
        return Comparison.model_validate(content)
    except ValidationError as error:
        wrong = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
        lines = [f"{source}: {f'field {field!r}' if field else 'the entry'}: {said}. Mend: correct it."
                 for field, said in wrong]  # fmt: skip
        raise BadInput("\n".join(lines)) from error
