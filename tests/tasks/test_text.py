"""Files whose text cannot be told for sure: refused, rather than read with wrong letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2o_core.schemas import BadInput
from tasks.problems.sources import ProblemSource, load_source
from tests.tasks.test_tables import GERMAN, LINE, load


@pytest.mark.parametrize("damaged", [0, 150])
def test_a_damaged_byte_in_utf_8_does_not_make_it_another_encoding(damaged: int, tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"{GERMAN[0]} ({n})", "answer": str(n)}, ensure_ascii=False) for n in range(200)]
    lines = [row.encode() for row in rows]
    lines[damaged] = lines[damaged].replace("ö".encode(), b"\xf6")
    with pytest.raises(
        BadInput, match=rf"line {damaged + 1}: UTF-8 with a damaged byte \(0xf6 .*Mend: write that line"
    ):
        load(tmp_path, "rows.jsonl", b"\n".join(lines))
    with pytest.raises(BadInput, match=r"a damaged byte"):
        load(tmp_path, "rows.jsonl", "\n".join(rows).encode() + "\n√".encode()[:-1])


def test_two_encodings_in_one_file_are_refused(tmp_path: Path) -> None:
    rows = [json.dumps({"question": text, "answer": "1"}, ensure_ascii=False) for text in (*GERMAN, *GERMAN)]
    assert len(load(tmp_path, "rows.jsonl", "\n".join(rows).encode("cp1252"))) == 10
    mixed = [row.encode("utf-8" if n == 0 else "cp1252") for n, row in enumerate(rows)]
    with pytest.raises(BadInput, match=r"which encoding it is, is not sure.*Mend: write the file as UTF-8"):
        load(tmp_path, "rows.jsonl", b"\n".join(mixed))


@pytest.mark.parametrize("encoding", ["undefined", "idna", "hex", "a\0b"])
def test_an_encoding_that_decodes_no_file(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no (encoding|idna text).*Mend"):
        load(tmp_path, "rows.jsonl", LINE.replace("long", "länge"), encoding=encoding)


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(BadInput, match=r"rows.jsonl: is a link to .*gone.jsonl, which is not there.*Mend"):
        load_source(ProblemSource(path=tmp_path / "rows.jsonl"), "train", tmp_path, 0)


def test_where_no_row_is_left(tmp_path: Path) -> None:
    easy = '{"question": "x", "answer": "1", "difficulty": 1}'
    with pytest.raises(BadInput, match=r"min_difficulty' is 3.0, and none of 2 rows.*Mend"):
        load(tmp_path, "a.jsonl", f"{easy}\n{easy}", min_difficulty=3)
    with pytest.raises(
        BadInput, match=r"none of 1 rows has an answer \(0 left out by difficulty, 1 unanswered\).*Mend"
    ):
        load(tmp_path, "a.jsonl", easy, name="gsm8k")
