"""The outcome in force of every request, in a scratch file, for more of them than memory holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from batch_assets.core.store.digests import Digests
from batch_assets.core.store.outcomes import Outcomes, UnpackedOutcomes
from batch_assets.core.store.stored_table import StoredTable

_OUTCOME = np.dtype([("digest", "S16"), ("row", np.int32), ("kind", np.int8), ("attempt", np.uint16)])


class StoredOutcomes:
    """Outcomes, looked up in the file. Takes 4 bytes of memory for each.

    Args:
        parts: The outcomes in force, in parts whose digests are greater than those of the part before.
        most: At least the number of outcomes.

    Raises:
        StorageError: When the folder for scratch files is full.
    """

    def __init__(self, parts: Iterable[Outcomes], most: int) -> None:
        self._table = StoredTable(_OUTCOME, most)
        for outcomes in parts:
            records = np.empty(len(outcomes.digests), _OUTCOME)
            unpacked = outcomes.at(np.arange(len(records)))
            records["digest"], records["row"] = outcomes.digests, unpacked.row
            records["kind"], records["attempt"] = unpacked.kind, unpacked.attempt
            self._table.append(records)

    def for_digests(self, digests: Digests) -> UnpackedOutcomes:
        """Return the outcomes of requests, see `Outcomes.for_digests`."""
        row, kind = np.full(len(digests), -1, np.int64), np.zeros(len(digests), np.int32)
        attempt = np.zeros(len(digests), np.int32)
        at, records = self._table.find(digests)
        row[at], kind[at], attempt[at] = records["row"], records["kind"], records["attempt"]
        return UnpackedOutcomes(row, kind, attempt)
