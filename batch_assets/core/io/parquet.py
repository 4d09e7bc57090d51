"""Write Parquet, and read files of earlier versions, which lack newer columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.file_errors import why_no_file
from batch_assets.core.io.slices import SLICE_BYTES, cut, size_of

COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
GROUP_ROWS = 8192
"""The most rows of a row group."""
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file. Names of columns that are not UTF-8 any more raise the last one."""
# The rows by which it is decided how the values of a column are stored.
_SAMPLE_ROWS = 1024
# Texts and bytes that are longer on average have no statistics.
_STATISTICS_BYTES = 64
# Arrow's own readers refuse schemas of more levels, the root and the value included. An object is one level, a
# list or a map two. Arrow 25 has no limit, but what it writes has to be readable later too.
_LEVELS = 100
LEAVES = 1_000
"""The most plain fields of a nested column. Parquet stores each as a column of its own, for all rows."""
# The levels that we read: earlier versions carried deeper columns into the request index.
_DEEP = {"schema_depth_limit": 1000} if "schema_depth_limit" in signature(pq.ParquetFile).parameters else {}


def open_parquet(source: Any, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file that may have deeper columns than other readers accept.

    Args:
        source: The file.
        options: Further options of pyarrow.parquet.ParquetFile.
    """
    return pq.ParquetFile(source, **_DEEP, **options)


@cache
def unstorable(type_: pa.DataType) -> str | None:
    """Return why Parquet cannot store columns of a type, or cannot read them back; `None` if it can."""
    if (levels := 1 + levels_of(type_)) > _LEVELS:
        return f"it is nested too deeply: {levels} levels of Parquet's schema, of which a reader accepts {_LEVELS}"
    if has_many_leaves(type_):
        return f"its objects have more than {LEAVES:,} different fields"
    if (zone := unknown_zone(type_)) is not None:
        return f"its time zone {zone!r} is unknown"
    try:
        file = pa.BufferOutputStream()
        pq.write_table(pa.schema([("column", type_)]).empty_table(), file)
        pq.ParquetFile(pa.BufferReader(file.getvalue())).close()
    except (pa.ArrowException, OSError) as error:
        return str(error)
    return None


def levels_of(type_: pa.DataType) -> int:
    """Return the number of levels of a type in the schema of a Parquet file."""
    inner = max((levels_of(type_.field(number).type) for number in range(type_.num_fields)), default=0)
    if pa.types.is_map(type_):
        return 1 + inner  # its entries are a struct
    return (2 if pa.types.is_nested(type_) and not pa.types.is_struct(type_) else 1) + inner


def unknown_zone(type_: pa.DataType) -> str | None:
    """Return the first time zone in a type that readers do not know; `None` if there is none."""
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        try:
            pa.lib.string_to_tzinfo(type_.tz)
        except (LookupError, ValueError, OSError):
            return str(type_.tz)
    inner = type_.value_type if pa.types.is_dictionary(type_) else None
    nested = [inner] if inner is not None else [type_.field(number).type for number in range(type_.num_fields)]
    return next((zone for zone in map(unknown_zone, nested) if zone is not None), None)


def has_many_leaves(type_: pa.DataType) -> bool:
    """Return whether a type has more plain fields than a nested column may have."""
    return _leaves_of(type_) > LEAVES


def _leaves_of(type_: pa.DataType) -> int:
    return sum(_leaves_of(type_.field(number).type) for number in range(type_.num_fields)) or 1


class TableWriter:
    """Writes one Parquet file on a separate thread, so that encoding overlaps with making the next table.

    While the caller makes a table, one row group is being written; no others are queued.

    Args:
        path: The file to write.
        schema: The schema of all tables.
        gather: Whether small tables that follow each other are written as one row group. By default each is one.
        options: Further options of pyarrow.parquet.ParquetWriter.

    Raises:
        OSError: When a write failed. Raised by the next call of `write` or `close`.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, gather: bool = False, **options: Any) -> None:
        self._path, self._schema, self._options, self._gather = path, schema, options, gather
        self._gathered: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._notes: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(1, "parquet")
        self._pending: Future[None] | None = None

    def _opened(self, first: pa.Table) -> pq.ParquetWriter:
        """Return the writer. It is opened with the first table, whose values decide how columns are encoded."""
        if self._writer is None:
            # A reader that verifies the checksums finds bytes that the disk has changed, also in a digest.
            options = {"write_page_checksum": True, **_encoding(first), **self._options}
            self._writer = pq.ParquetWriter(self._path, self._schema, **COMPRESSION, **options)
        return self._writer

    def write(self, table: pa.Table) -> None:
        """Append a table. It becomes several row groups if its values are long: readers decode a whole group."""
        for rows in cut(table, most_rows=GROUP_ROWS):
            if self._gathered and not self._fits(rows):
                self._flush()
            self._gathered.append(rows)
            if not self._gather or sum(map(len, self._gathered)) == GROUP_ROWS:
                self._flush()

    def _fits(self, rows: pa.Table) -> bool:
        """Whether a row group may have these rows in addition to those that are gathered."""
        together = [*self._gathered, rows]
        return sum(map(len, together)) <= GROUP_ROWS and sum(map(size_of, together)) <= SLICE_BYTES

    def _flush(self) -> None:
        """Begin to write the gathered tables as one row group, if there are any."""
        tables, self._gathered = self._gathered, []
        if tables:
            self._wait()
            self._pending = self._thread.submit(self._opened(tables[0]).write_table, pa.concat_tables(tables))

    def note(self, metadata: dict[str, str]) -> None:
        """Add to the key-value metadata of the file what is known only when all tables are made."""
        self._notes |= metadata

    def close(self) -> None:
        """Finish the file."""
        try:
            self._flush()
            self._wait()
        finally:
            self._thread.shutdown()
            writer = self._opened(self._schema.empty_table())
            if self._notes:
                writer.add_key_value_metadata(self._notes)
            writer.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _encoding(table: pa.Table) -> dict[str, bool | list[str]]:
    """Return which columns have a dictionary, and which have statistics.

    A dictionary of texts or bytes that rarely repeat takes time and saves no space, and readers cannot tell how
    large its values are. Statistics hold the least and the greatest value of each row group. Those of long texts
    exclude no row group from a search, and all of them are in memory while a file is written or read.
    """
    if any(map(pa.types.is_nested, table.schema.types)):  # Parquet names the columns within them by their paths
        return {"use_dictionary": True, "write_statistics": True}
    sample = table.slice(0, _SAMPLE_ROWS)
    fields = list(zip(sample.schema, sample.columns, strict=True))
    return {
        "use_dictionary": [
            field.name
            for field, column in fields
            if not _holds_bytes(field.type) or 2 * pc.count_distinct(column).as_py() <= len(sample)
        ],
        "write_statistics": [
            field.name
            for field, column in fields
            if not _holds_bytes(field.type)
            or (pc.mean(pc.binary_length(column)).as_py() or 0) <= _STATISTICS_BYTES
        ],
    }


