"""The response store: one Parquet file a batch, append-only, and which response is in force for a digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.columns import TIMESTAMP
from batch_assets.core.digests import DIGEST_BYTES, Digests, position_in
from batch_assets.core.storage import Storage
from batch_assets.core.wire import PASSING_ERRORS

RESPONSE_SCHEMA = pa.schema(
    [
        ("digest", pa.binary(DIGEST_BYTES)),
        ("custom_id", pa.string()),
        ("result_type", pa.string()),
        ("response_text", pa.string()),
        ("stop_reason", pa.string()),
        ("response_model", pa.string()),
        ("message_id", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_creation_input_tokens", pa.int64()),
        ("cache_read_input_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("batch_id", pa.string()),
        ("attempts", pa.int32()),
        ("ended_at", TIMESTAMP),
        ("response_json", pa.string()),
    ]
)

# How a request stands.
SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
_STANDING_COLUMNS = ["digest", "result_type", "error_type", "attempts", "ended_at"]


def digest_array(column: pa.Array | pa.ChunkedArray) -> Digests:
    """A column of digests as a packed array, without a copy where possible."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if len(array) == 0:
        return np.empty(0, dtype=f"S{DIGEST_BYTES}")
    buffer = array.buffers()[1]
    packed = np.frombuffer(buffer, dtype=f"S{DIGEST_BYTES}")
    return packed[array.offset : array.offset + len(array)]


