"""Which response is in force for a digest, and what came of the request: 24 bytes a response, in packed arrays.

This module alone packs and unpacks them. Of n digests that ever had a response:

    digests  S16    (n,)  sorted, unique
    place    int32  (n,)  where the response in force is, see `ResponseFiles`
    packed   int32  (n,)  what came of the request << 16 | the attempt that brought it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.api.objects import PASSING_ERRORS
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, position_in
from batch_assets.core.store.responses import ResponseFiles, digest_array

# Response file -> `fresh_after` of the newest refresh that it is of. The others are of none.
Refreshes = dict[ResponseName, float]
# Response file whose canceled requests are asked again -> how many of their attempts count at most.
Untried = dict[ResponseName, int]

SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
"""What came of a request: an answer; a failure that would repeat itself; one that may pass; it was canceled."""

_SHIFT, _ATTEMPT = 16, 0xFFFF
_COLUMNS = ["digest", "result_type", "error_type", "attempts", "ended_at"]


class Found(NamedTuple):
    """The outcomes of n requests, unpacked.

    Attributes:
        place: int64 (n,): where the response in force is, -1 where there is none.
        kind: int32 (n,): SUCCEEDED, FAILED, PASSING or CANCELED; 0 without response.
        attempt: int32 (n,): which attempt brought it, from 1; 0 without response.
    """

    place: NDArray[np.int64]
    kind: NDArray[np.int32]
    attempt: NDArray[np.int32]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """bool (n,): whether there is a response."""
        return self.place >= 0

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """bool (n,): whether there is a response with an answer."""
        answered: NDArray[np.bool_] = self.is_known & (self.kind == SUCCEEDED)
        return answered


class _Packed(NamedTuple):
    """The arrays of the module's docstring."""

    digests: Digests
    place: NDArray[np.int32]
    packed: NDArray[np.int32]


@dataclass(frozen=True)
class Outcomes:
    """The outcome in force of every request that ever had a response.

    Attributes:
        files: the response files.
        digests: S16 (n,): sorted, unique.
    """

    files: ResponseFiles
    digests: Digests
    _place: NDArray[np.int32]
    _packed: NDArray[np.int32]

    def position(self, digests: Digests) -> NDArray[np.int64]:
        """For m digests the position of each in `digests`: int64 (m,), -1 where there is no response."""
        return position_in(self.digests, digests)

    def at(self, position: NDArray[np.int64]) -> Found:
        """The outcomes at positions.

        Args:
            position: int64 (m,), as `position` gives them.
        """
        if len(self.digests) == 0:
            nothing = np.zeros(len(position), dtype=np.int32)
            return Found(position, nothing, nothing)
        none = position < 0
        place = np.where(none, -1, self._place[position]).astype(np.int64)
        packed = np.where(none, 0, self._packed[position])
        return Found(place, packed >> _SHIFT, packed & _ATTEMPT)

    def of(self, digests: Digests) -> Found:
        """The outcomes of requests.

        Args:
            digests: S16 (m,).
        """
        return self.at(self.position(digests))

    def places_of(self, kind: int) -> NDArray[np.int64]:
        """The places of all outcomes of one kind, sorted: int64 (m,)."""
        return np.sort(self._place[self._packed >> _SHIFT == kind].astype(np.int64))


def load_outcomes(
    files: ResponseFiles, refreshes: Refreshes, fresh_after: float | None = None, untried: Untried | None = None
) -> Outcomes:
    """Reads the outcomes of all requests of a pipeline.

    A succeeded response comes before any other; of several succeeded, that of the newest refresh, then the
    earliest ended; else the last attempt. Attempts count from 1 again with every refresh.

    Args:
        files: the pipeline's response files.
        refreshes: see `refreshes_of`.
        fresh_after: of a refresh: only what it and later ones brought counts.
        untried: see `untried_of`.

    Raises:
        DamagedFileError: a file that is not a response file.
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
        known = _asked_again(known, files, untried)
    return Outcomes(files, *known)


def _packed(table: pa.Table, places: NDArray[np.int64]) -> _Packed:
    """The responses of one file, sorted by digest. No digest is there twice."""
    digests = digest_array(table["digest"])
    order = np.argsort(digests, kind="stable")
    attempts = table["attempts"].to_numpy()[order].astype(np.int32)
    return _Packed(digests[order], places[order].astype(np.int32), (_kinds(table)[order] << _SHIFT) | attempts)


def _kinds(table: pa.Table) -> NDArray[np.int32]:
    result, error = table["result_type"], table["error_type"]
    passing = pc.or_(
        pc.equal(result, "expired"),
        pc.and_(
            pc.equal(result, "errored"), pc.fill_null(pc.is_in(error, pa.array(sorted(PASSING_ERRORS))), False)
        ),
    )
    kinds = np.full(len(table), FAILED, dtype=np.int32)
    kinds[passing.to_numpy()] = PASSING
    kinds[pc.equal(result, "canceled").to_numpy()] = CANCELED
    kinds[pc.equal(result, "succeeded").to_numpy()] = SUCCEEDED
    return kinds


def _merged(known: _Packed, later: _Packed, files: ResponseFiles, refreshes: NDArray[np.float64]) -> _Packed:
    """What is known with the responses of a file that ended later.

    Args:
        known: its arrays are written to.
        later: of one file.
        files: that the places are of.
        refreshes: float64, by the number of the file: `fresh_after` of its refresh, 0 for none.
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
    """Which responses of a later file take the place of those before: bool (m,).

    Args:
        before: int32 (m,): packed outcomes.
        now: int32 (m,): those of the same requests in the later file.
        newer: bool (m,): whether they are of a later refresh.
    """
    has_succeeded = now >> _SHIFT == SUCCEEDED
    # Files come earliest ended first, so a later success of the same refresh never replaces one.
    better: NDArray[np.bool_] = np.where(
        before >> _SHIFT == SUCCEEDED,
        has_succeeded & newer,
        has_succeeded | newer | (now & _ATTEMPT >= before & _ATTEMPT),
    )
    return better


def _asked_again(known: _Packed, files: ResponseFiles, untried: Untried) -> _Packed:
    """Makes failures that pass of the requests that were canceled in some files."""
    most = np.array([untried.get(name, -1) for name in files.names], np.int32)[files.number_of(known.place)]
    attempts = np.minimum(known.packed & _ATTEMPT, most)
    canceled = (known.packed >> _SHIFT == CANCELED) & (most >= 0)
    return known._replace(packed=np.where(canceled, (PASSING << _SHIFT) | attempts, known.packed))
