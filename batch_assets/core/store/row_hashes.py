"""The digest of each row's request by a hash of everything that it was rendered from: 32 bytes for each row.

The file is in the folder of a submission, beside its index. The next build takes from it the digests of rows that
would render the same, and renders only the others. It is a copy: a file that is missing, damaged or made in
another context counts as missing, and all rows are rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import StorageError
from batch_assets.core.io.parted_records import PartedRecords
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import (
    DIGEST_BYTES,
    Digests,
    digests_of_halves,
    halves_of,
    order_of,
    position_of_halves,
)
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.stored_table import StoredTable

ROW_HASHES = "rows.hashes"
"""The name of the file."""
# The file: this mark, the context, then for each row its hash and its digest, and last a checksum of all that.
_MARK = b"rowhash1"
CONTEXT_BYTES = 16
_CHECKSUM_BYTES = 16
_ROW_BYTES = 2 * DIGEST_BYTES
_ROWS_AT_ONCE = 1 << 16
# More rows are not kept in memory.
_IN_MEMORY = 1 << 20
_ROW = np.dtype([("digest", f"S{DIGEST_BYTES}"), ("request", f"S{DIGEST_BYTES}")])


class RowHashesWriter:
    """Writes the file, some rows at a time.

    Args:
        file: The file, open for writing.
        context: A digest of all that requests depend on apart from the row, `CONTEXT_BYTES` long.
    """

    def __init__(self, file: BinaryIO, context: bytes) -> None:
        self._file, self._checksum = file, blake2b(digest_size=_CHECKSUM_BYTES)
        self._write(_MARK + context)

    def write(self, hashes: Digests, digests: Digests) -> None:
        """Append rows.

        Args:
            hashes: The hash of each row: S16, shape (n,).
            digests: The digest of its request: S16, shape (n,).
        """
        rows = np.empty((len(hashes), 2), f"S{DIGEST_BYTES}")
        rows[:, 0], rows[:, 1] = hashes, digests
        self._write(rows.tobytes())

    def finish(self) -> None:
        """Write the end of the file."""
        self._file.write(self._checksum.digest())

    def _write(self, content: bytes) -> None:
        self._checksum.update(content)
        self._file.write(content)


@contextmanager
def writing_row_hashes(paths: Sequence[Path], context: bytes | None) -> Iterator[RowHashesWriter | None]:
    """Write a file of hashes; `None` without a context.

    Args:
        paths: The path of the file; none without a context.
        context: See `RowHashesWriter`.
    """
    if context is None:
        yield None
        return
    with paths[0].open("wb") as file:
        writer = RowHashesWriter(file, context)
        yield writer
        writer.finish()


class RowHashes(Protocol):
    """The digests of a submission's requests by the hash of the row."""

    def digests_of(self, hashes: Digests) -> tuple[Digests, NDArray[np.bool_]]:
        """Return the digest of each row's request, and whether the row was among those of the submission.

        Args:
            hashes: The hash of each row: S16, shape (n,).

        Returns:
            S16 and bool, both with the shape (n,).
        """
        ...


class _InMemory:
    """Takes 32 bytes of memory for each row. See `RowHashes`.

    Args:
        columns: The two halves of each row's hash and those of the digest of its request, see `halves_of`:
            uint64, shape (4, n). They are sorted in place.
    """

    def __init__(self, columns: NDArray[np.uint64]) -> None:
        order = np.argsort(columns[0], kind="stable")
        for column in columns:  # one after the other, since a copy of all would need as much memory again
            column[:] = column[order]
        self._first, self._second, self._digest_first, self._digest_second = columns

    def digests_of(self, hashes: Digests) -> tuple[Digests, NDArray[np.bool_]]:
        if len(self._first) == 0:
            return np.zeros(len(hashes), hashes.dtype), np.zeros(len(hashes), bool)
        first, second = halves_of(hashes)
        position = position_of_halves(self._first, first)
        # Of several rows whose hashes have the same first half, all but the first count as unknown.
        is_known = (self._first[position] == first) & (self._second[position] == second)
        return digests_of_halves(self._digest_first[position], self._digest_second[position]), is_known


class _Stored:
    """Takes 4 bytes of memory for each row. See `RowHashes`.

    Args:
        parted: The rows: the hash as `digest`, and the digest of its request; _ROW.
        parts: Their parts.
        count: Their number.
    """

    def __init__(self, parted: PartedRecords, parts: Parts, count: int) -> None:
        self._table = StoredTable(_ROW, count)
        for number in range(parts.count):
            rows = parted.of_part(number)
            rows = rows[order_of(rows["digest"])]
            is_first = np.append(True, rows["digest"][1:] != rows["digest"][:-1])[: len(rows)]
            self._table.append(rows[is_first])  # equal rows have the same request

    def digests_of(self, hashes: Digests) -> tuple[Digests, NDArray[np.bool_]]:
        digests, is_known = np.zeros(len(hashes), hashes.dtype), np.zeros(len(hashes), bool)
        at, rows = self._table.find(hashes)
        digests[at], is_known[at] = rows["request"], True
        return digests, is_known


def read_row_hashes(storage: Storage, folder: tuple[str, ...], context: bytes) -> RowHashes | None:
    """Read the file of a submission.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        context: The context of the rows that will be looked up.

    Returns:
        `None` if it is missing or damaged, or if its rows were rendered in another context.
    """
    try:
        with storage.open(*folder, ROW_HASHES) as file:
            return _read(file, _MARK + context)
    except (OSError, StorageError):  # all rows are rendered
        return None


def _read(file: BinaryIO, head: bytes) -> RowHashes | None:
    """Read a file, some rows at a time: the whole content would need as much memory as what is made of it."""
    if file.read(len(head)) != head:
        return None
    count, rest = divmod(file.seek(0, SEEK_END) - len(head) - _CHECKSUM_BYTES, _ROW_BYTES)
    if count < 0 or rest:
        return None
    file.seek(len(head))
    checksum = blake2b(head, digest_size=_CHECKSUM_BYTES)
    if count <= _IN_MEMORY:
        columns = np.empty((4, count), np.uint64)
        for start, rows in _rows(file, count, checksum):
            columns[:, start : start + len(rows)] = rows.view(">u8").reshape(-1, 4).T
        return _InMemory(columns) if file.read() == checksum.digest() else None
    parts = Parts(count)
    parted = PartedRecords(_ROW, parts.count)
    for _, rows in _rows(file, count, checksum):
        parted.add(rows, parts.of(rows["digest"]))
    return _Stored(parted, parts, count) if file.read() == checksum.digest() else None


def _rows(file: BinaryIO, count: int, checksum: blake2b) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rows of a file, some at a time, each time with the number of the first one: _ROW, shape (n,)."""
    for start in range(0, count, _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, count - start) * _ROW_BYTES
        content = file.read(size)
        if len(content) != size:
            raise OSError("the file has become shorter")
        checksum.update(content)
        yield start, np.frombuffer(content, _ROW)


def remove_row_hashes(storage: Storage, folder: tuple[str, ...]) -> None:
    """Remove the file of a submission: a later one has its own."""
    storage.remove(*folder, ROW_HASHES)
