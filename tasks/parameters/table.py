"""The table of all parameters, from the models that check them: ``p2o params`` and docs/reference.md show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tasks.parameters.experiment import Experiment
from tasks.parameters.reading import sections


@dataclass(frozen=True)
class Parameter:
    """One line of the table; ``default`` is blank where params.yaml has to say."""

    name: str
    default: str
    meaning: str


def parameters(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[Parameter]:
    """Every parameter, depth first; the variants of a union follow each other, named by their ``type``."""
    fields = sorted(model.model_fields.items(), key=lambda entry: entry[0] != "type")  # what picks the variant first
    for name, field in fields:
        variants = sections(field.annotation)
        if not variants:
            yield Parameter(prefix + name, _default(field), field.description or _one_value(field))
        for section in variants:
            yield from parameters(section, f"{prefix}{name}.")


def markdown_table(model: type[BaseModel] = Experiment) -> str:
    """The table as Markdown."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for parameter in parameters(model):
        default = f"`{parameter.default}`" if parameter.default else "–"
        lines.append(f"| `{parameter.name}` | {default} | {parameter.meaning.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    return "" if value is PydanticUndefined else str(list(value) if isinstance(value, tuple) else value)


def _one_value(field: FieldInfo) -> str:
    """``type`` fields have one value each, which picks the variant."""
    return (
        f"picks the variant below: {get_args(field.annotation)[0]}" if get_origin(field.annotation) is Literal else ""
    )
