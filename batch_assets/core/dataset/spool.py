"""Store rows that can be read only once in a temporary file. Their types are known after the last row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from batch_assets.core.dataset.value_types import ColumnValues, as_type
from batch_assets.core.io.file_errors import writing


class SpooledRows(NamedTuple):
    """Some rows.

    Attributes:
        typed: The rows with the types of the schema.
        own: The rows with the kind that each value has by itself.
        before: The columns with lists and objects that rendering 2 printed otherwise: their texts, shape (n,),
            null for all other values.
    """

    typed: pa.RecordBatch
    own: pa.RecordBatch
    before: dict[str, pa.Array]


class _Part(NamedTuple):
    """Where some rows are in the file, and the positions of the columns with texts of `SpooledRows.before`."""

    start: int
    changed: list[int]


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
        self._parts: list[_Part] = []

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        columns = zip(*rows, strict=True)
        taken = [values.take(column) for values, column in zip(self._values, columns, strict=True)]
        before = {at: texts for at, (_, texts) in enumerate(taken) if texts is not None}
        arrays = [array for array, _ in taken] + list(before.values())
        names = self._names + [self._names[at] for at in before]
        batch = pa.RecordBatch.from_arrays(arrays, names=names)
        self._parts.append(_Part(self._file.tell(), list(before)))
        with writing(self._folder), pa.ipc.new_stream(self._file, batch.schema) as stream:
            stream.write_batch(batch)

    @property
    def schema(self) -> pa.Schema:
        """The columns with types that can store every row so far."""
        return pa.schema([(name, values.type) for name, values in zip(self._names, self._values, strict=True)])

    def batches(self, columns: Sequence[str]) -> Iterator[SpooledRows]:
        """Yield the rows in order.

        Args:
            columns: The columns to read.
        """
        schema = self.schema
        fields = [schema.field(name) for name in columns]
        places = {self._names.index(name): name for name in columns}
        for part in self._parts:
            changed = [at for at in part.changed if at in places]
            extra = [len(self._names) + part.changed.index(at) for at in changed]
            options = pa.ipc.IpcReadOptions(included_fields=[*places, *extra])
            self._file.seek(part.start)
            with pa.ipc.open_stream(self._file, options=options) as stream:
                read = stream.read_next_batch()
            own = read.select(list(range(len(places))))
            before = {places[at]: read.column(len(places) + number) for number, at in enumerate(changed)}
            arrays = [as_type(own.column(field.name), field.type) for field in fields]
            yield SpooledRows(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), own, before)

    def close(self) -> None:
        self._file.close()
