"""The response store: one Parquet file a batch, append-only, and which response is in force for a digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.result_columns import TIMESTAMP
from batch_assets.core.api.objects import PASSING_ERRORS
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, position_in

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

# Response file -> `fresh_after` of the newest refresh that it is of. The others are of none.
Refreshes = dict[ResponseName, float]
# Response file whose canceled requests are asked again -> how many of their attempts count at most.
Untried = dict[ResponseName, int]

# How a request stands.
SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
_OPEN_FILES = 16
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


@contextmanager
def reading_responses(storage: Storage, pipeline: str, name: ResponseName) -> Iterator[None]:
    """Says which response file does not unpack, in the block that reads it, and what to do.

    Errors:
        DamagedFileError: in place of Arrow's own; errors of the disk are left as they are.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; of what does not unpack Arrow says only that
        raise DamagedFileError(
            f"{storage.uri(pipeline, 'responses', str(name))} is damaged: {error}. Restore it from a backup, or "
            "remove it: its batch is then downloaded again while the API has it, 29 days from its creation"
        ) from None


def open_responses(storage: Storage, pipeline: str, name: ResponseName) -> pq.ParquetFile:
    """Opens a response file.

    Errors:
        FileNotFoundError: it is not there.
        DamagedFileError: it is no response file.
    """
    with reading_responses(storage, pipeline, name):
        file = pq.ParquetFile(storage.open(pipeline, "responses", str(name)), pre_buffer=False)
        for field in RESPONSE_SCHEMA:
            if field.name not in file.schema_arrow.names or file.schema_arrow.field(field.name).type != field.type:
                file.close()
                raise pa.ArrowInvalid(f"it has no column {field.name} of type {field.type}")
        return file


def ended_at_of(file: pq.ParquetFile) -> float:
    """When the batch of a response file ended, seconds since 1970; 0.0 where the file does not say."""
    try:
        return float((file.schema_arrow.metadata or {}).get(b"ended_at", 0.0))
    except ValueError:
        return 0.0


class ResponseFiles:
    """The response files of a pipeline, earliest ended first. A row's place is its number over all of them.

    Attributes:
        names: of the files.
        starts: place of each file's first row, and one behind the last.
        group_rows: for each file the rows of its row groups.

    Errors:
        DamagedFileError: a file is no response file, here and in every method that reads.
    """

    def __init__(self, storage: Storage, pipeline: str) -> None:
        self._storage, self._pipeline = storage, pipeline
        ended: list[tuple[float, ResponseName, list[int]]] = []
        for name in filter(None, map(ResponseName.parse, storage.names(pipeline, "responses"))):
            with open_responses(storage, pipeline, name) as file:
                groups = range(file.num_row_groups)
                rows = [file.metadata.row_group(group).num_rows for group in groups]
                ended.append((ended_at_of(file), name, rows))
        ended.sort(key=lambda found: (found[0], str(found[1])))
        self.names = [name for _, name, _ in ended]
        self.group_rows = [rows for _, _, rows in ended]
        self.starts = np.cumsum([0, *map(sum, self.group_rows)], dtype=np.int64)

    def open(self, number: int) -> pq.ParquetFile:
        return open_responses(self._storage, self._pipeline, self.names[number])

    def read(self, number: int, columns: list[str]) -> pa.Table:
        """Columns of a whole file."""
        with self.open(number) as file, self._reading(number):
            return file.read(columns=columns, use_threads=False)

    def read_group(self, number: int, file: pq.ParquetFile, group: int) -> pa.Table:
        """A row group of the open file of that number."""
        with self._reading(number):
            return file.read_row_group(group, columns=RESPONSE_SCHEMA.names, use_threads=False)

    def _reading(self, number: int) -> AbstractContextManager[None]:
        return reading_responses(self._storage, self._pipeline, self.names[number])


