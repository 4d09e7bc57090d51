"""The request index: every dataset row in order, with its digest or the reason it was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.parquet import COMPRESSION, TableWriter
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import DIGEST_BYTES

# Columns of the index's own; results have none of these names.
DIGEST, REASON, MESSAGE = "batch_assets.digest", "batch_assets.reason", "batch_assets.message"
# Only where a limit left requests out: true in the first row that wants such a request, if in no other.
LEFT_OUT = "batch_assets.left_out"
OWN = (DIGEST, REASON, MESSAGE, LEFT_OUT)
_OWN = [
    pa.field(DIGEST, pa.binary(DIGEST_BYTES)),
    pa.field(REASON, pa.string()),
    pa.field(MESSAGE, pa.string()),
]
_GROUP_ROWS = 8192
# Results are joined this many rows at a time.
SLICE_ROWS = 4096


class IndexWriter:
    """Writes index.parquet, a row group at a time. A context manager: leaving it finishes the file.

    Args:
        path: of the file.
        dataset: whose rows are written.
        limited: a limit may leave requests out.
    """

    def __init__(self, path: Path, dataset: Dataset, *, limited: bool = False) -> None:
        carried = [
            pa.field(name, dataset.schema.field(column).type if column != dataset.key else dataset.key_type)
            for column, name in dataset.carried.items()
            if (column, name) != (dataset.key, dataset.key)
        ]
        self._columns = [
            dataset.key,
            *(column for column, name in dataset.carried.items() if (column, name) != (dataset.key, dataset.key)),
        ]
        self._limited = limited
        marks = [pa.field(LEFT_OUT, pa.bool_())] if limited else []
        self.schema = pa.schema([pa.field(dataset.key, dataset.key_type), *carried, *_OWN, *marks])
        self._writer = TableWriter(path, self.schema)
        self._waiting: list[pa.RecordBatch] = []

    def write(
        self,
        table: pa.RecordBatch,
        digests: list[bytes | None],
        rejects: dict[int, tuple[str, str]],
        left_out: Set[bytes] = frozenset(),
    ) -> None:
        """Adds rows.

        Args:
            table: the rows.
            digests: one a row, None for a rejected one.
            rejects: position of a row -> (reason, message).
            left_out: digests of requests that a limit left out.
        """
        count = len(table)
        own = [
            pa.array(digests, _OWN[0].type),
            pa.array([rejects[i][0] if i in rejects else None for i in range(count)], pa.string()),
            pa.array([rejects[i][1] if i in rejects else None for i in range(count)], pa.string()),
        ]
        if self._limited:
            own.append(pa.array([digest in left_out for digest in digests], pa.bool_()))
        columns = [table.column(name) for name in self._columns]
        self._waiting.append(pa.RecordBatch.from_arrays([*columns, *own], schema=self.schema))
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write(pa.Table.from_batches(self._waiting))
            self._waiting = []

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writer:
            self._flush()


def write_rejected(path: Path, schema: pa.Schema, rows: list[pa.RecordBatch]) -> None:
    """Writes rejected.parquet: the row keys with the reasons; no rows when none was rejected."""
    names = [schema.names[0], "reason", "message"]
    target = pa.schema([schema.field(0), ("reason", pa.string()), ("message", pa.string())])
    table = pa.Table.from_batches([batch.rename_columns(names) for batch in rows], target)
    pq.write_table(table, path, **COMPRESSION)


class RequestIndex:
    """A submission's index, read in slices."""

    def __init__(self, storage: Storage, pipeline: str, partition: str, submission_id: str) -> None:
        folder = submission_parts(pipeline, partition, submission_id)
        self._storage, self._parts = storage, (*folder, "index.parquet")
        with self._open() as file:
            self.rows: int = file.metadata.num_rows
            self.schema: pa.Schema = file.schema_arrow.remove_metadata()

    @property
    def is_limited(self) -> bool:
        """Whether rows say that a limit left their request out."""
        return LEFT_OUT in self.schema.names

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._storage.open(*self._parts), buffer_size=1 << 16, pre_buffer=False)

    def slices(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Its rows in order, with all or some of its columns."""
        with self._open() as file:
            yield from file.iter_batches(SLICE_ROWS, columns=columns, use_threads=False)
