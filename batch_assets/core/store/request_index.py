"""The request index: every dataset row in order, with its digest or the reason it was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.io.json_files import read_object
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
    """Writes index.parquet, a row group at a time.

    Args:
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
        """Adds rows: `rejects` maps a row's position to (reason, message)."""
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

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()


def write_rejected(path: Path, schema: pa.Schema, rows: list[pa.RecordBatch]) -> None:
    """Writes rejected.parquet: the row keys with the reasons; no rows when none was rejected."""
    names = [schema.names[0], "reason", "message"]
    target = pa.schema([schema.field(0), ("reason", pa.string()), ("message", pa.string())])
    table = pa.Table.from_batches([batch.rename_columns(names) for batch in rows], target)
    pq.write_table(table, path, **COMPRESSION)


# In a manifest: the headers of the requests that its rows want, where they depend on the row.
HEADER_SETS = "header_sets"
# Of a pipeline whose own code changes its requests: the name of that function.
HOOK = "render_request"
# Of a pipeline whose output schema is a pydantic model: the schema with the limits that the API does not take.
BOUNDED = "bounded_schema"
# Of a refresh: what tells it from others, and the request files that were in flight when it was built.
FRESH_AFTER, WAITS = "fresh_after", "waits"
# Distinct requests that a limit left out.
REQUESTS_LEFT_OUT = "left_out"
# What every version has written into a manifest.
MANIFEST: dict[str, tuple[type, ...]] = {
    "pipeline": (str,),
    "partition": (str,),
    "submission": (str,),
    "key": (str,),
    "headers": (dict,),
    "output_schema": (dict, type(None)),
    "max_attempts": (int,),
    "rows": (int,),
    "rejected": (int,),
    "requests": (int,),
    "files": (list,),
}


@dataclass(frozen=True)
class Manifest:
    """What a submission was made of: results need nothing else of the pipeline.

    Attributes:
        content: the manifest.json.
    """

    content: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.content["key"])

    @property
    def answers(self) -> Answers:
        schema = self.content["output_schema"]
        output = OutputSchema(schema, self.content.get(BOUNDED)) if schema is not None else None
        return Answers(output, self.content.get("output_tool"), bool(self.content.get("tool_calls")))

    @classmethod
    def read(cls, storage: Storage, pipeline: str, partition: str, submission_id: str) -> Manifest:
        folder = submission_parts(pipeline, partition, submission_id)
        return cls(read_object(storage, (*folder, "manifest.json"), MANIFEST))


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
