"""One file -> its schema and its rows, for each format. Memory is bounded by a block, not by the file."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batch_assets.core.csv_types import ColumnType
from batch_assets.core.errors import DatasetError
from batch_assets.core.rows import Rows, conform, json_text, plain_type, valid_text

BLOCK_BYTES = 4 << 20
CSV_BLOCK_BYTES = 1 << 20  # pyarrow reads many of these ahead
MAX_BLOCK_BYTES = 1 << 30  # pyarrow takes blocks below 2 GiB
ROWS_AT_ONCE = 4096


class FileReader(Protocol):
    """A file of the dataset.

    Attributes:
        blank: whether there is nothing in it, not even names of columns.
    """

    blank: bool

    @property
    def schema(self) -> pa.Schema:
        """Its columns and their types."""

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Its rows with the columns and types of `target`; a column it lacks is null."""


class ParquetReader:
    """A Parquet file, read through small buffers so that a huge row group costs no memory."""

    blank = False

    def __init__(self, fs: Any, name: str, types: dict[str, str]) -> None:
        self._fs, self._name = fs, name
        with self._open() as file:
            stored = file.schema_arrow
            _no_twins(stored.names, name)
            self.schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in stored])
            rows = max(1, file.metadata.num_rows)
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        self._rows_at_once = max(1, min(ROWS_AT_ONCE, BLOCK_BYTES * 4 * rows // max(1, size)))

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._fs.open(self._name, "rb"), buffer_size=1 << 16, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DatasetError:
        return DatasetError(f"{self._name}: not a readable Parquet file: {error}")

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        present = [name for name in target.names if name in self.schema.names]
        try:
            with self._open() as file:
                for batch in file.iter_batches(self._rows_at_once, columns=present, use_threads=False):
                    yield valid_text(conform(batch, target, self._name))
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None


class CsvReader:
    """A CSV or TSV file. A first pass over all of it decides the types; empty fields are null."""

    def __init__(self, fs: Any, name: str, types: dict[str, str]) -> None:
        self._fs, self._name = fs, name
        self._delimiter = "\t" if name.lower().endswith(".tsv") else ","
        self._block = CSV_BLOCK_BYTES
        self.blank = self._without_rows = False
        watched: dict[str, ColumnType] = {}
        while True:
            try:
                watched = self._watch(set(types))
                break
            except UnicodeDecodeError as error:
                raise DatasetError(f"{self._name}: the header is not valid UTF-8: {error}") from None
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    watched = self._watch_header()
                    break
                # A row longer than the block: the only way pyarrow can say it.
                if "straddl" not in str(error) or self._block >= MAX_BLOCK_BYTES:
                    raise DatasetError(f"{self._name}: {error}") from None
                self._block *= 4
        self.watched = watched
        self.schema: pa.Schema = pa.schema([(column, watcher.type) for column, watcher in watched.items()])

    def agree(self, seen: dict[str, ColumnType]) -> None:
        """Takes the types that hold the same columns of other files as well."""
        self.schema = pa.schema([(column, seen[column].type) for column in self.watched])

    def _watch(self, settled: set[str]) -> dict[str, ColumnType]:
        watched: dict[str, ColumnType] = {}
        for batch in self._text_batches(None):
            if not watched:
                _no_twins(batch.schema.names, self._name)
                watched = {column: ColumnType() for column in batch.schema.names}
            for column, values in zip(batch.schema.names, batch.columns, strict=True):
                if column not in settled:
                    watched[column].watch(values)
        return watched or {column: ColumnType() for column in self._header()}

    def _header(self, content: bytes | None = None) -> list[str]:
        """Column names of a file with no rows."""
        with self._reader(None, content) as reader:
            names = list(reader.schema.names)
        _no_twins(names, self._name)
        return names

    def _watch_header(self) -> dict[str, ColumnType]:
        """What pyarrow takes for an empty file: one that is, or a header that ends without a line break."""
        content: bytes = self._fs.cat_file(self._name)
        self._without_rows = True
        self.blank = not content.removeprefix(b"\xef\xbb\xbf").strip()
        return {} if self.blank else {column: ColumnType() for column in self._header(content + b"\n")}

    def _reader(self, columns: list[str] | None, content: bytes | None = None) -> Any:
        return pyarrow.csv.open_csv(
            self._fs.open(self._name, "rb") if content is None else io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(block_size=self._block, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,  # broken text is a matter of its row, not of the file
                default_column_type=pa.string(),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=columns,
            ),
        )

    def _text_batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        with self._reader(columns) as reader:
            for batch in reader:
                for start in range(0, len(batch), ROWS_AT_ONCE):
                    yield batch.slice(start, ROWS_AT_ONCE)

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        if self._without_rows:
            return
        present = [name for name in target.names if name in self.schema.names]
        columns = present or self.schema.names[:1]
        for batch in self._text_batches(columns):
            yield valid_text(conform(batch, target, self._name))


class JsonLinesReader:
    """A JSON Lines file. A first pass decides the types; a column of several kinds is text."""

    def __init__(self, fs: Any, name: str, types: dict[str, str]) -> None:
        self._fs, self._name = fs, name
        schema = pa.schema([])
        self.blank = True
        self._text: set[str] = set(types)  # columns read as text first, then cast
        for _, objects, _ in self._blocks():
            self.blank = False
            schema = self._widen(schema, objects)
        self.schema: pa.Schema = pa.schema(
            [pa.field(f.name, pa.string() if f.name in self._text else f.type) for f in schema]
        )

    def _widen(self, schema: pa.Schema, objects: list[dict[str, Any]]) -> pa.Schema:
        names = dict.fromkeys(name for entry in objects for name in entry)
        fields = {field.name: field for field in schema}
        for name in names:
            if name in self._text:
                fields.setdefault(name, pa.field(name, pa.string()))
                continue
            try:
                seen = pa.field(name, pa.array([entry.get(name) for entry in objects]).type)
                before = fields.get(name, seen)
                fields[name] = pa.unify_schemas(
                    [pa.schema([before]), pa.schema([seen])], promote_options="permissive"
                ).field(0)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                self._text.add(name)
                fields[name] = pa.field(name, pa.string())
        return pa.schema(list(fields.values()))

    def _blocks(self) -> Iterator[tuple[int, list[dict[str, Any]], dict[int, str]]]:
        """(number of the first line, objects, line position -> text problem)"""
        number, rest = 1, b""
        with self._fs.open(self._name, "rb") as file:
            while True:
                block = file.read(BLOCK_BYTES)
                *lines, rest = (rest + block).split(b"\n")
                if not block:
                    lines, rest = [rest], b""
                for start in range(0, len(lines), ROWS_AT_ONCE):
                    some = lines[start : start + ROWS_AT_ONCE]
                    objects, broken = self._parse(some, number + start)
                    if objects:
                        yield number + start, objects, broken
                number += len(lines)
                if not block:
                    return

    def _parse(self, lines: list[bytes], number: int) -> tuple[list[dict[str, Any]], dict[int, str]]:
        objects: list[dict[str, Any]] = []
        broken: dict[int, str] = {}
        for offset, line in enumerate(lines):
            line = line.strip()
            if not line:
                continue
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                entry = self._second_look(line, number + offset, error)
                broken[len(objects)] = "the line holds text that is not valid Unicode"
            if not isinstance(entry, dict):
                self._fail(number + offset, "not a JSON object; one object a line is expected")
            objects.append(entry)
        return objects, broken

    def _second_look(self, line: bytes, number: int, error: Exception) -> Any:
        """Lone surrogates and broken UTF-8 are what json takes and orjson does not; they become U+FFFD."""
        try:
            return _without_surrogates(json.loads(line.decode(errors="replace"), parse_constant=lambda _: None))
        except ValueError:
            self._fail(number, f"not valid JSON: {error}")

    def _fail(self, number: int, problem: str) -> Any:
        raise DatasetError(f"{self._name}, line {number}: {problem}")

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        for _, objects, broken in self._blocks():
            arrays, fields = [], []
            for field in target:
                values = [entry.get(field.name) for entry in objects]
                own = self.schema.field(field.name) if field.name in self.schema.names else field
                if pa.types.is_string(own.type):
                    values = [json_text(value) for value in values]
                arrays.append(pa.array(values, own.type))
                fields.append(pa.field(field.name, own.type))
            batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
            yield Rows(conform(batch, target, self._name), broken)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _no_twins(names: list[str], file: str) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise DatasetError(f"{file}: the header names {twins[0]!r} twice: every column needs a name of its own")


def agree_on_types(readers: Sequence[FileReader]) -> None:
    """Decides the types of CSV columns over all files: what is a number in one may be text in the next."""
    files = [reader for reader in readers if isinstance(reader, CsvReader)]
    seen: dict[str, ColumnType] = {}
    for file in files:
        for column, watcher in file.watched.items():
            seen.setdefault(column, ColumnType()).join(watcher)
    for file in files:
        file.agree(seen)


READERS: dict[str, Callable[[Any, str, dict[str, str]], FileReader]] = {
    ".csv": CsvReader,
    ".tsv": CsvReader,
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".json": JsonLinesReader,
    ".parquet": ParquetReader,
}