def _holds_bytes(type_: pa.DataType) -> bool:
    types = pa.types
    is_binary = types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_)
    return bool(is_binary or types.is_string(type_) or types.is_large_string(type_))


@contextmanager
def reading_parquet(uri: str, remedy: str) -> Iterator[None]:
    """Replace Arrow's errors while reading a file by an error that names the file and says what to do.

    Args:
        uri: The path or URL of the file.
        remedy: What to do, as a sentence without its period.

    Raises:
        DamagedFileError: In place of Arrow's errors, and if it is no file. Other errors of the disk are raised
            unchanged.
    """
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, FileNotFoundError):
            raise  # an object store gives it no errno
        why = why_no_file(error) if isinstance(error, OSError) else None
        if why is None and isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk; Arrow's errors about damaged content have no errno
        raise DamagedFileError(f"{uri} is damaged: {why or error}. {remedy}") from None


def check_columns(found: pa.Schema, expected: pa.Schema, needed: Collection[str]) -> None:
    """Check the columns of a file. Unknown columns, those of a newer version, are ignored.

    Args:
        found: The columns of the file.
        expected: The columns that this version knows.
        needed: The names of those that a file of any version has.

    Raises:
        pyarrow.ArrowInvalid: When a needed column is missing, or a column has another type.
    """
    for field in expected:
        missing = field.name not in found.names
        if field.name in needed if missing else found.field(field.name).type != field.type:
            raise pa.ArrowInvalid(f"it has no column {field.name} of type {field.type}")


def with_columns(table: pa.Table, schema: pa.Schema, names: list[str]) -> pa.Table:
    """Return a table with exactly these columns, in this order. Columns that it lacks are null.

    Args:
        table: The rows, as a file of any version has them.
        schema: The types of the columns.
        names: The columns to return.
    """
    if table.column_names == names:
        return table
    for name in names:
        if name not in table.column_names:
            table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
    return table.select(names)


def beyond_int64(file: pq.ParquetFile) -> frozenset[str]:
    """Return the columns of uint64 with a number that int64 cannot hold, or whose largest number is not stored."""
    columns = {field.name for field in file.schema_arrow if field.type == pa.uint64()}
    beyond = set()
    for position in range(file.metadata.num_columns) if columns else ():
        name = file.metadata.schema.column(position).path
        if name in columns and any(_is_beyond(file, group, position) for group in range(file.num_row_groups)):
            beyond.add(name)
    return frozenset(beyond)


def _is_beyond(file: pq.ParquetFile, group: int, position: int) -> bool:
    statistics = file.metadata.row_group(group).column(position).statistics
    if statistics is None or not statistics.has_min_max:
        return file.metadata.row_group(group).num_rows > 0 and (statistics is None or statistics.num_values > 0)
    return bool(statistics.max > 2**63 - 1)
