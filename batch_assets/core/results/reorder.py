"""Write responses to disk in the dataset's order, for datasets whose order differs from the request files'."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.io.parted_records import PartedRecords
from batch_assets.core.io.scratch import scratch_folder
from batch_assets.core.io.slices import SLICE_ROWS, bounds_by_weight
from batch_assets.core.store.response_reader import ResponseReader, one_null_row

# The most rows of a spill file. More than in a slice, so that there are fewer files.
_SPILLED_ROWS = 4 * SLICE_ROWS
# A process may not have open as many files at once as there are spill files.
_OPEN_FILES = 128
# The rows that want a response in so many row groups are in memory at a time.
_PART_GROUPS = 32
_WANTED = np.dtype([("response", np.int32), ("row", np.int32)])


class Reordered:
    """The wanted responses, in spill files. Each has those of consecutive rows, and its size is limited.

    Every response file is read once, front to back. Call `take` with the slices of `response_rows`, in order.

    Args:
        reader: Reads the responses.
        response_rows: The row number of each row's response, -1 without one: consecutive rows at a time; int32,
            shape (n,) each.

    Raises:
        StorageError: When the folder for scratch files is full.
    """

    def __init__(self, reader: ResponseReader, response_rows: Iterable[NDArray[np.int32]]) -> None:
        self._next_file = 0
        self._loaded = one_null_row().slice(1)
        self._writers: dict[int, tuple[pa.ipc.RecordBatchStreamWriter, ExitStack]] = {}
        wanted, starts = _wanted(reader, response_rows)
        self._starts = np.array(starts, np.int64)
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        try:
            for part in range(_parts_of(reader)):
                self._spill_part(reader, wanted.of_part(part))
        finally:
            for _, opened in self._writers.values():
                opened.close()

    def __enter__(self) -> Reordered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _path(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number}.arrow"

    def _spill_part(self, reader: ResponseReader, wanted: NDArray[Any]) -> None:
        wanted = wanted[np.argsort(wanted["response"], kind="stable")]
        ranked = wanted["response"]
        for start, table in reader.iterate(ranked):
            low, high = np.searchsorted(ranked, [start, start + len(table)])
            self._spill(table, ranked[low:high] - start, wanted["row"][low:high])

    def _spill(self, table: pa.Table, rows: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
        """Append responses to the files of their rows.

        Args:
            table: A row group of responses.
            rows: The positions of the wanted ones in `table`; int32, shape (n,).
            targets: The number of the dataset's row that wants each; int32, shape (n,).
        """
        numbers = np.searchsorted(self._starts, targets, side="right") - 1
        for number in np.unique(numbers).tolist():
            mask = numbers == number
            part = table.take(pa.array(rows[mask]))
            part = part.append_column("row", pa.array(targets[mask] - self._starts[number]))
            self._writer(number, part.schema).write_table(part)

    def _writer(self, number: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        """Return the writer of a file. A file that was closed meanwhile gets one more stream."""
        if number not in self._writers:
            while len(self._writers) >= _OPEN_FILES:
                self._writers.pop(next(iter(self._writers)))[1].close()
            opened = ExitStack()
            file = opened.enter_context(self._path(number).open("ab"))
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            writer = opened.enter_context(pa.ipc.new_stream(file, schema, options=options))
            self._writers[number] = writer, opened
        return self._writers[number][0]

    def take(self, response_row: NDArray[np.int64]) -> pa.Table:
        """Return the responses of the next rows, with a row of nulls for each row without a response.

        Args:
            response_row: The next row numbers; int64, shape (n,).
        """
        pieces, missing = [self._loaded.slice(0, 0)], len(response_row)
        while missing:
            if not len(self._loaded):
                self._loaded = self._load(self._next_file)
                self._next_file += 1
            pieces.append(self._loaded.slice(0, missing))
            self._loaded = self._loaded.slice(missing)
            missing -= len(pieces[-1])
        return pa.concat_tables(pieces).combine_chunks()

    def _load(self, number: int) -> pa.Table:
        """Read the responses of a file, in the order of their rows."""
        start, end = self._starts[number : number + 2].tolist()
        index = np.zeros(end - start, dtype=np.int64)
        tables, position = [one_null_row()], 1
        for table in self._streams(self._path(number)):
            index[table["row"].to_numpy()] = position + np.arange(len(table))
            tables.append(table.drop_columns(["row"]))
            position += len(table)
        return pa.concat_tables(tables).take(pa.array(index))

    def _streams(self, path: Path) -> Iterator[pa.Table]:
        if not path.exists():
            return
        with path.open("rb") as file:
            while file.tell() < path.stat().st_size:
                with pa.ipc.open_stream(file) as stream:
                    yield stream.read_all()
        path.unlink()


def _parts_of(reader: ResponseReader) -> int:
    return 1 + reader.row_groups // _PART_GROUPS


def _wanted(reader: ResponseReader, response_rows: Iterable[NDArray[np.int32]]) -> tuple[PartedRecords, list[int]]:
    """Divide the rows that have a response by the row group that it is in.

    Returns:
        The rows, and the first row of each spill file, with the end of the last one.
    """
    wanted = PartedRecords(_WANTED, _parts_of(reader))
    starts, first = list[int](), 0
    for response in response_rows:
        starts += [first + start for start, _ in bounds_by_weight(reader.sizes(response), most_rows=_SPILLED_ROWS)]
        records = np.empty(len(response), _WANTED)
        records["response"], records["row"] = response, np.arange(first, first + len(response))
        records = records[response >= 0]
        wanted.add(records, (reader.groups_of(records["response"]) // _PART_GROUPS).astype(np.uint16))
        first += len(response)
    return wanted, [*starts, first]
