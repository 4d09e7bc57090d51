"""Records by digest in a scratch file, for more of them than memory holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.scratch_file import ScratchFile
from batch_assets.core.store.digests import Digests, halves_of

_START_BITS = np.uint64(32)


class StoredTable:
    """Records that are found by a digest. Takes 4 bytes of memory for each: the first of its digest.

    What these bytes find is compared with the file. Each record that is found costs a read.

    Args:
        dtype: The type of a record. Its field `digest` is S16.
        most: At least the number of records.

    Raises:
        StorageError: From `append`, when the scratch file cannot be written.
    """

    def __init__(self, dtype: np.dtype[Any], most: int) -> None:
        self._dtype, self._file = dtype, ScratchFile()
        self._starts, self._count = np.empty(most, np.uint32), 0

    def __len__(self) -> int:
        return self._count

    def append(self, records: NDArray[Any]) -> None:
        """Append records.

        Args:
            records: The records, shape (n,), sorted by their digests, each of which is greater than all before.
        """
        starts = _starts_of(np.ascontiguousarray(records["digest"]))
        self._starts[self._count : self._count + len(records)] = starts
        self._count += len(records)
        self._file.append(records.tobytes())

    def find(self, digests: Digests) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """Find the records of some digests.

        Args:
            digests: S16, shape (n,), in any order, some perhaps more than once.

        Returns:
            The positions in `digests` of those that have a record (intp, shape (m,)), and their records (shape
            (m,)).
        """
        held, wanted = self._starts[: self._count], _starts_of(digests)
        order = np.argsort(wanted)  # in order they are found faster, in memory that was read just before
        low, high = (np.searchsorted(held, wanted[order], side) for side in ("left", "right"))
        count = high - low
        asked = np.repeat(order, count)
        # Several records may have the first bytes of a digest.
        position = np.arange(len(asked)) + np.repeat(low - np.cumsum(count) + count, count)
        size = self._dtype.itemsize
        content = b"".join([self._file.read(at * size, size) for at in position.tolist()])
        records = np.frombuffer(content, self._dtype)
        is_same = records["digest"] == digests[asked]
        return asked[is_same], records[is_same]


def _starts_of(digests: Digests) -> NDArray[np.uint32]:
    return (halves_of(digests)[0] >> _START_BITS).astype(np.uint32)
