"""The rows of a file, read without batch_assets: a judge must not rely on the code that it judges."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
_SURROGATES = re.compile("[\ud800-\udfff]")
_DATE_CHARACTERS = 10


class Broken(str):
    """Text that is not valid Unicode, with U+FFFD in place of what is broken."""


class Printed(str):
    """A field of a CSV file: a typed column must print it back, and an empty one may be null."""


def read_rows(path: Path) -> list[Row]:
    """All rows of a CSV, TSV, JSON Lines or Parquet file, in order. Text that is not valid Unicode is `Broken`.

    Raises:
        ValueError: If the file's name has another ending.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: the name must end in {', '.join(readers)}")
    return list(readers[path.suffix](path))


def instants(rows: list[Row]) -> list[str]:
    """The columns of a CSV file that hold nothing but timestamps.

    A prompt shows a timestamp as Python prints it, unless the pipeline declares the column as text.
    """
    names = rows[0] if rows else []
    return [name for name in names if all(_is_instant(row[name]) for row in rows if row[name])]


def _is_instant(text: Any) -> bool:
    try:
        return isinstance(text, Printed) and len(text) > _DATE_CHARACTERS and bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def alike(expected: Any, actual: Any) -> bool:
    """Whether a value of a table equals the value in the file."""
    if isinstance(expected, Printed):
        return expected == ("" if actual is None else str(actual))
    if isinstance(actual, str) and not isinstance(expected, str | None):  # a column of several kinds is text
        return bool(json.loads(actual) == expected)
    if isinstance(actual, bool) != isinstance(expected, bool):
        return False
    return bool(actual == expected) or (actual != actual and expected != expected)  # NaN equals nothing


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        names = next(reader, [])
        for fields in reader:
            if fields:  # an empty line is not a row
                cells = (_text(field.encode(errors="surrogateescape")) for field in fields)
                yield dict(zip(names, (c if isinstance(c, Broken) else Printed(c) for c in cells), strict=True))


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return Broken(content.decode(errors="replace"))


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                text = _text(line)
                yield {name: _marked(value, isinstance(text, Broken)) for name, value in json.loads(text).items()}


def _marked(value: Any, broken: bool) -> Any:
    if isinstance(value, str) and (broken or _SURROGATES.search(value)):
        return Broken(_SURROGATES.sub("\ufffd", value))
    return value


def _parquet(path: Path) -> Iterator[Row]:
    table = pq.read_table(path)
    columns = [_values(column) for column in table.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return [value if value is None else _text(value) for value in column.cast(pa.large_binary()).to_pylist()]
    values: list[Any] = column.to_pylist()
    return values
