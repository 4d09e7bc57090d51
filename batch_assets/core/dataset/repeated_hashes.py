"""Find the hashes that occur more than once among any number of them, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.scratch import scratch_folder

_BLOCK = 1 << 18  # hashes in memory
_PART_BITS = 8
_HASH_BYTES = 8
# Hashes of whole numbers are these numbers. Multiplied by an odd number, they are spread over all parts, and the
# inverse gives them back.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


class RepeatedHashes:
    """Collects hashes. More than a block of them goes to a scratch file, in sorted blocks.

    The hashes of all blocks that begin with the same bits are a part, and one part after the other is compared.
    """

    def __init__(self) -> None:
        self._hashes, self._count = np.empty(_BLOCK, np.uint64), 0
        self._file: IO[bytes] | None = None
        self._bounds: list[NDArray[np.int64]] = []  # for each block in the file, where its parts begin and end

    def add(self, hashes: NDArray[np.int64]) -> None:
        """Add hashes.

        Args:
            hashes: int64, shape (n,).
        """
        spread = hashes.view(np.uint64) * np.uint64(_FACTOR)
        while len(spread):
            taken = spread[: _BLOCK - self._count]
            self._hashes[self._count : self._count + len(taken)] = taken
            self._count += len(taken)
            spread = spread[len(taken) :]
            if self._count == _BLOCK:
                self._write()

    def repeated(self) -> set[int]:
        """Return the hashes that were added more than once, and remove the file.

        Raises:
            OSError: When the scratch file cannot be written or read.
        """
        if self._file is None:
            parts = iter([self._hashes[: self._count]])
        else:
            self._write()
            parts = self._parts(self._file)
        repeated: set[int] = set()
        for part in parts:
            part.sort()
            twice = np.unique(part[1:][part[1:] == part[:-1]])
            repeated.update((twice * np.uint64(_INVERSE)).view(np.int64).tolist())
        if self._file is not None:
            self._file.close()
        return repeated

    def _write(self) -> None:
        """Move the hashes in memory to the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115  `repeated` closes it
        block = self._hashes[: self._count]
        block.sort()
        starts = np.arange(1 << _PART_BITS, dtype=np.uint64) << np.uint64(64 - _PART_BITS)
        inside = np.append(np.searchsorted(block, starts), len(block))
        self._bounds.append(inside + self._file.tell() // _HASH_BYTES)
        self._file.write(block.tobytes())
        self._count = 0

    def _parts(self, file: IO[bytes]) -> Iterator[NDArray[np.uint64]]:
        for part in range(1 << _PART_BITS):
            pieces = []
            for start, end in [bounds[part : part + 2].tolist() for bounds in self._bounds]:
                file.seek(start * _HASH_BYTES)
                pieces.append(file.read((end - start) * _HASH_BYTES))
            yield np.frombuffer(bytearray(b"".join(pieces)), np.uint64)
