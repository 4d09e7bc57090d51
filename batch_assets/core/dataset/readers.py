"""Read one file of each format: its schema and its rows. Memory use depends on the block, not on the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from os import SEEK_END
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.dataset.bounds import COLUMNS, check_columns, too_many_columns
from batch_assets.core.dataset.carried_columns import as_carried, carried_type
from batch_assets.core.dataset.column_texts import json_text
from batch_assets.core.dataset.column_types import may_hold_floats
from batch_assets.core.dataset.csv_reader import CsvReader
from batch_assets.core.dataset.data_file import COMPRESSIONS, DataFile
from batch_assets.core.dataset.foreign_content import foreign_content
from batch_assets.core.dataset.json_lines import JsonLineParser, ParsedLines
from batch_assets.core.dataset.json_numbers import as_written, whole_numbers
from batch_assets.core.dataset.lines import line_blocks
from batch_assets.core.dataset.misfits import Misfits, row_locations, typed_rows
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.one_kind import are_of_one_kind
from batch_assets.core.dataset.rows import (
    ROWS_AT_ONCE,
    Rows,
    check_distinct,
    conform,
    own_columns,
    rows_at_once,
    with_nulls,
)
from batch_assets.core.dataset.table_kinds import Read, bytes_in, kinds_of, read_by, readers
from batch_assets.core.dataset.wide_objects import are_wide, unified_field
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.parquet import UNREADABLE, beyond_int64, open_parquet, unstorable
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.dataset import DatasetConfig

BLOCK_BYTES = 4 << 20
_HEAD_BYTES = 256
# A Parquet file ends with its footer, the length of the footer in 4 bytes, and a mark.
_PARQUET_END = 8


class FileReader(Protocol):
    """A reader for one file of the dataset.

    Attributes:
        name: The name of the file.
        blank: Whether the file has no column names and no row that can be read.
        has_fixed_columns: Whether every row of the format has all columns.
        object_keys: The keys that the objects in the columns have.
    """

    name: str
    blank: bool
    has_fixed_columns: bool
    object_keys: ObjectKeys

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types."""

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows with the columns and types of `target`. A column that the file lacks is null."""


class ParquetReader:
    """A Parquet file, read in small pieces so that a huge row group needs little memory.

    Attributes:
        beyond_int64: The columns with whole numbers that may be too large for int64.
    """

    blank = False
    has_fixed_columns = True

    def __init__(self, file: DataFile, config: DatasetConfig) -> None:
        self._data, self.name, self._config = file, file.name, config
        with self._open() as parquet:
            stored = parquet.schema_arrow
            check_columns(len(stored.names), self.name)
            check_distinct(stored.names, self.name, named_by="the schema")
            self.schema = pa.schema([pa.field(field.name, carried_type(field)) for field in stored])
            self._stored = stored
            self.kinds = kinds_of(pa.schema([stored.field(name) for name in stored.names]))
            self._readers: dict[str, Read] = {}
            self.object_keys = ObjectKeys()
            self.object_keys.add_schema(self.schema)
            self.beyond_int64 = beyond_int64(parquet)

    def content_digest(self) -> str:
        """Return a digest of what tells the file from others whatever its name is: its footer and its size."""
        return self._content_digest

    @cached_property
    def _content_digest(self) -> str:
        with self._data.open() as file:
            size = file.seek(-_PARQUET_END, SEEK_END) + _PARQUET_END
            length = int.from_bytes(file.read(4), "little")
            file.seek(-_PARQUET_END - length, SEEK_END)
            return sha256(b"%d " % size + file.read(length)).hexdigest()[:32]

    def adopt(self, recorded: Mapping[str, Any]) -> None:
        """Read columns by their kinds on record."""
        self._readers = readers(recorded, self.kinds | bytes_in(self.schema))

    def _open(self) -> pq.ParquetFile:
        try:
            return open_parquet(
                self._data.open(), buffer_size=1 << 16, pre_buffer=False, page_checksum_verification=True
            )
        except UNREADABLE as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DatasetError:
        with self._data.open() as file:
            head = file.read(_HEAD_BYTES)
        reason = None if head.startswith(b"PAR1") else foreign_content(head, ".csv")
        return DatasetError(f"{self.name}: not a readable Parquet file: {reason or error}")

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        names = frozenset(self.schema.names)
        present = [name for name in target.names if name in names]
        number = 0
        try:
            with self._open() as file:
                for batch in slices_of(file, present):
                    carried, before = as_carried(batch, self._stored, target, self._config.types)
                    rows = typed_rows(carried, target, self._config, row_locations(self.name, number))
                    number += len(batch)
                    rows.own = own_columns(batch, self._stored, target)
                    rows.carried_before = before
                    rows.present = [self.schema.names] * len(batch)
                    read_by(rows, self._readers)
                    yield rows
        except UNREADABLE as error:
            raise self._unreadable(error) from None


class JsonLinesReader:
    """A JSON Lines file. A first pass decides the types; a column with values of several kinds is text."""

    has_fixed_columns = False

    def __init__(self, file: DataFile, config: DatasetConfig) -> None:
        self._data, self.name, self._config = file, file.name, config
        schema = pa.schema([])
        self.blank = True
        self._text: set[str] = set(config.types)  # columns read as text first, then cast
        self._declared = frozenset(config.types)
        self.object_keys = ObjectKeys()
        self._has_repeated_keys = True  # until the first pass has found none
        for lines in self._blocks():
            self.blank &= lines.are_unreadable
            schema = self._widen(schema, lines)
        self.schema: pa.Schema = pa.schema(
            [pa.field(f.name, f.type if self._has_a_type(f) else pa.string()) for f in schema]
        )
        self.object_keys.add_schema(schema)

    def _has_a_type(self, field: pa.Field) -> bool:
        return field.name not in self._text and unstorable(field.type) is None

    def _widen(self, schema: pa.Schema, lines: ParsedLines) -> pa.Schema:
        """Return the columns and types that also fit some more lines."""
        fields = {field.name: field for field in schema}
        for name, values in self._values_by_name(lines, fields).items():
            if name in self._declared:
                fields.setdefault(name, pa.field(name, pa.string()))
                continue
            if name in self._text:
                self.object_keys.add_values(name, values)
                continue
            try:
                if are_wide(values):
                    raise pa.ArrowInvalid("the objects have too many different fields")
                inferred = pa.field(name, pa.array(values).type)
                if may_hold_floats(inferred.type) and lines.may_have_booleans and not are_of_one_kind(values):
                    raise pa.ArrowInvalid("true and false are not numbers, but Arrow reads them as such")
                if name not in fields:
                    fields[name] = inferred
                elif not fields[name].equals(inferred):
                    fields[name] = unified_field([fields[name], inferred])
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                self._text.add(name)
                if name in fields:
                    self.object_keys.add_type(name, fields[name].type)
                self.object_keys.add_values(name, values)
                fields[name] = pa.field(name, pa.string())
        return pa.schema(list(fields.values()))

    def _values_by_name(self, lines: ParsedLines, known: Collection[str]) -> dict[str, list[Any]]:
        """Return the values that the objects have for each key. A line may have keys that no other has."""
        columns: dict[str, list[Any]] = {}
        count = len(known)
        for position, entry in enumerate(lines.objects):
            for name, value in entry.items():
                if name not in columns:
                    columns[name] = []
                    count += name not in known
                columns[name].append(value)
            if count > COLUMNS:
                raise too_many_columns(count, lines.locations(self.name)(position))
        return columns

    def _blocks(self, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[ParsedLines]:
        parser = JsonLineParser(
            self.name, rejects=self._config.bad_rows == "reject", checks_keys=self._has_repeated_keys
        )
        with self._data.open() as file:
            for number, lines in line_blocks(file, self._data, BLOCK_BYTES):
                for start in range(0, len(lines), rows_at_once):
                    parsed = parser.parse(lines[start : start + rows_at_once], number + start)
                    if parsed.objects:
                        yield parsed
        self._has_repeated_keys = parser.has_repeated_keys

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        names = frozenset(self.schema.names)
        wanted = {field.name: field for field in target}
        for lines in self._blocks(rows_at_once(len(wanted))):
            objects = lines.objects
            # Where each line has keys of its own, most columns are null.
            present = wanted.keys() & {name for entry in objects for name in entry}
            some = [wanted[name] for name in wanted if name in present]
            arrays, fields = [], []
            own: dict[str, list[Any]] = {}
            unsure: set[int] = set()
            for field in some:
                values = [entry.get(field.name) for entry in objects]
                type_ = self.schema.field(field.name).type if field.name in names else field.type
                if pa.types.is_nested(type_) and pa.types.is_string(field.type):
                    type_ = field.type  # JSON with the keys of its own line, not with those of the whole file
                array, own[field.name], positions = _column(values, type_)
                unsure |= positions
                arrays.append(array)
                fields.append(pa.field(field.name, type_))
            batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
            misfits = Misfits(self._config, lines.locations(self.name))
            table = with_nulls(conform(batch, pa.schema(some), self.name, misfits), target, len(objects))
            rejects = misfits.rejects | lines.broken
            rows = Rows(table, rejects, has_json_numbers=True, present=objects)
            written = {position: as_written(lines.line(position)) for position in unsure - lines.broken.keys()}
            if written:
                rows.before, own = own, {name: _replaced(values, name, written) for name, values in own.items()}
            rows.own.update(own)
            yield rows


def _replaced(values: list[Any], name: str, written: Mapping[int, Mapping[str, Any]]) -> list[Any]:
    """The values of a column, with those of some lines as they are written."""
    return [written[at].get(name) if at in written else value for at, value in enumerate(values)]


def _column(values: list[Any], type_: pa.DataType) -> tuple[pa.Array, list[Any], set[int]]:
    """The values of a column of JSON Lines, as results carry them and as templates saw them until rendering 2.

    Args:
        values: The parsed values.
        type_: The type of the column. Values of several kinds become text.

    Returns:
        Both, and the positions of values that may print otherwise than they are written.
    """
    if pa.types.is_string(type_):
        try:
            return pa.array(values, type_), values, set()
        except pa.ArrowTypeError:  # not all of them are text
            own, unsure = whole_numbers(values)
            return pa.array([json_text(value) for value in own], type_), own, unsure
    own, unsure = whole_numbers(values) if may_hold_floats(type_) else (values, set())
    return pa.array(values, type_), own, unsure


READERS: dict[str, Callable[[DataFile, DatasetConfig], FileReader]] = {
    ".csv": CsvReader,
    ".tsv": CsvReader,
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".json": JsonLinesReader,
    ".parquet": ParquetReader,
}


def reader_class(file: DataFile) -> Callable[[DataFile, DatasetConfig], FileReader] | None:
    """Return the reader for a file's name, or `None` if the format is unknown.

    A compressed Parquet file has no reader, because Parquet is compressed inside and never as a whole.
    """
    ending = next((ending for ending in READERS if file.plain_name.endswith(ending)), None)
    if ending is None or (file.is_compressed and ending == ".parquet"):
        return None
    return READERS[ending]


def known_endings() -> str:
    """Return the supported endings of file names, for texts."""
    return f"{', '.join(READERS)}; all but .parquet also followed by {' or '.join(COMPRESSIONS)}"
