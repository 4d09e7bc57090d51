"""The request index: every dataset row in order, with its digest or the reason why it was rejected."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import conform
from batch_assets.core.errors import MissingFileError
from batch_assets.core.io.dictionaries import with_used_values
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.parquet import (
    COMPRESSION,
    GROUP_ROWS,
    TableWriter,
    check_columns,
    open_parquet,
    reading_parquet,
    unstorable,
)
from batch_assets.core.io.slices import SLICE_BYTES, size_of, slices_of
from batch_assets.core.io.storage import Storage
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.store.digests import DIGEST_BYTES, Digests

# Columns that only the index has. Results have no columns of these names.
DIGEST, REASON, MESSAGE = "batch_assets.digest", "batch_assets.reason", "batch_assets.message"
# Exists only if a limit may have left requests out. True at least in the first row with such a request.
LEFT_OUT = "batch_assets.left_out"
# The indexes of every version have these columns.
_OWN = [
    pa.field(DIGEST, pa.binary(DIGEST_BYTES)),
    pa.field(REASON, pa.string()),
    pa.field(MESSAGE, pa.string()),
]
# Columns that an index may lack: one without a limit, or one of an earlier version.
_MARK = pa.field(LEFT_OUT, pa.bool_())
_ADDED = [_MARK]
_KNOWN = pa.schema([*_OWN, *_ADDED])
OWN = tuple(_KNOWN.names)
"""The columns that only the index has."""


class IndexWriter:
    """Writes index.parquet, one row group at a time. A context manager: leaving it finishes the file.

    Args:
        path: The path of the file.
        dataset: The dataset whose rows are written.
        limited: Whether a limit may leave requests out.

    Attributes:
        schema: The columns of the index.
    """

    def __init__(self, path: Path, dataset: Dataset, *, limited: bool = False) -> None:
        key = dataset.key, dataset.key_name
        carried = [
            pa.field(name, dataset.schema.field(column).type if column != dataset.key else dataset.key_type)
            for column, name in dataset.carried.items()
            if (column, name) != key
        ]
        self._columns = [
            dataset.key,
            *(column for column, name in dataset.carried.items() if (column, name) != key),
        ]
        self._limited = limited
        marks = [_MARK] if limited else []
        self.schema = pa.schema([pa.field(dataset.key_name, dataset.key_type), *carried, *_OWN, *marks])
        self._writer = TableWriter(path, self.schema)
        self._pending: list[pa.RecordBatch] = []
        self._size = 0

    def write(
        self,
        table: pa.RecordBatch,
        digests: Digests,
        rejects: dict[int, tuple[str, str]],
        left_out: Digests | None = None,
    ) -> None:
        """Append rows.

        Args:
            table: The rows.
            digests: The digest of each row: S16, shape (n,). It does not count for a rejected row.
            rejects: The (reason, text) of rejected rows, by position in `table`.
            left_out: The digests of requests that a limit left out: S16, shape (m,); `None` if it left none out.
        """
        index_columns = [_digest_column(digests, rejects.keys()), *_reasons(rejects, len(table))]
        if self._limited:
            marked = np.isin(digests, left_out) if left_out is not None else np.zeros(len(table), bool)
            marked[list(rejects)] = False
            index_columns.append(pa.array(marked))
        columns = [table.column(name) for name in self._columns]
        batch = pa.RecordBatch.from_arrays([*columns, *index_columns], schema=self.schema)
        self._pending.append(batch)
        self._size += size_of(batch)
        if sum(map(len, self._pending)) >= GROUP_ROWS or self._size >= SLICE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write(with_used_values(pa.Table.from_batches(self._pending)))
            self._pending, self._size = [], 0

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writer:
            self._flush()


def _digest_column(digests: Digests, rejected: Collection[int]) -> pa.Array:
    has_digest = np.ones(len(digests), bool)
    has_digest[list(rejected)] = False
    validity = pa.array(has_digest).buffers()[1] if rejected else None
    return pa.Array.from_buffers(_OWN[0].type, len(digests), [validity, pa.py_buffer(digests.tobytes())])


def _reasons(rejects: dict[int, tuple[str, str]], count: int) -> list[pa.Array]:
    """Return the reason and the text of each row, null for rows that are not rejected."""
    if not rejects:
        return [pa.nulls(count, pa.string())] * 2
    known = [rejects.get(position, (None, None)) for position in range(count)]
    return [pa.array(column, pa.string()) for column in zip(*known, strict=True)]


def write_rejected(path: Path, schema: pa.Schema, rows: list[pa.RecordBatch]) -> None:
    """Write rejected.parquet: the keys of rejected rows and the reasons. It has no rows if no row was rejected.

    Args:
        path: The path of the file.
        schema: The columns of the index, with the row key first.
        rows: The row key, reason and text of rejected rows.
    """
    names = [schema.names[0], "reason", "message"]
    target = pa.schema([schema.field(0), ("reason", pa.string()), ("message", pa.string())])
    table = with_used_values(pa.Table.from_batches([batch.rename_columns(names) for batch in rows], target))
    pq.write_table(table, path, **COMPRESSION)


class RequestIndex:
    """A submission's index, read in slices.

    Args:
        storage: The storage of the root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        submission_id: The id of the submission.

    Attributes:
        rows: The number of rows.
        schema: The columns.

    Raises:
        MissingFileError: When it does not exist. Also from `slices`.
        DamagedFileError: When it is not a request index. Also from `slices`.
    """

    def __init__(self, storage: Storage, pipeline: str, partition: str, submission_id: str) -> None:
        folder = submission_parts(pipeline, partition, submission_id)
        self._storage, self._parts = storage, (*folder, "index.parquet")
        self._content: bytes | None = None
        with self._open() as file:
            self.rows: int = file.metadata.num_rows
            self.schema: pa.Schema = _readable(file.schema_arrow.remove_metadata())
            check_columns(self.schema, _KNOWN, needed=[field.name for field in _OWN])

    @property
    def is_limited(self) -> bool:
        """Whether the index has a column for requests that a limit left out."""
        return LEFT_OUT in self.schema.names

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        uri, pipeline = self._storage.uri(*self._parts), self._parts[0]
        try:
            with reading_parquet(uri, "Restore it from a backup"):
                source = self._source()
        except FileNotFoundError:
            remedy = RunStage(Stage.REQUESTS, pipeline)
            raise MissingFileError(f"{uri} is gone. Restore it from a backup", remedy=remedy) from None
        with (
            reading_parquet(uri, "Restore it from a backup"),
            open_parquet(source, buffer_size=1 << 16, pre_buffer=False, page_checksum_verification=True) as file,
        ):
            yield file

    def _source(self) -> BinaryIO:
        """The file, which never changes. What an object store sent as a whole is not fetched again."""
        if self._content is not None:
            return io.BytesIO(self._content)
        source = self._storage.open(*self._parts)
        if isinstance(source, io.BytesIO):
            self._content = source.getvalue()
        return source

    def slices(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, with the named columns or all.

        Raises:
            MissingFileError: When the index is gone.
            DamagedFileError: When it cannot be read.
        """
        with self._open() as file:
            for rows in slices_of(file, columns):
                yield conform(rows, _subset(self.schema, rows.schema.names), self._parts[-1])


def _readable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with text in place of columns that earlier versions carried and a table cannot hold."""
    fields = [field.with_type(pa.string()) if unstorable(field.type) else field for field in schema]
    return pa.schema(fields)


def _subset(schema: pa.Schema, names: list[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names])
