"""The response store: one Parquet file per batch, append-only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.result_columns import TIMESTAMP
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import check_columns, open_parquet, reading_parquet, with_columns
from batch_assets.core.io.slices import SLICE_ROWS
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import DIGEST_BYTES, Digests

# The response files of every version have these columns.
_FIRST = pa.schema(
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
# Columns of later versions. Older files lack them, and they are read as null.
_ADDED = [pa.field("thinking_tokens", pa.int64()), pa.field("live_cost_usd", pa.float64())]
RESPONSE_SCHEMA = pa.schema([*_FIRST, *_ADDED])
"""The columns of a response file as this version writes it."""
# The metadata of a response file that has answers to follow-up requests: their custom_ids tell more than others.
_FOLLOWS = b"follow_ups"
# That of one with the answers of live calls: when the last of them ended.
_CALLED = b"called_at"
GROUP_ROWS, GROUP_BYTES = SLICE_ROWS, 4 << 20
"""A row group has at most these rows, and ends with the line with which its lines exceed these bytes."""
# A row group repeats the text of each line: in response_text and in response_json.
_DECODED_BYTES = 2 * GROUP_BYTES
# Dictionaries and statistics pay for columns with few distinct values; for others they cost time and memory.
_REPETITIVE = [
    name
    for name in RESPONSE_SCHEMA.names
    if name not in ("digest", "custom_id", "response_text", "message_id", "response_json")
]
RESPONSE_ENCODING: dict[str, Any] = {"use_dictionary": _REPETITIVE, "write_statistics": _REPETITIVE}
"""How the columns of a response file are encoded."""


def digest_array(column: pa.Array | pa.ChunkedArray) -> Digests:
    """Return a column of digests as a packed array, S16, shape (n,), without a copy if possible."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if len(array) == 0:
        return np.empty(0, dtype=f"S{DIGEST_BYTES}")
    buffer = array.buffers()[1]
    packed = np.frombuffer(buffer, dtype=f"S{DIGEST_BYTES}")
    return packed[array.offset : array.offset + len(array)]


class DamagedResponsesError(DamagedFileError):
    """A response file cannot be read.

    Args:
        pipeline: The name of the pipeline.
        name: The name of the file.
        text: What is wrong and what to do.
    """

    def __init__(self, pipeline: str, name: ResponseName, text: str) -> None:
        self.pipeline, self.name = pipeline, name
        super().__init__(text)


@contextmanager
def reading_responses(storage: Storage, pipeline: str, name: ResponseName) -> Iterator[None]:
    """Like `reading_parquet`, with the remedy for a response file.

    Raises:
        DamagedResponsesError: In place of Arrow's errors. Errors of the disk are raised unchanged.
    """
    uri = storage.uri(pipeline, "responses", str(name))
    restore = "Restore it from a backup"
    if name.is_import:
        restore += ", or move it away and import its answers again before the next run"
    remedy = (
        f"{restore}. Do not remove it: if no other copy of its answers exists, their requests may be sent and "
        "paid for again"
    )
    try:
        with reading_parquet(uri, remedy):
            yield
    except DamagedFileError as error:
        raise DamagedResponsesError(pipeline, name, str(error)) from None


def open_responses(storage: Storage, pipeline: str, name: ResponseName) -> pq.ParquetFile:
    """Open a response file.

    Raises:
        FileNotFoundError: When it does not exist.
        DamagedFileError: When it lacks a column of the first version, or a column has a wrong type.
    """
    with reading_responses(storage, pipeline, name):
        source = storage.open(pipeline, "responses", str(name))
        file = open_parquet(source, pre_buffer=False, page_checksum_verification=True)
        try:
            check_columns(file.schema_arrow, RESPONSE_SCHEMA, needed=_FIRST.names)
            _check_batch(file, name)
        except pa.ArrowInvalid:
            file.close()
            raise
        return file


def _check_batch(file: pq.ParquetFile, name: ResponseName) -> None:
    """Check that a file has the answers of its batch, and was not copied from that of another one.

    Raises:
        pyarrow.ArrowInvalid: When the statistics of its first rows name another batch.
    """
    if name.batch_id is None or not file.num_row_groups:
        return
    column = file.metadata.row_group(0).column(file.schema_arrow.names.index("batch_id"))
    if (statistics := column.statistics) is not None and statistics.has_min_max:
        others = {statistics.min, statistics.max} - {name.batch_id}
        if others:
            raise pa.ArrowInvalid(f"it has the answers of {min(others)}")


def ended_at_of(file: pq.ParquetFile) -> float:
    """Return when the batch of a response file ended, in seconds since 1970; 0.0 if the file does not have it."""
    try:
        return float((file.schema_arrow.metadata or {}).get(b"ended_at", 0.0))
    except ValueError:
        return 0.0


def paid_at_of(file: pq.ParquetFile) -> float:
    """Return when the answers of a response file were paid for: for live calls, when the last of them ended."""
    called_at = (file.schema_arrow.metadata or {}).get(_CALLED)
    return float(called_at) if called_at is not None else ended_at_of(file)


def file_metadata(ended_at: float, *, follows: bool = False, called_at: float | None = None) -> dict[bytes, bytes]:
    """Return the metadata of a response file.

    Args:
        ended_at: When its batch ended, in seconds since 1970. Response files are in the order of this time.
        follows: Whether it has answers to follow-up requests.
        called_at: When the last of its live calls ended; `None` if it has the answers of a batch.
    """
    metadata = {b"ended_at": f"{ended_at:020.6f}".encode()}
    metadata |= {_FOLLOWS: b"1"} if follows else {}
    return metadata | ({_CALLED: f"{called_at:020.6f}".encode()} if called_at is not None else {})


