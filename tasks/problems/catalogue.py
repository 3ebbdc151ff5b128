"""Known data sets by name (``catalogue.yaml``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import Field

from p2o_core.config import Section
from p2o_core.schemas import BadInput
from tasks.problems.answers import AnswerKind
from tasks.problems.cells import Answers

Alternatives = tuple[str | tuple[str, ...], ...]
"""Names a column may have, the first that is there counts; a tuple's columns are joined by a blank."""


class Entry(Section):
    """Where a data set lies on the hub, and how to read it wherever it lies."""

    hub: str = Field("", description="Hugging Face data set id; blank for a form of file")
    config: str = Field("", description="its configuration")
    split: str = Field("train", description="its split")
    columns: dict[str, Alternatives] = Field(..., description="the names its column may have, by field")
    answer: AnswerKind = Field("plain", description="how the gold answer is written")
    answers: Answers | None = Field(None, description="what a list of answers means; None where there is none")
    rows: int | None = Field(None, description="problems in it, for `p2o plan` before it is fetched")


@cache
def catalogue() -> dict[str, Entry]:
    """All entries."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {name: Entry.model_validate(entry) for name, entry in content.items()}


def entry_named(name: str) -> Entry:
    """Raises BadInput for a name that is not in the catalogue."""
    entries = catalogue()
    if name not in entries:
        raise BadInput(f"prepare: no data set {name!r} in the catalogue. Mend: one of {', '.join(entries)}.")
    return entries[name]
