"""The family tree of a search that went on for long."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader

from flows.reporting import rendering
from flows.reporting.genealogy import SHOWN, Genealogy, genealogies
from p2o_core.config import EvolveConfig
from p2o_core.schemas import write_record
from p2o_core.types import Evidence, Template, TemplateSearch

GENERATIONS = 600


def test_a_line_of_hundreds_is_shown_whole(tmp_path: Path) -> None:
    """Each template the only child of the one before, and only the last one kept."""
    found = of_archive(
        tmp_path,
        [template(index, index - 1 if index else None, kept=index == GENERATIONS - 1) for index in range(GENERATIONS)],
    )
    assert [generation for generation, _ in found.lines()] == list(range(GENERATIONS))
    page = page_of(found)
    assert len(re.findall("<li ", page)) == GENERATIONS
    assert "t599 &lt;b&gt;" in page
    assert "<b>" not in page


def test_templates_stand_under_their_parents_and_those_hardly_tried_are_counted(tmp_path: Path) -> None:
    family = [
        template(0, None),
        template(1, None, kept=True),
        template(2, 0, kept=True),
        template(3, 0),
        template(4, 2),
    ]
    many = [template(index, trials=0) for index in range(5, 5 + SHOWN)]
    found = of_archive(tmp_path, [*family, *many])
    shown = [(generation, node.text.split()[0]) for generation, node in found.lines()]
    assert shown[:5] == [(0, "t0"), (1, "t2"), (2, "t4"), (1, "t3"), (0, "t1")]
    assert (len(shown), found.hidden) == (SHOWN, 5)


def template(index: int, parent: int | None = None, *, kept: bool = False, trials: int = 4) -> Template:
    parents = () if parent is None else (parent,)
    evidence = {"sum": Evidence(1.0, float(trials))} if trials else {}
    return Template(index, f"t{index} <b>", parents, (), kept, found_at=index, evidence=evidence, trials=trials)


def of_archive(folder: Path, templates: list[Template]) -> Genealogy:
    (folder / "1").mkdir()
    write_record(folder / "1" / "templates.json", TemplateSearch("reflected", 1, [], templates))
    (found,) = genealogies([folder / "1"], EvolveConfig(search="online"))
    return found


def page_of(found: Genealogy) -> str:
    environment = Environment(loader=PackageLoader("flows.reporting"), autoescape=True)
    environment.filters |= {"number": rendering.number, "percent": rendering.percent, "cut": rendering.cut}
    return environment.from_string("{% import 'parts.html.j2' as parts %}{{ parts.genealogy(found, true) }}").render(
        found=found
    )
