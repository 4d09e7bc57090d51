"""The response in force for each digest, and the outcome of the request, in packed arrays: 24 bytes per response.

Only this module packs and unpacks them. For n digests that ever had a response:

    digests  S16    (n,)  sorted, unique
    row      int32  (n,)  the row number of the response in force, see `ResponseFiles`
    packed   int32  (n,)  the kind of outcome << 16 | the attempt that it came from
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import PASSING_ERRORS
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, position_in
from batch_assets.core.store.responses import ResponseFiles, digest_array

# `fresh_after` of the newest refresh that a response file belongs to. Other files belong to no refresh.
Refreshes = dict[ResponseName, float]
# The response files whose canceled requests are retried, with the most of their attempts that count.
Untried = dict[ResponseName, int]

SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
"""The outcomes of a request: an answer, a failure that a retry would repeat, one that may pass, or canceled."""

_SHIFT, _ATTEMPT = 16, 0xFFFF
_COLUMNS = ["digest", "result_type", "error_type", "attempts", "ended_at"]


class UnpackedOutcomes(NamedTuple):
    """The outcomes of n requests, unpacked.

    Attributes:
        row: int64, shape (n,): the row number of the response in force, -1 without a response.
        kind: int32, shape (n,): SUCCEEDED, FAILED, PASSING or CANCELED; 0 without a response.
        attempt: int32, shape (n,): the attempt that the response came from, from 1; 0 without a response.
    """

    row: NDArray[np.int64]
    kind: NDArray[np.int32]
    attempt: NDArray[np.int32]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether there is a response: bool, shape (n,)."""
        return self.row >= 0

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether there is a response with an answer: bool, shape (n,)."""
        answered: NDArray[np.bool_] = self.is_known & (self.kind == SUCCEEDED)
        return answered


class _Packed(NamedTuple):
    """The arrays that the module's docstring describes."""

    digests: Digests
    row: NDArray[np.int32]
    packed: NDArray[np.int32]


@dataclass(frozen=True)
class Outcomes:
    """The outcome in force of every request that ever had a response.

    Attributes:
        files: The response files.
        digests: S16, shape (n,), sorted, unique.
    """

    files: ResponseFiles
    digests: Digests
    _row: NDArray[np.int32]
    _packed: NDArray[np.int32]

    def position(self, digests: Digests) -> NDArray[np.int64]:
        """Return the position of each digest in `digests`: int64, shape (m,), -1 without a response.

        Args:
            digests: S16, shape (m,).
        """
        return position_in(self.digests, digests)

    def at(self, position: NDArray[np.int64]) -> UnpackedOutcomes:
        """Return the outcomes at positions.

        Args:
            position: int64, shape (m,), as returned by `position`.
        """
        if len(self.digests) == 0:
            zeros = np.zeros(len(position), dtype=np.int32)
            return UnpackedOutcomes(position, zeros, zeros)
        is_missing = position < 0
        row = np.where(is_missing, -1, self._row[position]).astype(np.int64)
        packed = np.where(is_missing, 0, self._packed[position])
        return UnpackedOutcomes(row, packed >> _SHIFT, packed & _ATTEMPT)

    def for_digests(self, digests: Digests) -> UnpackedOutcomes:
        """Return the outcomes of requests.

        Args:
            digests: S16, shape (m,).
        """
        return self.at(self.position(digests))

    def rows_of(self, kind: int) -> NDArray[np.int64]:
        """Return the row numbers of the responses with one kind of outcome: int64, shape (m,), sorted."""
        return np.sort(self._row[self._packed >> _SHIFT == kind].astype(np.int64))


def load_outcomes(
    files: ResponseFiles, refreshes: Refreshes, fresh_after: float | None = None, untried: Untried | None = None
) -> Outcomes:
    """Read the outcomes of all requests of a pipeline.

    For each digest one response is in force. A succeeded response comes before any other. Of several succeeded
    ones, the newest refresh comes first, then the earliest ended. Without a succeeded one it is the last attempt.
    Every refresh counts attempts from 1 again.

    Args:
        files: The pipeline's response files.
        refreshes: See `refreshes_of`.
        fresh_after: The refresh whose responses, with those of later refreshes, count; `None` for all responses.
        untried: See `untried_of`.

    Raises:
        DamagedFileError: When a file is not a response file.
    """
    of_files = np.array([refreshes.get(name, 0.0) for name in files.names], np.float64)
    merged = _Packed(np.empty(0, f"S{DIGEST_BYTES}"), np.empty(0, np.int32), np.empty(0, np.int32))
    for number in range(len(files.names)):
        if fresh_after is not None and of_files[number] < fresh_after:
            continue
        table = files.read(number, _COLUMNS)
        merged = _merged(merged, _packed(table, files.rows_of(number)), files, of_files)
        del table
        release_memory()
    if untried and len(merged.digests):
        merged = _retried(merged, files, untried)
    return Outcomes(files, *merged)


