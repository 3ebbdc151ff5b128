"""Files of the data contract: rows in parquet, records in JSON, and the checks bad input meets before any work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from p2o_core.types import Problem

Row = TypeVar("Row")
Record = TypeVar("Record")

_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    bool: pa.bool_(),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[float, ...]: pa.list_(pa.float64()),
    tuple[str, ...]: pa.list_(pa.string()),
}


class BadInput(ValueError):
    """Input that is refused before any work; the message names file, line or field, and the mend."""


def arrow_schema(row_type: type) -> pa.Schema:
    """The parquet schema of a dataclass of :mod:`p2o_core.types`; enums are stored as their string values."""
    hints = get_type_hints(row_type)

    def arrow_type(hint: Any) -> pa.DataType:
        is_enum = isinstance(hint, type) and issubclass(hint, Enum)
        return pa.string() if is_enum else _ARROW_TYPES[hint]

    return pa.schema(
        [pa.field(f.name, arrow_type(hints[f.name]), nullable=_optional(hints[f.name])) for f in fields(row_type)]
    )


def _optional(hint: Any) -> bool:
    return isinstance(hint, UnionType) and NoneType in get_args(hint)


def write_rows(path: Path, rows: Iterable[Any], row_type: type) -> int:
    """Write dataclass rows to parquet; the same rows give the same bytes. Returns the row count."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema(row_type))
    pq.write_table(table, path, compression="zstd")
    return table.num_rows


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Read parquet rows into dataclasses. A column whose field has a default may be missing: it came later.

    Raises:
        BadInput: the file is missing or unreadable, or lacks a column of ``row_type``.
    """
    table = _read_table(path)
    hints = get_type_hints(row_type)
    for field in fields(row_type):  # type: ignore[arg-type]
        if field.name not in table.column_names and field.default is MISSING:
            raise BadInput(
                f"{path}: column {field.name!r} is missing (found {table.column_names}). "
                f"Mend: write it, or map another column to it."
            )
    casts: dict[str, Callable[[Any], Any]] = {
        name: hint if isinstance(hint, type) else (lambda value: value) if _optional(hint) else tuple
        for name, hint in hints.items()
    }
    names = [field.name for field in fields(row_type) if field.name in table.column_names]  # type: ignore[arg-type]
    return [
        row_type(**{name: casts[name](record[name]) for name in names}) for record in table.select(names).to_pylist()
    ]


def _read_table(path: Path) -> pa.Table:
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: run the stage that writes it (see `p2o stage --help`).")
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{path}: not a readable parquet file ({error}). Mend: delete it and run its stage again."
        ) from error


UNSEEN = " \t\n\r\xa0\u00ad\u200b\u200c\u200d\u2060\u3000\ufeff"
"""What nobody sees: a field of nothing else is empty."""


def check_problems(problems: Sequence[Problem], source: Path, rows: Iterable[int] | None = None) -> None:
    """Refuse duplicate ids and blank fields. ``rows`` are the problems' rows in ``source``, counted from 1 without gaps
    where not given.

    Raises:
        BadInput: naming the row, the field and the mend.
    """
    first_row: dict[str, int] = {}
    for row, problem in zip(rows or range(1, len(problems) + 1), problems, strict=True):
        fields_there = [(name, getattr(problem, name)) for name in ("id", "question", "answer")]
        for name, value in (*fields_there, *(("alternatives", other) for other in problem.alternatives)):
            if not (value or "").strip(UNSEEN):
                raise BadInput(
                    f"{source}: row {row} (id {problem.id!r}): field {name!r} is empty. Mend: fill it or drop the row."
                )
        if problem.id in first_row:
            raise BadInput(
                f"{source}: row {row}: id {problem.id!r} was used before in row {first_row[problem.id]}. "
                "Mend: give every problem an id of its own."
            )
        first_row[problem.id] = row
    if not problems:
        raise BadInput(f"{source}: no problems. Mend: write at least one row.")


def read_problems(path: Path) -> list[Problem]:
    """Read and check a problem file. Raises BadInput."""
    problems = _read_null_checked(path)
    check_problems(problems, path)
    return problems


def _read_null_checked(path: Path) -> list[Problem]:
    table = _read_table(path)
    for name in table.column_names:
        nulls = table.column(name).null_count
        if nulls:
            row = table.column(name).to_pylist().index(None) + 1
            raise BadInput(f"{path}: row {row}: field {name!r} is empty. Mend: fill it or drop the row.")
    return read_rows(path, Problem)


@contextmanager
def written_whole(path: Path, named: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """A path to write a file or a folder to, which takes ``path``'s place when the block ends: whole or not at all.

    The draft lies in a folder of its own beside ``path`` (``.<name>.draft``), together with whatever is made on the
    way, such as a database's journal. A block that raises leaves nothing; a kill leaves the folder, which nobody reads
    and the next writer clears.

    Args:
        named: gives the final name in ``path``'s folder when the content is known, for names with a digest in them.
    """
    folder = path.with_name(f".{path.name}.draft")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        draft = folder / path.name
        yield draft
        put_in_place(draft, path if named is None else path.with_name(named(draft)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(draft: Path, target: Path) -> None:
    """Move a file or folder to where another may lie. An old folder goes first: for a moment nothing is there."""
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(draft, target)


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON: sorted keys, two spaces, newline at the end, no NaN. The file is there whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file, there whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(text)


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass as canonical JSON. Raises ValueError where a field is not of its type, or NaN."""
    write_json(path, _adapter(record.__class__).dump_python(record, mode="json", warnings="error"))


@overload
def read_record(path: Path, record_type: type[Record]) -> Record: ...
@overload
def read_record(path: Path, record_type: Any) -> Any: ...
def read_record(path: Path, record_type: Any) -> Any:
    """Read what :func:`write_record` wrote: a dataclass, or whichever it is of a union of dataclasses.

    Every field has to be there but those that are None, and none besides.

    Raises:
        BadInput: the file is missing or unreadable, or not of this type; the message names the field.
    """
    content = read_json(path)
    try:
        record = _adapter(record_type).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise _not_this_record(path, ".".join(map(str, first["loc"])) or "(the whole)", first["msg"]) from error
    known = {field.name for field in fields(record)}
    for name in sorted(known - content.keys()):
        if getattr(record, name) is not None:
            raise _not_this_record(path, name, "it is missing")
    for name in sorted(content.keys() - known):
        raise _not_this_record(path, name, f"a {type(record).__name__} has none")
    return record


@cache
def _adapter(record_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record_type)


def _not_this_record(path: Path, field: str, what: str) -> BadInput:
    return BadInput(f"{path}: field {field!r}: {what}. Mend: delete the file and run its stage again.")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises BadInput naming the line."""
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: run the stage that writes it (see `p2o stage --help`).")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: line {error.lineno}: {error.msg}. Mend: delete it and run its stage again.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no UTF-8 text ({error.reason}). Mend: delete it and run its stage again.") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file that a user brought. Raises BadInput naming the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}). Mend: copy the file itself there.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no UTF-8 text ({error.reason}). Mend: download the file again.") from error
    if text.startswith("\ufeff"):
        raise BadInput(
            f"{path}: begins with a byte order mark, which transformers does not read. Mend: save it as UTF-8 without."
        )
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: line {error.lineno}: {error.msg}. Mend: download the file again.") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: no JSON object, but a {type(content).__name__}. Mend: download the file again.")
    return content
