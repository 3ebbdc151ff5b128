"""Files as people have them: read as they are, or refused with file, row and mend."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from p2o_core.schemas import BadInput
from p2o_core.types import Problem
from tasks.problems.sources import ProblemSource, load_source
from tasks.problems.tables import arrow_rows

LINE = '{"question": "How long?", "answer": "2"}'
GERMAN = [
    "Löse die Gleichung für x.",
    "Wie groß ist die Fläche?",
    "Ein Café verkauft täglich 12 Brötchen; wie viele in 3 Tagen?",
    "Berechne die Länge der Strecke.",
    "Übrig bleiben 5 Äpfel.",
]


def load(folder: Path, file: str, content: bytes | str | pa.Table, /, **source: Any) -> list[Problem]:
    path = folder / file
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_source(ProblemSource(path=path, **source), "train", folder, 0).problems


def answers(problems: list[Problem]) -> list[str]:
    return [problem.answer for problem in problems]


AS_WRITTEN = [
    "07:05",
    "007",
    "2.50",
    "true",
    "NA",
    "null",
    "NaN",
    "inf",
    "1e3",
    "2024-01-02",
    "1,234",
    "-0",
    " x ",
    "0x1F",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_text_stays_text(separator: str, end: str, tmp_path: Path) -> None:
    rows = [f'"q {n}, or{end}so;"{separator}"{answer}"' for n, answer in enumerate(AS_WRITTEN)]
    problems = load(tmp_path, "rows.csv", end.join([f"question{separator}answer", *rows, "", ""]))
    assert answers(problems) == [answer.strip() for answer in AS_WRITTEN]
    assert problems[0].question == f"q 0, or{end}so;", "a new line within quotes belongs to the field"


def test_a_header_that_two_separators_split(tmp_path: Path) -> None:
    problems = load(tmp_path, "a.csv", "question;answer, that is right\na, b, c;1\nd;2\n", columns={"answer": ANSWER})
    assert answers(problems) == ["1", "2"]


ANSWER = "answer, that is right"


def test_json_numbers_keep_their_spelling(tmp_path: Path) -> None:
    spelt = ["2.50", "100000000000000000000000", "0.1", "1e400", "-0", "3", "true", '"true"']
    lines = [f'{{"question": "q{n}", "answer": {text}}}' for n, text in enumerate(spelt)]
    assert answers(load(tmp_path, "a.jsonl", "\n".join(lines))) == [text.strip('"') for text in spelt]


def test_parquet_numbers(tmp_path: Path) -> None:
    columns = [
        (pa.array([0.1, 142.0], pa.float32()), ["0.1", "142"]),
        (pa.array([0.1, 2.5e-7], pa.float64()), ["0.1", "2.5e-07"]),
        (pa.array([Decimal("2.50"), Decimal("700.00")]), ["2.50", "700.00"]),
        (pa.array([7, -3], pa.int8()), ["7", "-3"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["007", "NA"]).dictionary_encode(), ["007", "NA"]),
    ]
    for index, (column, texts) in enumerate(columns):
        table = pa.table({"question": ["a", "b"], "answer": column})
        assert answers(load(tmp_path, f"{index}.PARQUET", table)) == texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_encodings_that_are_sure(kind: str, encoding: str, tmp_path: Path) -> None:
    sign = "²" if encoding.startswith("utf") else ""  # with it, two encodings would read as well
    rows = [{"question": text, "answer": f"{n}{sign}"} for n, text in enumerate(GERMAN)]
    text = {
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "json": json.dumps(rows, ensure_ascii=False, indent=1),
        "csv": "\n".join(["question,answer", *(f'"{row["question"]}",{row["answer"]}' for row in rows)]),
    }[kind]
    problems = load(tmp_path, f"rows.{kind}", text.encode(encoding))
    assert [(p.question, p.answer) for p in problems] == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("encoding", ["cp1252", "koi8-r", "shift_jis", "cp1250"])
def test_an_encoding_that_is_not_sure_is_named_or_refused(encoding: str, tmp_path: Path) -> None:
    text = {"cp1252": "Löse x.", "koi8-r": "Решите.", "shift_jis": "数。", "cp1250": "Hány szőlő?"}[encoding]
    content = f'{LINE}\n{{"question": "{text}", "answer": "1"}}'.encode(encoding)
    with pytest.raises(BadInput, match=r"rows.jsonl: line 2: no UTF-8.*say `encoding: "):
        load(tmp_path, "rows.jsonl", content)
    assert load(tmp_path, "rows.jsonl", content, encoding=encoding)[1].question == text
    with pytest.raises(BadInput, match=r"no encoding 'latin-99'.*Mend"):
        load(tmp_path, "rows.jsonl", content, encoding="latin-99")
    with pytest.raises(BadInput, match=r"line 2: no utf-8 text.*Mend"):
        load(tmp_path, "rows.jsonl", content, encoding="utf-8")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL", "a.ndjson", "a.JSONL.GZ", "a.json.gz"])
@pytest.mark.parametrize("content", [LINE, f"{LINE}\r\n\n{LINE}\n", f"[{LINE},\n {LINE}]", f"\n [\n{LINE}\n]\n"])
def test_json_lines_and_arrays_by_any_name(name: str, content: str, tmp_path: Path) -> None:
    data = gzip.compress(content.encode()) if name.lower().endswith("gz") else content
    assert set(answers(load(tmp_path, name, data))) == {"2"}


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv.gz", "question,answer\nx,007\n"), ("a.TSV", "question\tanswer\nx\t007\n")]
)
def test_other_suffixes(name: str, content: str, tmp_path: Path) -> None:
    data = gzip.compress(content.encode()) if name.endswith("gz") else content
    assert answers(load(tmp_path, name, data)) == ["007"]


def parquet(**columns: Any) -> pa.Table:
    return pa.table({"question": ["a", "b"], "answer": ["1", "2"]} | columns)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", f"{LINE}\nnull", "line 2: null is no JSON object"),
        ("a.jsonl", f"{LINE}\n\n42", 'line 3: "42" is no JSON object'),
        ("a.jsonl", f'{LINE}\n"text"', 'line 2: "text" is no JSON object'),
        ("a.jsonl", f"{LINE}\n[{LINE}]", "line 2: "),
        ("a.json", f"[{LINE}, null]", "row 2: null is no JSON object"),
        ("a.json", f"[{LINE},\n{LINE}", "line 2: "),
        ("a.jsonl", f"[{LINE}]\n[{LINE}]", "line 2: Extra data"),
        ("a.jsonl", f'{LINE}\n{{"question": "x", "answer": NaN}}', "row 2: column 'answer' is nan"),
        ("a.jsonl", '{"question": "x", "answer": -Infinity}', "row 1: column 'answer' is -inf"),
        ("a.jsonl", '{"question": "x\\ud83d", "answer": "1"}', "row 1: column 'question' holds half a character"),
        ("a.jsonl", '{"question": "x", "answer": "1\\u0000"}', "the control character '\\x00'"),
        ("a.jsonl", '{"question": "x", "answer": "\\frac12"}', "the control character '\\x0c'"),
        ("a.jsonl", '{"question": "\u200b", "answer": "1"}', "row 1 (id 'a/1'): field 'question' is empty"),
        ("a.json", f'[{{"answer": {"1" * 5000}}}, {{"a": 1, "a": 2}}]', "row 2: key 'a' is there twice"),
        ("a.jsonl", '{"question": "x", "answer": "1", "answer": "2"}', "line 1: key 'answer' is there twice"),
        ("a.jsonl", '{"question": "x", "answer": ["1", "2"]}', "row 1: column 'answer' is a list"),
        ("a.jsonl", '{"question": "x", "answer": {"value": 1}}', "row 1: column 'answer' is a struct"),
        ("a.jsonl", '{"question": ["x"], "answer": "1"}', "row 1: column 'question' is a list"),
        ("a.jsonl", f'{LINE}\n{{"question": "x"}}', "row 2 (id 'a/2'): field 'answer' is empty"),
        ("a.jsonl", "[" * 100_000, "line 1: nested too deep"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.json", "[]", "no rows"),
        ("a.jsonl", f"{LINE}\n\0", "line 2: a zero byte"),
        ("a.jsonl", b"PK\x03\x04 and so on", "this is a zip archive"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.txt", LINE, "no kind of file that is read here"),
        ("a.jsonl.zst", LINE, "no kind of file that is read here"),
        ("a", LINE, "no kind of file that is read here"),
        ("a.jsonl.gz", LINE, "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(LINE.encode() * 99, mtime=0)[:-9], "not a whole gzip file"),
        ("a.csv", "question,answer\na,1\nb,1,2\n", "row 2 (line 3): 3 fields, the header has 2"),
        ("a.csv", "question,answer\na\n", "row 1 (line 2): 1 fields, the header has 2"),
        ("a.csv", 'question,answer\n"a,1\nb,2\n', "line 3: unexpected end of data"),
        ("a.csv", "question,answer,answer\na,1,2\n", "column 'answer' is there twice"),
        ("a.csv", "question,answer\na,\n", "row 1 (id 'a/1'): field 'answer' is empty"),
        ("a.csv", "question,answer\n", "no rows"),
        ("a.csv", "question,answer\na,1\0\n", "line 2: a zero byte"),
        ("a.csv", "question;x,answer;y\na;b,c;d\n", "the separator may be"),
        ("a.parquet", LINE, "no readable parquet file"),
        ("a.parquet", parquet(answer=[b"1", b"2"]), "row 1: column 'answer' is of type bytes"),
        ("a.parquet", parquet(answer=[["1"], ["2"]]), "row 1: column 'answer' is a list"),
        ("a.parquet", parquet(answer=[{"a": "1"}] * 2), "Mend: name a field of it (answer.a)"),
        ("a.parquet", parquet(answer=[1.5, float("nan")]), "row 2: column 'answer' is nan"),
        ("a.parquet", parquet(question=[["x"], ["y"]]), "row 1: column 'question' is a list"),
        ("a.parquet", parquet(answer=pa.array([1, 2], pa.timestamp("s"))), "of type datetime"),
        ("a.parquet", parquet(id=[b"1", b"2"]), "row 1: column 'id' is of type bytes"),
        ("a.parquet", parquet(question=pa.array([b"x", b"L\xf6se"]).cast(pa.string(), safe=False)), "damaged"),
    ],
)
def test_refused_with_file_row_and_mend(name: str, content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refusal:
        load(tmp_path, name, content)
    message = str(refusal.value).replace(f"{tmp_path}/", "")
    assert words in message
    assert message.startswith(name)
    assert "Mend: " in message


def test_a_column_that_nobody_asks_for_may_hold_anything(tmp_path: Path) -> None:
    dates = pa.array([10**8, 1], pa.date32())
    content = parquet(answer=[6.022e23, 1e16], updated=dates)
    assert [problem.answer for problem in load(tmp_path, "a.parquet", content)] == ["6.022e+23", "1e+16"]
    with pytest.raises(BadInput, match=r"column 'answer' cannot be read .OverflowError.*Mend"):
        load(tmp_path, "b.parquet", parquet(answer=dates))


def test_a_folder_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    long = tmp_path / f"{'a' * 300}.csv"
    for path, words in (
        (tmp_path / "rows.jsonl", "is a folder"),
        (tmp_path / "none.csv", "no such file"),
        (long, "is no path"),
    ):
        with pytest.raises(BadInput, match=f"{words}.*Mend"):
            load_source(ProblemSource(path=path), "train", tmp_path, 0)


def test_the_row_is_the_file_s_own_when_rows_before_it_are_left_out(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "1", "difficulty": level} for level in (1, 1, 9)] + [
        {"question": "b", "answer": "", "difficulty": 9}
    ]
    with pytest.raises(BadInput, match=r"row 4 .*field 'answer' is empty"):
        load(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)), min_difficulty=5)


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


VERL = {
    "data_source": ["openai/gsm8k", "dapo"],
    "prompt": [chat(("user", "How many?")), chat(("system", "Be brief."), ("user", "How few?"))],
    "reward_model": [{"ground_truth": "007", "style": "rule"}, {"ground_truth": "2.50", "style": "rule"}],
    "extra_info": [{"index": 5, "split": "train"}, {"index": 6, "split": "train"}],
}


@pytest.mark.parametrize(
    "source", [{"name": "verl"}, {}, {"columns": {"question": "prompt", "answer": "reward_model.ground_truth"}}]
)
def test_verl_s_form(source: dict[str, Any], tmp_path: Path) -> None:
    problems = load(tmp_path, "train.parquet", pa.table(VERL), **source)
    assert [(p.question, p.answer) for p in problems] == [("How many?", "007"), ("How few?", "2.50")]
    if source.get("name"):
        assert [p.id for p in problems] == ["train/5", "train/6"]


def test_the_official_code_s_own_files(tmp_path: Path) -> None:
    rows = VERL | {"reward_model": [{"ground_truth": {"target": "1"}}, {"ground_truth": {"target": "2"}}]}
    assert answers(load(tmp_path, "train_5000.parquet", pa.table(rows), name="verl")) == ["1", "2"]


def test_a_form_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'verl' is a form of file.*Mend: add `path:`"):
        load_source(ProblemSource(name="verl"), "train", tmp_path, 0)


@pytest.mark.parametrize(
    "turns",
    [
        chat(("user", "a"), ("assistant", "b"), ("user", "c")),
        chat(("user", "a"), ("assistant", "b")),
        chat(("system", "a")),
        [],
    ],
)
def test_chats_of_several_turns_are_refused(turns: list[dict[str, str]], tmp_path: Path) -> None:
    row = {"prompt": turns, "answer": "1"}
    with pytest.raises(BadInput, match=r"row 1: column 'prompt' is a list, and no chat with one message.*Mend"):
        load(tmp_path, "a.jsonl", json.dumps(row))


LISTS = '{"question": "q", "answer": ["4.4e7\\n", "4.4 \\\\times 10^7", "4.4e7"]}'


def test_lists_of_answers_mean_what_the_source_says(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, "a.jsonl", LISTS, answers="alternatives")
    assert problem.gold == ("4.4e7", "4.4 \\times 10^7")
    (problem,) = load(tmp_path, "a.jsonl", LISTS, answers="set")
    assert problem.gold == "4.4e7, 4.4 \\times 10^7, 4.4e7"
    with pytest.raises(BadInput, match=r"Mend: say beside its path `answers: alternatives`.*`answers: set`"):
        load(tmp_path, "a.jsonl", LISTS)
    with pytest.raises(BadInput, match=r"row 1: column 'answer' has an empty element"):
        load(tmp_path, "a.jsonl", '{"question": "q", "answer": ["1", null]}', answers="set")


def test_narrow_floats_within_lists_and_structs(tmp_path: Path) -> None:
    inner = pa.array([[0.1, None], [2.5]], pa.list_(pa.float32()))
    table = parquet(answer=inner)
    assert [p.gold for p in load(tmp_path, "a.parquet", table.slice(1), answers="set")] == ["2.5"]
    struct = pa.array(
        [{"a": [{"b": 0.1}]}, {"a": [{"b": 0.7}]}], pa.struct({"a": pa.list_(pa.struct({"b": pa.float32()}))})
    )
    assert arrow_rows(parquet(answer=struct), tmp_path)[1]["answer"] == {"a": [{"b": 0.1}]}
    assert arrow_rows(parquet(answer=inner), tmp_path)[1]["answer"] == [0.1, None]
    value = pa.array([{"v": 0.1}, {"v": 0.3}], pa.struct({"v": pa.float32()}))
    assert answers(load(tmp_path, "b.parquet", parquet(answer=value), columns={"answer": "answer.v"})) == ["0.1", "0.3"]


def test_the_row_of_a_key_that_is_there_twice_in_an_array(tmp_path: Path) -> None:
    twice = LINE.replace("{", '{"question": "x", ')
    with pytest.raises(BadInput, match=r"a.json: row 3: key 'question' is there twice"):
        load(tmp_path, "a.json", f"[{LINE}, {LINE},\n {twice}, {twice}]")


def test_a_cell_longer_than_a_csv_field_may_be(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 2: a field of more than 131,072 characters.*Mend: close the quote"):
        load(tmp_path, "a.csv", f'question,answer\n"{"x" * 140_000}",1\n')
