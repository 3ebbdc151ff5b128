"""The rows of a file, each value as the file has it: text stays text, numbers keep their spelling.

JSON lines, JSON arrays, CSV, TSV and parquet, each also packed with gzip. What is none of these is refused.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
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
_ELEMENT = re.compile(r"[^\s,]")
"""Where the next element of a JSON array begins."""


class Unreadable(str):
    """A value that Python has nothing for, by the reason; a column that nobody asks for may hold some."""


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


def stem_of(path: Path) -> str:
    """A file's name without what says its kind: ``aime`` of ``files/aime.jsonl.gz``."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).stem


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python's values; narrow floats, also within lists and structs, as the shortest decimals that are
    them (0.1, not 0.10000000149)."""
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError, LookupError) as error:  # a date beyond Python's, an unknown time zone
        return [Unreadable(f"{type(error).__name__}: {error}")] * len(column)
    return [_shortened(value, column.type) for value in values]


def _shortened(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if narrow := {pa.float16(): np.float16, pa.float32(): np.float32}.get(kind):
        return float(str(narrow(value)))
    if pa.types.is_struct(kind):
        return {field.name: _shortened(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_shortened(key, kind.key_type), _shortened(item, kind.item_type)) for key, item in value]
    if isinstance(value, list):
        return [_shortened(item, kind.value_type) for item in value]
    return _shortened(value, kind.value_type) if pa.types.is_dictionary(kind) else value


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
        place = f"line {first_line}"
        if text.lstrip().startswith("["):  # json tells no place: the first element that is refused by itself
            place = f"row {_element_with_a_key_twice(text)}"
        raise BadInput(f"{path}: {place}: key {error} is there twice. Mend: keep one of them.") from error


class _TwiceError(ValueError):
    """A JSON object names a key twice: either value may have been meant."""


def _element_with_a_key_twice(text: str) -> int:
    """Its number in an array, from 1."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, object_pairs_hook=_once)
    place, row = text.index("[") + 1, 0
    with suppress(_TwiceError):
        while found := _ELEMENT.search(text, place):
            row += 1
            _, place = decoder.raw_decode(text, found.start())
    return row


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
        if "field limit" in str(error):  # a quote that is never closed reads on to here, or the cell is as long
            raise BadInput(
                f"{path}: line {reader.line_num}: a field of more than {csv.field_size_limit():,} characters ends or "
                "goes on here. Mend: close the quote before it; or, where a cell is that long, shorten it or write "
                "JSON lines."
            ) from error
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