@dataclass
class Standing:
    """The response in force for every digest that ever had one: 28 bytes each.

    Attributes:
        files: names of the response files, earliest ended first.
        digests: sorted, unique.
        place: for each digest, file number << 32 | row.
        state: for each digest, how it stands << 16 | attempt.
    """

    files: list[str]
    digests: Digests
    place: NDArray[np.int64]
    state: NDArray[np.int32]

    def of(self, digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """(place, how it stands, attempt) for each digest; place -1 where there is no response."""
        position = position_in(self.digests, digests)
        none = position < 0
        if len(self.place) == 0:
            nothing = np.zeros(len(digests), dtype=np.int32)
            return position, nothing, nothing
        place = np.where(none, -1, self.place[position])
        state = np.where(none, 0, self.state[position])
        return place, state >> 16, state & 0xFFFF


def load_standing(storage: Storage, pipeline: str) -> Standing:
    """Reads how every request of a pipeline stands.

    A succeeded response stands before any other; of several succeeded, the earliest ended; else the last
    attempt.
    """
    ended: list[tuple[Any, str]] = []
    for name in storage.names(pipeline, "responses"):
        if name.endswith(".parquet"):
            with _open(storage, pipeline, name) as file:
                ended.append((file.schema_arrow.metadata.get(b"ended_at", b""), name))
    names = [name for _, name in sorted(ended)]
    standing = Standing(names, np.empty(0, f"S{DIGEST_BYTES}"), np.empty(0, np.int64), np.empty(0, np.int32))
    for number, name in enumerate(names):
        with _open(storage, pipeline, name) as file:
            _merge(standing, number, file.read(columns=_STANDING_COLUMNS))
    return standing


def _merge(standing: Standing, number: int, table: pa.Table) -> None:
    digests = digest_array(table["digest"])
    order = np.argsort(digests, kind="stable")
    digests = digests[order]
    place = (np.int64(number) << 32) | order.astype(np.int64)
    state = (_how(table)[order] << 16) | table["attempts"].to_numpy()[order].astype(np.int32)
    position = position_in(standing.digests, digests)
    known = np.flatnonzero(position >= 0)
    if len(known):
        at = position[known]
        before, now = standing.state[at], state[known]
        # Files come earliest ended first, so a later success never replaces one.
        better = (before >> 16 != SUCCEEDED) & ((now >> 16 == SUCCEEDED) | (now & 0xFFFF >= before & 0xFFFF))
        standing.place[at[better]] = place[known[better]]
        standing.state[at[better]] = now[better]
    new = position < 0
    if not new.any():
        return
    if len(standing.digests) == 0:
        standing.digests, standing.place, standing.state = digests, place, state
        return
    at = np.searchsorted(standing.digests, digests[new])
    standing.digests = np.insert(standing.digests, at, digests[new])
    standing.place = np.insert(standing.place, at, place[new])
    standing.state = np.insert(standing.state, at, state[new])


def _how(table: pa.Table) -> NDArray[np.int32]:
    kind, error = table["result_type"], table["error_type"]
    passing = pc.or_(
        pc.equal(kind, "expired"),
        pc.and_(pc.equal(kind, "errored"), pc.fill_null(pc.is_in(error, pa.array(sorted(PASSING_ERRORS))), False)),
    )
    how = np.full(len(table), FAILED, dtype=np.int32)
    how[passing.to_numpy()] = PASSING
    how[pc.equal(kind, "canceled").to_numpy()] = CANCELED
    how[pc.equal(kind, "succeeded").to_numpy()] = SUCCEEDED
    return how


def _open(storage: Storage, pipeline: str, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(storage.open(pipeline, "responses", name), pre_buffer=False)


class ResponseReader:
    """Rows of response files by their place, keeping a few row groups in memory.

    Args:
        cache_bytes: of decoded row groups to keep.
    """

    def __init__(self, storage: Storage, pipeline: str, files: list[str], cache_bytes: int = 48 << 20) -> None:
        self._storage, self._pipeline, self._files = storage, pipeline, files
        self._cache_bytes = cache_bytes
        self._open: dict[int, tuple[pq.ParquetFile, NDArray[np.int64]]] = {}
        self._groups: dict[tuple[int, int], pa.Table] = {}

    def close(self) -> None:
        for file, _ in self._open.values():
            file.close()

    def groups_of(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each place the row group it lies in: file number << 32 | row group; -1 for no place."""
        groups = np.full(len(place), -1, dtype=np.int64)
        for number in np.unique(place[place >= 0] >> 32):
            mask = (place >= 0) & (place >> 32 == number)
            starts = self._file(int(number))[1]
            group = np.searchsorted(starts, place[mask] & 0xFFFFFFFF, side="right") - 1
            groups[mask] = (number << 32) | group
        return groups

    def take(self, place: NDArray[np.int64]) -> pa.Table:
        """The rows at the places, in their order; a row of nulls where there is no place."""
        groups = self.groups_of(place)
        wanted = np.unique(groups[groups >= 0])
        tables, index = [_one_null_row()], np.zeros(len(place), dtype=np.int64)
        offset = 1
        for key in wanted:
            number, group = int(key >> 32), int(key & 0xFFFFFFFF)
            mask = groups == key
            rows = (place[mask] & 0xFFFFFFFF) - self._file(number)[1][group]
            # Only the rows asked for are kept, so that memory follows the slice and not the row groups.
            tables.append(self._group(number, group).take(pa.array(rows)))
            index[mask] = offset + np.arange(len(rows))
            offset += len(rows)
        return pa.concat_tables(tables).take(pa.array(index))

    def iterate(self, number: int) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """A whole file, row group by row group: (places, rows)."""
        file, starts = self._file(number)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=RESPONSE_SCHEMA.names, use_threads=False)
            rows = starts[group] + np.arange(len(table))
            yield (np.int64(number) << 32) | rows, table

    def _file(self, number: int) -> tuple[pq.ParquetFile, NDArray[np.int64]]:
        if number not in self._open:
            file = _open(self._storage, self._pipeline, self._files[number])
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self._open[number] = file, np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        return self._open[number]

    def _group(self, number: int, group: int) -> pa.Table:
        key = number, group
        if key in self._groups:
            self._groups[key] = self._groups.pop(key)  # the most recently used comes last
            return self._groups[key]
        table = self._file(number)[0].read_row_group(group, columns=RESPONSE_SCHEMA.names, use_threads=False)
        while self._groups and sum(t.nbytes for t in self._groups.values()) + table.nbytes > self._cache_bytes:
            del self._groups[next(iter(self._groups))]
        self._groups[key] = table
        return table


def _one_null_row() -> pa.Table:
    return pa.table({field.name: pa.nulls(1, field.type) for field in RESPONSE_SCHEMA}, schema=RESPONSE_SCHEMA)
