"""Records divided into parts, of which one at a time is in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.scratch_file import ScratchFile

# So many bytes of records are in memory before they are moved to a scratch file.
_BLOCK_BYTES = 4 << 20


class PartedRecords:
    """Collects records and returns them part by part. More than a block of them goes to a scratch file.

    Args:
        dtype: The type of a record.
        parts: The number of parts, at most 65,536.

    Raises:
        StorageError: From `add`, when the scratch file cannot be written.
    """

    def __init__(self, dtype: np.dtype[Any], parts: int) -> None:
        self._dtype, self._parts = dtype, parts
        self._pending: list[tuple[NDArray[Any], NDArray[np.uint16]]] = []
        self._file: ScratchFile | None = None
        # For each block in the file, the offset of its first record and where its parts begin and end.
        self._blocks: list[tuple[int, NDArray[np.intp]]] = []

    def add(self, records: NDArray[Any], part_of: NDArray[np.uint16]) -> None:
        """Add records.

        Args:
            records: The records, shape (n,). They are kept, not copied.
            part_of: The part of each: uint16, shape (n,).
        """
        self._pending.append((records, part_of))
        if sum(pending.nbytes for pending, _ in self._pending) >= _BLOCK_BYTES:
            records, bounds = self._gathered()
            self._file = self._file or ScratchFile()
            self._blocks.append((self._file.append(records.data), bounds))
            self._pending = []

    def of_part(self, number: int) -> NDArray[Any]:
        """Return the records of a part in the order in which they were added: shape (m,)."""
        size, pieces = self._dtype.itemsize, list[bytes]()
        for offset, bounds in self._blocks:
            start, end = bounds[number : number + 2].tolist()
            if start < end:
                assert self._file is not None
                pieces.append(self._file.read(offset + start * size, (end - start) * size))
        stored = np.frombuffer(b"".join(pieces), self._dtype)
        if not self._pending:
            return stored
        records, bounds = self._gathered()
        if len(self._pending) > 1:
            self._pending = [(records, np.repeat(np.arange(self._parts, dtype=np.uint16), np.diff(bounds)))]
        in_memory = records[bounds[number] : bounds[number + 1]]
        return np.concatenate([stored, in_memory]) if len(stored) else in_memory

    def _gathered(self) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return the records in memory in the order of their parts, and where the parts begin and end."""
        records, part_of = self._pending[0]
        if len(self._pending) > 1:
            records = np.concatenate([pending for pending, _ in self._pending])
            part_of = np.concatenate([part for _, part in self._pending])
        if (part_of[1:] < part_of[:-1]).any():
            order = np.argsort(part_of, kind="stable")
            records, part_of = records[order], part_of[order]
        return records, np.searchsorted(part_of, np.arange(self._parts + 1))
