"""What Prefect's page says about an iteration: from the artefacts of a real one, and of texts that mean harm."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from flows.assets import asset_key, digests, upstream
from flows.iteration_page import block, code, curves_svg, iteration_page, sparkline
from flows.story import iteration_sentence, rescue, stage_sentence
from p2o_core.schemas import read_problems, read_record, read_rows
from p2o_core.types import Judged, TemplateSearch
from tasks.registry import ITERATION, STAGES
from tasks.running.layout import Layout
from tasks.summary import experiment_rows
from tests.platform.workspace import Workspace


@pytest.fixture
def layout(trained: Workspace) -> Layout:
    return Layout(trained.root, "tiny")


def test_the_page_says_what_was_hard_and_what_helped(layout: Layout) -> None:
    rows = experiment_rows(layout.run, 2)
    page = iteration_page(layout, rows, {"MLflow": "[run](http://127.0.0.1:5000)"})
    found = rescue(layout, 2)
    judged = read_rows(layout.iteration(2) / "templated_verdicts.parquet", Judged)
    assert set(found.solved) == {row.problem_id for row in judged if row.reward}
    assert f"{len(found.hard)} problems" in page
    assert f"{len(found.solved)} solved" in page
    questions = [p.question for p in read_problems(layout.base / "train.parquet") if p.id == found.hard[0].problem_id]
    assert code(questions[0]) in page
    search = read_record(layout.iteration(2) / "templates.json", TemplateSearch)
    if search.kept:
        assert block(max(search.kept, key=lambda template: template.drawing_weight).text) in page
    assert f"{rows[2]['accuracy/hard']:.3f}" in page
    assert "[run](http://127.0.0.1:5000)" in page


def test_the_picture_is_one(layout: Layout) -> None:
    page = iteration_page(layout, experiment_rows(layout.run, 2), {})
    (data,) = re.findall(r"\(data:image/svg\+xml;base64,([^)]+)\)", page)
    drawn = ElementTree.fromstring(base64.b64decode(data))
    lines = [element for element in drawn.iter() if element.tag.endswith("polyline")]
    assert len(lines) == len([name for name in experiment_rows(layout.run, 0)[0] if name.startswith("accuracy/")]) - 1
    assert all(len(line.attrib["points"].split()) == 3 for line in lines), "iterations 0, 1 and 2"
    assert len(page) < 10_000


def test_before_training_there_is_only_what_was_measured(layout: Layout) -> None:
    page = iteration_page(layout, experiment_rows(layout.run, 0), {})
    assert "What was hard" not in page
    assert "| held-out accuracy |" in page


def test_every_stage_of_an_iteration_has_its_sentence(layout: Layout) -> None:
    said = {stage.name: stage_sentence(stage.name, layout, 1) for stage in ITERATION}
    assert "tokens" in said["rollout"]
    assert "hard problems" in said["mine"]
    assert "template" in said["evolve"]
    assert "optimiser steps so far" in said["distill"]
    sentence = iteration_sentence(experiment_rows(layout.run, 1), rescue(layout, 1))
    assert re.match(r"Iteration 1: \d+ problems were hard, templates rescued \d+ of them; held-out ", sentence)
    assert " → " in sentence


@pytest.mark.parametrize("text", ["```\n# Not a heading\n```", "`", "````", "<script>alert(1)</script>", ""])
def test_texts_of_models_stay_texts(text: str) -> None:
    shown = block(text)
    fence = shown.splitlines()[0]
    assert shown.endswith(f"\n{fence}")
    assert fence not in text
    line = code(text)
    assert line.split(" ", 1)[0] not in text


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([]) == ""
    assert ElementTree.fromstring(curves_svg([{"iteration": 0, "accuracy/<b>": 0.5}], ["accuracy/<b>"])) is not None


def test_assets_name_what_they_were_made_from(layout: Layout) -> None:
    assert upstream(STAGES["rollout"], 1, "tiny") == ["p2o://tiny/0/init", "p2o://tiny/0/prepare"]
    assert asset_key("distill", 1, "tiny") in upstream(STAGES["rollout"], 2, "tiny")
    assert {"p2o://tiny/2/rollout", "p2o://tiny/2/verify"} <= set(upstream(STAGES["distill"], 2, "tiny"))
    assert all(len(digest) == 64 for digest in digests(STAGES["distill"], 1, layout).values())
