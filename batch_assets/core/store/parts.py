"""A division of digests into parts of a size that memory holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.digests import Digests

# A part has about this many digests.
_PART_ROWS = 1 << 17
_MOST_BITS = 16


class Parts:
    """Divides digests by their first bits. The digests of a part are less than those of the next one.

    Args:
        rows: The number of digests.

    Attributes:
        count: The number of parts, a power of two.
    """

    def __init__(self, rows: int) -> None:
        bits = max(0, rows - 1).bit_length() - (_PART_ROWS - 1).bit_length()
        self._bits = min(_MOST_BITS, max(0, bits))
        self.count = 1 << self._bits

    def of(self, digests: Digests) -> NDArray[np.uint16]:
        """Return the part of each digest: uint16, shape (n,).

        Args:
            digests: S16, shape (n,).
        """
        first = np.ascontiguousarray(digests).view(">u2").reshape(-1, 8)[:, 0].astype(np.uint32)
        return (first >> np.uint32(_MOST_BITS - self._bits)).astype(np.uint16)