def _packed(table: pa.Table, rows: NDArray[np.int64]) -> _Packed:
    """Return the responses of one file, sorted by digest. No digest occurs twice.

    Args:
        table: The columns of the file.
        rows: int64, shape (n,): the row numbers of the file's rows.
    """
    if table["digest"].null_count:  # requests that a damaged request file no longer names
        known = table["digest"].is_valid()
        table, rows = table.filter(known), rows[known.to_numpy()]
    digests = digest_array(table["digest"])
    order = np.argsort(digests, kind="stable")
    attempts = table["attempts"].to_numpy()[order].astype(np.int32)
    return _Packed(digests[order], rows[order].astype(np.int32), (_kinds(table)[order] << _SHIFT) | attempts)


def _kinds(table: pa.Table) -> NDArray[np.int32]:
    result, error = table["result_type"], table["error_type"]
    passing = pc.or_(
        pc.equal(result, ResultType.EXPIRED),
        pc.and_(
            pc.equal(result, ResultType.ERRORED),
            pc.fill_null(pc.is_in(error, pa.array(sorted(PASSING_ERRORS))), False),
        ),
    )
    kinds = np.full(len(table), FAILED, dtype=np.int32)
    kinds[passing.to_numpy()] = PASSING
    kinds[pc.equal(result, ResultType.CANCELED).to_numpy()] = CANCELED
    kinds[pc.equal(result, ResultType.SUCCEEDED).to_numpy()] = SUCCEEDED
    return kinds


def _merged(earlier: _Packed, later: _Packed, files: ResponseFiles, refreshes: NDArray[np.float64]) -> _Packed:
    """Merge the responses of a file that ended later into those of earlier files.

    Args:
        earlier: The outcomes from earlier files. Their arrays are modified.
        later: The outcomes from the later file.
        files: All response files.
        refreshes: float64, shape (number of files,): `fresh_after` of each file's refresh, 0 without a refresh.
    """
    position = position_in(earlier.digests, later.digests)
    repeated = np.flatnonzero(position >= 0)
    if len(repeated):
        at = position[repeated]
        newer = np.zeros(len(repeated), dtype=bool)
        if refreshes.any():
            refresh_of = refreshes[files.number_of(later.row[repeated])]
            newer = refresh_of > refreshes[files.number_of(earlier.row[at])]
        better = _is_better(earlier.packed[at], later.packed[repeated], newer)
        earlier.row[at[better]] = later.row[repeated[better]]
        earlier.packed[at[better]] = later.packed[repeated[better]]
    new = position < 0
    if not new.any():
        return earlier
    if len(earlier.digests) == 0:
        return later
    at = np.searchsorted(earlier.digests, later.digests[new])
    return _Packed(
        np.insert(earlier.digests, at, later.digests[new]),
        np.insert(earlier.row, at, later.row[new]),
        np.insert(earlier.packed, at, later.packed[new]),
    )


def _is_better(before: NDArray[np.int32], now: NDArray[np.int32], newer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each response of a later file replaces the earlier one: bool, shape (m,).

    Args:
        before: int32, shape (m,): the packed outcomes from earlier files.
        now: int32, shape (m,): the packed outcomes of the same requests in the later file.
        newer: bool, shape (m,): whether the later response belongs to a newer refresh.
    """
    has_succeeded = now >> _SHIFT == SUCCEEDED
    # The earliest ended file comes first, so a later success of the same refresh never replaces an earlier one.
    better: NDArray[np.bool_] = np.where(
        before >> _SHIFT == SUCCEEDED,
        has_succeeded & newer,
        has_succeeded | newer | (now & _ATTEMPT >= before & _ATTEMPT),
    )
    return better


def _retried(outcomes: _Packed, files: ResponseFiles, untried: Untried) -> _Packed:
    """Turn the canceled requests of some files into failures that may pass, so that they are retried."""
    most = np.array([untried.get(name, -1) for name in files.names], np.int32)[files.number_of(outcomes.row)]
    attempts = np.minimum(outcomes.packed & _ATTEMPT, most)
    canceled = (outcomes.packed >> _SHIFT == CANCELED) & (most >= 0)
    return outcomes._replace(packed=np.where(canceled, (PASSING << _SHIFT) | attempts, outcomes.packed))
