"""The response in force for each digest, and the outcome of the request, in packed arrays: 24 bytes per response.

Only this module packs and unpacks them. For n digests that ever had a response:

    digests  S16    (n,)  sorted, unique
    place    int32  (n,)  the row number of the response in force, see `ResponseFiles`
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
        place: int64, shape (n,): the row number of the response in force, -1 without a response.
        kind: int32, shape (n,): SUCCEEDED, FAILED, PASSING or CANCELED; 0 without a response.
        attempt: int32, shape (n,): the attempt that the response came from, from 1; 0 without a response.
    """

    place: NDArray[np.int64]
    kind: NDArray[np.int32]
    attempt: NDArray[np.int32]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether there is a response: bool, shape (n,)."""
        return self.place >= 0

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether there is a response with an answer: bool, shape (n,)."""
        answered: NDArray[np.bool_] = self.is_known & (self.kind == SUCCEEDED)
        return answered


class _Packed(NamedTuple):
    """The arrays that the module's docstring describes."""

    digests: Digests
    place: NDArray[np.int32]
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
    _place: NDArray[np.int32]
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
        place = np.where(is_missing, -1, self._place[position]).astype(np.int64)
        packed = np.where(is_missing, 0, self._packed[position])
        return UnpackedOutcomes(place, packed >> _SHIFT, packed & _ATTEMPT)

    def of(self, digests: Digests) -> UnpackedOutcomes:
        """Return the outcomes of requests.

        Args:
            digests: S16, shape (m,).
        """
        return self.at(self.position(digests))

    def places_of(self, kind: int) -> NDArray[np.int64]:
        """Return the row numbers of the responses with one kind of outcome: int64, shape (m,), sorted."""
        return np.sort(self._place[self._packed >> _SHIFT == kind].astype(np.int64))


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
    known = _Packed(np.empty(0, f"S{DIGEST_BYTES}"), np.empty(0, np.int32), np.empty(0, np.int32))
    for number in range(len(files.names)):
        if fresh_after is not None and of_files[number] < fresh_after:
            continue
        table = files.read(number, _COLUMNS)
        known = _merged(known, _packed(table, files.places(number)), files, of_files)
        del table
        release_memory()
    if untried and len(known.digests):
        known = _retried(known, files, untried)
    return Outcomes(files, *known)


def _packed(table: pa.Table, places: NDArray[np.int64]) -> _Packed:
    """The responses of one file, sorted by digest. No digest occurs twice.

    Args:
        table: The columns of the file.
        places: int64, shape (n,): the row numbers of the file's rows.
    """
    digests = digest_array(table["digest"])
    order = np.argsort(digests, kind="stable")
    attempts = table["attempts"].to_numpy()[order].astype(np.int32)
    return _Packed(digests[order], places[order].astype(np.int32), (_kinds(table)[order] << _SHIFT) | attempts)


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


def _merged(known: _Packed, later: _Packed, files: ResponseFiles, refreshes: NDArray[np.float64]) -> _Packed:
    """Merge the responses of a file that ended later into those of earlier files.

    Args:
        known: The outcomes from earlier files. Their arrays are modified.
        later: The outcomes from the later file.
        files: All response files.
        refreshes: float64, shape (number of files,): `fresh_after` of each file's refresh, 0 without a refresh.
    """
    position = position_in(known.digests, later.digests)
    again = np.flatnonzero(position >= 0)
    if len(again):
        at = position[again]
        newer = np.zeros(len(again), dtype=bool)
        if refreshes.any():
            newer = refreshes[files.number_of(later.place[again])] > refreshes[files.number_of(known.place[at])]
        better = _is_better(known.packed[at], later.packed[again], newer)
        known.place[at[better]] = later.place[again[better]]
        known.packed[at[better]] = later.packed[again[better]]
    new = position < 0
    if not new.any():
        return known
    if len(known.digests) == 0:
        return later
    at = np.searchsorted(known.digests, later.digests[new])
    return _Packed(
        np.insert(known.digests, at, later.digests[new]),
        np.insert(known.place, at, later.place[new]),
        np.insert(known.packed, at, later.packed[new]),
    )


def _is_better(before: NDArray[np.int32], now: NDArray[np.int32], newer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each response of a later file replaces the earlier one: bool, shape (m,).

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


def _retried(known: _Packed, files: ResponseFiles, untried: Untried) -> _Packed:
    """Turn the canceled requests of some files into failures that may pass, so that they are retried."""
    most = np.array([untried.get(name, -1) for name in files.names], np.int32)[files.number_of(known.place)]
    attempts = np.minimum(known.packed & _ATTEMPT, most)
    canceled = (known.packed >> _SHIFT == CANCELED) & (most >= 0)
    return known._replace(packed=np.where(canceled, (PASSING << _SHIFT) | attempts, known.packed))
