"""The rows of a file, each value as the file has it: text stays text, numbers keep their spelling.

JSON lines, JSON arrays, CSV, TSV and parquet, each also packed with gzip. What is none of these is refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from p2o_core.schemas import BadInput
from tasks.problems.text import decode, read_bytes, read_text

Record = Mapping[str, Any]
Rows = dict[int, Record]
"""Records by the number a person finds them at: the line in JSON lines, otherwise the row, the header not counted."""

SUFFIXES = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
SEPARATORS = ",;\t"


def is_table(path: Path) -> bool:
    """Whether the name says a kind of table that :func:`read_table` reads, in whatever case."""
    return _suffix(path) in SUFFIXES


def read_table(path: Path, encoding: str = "") -> Rows:
    """All rows of a file. Raises BadInput, naming line or row where there is one."""
    kind = SUFFIXES.get(_suffix(path))
    if kind is None and path.is_file():
        known = ", ".join(SUFFIXES)
        raise BadInput(
            f"{path}: no kind of file that is read here. Mend: one of {known}, each also with .gz behind it."
        )
    data = read_bytes(path)
    if kind == "parquet":
        rows = _parquet(data, path)
    elif kind == "json":
        rows = _json(decode(data, path, encoding), path)
    else:
        rows = _separated(decode(data, path, encoding), path, "\t" if kind == "tsv" else SEPARATORS)
    if not rows:
        raise BadInput(f"{path}: no rows. Mend: write at least one.")
    return rows


def read_document(path: Path) -> Any:
    """What one JSON document says. Raises BadInput."""
    return _parsed(read_text(path), path, 1)


def arrow_rows(table: pa.Table, place: Path) -> Rows:
    """The rows of an Arrow table, from parquet or the hub. Raises BadInput for a text that is no UTF-8."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{place}: damaged ({error}). Mend: write it again.") from error
    _refuse_twice(table.column_names, place)
    columns = {name: _values(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return {row + 1: {name: values[row] for name, values in columns.items()} for row in range(table.num_rows)}


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python's values; narrow floats as the shortest decimals that are them (0.1, not 0.10000000149)."""
    values = column.to_pylist()
    narrow = {pa.float16(): np.float16, pa.float32(): np.float32}.get(column.type)
    return [None if v is None else float(str(narrow(v))) for v in values] if narrow else values


def _parquet(data: bytes, path: Path) -> Rows:
    try:
        table = pa.parquet.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: no readable parquet file ({error}). Mend: write or fetch it again.") from error
    return arrow_rows(table, path)


def _json(text: str, path: Path) -> Rows:
    if text.lstrip().startswith("["):
        elements = _parsed(text, path, 1)
        return {row: _record(element, f"{path}: row {row}") for row, element in enumerate(elements, start=1)}
    # not splitlines: JSON may hold the other line separators of Unicode as they are
    lines = ((number, line.strip("\ufeff \t\r")) for number, line in enumerate(text.split("\n"), start=1))
    return {number: _record(_parsed(line, path, number), f"{path}: line {number}") for number, line in lines if line}


def _parsed(text: str, path: Path, first_line: int) -> Any:
    """One JSON value. Numbers become their own text: 2.50 stays 2.50, however many digits there are."""
    try:
        return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=_once)
    except RecursionError as error:
        raise BadInput(f"{path}: line {first_line}: nested too deep. Mend: one flat JSON object a row.") from error
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise BadInput(
            f"{path}: line {line}: {error.msg}. Mend: one JSON object a line, or one array of them."
        ) from error
    except _TwiceError as error:
        raise BadInput(f"{path}: line {first_line}: key {error} is there twice. Mend: keep one of them.") from error


class _TwiceError(ValueError):
    """A JSON object names a key twice: either value may have been meant."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(repr(next(name for name in names if names.count(name) > 1)))
    return record


def _record(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise BadInput(f"{place}: {json.dumps(value)[:40]} is no JSON object. Mend: write an object, or drop it.")
    return value


def _separated(text: str, path: Path, separators: str) -> Rows:
    """CSV with a header; every value is text. The separator is the one that the header is split by; where several
    split it, the one that splits every row alike."""
    split = {sign: header for sign in separators if len(header := _header(text, sign)) > 1}
    if len(split) > 1:
        even = [sign for sign in split if _is_even(text, sign)]
        if len(even) != 1:
            signs = " or ".join(map(repr, split))
            raise BadInput(f"{path}: the separator may be {signs}. Mend: quote header fields that hold another one.")
        separators = even[0]
    separator = next((sign for sign in separators if sign in split), separators[0])
    lines = _fields(text, separator, path)
    _, header = next(lines, (0, []))
    _refuse_twice([name for name in header if name], path)
    rows: Rows = {}
    for row, (line, fields) in enumerate(lines, start=1):
        if len(fields) != len(header):
            raise BadInput(
                f"{path}: row {row} (line {line}): {len(fields)} fields, the header has {len(header)}. "
                f"Mend: put fields that hold {separator!r} in quotes."
            )
        rows[row] = dict(zip(header, fields, strict=True))
    return rows


def _fields(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """``(line it ends at, its fields)`` of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield from ((reader.line_num, fields) for fields in reader if fields)
    except csv.Error as error:
        raise BadInput(
            f"{path}: line {reader.line_num}: {error}. Mend: close every quote, and double those within quotes."
        ) from error


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(_fields(text, separator, Path()), (0, []))[1]
    except BadInput:
        return []


def _is_even(text: str, separator: str) -> bool:
    try:
        return len({len(fields) for _, fields in _fields(text, separator, Path())}) == 1
    except BadInput:
        return False


def _refuse_twice(names: list[str], place: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{place}: column {twice!r} is there twice. Mend: keep one of them, or rename it.")