def has_follow_ups(file: pq.ParquetFile) -> bool:
    """Whether a response file has answers to follow-up requests."""
    return _FOLLOWS in (file.schema_arrow.metadata or {})


@dataclass(frozen=True)
class ResponseFacts:
    """What has to be known of a response file before its rows are read.

    Attributes:
        name: Its name.
        ended_at: When its batch ended, in seconds since 1970.
        row_groups: (rows, bytes) of each row group.
    """

    name: ResponseName
    ended_at: float
    row_groups: list[tuple[int, int]]

    @classmethod
    def of(cls, name: ResponseName, file: pq.ParquetFile) -> ResponseFacts:
        """Return those of an open file."""
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        return cls(name, ended_at_of(file), [(group.num_rows, group.total_byte_size) for group in groups])


class ResponseFiles:
    """The response files of a pipeline, earliest ended first. Rows are numbered over all files.

    Args:
        storage: The storage of the root.
        pipeline: The name of the pipeline.
        facts: The facts of the files.

    Attributes:
        names: The names of the files. The number of a file is its position in this list.
        group_rows: The number of rows in each row group, by file.

    Raises:
        DamagedFileError: From every method that reads, when a file is not a response file.
    """

    def __init__(self, storage: Storage, pipeline: str, facts: Iterable[ResponseFacts]) -> None:
        self._storage, self._pipeline = storage, pipeline
        ended = sorted(facts, key=lambda facts: (facts.ended_at, str(facts.name)))
        self.names = [facts.name for facts in ended]
        self.group_rows = [[rows for rows, _ in facts.row_groups] for facts in ended]
        self._group_bytes = [bytes_ for facts in ended for _, bytes_ in facts.row_groups]
        self._starts = np.cumsum([0, *map(sum, self.group_rows)], dtype=np.int64)

    def add(self, facts: ResponseFacts) -> int:
        """Add a file that was not known before, and return its number. The numbers of rows stay as they are."""
        self.names.append(facts.name)
        self.group_rows.append([rows for rows, _ in facts.row_groups])
        self._group_bytes += [bytes_ for _, bytes_ in facts.row_groups]
        self._starts = np.append(self._starts, self._starts[-1] + sum(self.group_rows[-1]))
        return len(self.names) - 1

    @property
    def rows(self) -> int:
        """The number of rows of all files."""
        return int(self._starts[-1])

    def row_bytes(self) -> NDArray[np.int64]:
        """Estimate the size in memory of a row of each row group, at least as large as the average row is.

        The encoded size of a row group bounds each of its rows, but not their sum: it has equal texts only once.

        Returns:
            int64, shape (row groups of all files,).
        """
        encoded = np.array(self._group_bytes, np.int64)
        rows = np.array([rows for groups in self.group_rows for rows in groups], np.int64)
        average: NDArray[np.int64] = np.maximum(encoded, _DECODED_BYTES) // np.maximum(rows, 1)
        return np.minimum(encoded, average)

    def first_row(self, number: int) -> int:
        """Return the row number of a file's first row."""
        return int(self._starts[number])

    def number_of(self, row: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
        """Return the number of each row's file: intp, in the shape of `row`.

        Args:
            row: Row numbers, any integer type and shape.
        """
        return np.searchsorted(self._starts, row, side="right") - 1

    def is_never_followed(self, row: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return whether each row is an answer that no follow-up follows: bool, in the shape of `row`.

        Args:
            row: Row numbers, any integer type and shape, -1 for none.
        """
        of_files = np.array([*(name.is_never_followed for name in self.names), False])  # -1 finds the last one
        return of_files[self.number_of(row)]

    def by_file(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, slice, NDArray[np.int64]]]:
        """Split row numbers by file.

        Args:
            rows: int64, shape (n,): row numbers, sorted.

        Yields:
            (number of the file, slice of `rows`, row numbers within the file as int64).
        """
        ends = np.searchsorted(rows, self._starts).tolist()
        for number, (low, high) in enumerate(pairwise(ends)):
            if low < high:
                yield number, slice(low, high), rows[low:high] - self._starts[number]

    def open(self, number: int) -> pq.ParquetFile:
        """Open a file by its number."""
        return open_responses(self._storage, self._pipeline, self.names[number])

    def read(self, number: int, columns: list[str]) -> pa.Table:
        """Read columns of a whole file. A column that is newer than the file is null."""
        with self.open(number) as file, self._reading(number):
            return with_columns(file.read(columns=columns, use_threads=False), RESPONSE_SCHEMA, columns)

    def read_group(self, number: int, file: pq.ParquetFile, group: int) -> pa.Table:
        """Read a row group, with the columns of RESPONSE_SCHEMA. A column that is newer than the file is null.

        Args:
            number: The number of the file.
            file: The open file.
            group: The number of the row group within the file.
        """
        with self._reading(number):
            names = RESPONSE_SCHEMA.names
            return with_columns(file.read_row_group(group, names, use_threads=False), RESPONSE_SCHEMA, names)

    def _reading(self, number: int) -> AbstractContextManager[None]:
        return reading_responses(self._storage, self._pipeline, self.names[number])
