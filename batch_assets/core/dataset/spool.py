"""Store rows that can be read only once in a temporary file. Their types are known after the last row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.value_types import ColumnValues, as_type
from batch_assets.core.io.storage import writing


class Spool:
    """Rows in an unnamed temporary file, which disappears when it is closed or the process ends, even if killed.

    Args:
        names: The names of the columns.

    Raises:
        StorageError: When the folder for temporary files is full.
        DatasetError: When no type can store all values of a column.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._values = [ColumnValues(name) for name in names]
        self._folder = Path(tempfile.gettempdir()) / "query"
        with writing(self._folder):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._starts: list[int] = []

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        columns = zip(*rows, strict=True)
        arrays = [values.take(column) for values, column in zip(self._values, columns, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, names=self._names)
        self._starts.append(self._file.tell())
        with writing(self._folder), pa.ipc.new_stream(self._file, batch.schema) as stream:
            stream.write_batch(batch)

    @property
    def schema(self) -> pa.Schema:
        """The columns with types that can store every row so far."""
        return pa.schema([(name, values.type) for name, values in zip(self._names, self._values, strict=True)])

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Yield the rows in order: with the types of `schema`, and with the kind that each value has by itself.

        Args:
            columns: The columns to read.
        """
        schema = self.schema
        fields = [schema.field(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=[self._names.index(name) for name in columns])
        for start in self._starts:
            self._file.seek(start)
            with pa.ipc.open_stream(self._file, options=options) as stream:
                batch = stream.read_next_batch()
            arrays = [as_type(batch.column(field.name), field.type) for field in fields]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), batch

    def close(self) -> None:
        self._file.close()
