"""Write responses to disk in the dataset's order, for datasets whose order differs from the request files'."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.io.scratch import scratch_folder
from batch_assets.core.store.request_index import SLICE_ROWS
from batch_assets.core.store.response_reader import ResponseReader, one_null_row


class Reordered:
    """The wanted responses, in one spill file per slice. Every response file is read once, front to back.

    Call `take` with the slices of `response_row`, in order.

    Args:
        reader: Reads the responses.
        response_row: The row number of each row's response, -1 without one; int32, shape (rows,).
    """

    def __init__(self, reader: ResponseReader, response_row: NDArray[np.int32]) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._slice = 0
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        order = np.argsort(response_row, kind="stable").astype(np.int32)
        ranked = response_row[order]
        try:
            for start, table in reader.iterate():
                low, high = np.searchsorted(ranked, [start, start + len(table)])
                self._spill(table, ranked[low:high] - start, order[low:high])
        finally:
            for writer in self._writers.values():
                writer.close()

    def __enter__(self) -> Reordered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _spill(self, table: pa.Table, rows: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
        by_slice = targets // SLICE_ROWS
        for number in np.unique(by_slice).tolist():
            mask = by_slice == number
            part = table.take(pa.array(rows[mask]))
            part = part.append_column("row", pa.array(targets[mask] % SLICE_ROWS))
            if number not in self._writers:
                path = Path(self._folder.name) / f"{number}.arrow"
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._writers[number] = pa.ipc.new_file(path, part.schema, options=options)
            self._writers[number].write_table(part)

    def take(self, response_row: NDArray[np.int64]) -> pa.Table:
        """Return the responses of the next slice, with a row of nulls for each row without a response.

        Args:
            response_row: The slice of the row numbers; int64, shape (n,).
        """
        path = Path(self._folder.name) / f"{self._slice}.arrow"
        self._slice += 1
        index = np.zeros(len(response_row), dtype=np.int64)
        tables = [one_null_row()]
        if path.exists():
            with pa.ipc.open_file(path) as file:
                table = file.read_all()
            path.unlink()
            index[table["row"].to_numpy()] = 1 + np.arange(len(table))
            tables.append(table.drop_columns(["row"]))
        return pa.concat_tables(tables).take(pa.array(index))