@dataclass
class Standing:
    """The response in force for every digest that ever had one: 24 bytes each.

    Attributes:
        files: the response files.
        digests: sorted, unique.
        place: for each digest, where its response is.
        state: for each digest, how it stands << 16 | attempt.
    """

    files: ResponseFiles
    digests: Digests
    place: NDArray[np.int32]
    state: NDArray[np.int32]

    def position(self, digests: Digests) -> NDArray[np.int64]:
        """For each digest its position in this standing, -1 where there is no response."""
        return position_in(self.digests, digests)

    def at(self, position: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """(place, how it stands, attempt) at positions; place -1 and zeros where there is none."""
        if len(self.place) == 0:
            nothing = np.zeros(len(position), dtype=np.int32)
            return position, nothing, nothing
        none = position < 0
        place = np.where(none, -1, self.place[position]).astype(np.int64)
        state = np.where(none, 0, self.state[position])
        return place, state >> 16, state & 0xFFFF

    def of(self, digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """(place, how it stands, attempt) for each digest; place -1 where there is no response."""
        return self.at(self.position(digests))


def load_standing(
    files: ResponseFiles, refreshes: Refreshes, fresh_after: float | None = None, untried: Untried | None = None
) -> Standing:
    """Reads how every request of a pipeline stands.

    A succeeded response stands before any other; of several succeeded, that of the newest refresh, then the
    earliest ended; else the last attempt. Attempts count anew with every refresh.

    Args:
        refreshes: see `refreshes_of`.
        fresh_after: of a refresh: only what it and later ones brought counts.
        untried: see `untried_of`.
    """
    of_files = np.array([refreshes.get(name, 0.0) for name in files.names], np.float64)
    standing = Standing(files, np.empty(0, f"S{DIGEST_BYTES}"), np.empty(0, np.int32), np.empty(0, np.int32))
    for number in range(len(files.names)):
        if fresh_after is not None and of_files[number] < fresh_after:
            continue
        table = files.read(number, _STANDING_COLUMNS)
        _merge(standing, number, table, of_files)
        del table
        release_memory()
    if untried and len(standing.digests):
        most = np.array([untried.get(name, -1) for name in files.names], np.int32)
        most = most[np.searchsorted(files.starts, standing.place, side="right") - 1]
        attempts = np.minimum(standing.state & 0xFFFF, most)
        canceled = (standing.state >> 16 == CANCELED) & (most >= 0)
        standing.state = np.where(canceled, (PASSING << 16) | attempts, standing.state)
    return standing


def _merge(standing: Standing, number: int, table: pa.Table, refreshes: NDArray[np.float64]) -> None:
    """Adds the responses of a file. Args: refreshes: by the number of the file."""
    starts = standing.files.starts
    digests = digest_array(table["digest"])
    order = np.argsort(digests, kind="stable")
    digests = digests[order]
    place = (starts[number] + order).astype(np.int32)
    state = (_how(table)[order] << 16) | table["attempts"].to_numpy()[order].astype(np.int32)
    position = position_in(standing.digests, digests)
    known = np.flatnonzero(position >= 0)
    if len(known):
        at = position[known]
        before, now = standing.state[at], state[known]
        newer = np.zeros(len(known), dtype=bool)
        if refreshes.any():
            newer = refreshes[number] > refreshes[np.searchsorted(starts, standing.place[at], side="right") - 1]
        # Files come earliest ended first, so a later success of the same refresh never replaces one.
        better = np.where(
            before >> 16 == SUCCEEDED,
            (now >> 16 == SUCCEEDED) & newer,
            (now >> 16 == SUCCEEDED) | newer | (now & 0xFFFF >= before & 0xFFFF),
        )
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


class ResponseReader:
    """Rows of response files by their place, keeping a few row groups in memory.

    Args:
        cache_bytes: of decoded row groups to keep.
    """

    def __init__(self, files: ResponseFiles, cache_bytes: int = 12 << 20) -> None:
        self._files, self._cache_bytes = files, cache_bytes
        self._open: dict[int, pq.ParquetFile] = {}
        self._groups = [
            (number, group) for number, rows in enumerate(files.group_rows) for group in range(len(rows))
        ]
        sizes = [size for rows in files.group_rows for size in rows]
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        self._cache: dict[int, pa.Table] = {}

    def close(self) -> None:
        for file in self._open.values():
            file.close()

    def groups_of(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each place the number of the row group it lies in; -1 for no place."""
        return np.where(place < 0, -1, np.searchsorted(self._starts, place, side="right") - 1)

    def take(self, place: NDArray[np.int64]) -> pa.Table:
        """The rows at the places, in their order; a row of nulls where there is no place."""
        groups = self.groups_of(place)
        tables, index = [one_null_row()], np.zeros(len(place), dtype=np.int64)
        offset = 1
        for number in np.unique(groups[groups >= 0]).tolist():
            mask = groups == number
            rows = place[mask] - self._starts[number]
            tables.append(_rows_of(self._group(number), rows))
            index[mask] = offset + np.arange(len(rows))
            offset += len(rows)
        if (
            len(tables) > 1 and offset > len(place) and (np.diff(index) == 1).all()
        ):  # in order, and none is missing: the usual case
            return pa.concat_tables(tables[1:]).combine_chunks()
        return pa.concat_tables(tables).take(pa.array(index))

    def iterate(self) -> Iterator[tuple[int, pa.Table]]:
        """Everything, row group by row group: (place of the first row, rows)."""
        for number, start in enumerate(self._starts.tolist()):
            yield start, self._read(number)

    def _read(self, number: int) -> pa.Table:
        file, group = self._groups[number]
        return self._files.read_group(file, self._file(file), group)

    def _file(self, number: int) -> pq.ParquetFile:
        """An open file; years of batches are more files than a process may have open at once."""
        if number not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = self._files.open(number)
        return self._open[number]

    def _group(self, number: int) -> pa.Table:
        if number in self._cache:
            self._cache[number] = self._cache.pop(number)  # the most recently used comes last
            return self._cache[number]
        table = self._read(number)
        while self._cache and sum(t.nbytes for t in self._cache.values()) + table.nbytes > self._cache_bytes:
            del self._cache[next(iter(self._cache))]
        self._cache[number] = table
        return table


def _rows_of(group: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Some rows, without a copy where they are most of the group and follow each other: otherwise memory would
    follow the row groups and not the rows.
    """
    if 2 * len(rows) > len(group) and (np.diff(rows) == 1).all():
        return group.slice(rows[0], len(rows))
    return group.take(pa.array(rows))


def one_null_row() -> pa.Table:
    """What stands for a row without a response."""
    return pa.table({field.name: pa.nulls(1, field.type) for field in RESPONSE_SCHEMA}, schema=RESPONSE_SCHEMA)
