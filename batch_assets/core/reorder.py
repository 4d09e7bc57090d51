"""Responses laid out in the dataset's order on disk, for datasets that come in another order every time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.response_store import RESPONSE_SCHEMA, ResponseReader

SLICE_ROWS = 8192


def loads_in_order(reader: ResponseReader, place: NDArray[np.int64]) -> tuple[int, int]:
    """(row groups to load when reading slice by slice, row groups that hold anything wanted)"""
    groups = reader.groups_of(place)
    loads = 0
    for start in range(0, len(groups), SLICE_ROWS):
        some = groups[start : start + SLICE_ROWS]
        loads += len(np.unique(some[some >= 0]))
    return loads, len(np.unique(groups[groups >= 0]))


class Reordered:
    """The wanted responses in one spill file a slice; each response file is read once, front to back.

    `take` is called with the same slices of `place`, in order.
    """

    def __init__(self, reader: ResponseReader, place: NDArray[np.int64], files: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="batch-assets-")
        self._slice = 0
        slices = -(-len(place) // SLICE_ROWS)
        order = np.argsort(place, kind="stable")
        ranked = place[order]
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        try:
            for number in range(files):
                for places, table in reader.iterate(number):
                    low = np.searchsorted(ranked, places[0])
                    high = np.searchsorted(ranked, places[-1], side="right")
                    self._spill(table, ranked[low:high] - places[0], order[low:high], slices)
        finally:
            for writer in self._writers.values():
                writer.close()

    def _spill(self, table: pa.Table, rows: NDArray[np.int64], targets: NDArray[np.int64], slices: int) -> None:
        by_slice = targets // SLICE_ROWS
        for number in np.unique(by_slice):
            mask = by_slice == number
            part = table.take(pa.array(rows[mask]))
            part = part.append_column("row", pa.array(targets[mask] % SLICE_ROWS))
            if number not in self._writers:
                path = Path(self._folder.name) / f"{number}.arrow"
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._writers[number] = pa.ipc.new_file(path, part.schema, options=options)
            self._writers[number].write_table(part)

    def take(self, place: NDArray[np.int64]) -> pa.Table:
        """The responses of the next slice, a row of nulls where there is none."""
        path = Path(self._folder.name) / f"{self._slice}.arrow"
        self._slice += 1
        index = np.zeros(len(place), dtype=np.int64)
        tables = list(_one_null_row())
        if path.exists():
            with pa.ipc.open_file(path) as file:
                table = file.read_all()
            path.unlink()
            index[table["row"].to_numpy()] = 1 + np.arange(len(table))
            tables.append(table.drop_columns(["row"]))
        return pa.concat_tables(tables).take(pa.array(index))


def _one_null_row() -> Iterator[pa.Table]:
    yield pa.table({field.name: pa.nulls(1, field.type) for field in RESPONSE_SCHEMA}, schema=RESPONSE_SCHEMA)
