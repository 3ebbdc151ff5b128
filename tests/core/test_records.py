"""Records come back as they were written, to the bit; what is no record of its type is refused by field."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.evaluation import Evaluation, Lengths, Measurement, NotDue, read_evaluation
from p2o_core.mining import MiningReport, Signal
from p2o_core.schemas import BadInput, read_record, write_record, written_whole
from p2o_core.types import SearchCost, Template, TemplateSearch
from p2o_core.update_report import IterationUpdate, RunningMeans, SkillCheck

SEARCH = TemplateSearch(
    "searched",
    3,
    ["a", "b"],
    [Template(0, "", (), (0.0, 0.0), kept=False), Template(1, "Go on. ½", (0,), (1.0, 0.5), kept=True, found_at=9)],
    SearchCost(metric_calls=60, refused={"leak": 2}),
)
MINING = MiningReport(0.5, 0.25, 0.25, 0.5, 3, 1, 0, {"hard": Signal(0.1, 0.8, 0.0, 0.8)})
MEASURED = Measurement(
    iteration=2,
    accuracy={"hard": 0.25},
    pass_at={"1": {"hard": 0.25}},
    maj_at={"hard": 0.5},
    lengths={"hard": Lengths(9.5, 12.0, 0.0)},
    mean_tokens=9.5,
    truncated=0.0,
)
UPDATE = IterationUpdate(
    status="updated",
    groups=8,
    groups_with_signal=5,
    rollouts_trained=30,
    planned_steps=1,
    steps=1,
    metrics={"loss": -0.1},
    template_ratios=[0, 7, 1],
    optimizer_steps=4,
    templated_solve_rate=0.5,
    templated_tokens=300,
    reused=2,
    entropy=0.7,
    skills=SkillCheck(4, 1.0, 0.75, 80, "kept"),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("record", "record_type"),
    [
        (SEARCH, TemplateSearch),
        (TemplateSearch("off", dev_ids=[], templates=[]), TemplateSearch),
        (MINING, MiningReport),
        (MEASURED, Evaluation),
        (NotDue(3), Evaluation),
        (UPDATE, IterationUpdate),
    ],
)
def test_what_was_written_is_read(tmp_path: Path, record: Any, record_type: Any) -> None:
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json", record_type) == record
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@given(st.dictionaries(WORDS, FINITE), FINITE, st.integers(0))
def test_no_bit_of_a_number_is_lost(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float], loss: float, steps: int
) -> None:
    """An interrupted update goes on from its sums."""
    path = tmp_path_factory.getbasetemp() / "means.json"
    write_record(path, RunningMeans(steps=steps, metrics=metrics, loss=loss))
    assert repr(read_record(path, RunningMeans)) == repr(
        RunningMeans(steps=steps, metrics=dict(sorted(metrics.items())), loss=loss)
    )


def test_the_form_on_disk(tmp_path: Path) -> None:
    """Nothing spent is an empty object, a mean score stands beside its scores, and what was not measured is absent."""
    write_record(tmp_path / "none.json", TemplateSearch())
    assert (tmp_path / "none.json").read_text() == (
        '{\n  "cost": {},\n  "dev_ids": [],\n  "searched_at": 0,\n  "status": "none",\n  "templates": []\n}\n'
    )
    write_record(tmp_path / "search.json", SEARCH)
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["templates"][1]["mean_score"] == 0.75
    assert found["cost"]["tokens"] == 0
    write_record(tmp_path / "measured.json", MEASURED)
    assert "best_template" not in json.loads((tmp_path / "measured.json").read_text())
    write_record(tmp_path / "not_due.json", NotDue(3))
    assert json.loads((tmp_path / "not_due.json").read_text()) == {"iteration": 3, "status": "not_due"}
    assert read_evaluation(tmp_path / "not_due.json") is None


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {key: value for key, value in content.items() if key != name}


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | {name: value}


@pytest.mark.parametrize(
    ("record", "record_type", "damage", "words"),
    [
        (SEARCH, TemplateSearch, without("status"), "field 'status': it is missing"),
        (SEARCH, TemplateSearch, lambda content: {}, "it is missing"),
        (SEARCH, TemplateSearch, changed("status", "found"), "field 'status'"),
        (SEARCH, TemplateSearch, changed("accuracy", 1), "field 'accuracy': a TemplateSearch has none"),
        (SEARCH, TemplateSearch, lambda content: [content], "field '(the whole)'"),
        (SEARCH, TemplateSearch, changed("templates", [{"index": 0}]), "field 'templates.0.text'"),
        (SEARCH, TemplateSearch, changed("cost", {"tokens": "many"}), "field 'cost.tokens'"),
        (MINING, MiningReport, without("hard"), "field 'hard'"),
        (MINING, MiningReport, changed("hard", 1.5), "field 'hard'"),
        (MEASURED, Evaluation, without("accuracy"), "accuracy'"),
        (MEASURED, Evaluation, changed("status", "skipped"), "status"),
        (MEASURED, Evaluation, changed("lengths", {"hard": {"mean": 1.0}}), "lengths.hard.p95'"),
        (NotDue(1), Evaluation, changed("accuracy", {}), "field 'accuracy': a NotDue has none"),
        (UPDATE, IterationUpdate, changed("template_ratios", [0.5]), "field 'template_ratios.0'"),
        (UPDATE, IterationUpdate, changed("skills", {"answer": "maybe"}), "field 'skills."),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    tmp_path: Path, record: Any, record_type: Any, damage: Callable[[dict[str, Any]], Any], words: str
) -> None:
    path = tmp_path / "r.json"
    write_record(path, record)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(BadInput) as refused:
        read_record(path, record_type)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b'{"status": "none",\n"dev', b'{"status": "\xff\xfe"}', b"null", b"3"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"r\.json"):
        read_record(path, TemplateSearch)
    with pytest.raises(BadInput, match="no such file"):
        read_record(tmp_path / "absent.json", TemplateSearch)


@pytest.mark.parametrize("wrong", [RunningMeans(loss=float("nan")), RunningMeans(steps="1"), NotDue(1.5)])  # type: ignore[arg-type]
def test_what_could_not_be_read_is_not_written(tmp_path: Path, wrong: Any) -> None:
    write_record(tmp_path / "r.json", RunningMeans(steps=1))
    before = (tmp_path / "r.json").read_bytes()
    with pytest.raises(ValueError, match=r"Expected|JSON compliant"):
        write_record(tmp_path / "r.json", wrong)
    assert (tmp_path / "r.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_or_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "there"
    with written_whole(path) as draft:
        draft.write_text("old")
    with pytest.raises(OSError, match="full"), written_whole(path) as draft:  # noqa: PT012
        draft.write_text("new")
        raise OSError("full")
    assert path.read_text() == "old"
    with written_whole(tmp_path / "made" / "folder") as draft:
        draft.mkdir()
        (draft / "new").touch()
        draft.with_name("journal").touch()  # what is made on the way goes with the draft
    with written_whole(tmp_path / "made" / "folder") as draft:
        draft.mkdir()
        (draft / "newer").touch()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        *("made", "made/folder", "made/folder/newer", "there")
    ]
    with written_whole(tmp_path / "unit", lambda draft: f"unit-{draft.read_text()}") as draft:
        draft.write_text("7")
    assert (tmp_path / "unit-7").read_text() == "7"
    assert not (tmp_path / "unit").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from p2o_core.schemas import written_whole
with written_whole(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_a_draft_that_the_next_writer_clears(tmp_path: Path) -> None:
    path = tmp_path / "there"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == [".there.draft"]
    with written_whole(path) as draft:
        draft.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
