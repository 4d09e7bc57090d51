"""The response in force for each digest, and the outcome of the request, in packed arrays: 32 bytes per response.

Only this module packs and unpacks them. For n digests that ever had a response:

    digests  S16    (n,)  sorted, unique
    row      int32  (n,)  the row number of the response in force, see `ResponseFiles`
    packed   int32  (n,)  the kind of outcome << 16 | the attempt that it came from
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import PASSING_ERRORS
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, SortedDigests, order_of
from batch_assets.core.store.responses import (
    ResponseFacts,
    ResponseFiles,
    digest_array,
    open_responses,
    reading_responses,
)

# `fresh_after` of the newest refresh that a response file belongs to. Other files belong to no refresh.
Refreshes = dict[ResponseName, float]
# The response files whose canceled requests are retried, with the most of their attempts that count.
Untried = dict[ResponseName, int]

SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
"""The outcomes of a request: an answer, a failure that a retry would repeat, one that may pass, or canceled."""

_SHIFT, _ATTEMPT = 16, 0xFFFF
RESPONSE_COLUMNS = ["digest", "result_type", "error_type", "attempts"]
"""The columns of a response file that `packed_responses` reads."""


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


class Responses(NamedTuple):
    """n responses, packed. A request may have several of them.

    Attributes:
        digests: S16, shape (n,).
        row: int32, shape (n,): the row numbers of the responses.
        packed: int32, shape (n,): see the module's docstring.
    """

    digests: Digests
    row: NDArray[np.int32]
    packed: NDArray[np.int32]

    def at(self, chosen: NDArray[Any]) -> Responses:
        """Return some of them, by a mask or by positions."""
        return Responses(self.digests[chosen], self.row[chosen], self.packed[chosen])


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
        return self._sorted.position(digests)

    @cached_property
    def _sorted(self) -> SortedDigests:
        return SortedDigests(self.digests)

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


def read_responses(storage: Storage, pipeline: str) -> tuple[ResponseFiles, Responses]:
    """Read the response files of a pipeline. Each is opened once.

    Args:
        storage: The storage of the root.
        pipeline: The name of the pipeline.

    Returns:
        The files, and all responses, sorted by digest. Those to the same request are in the order of their files.

    Raises:
        DamagedFileError: When a file is not a response file.
    """
    facts: list[ResponseFacts] = []
    parts: dict[ResponseName, Responses] = {}
    names = [*filter(None, map(ResponseName.parse, sorted(storage.file_names(pipeline, "responses"))))]
    for name, opened in storage.each(partial(open_responses, storage, pipeline), names):
        with opened as file, reading_responses(storage, pipeline, name):
            facts.append(ResponseFacts.of(name, file))
            parts[name] = packed_responses(file.read(columns=RESPONSE_COLUMNS, use_threads=False))
        release_memory()
    files = ResponseFiles(storage, pipeline, facts)
    return files, _joined(files, [parts.pop(name) for name in files.names])


def _joined(files: ResponseFiles, parts: list[Responses]) -> Responses:
    """Join the responses of all files, in the order of the files, into one sequence sorted by digest."""
    rows = [part.row + files.first_row(number) for number, part in enumerate(parts)]
    digests: Digests = np.concatenate([np.empty(0, f"S{DIGEST_BYTES}"), *(part.digests for part in parts)])
    row = np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
    packed = np.concatenate([np.empty(0, np.int32), *(part.packed for part in parts)])
    del rows, parts[:]
    return Responses(digests, row, packed).at(order_of(digests))


def packed_responses(table: pa.Table) -> Responses:
    """Return the responses of one file, sorted by digest. See `responses_of`."""
    responses = responses_of(table)
    return responses.at(order_of(responses.digests))


def responses_of(table: pa.Table) -> Responses:
    """Return the responses of one file in its order, with the rows counted within it. No digest occurs twice.

    Args:
        table: The RESPONSE_COLUMNS of the file.
    """
    rows = np.arange(len(table), dtype=np.int32)
    if table["digest"].null_count:  # requests that a damaged request file no longer names
        known = table["digest"].is_valid()
        table, rows = table.filter(known), rows[known.to_numpy()]
    attempts = table["attempts"].to_numpy().astype(np.int32)
    return Responses(digest_array(table["digest"]), rows, (_kinds(table) << _SHIFT) | attempts)


def ordered(responses: Responses) -> Responses:
    """Sort responses by digest and then by row number."""
    if (responses.row[1:] < responses.row[:-1]).any():
        responses = responses.at(np.argsort(responses.row, kind="stable"))
    return responses.at(order_of(responses.digests))


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


def in_force(
    responses: Responses,
    files: ResponseFiles,
    refreshes: Refreshes,
    fresh_after: float | None = None,
    untried: Untried | None = None,
) -> Outcomes:
    """Choose the response in force for each request.

    A succeeded response comes before any other. Of several succeeded ones, the newest refresh comes first, then
    the earliest ended. Without a succeeded one it is the last attempt. Every refresh counts attempts from 1 again.

    Args:
        responses: All responses to some requests, sorted by digest and then by row number.
        files: The files that have them.
        refreshes: See `refreshes_of`.
        fresh_after: The refresh whose responses, with those of later refreshes, count; `None` for all responses.
        untried: See `untried_of`.
    """
    of_files = np.array([refreshes.get(name, 0.0) for name in files.names], np.float64)
    if fresh_after is not None and len(responses.digests):
        counts = of_files[files.number_of(responses.row)] >= fresh_after
        responses = responses.at(counts)
    if len(responses.digests) == 0:
        return Outcomes(files, *responses)
    is_first = np.append(True, responses.digests[1:] != responses.digests[:-1])
    if not is_first.all():
        responses = _best(responses, is_first, files, of_files)
    if untried:
        responses = _retried(responses, files, untried)
    return Outcomes(files, *responses)


def not_in_force(responses: Responses, outcomes: Outcomes) -> NDArray[np.bool_]:
    """Return which responses have an answer although another answer to their request is in force.

    A response whose answer was pruned counts like one that has it. So do canceled ones, which cost nothing.

    Args:
        responses: All responses to some requests, n of them.
        outcomes: The outcomes in force of these requests.

    Returns:
        bool, shape (n,).
    """
    kinds = responses.packed >> _SHIFT
    is_answer = (kinds == SUCCEEDED) | (kinds == CANCELED)
    other: NDArray[np.bool_] = is_answer & (outcomes.for_digests(responses.digests).row != responses.row)
    return other


def _best(
    responses: Responses, is_first: NDArray[np.bool_], files: ResponseFiles, refreshes: NDArray[np.float64]
) -> Responses:
    """Keep one response to each request, by comparing those to the same request one after the other.

    Args:
        responses: Sorted by digest and then by row number, n of them.
        is_first: Whether each one is the first to its request: bool, shape (n,).
        files: All response files.
        refreshes: float64, shape (number of files,): `fresh_after` of each file's refresh, 0 without a refresh.
    """
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.append(starts, len(is_first)))
    best = starts.copy()
    for rank in range(1, int(sizes.max())):
        repeated = np.flatnonzero(sizes > rank)
        now, before = starts[repeated] + rank, best[repeated]
        newer = np.zeros(len(repeated), dtype=bool)
        if refreshes.any():
            refresh_of = refreshes[files.number_of(responses.row[now])]
            newer = refresh_of > refreshes[files.number_of(responses.row[before])]
        better = _is_better(responses.packed[before], responses.packed[now], newer)
        best[repeated[better]] = now[better]
    return responses.at(best)


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


def _retried(outcomes: Responses, files: ResponseFiles, untried: Untried) -> Responses:
    """Turn the canceled requests of some files into failures that may pass, so that they are retried."""
    most = np.array([untried.get(name, -1) for name in files.names], np.int32)[files.number_of(outcomes.row)]
    attempts = np.minimum(outcomes.packed & _ATTEMPT, most)
    canceled = (outcomes.packed >> _SHIFT == CANCELED) & (most >= 0)
    return outcomes._replace(packed=np.where(canceled, (PASSING << _SHIFT) | attempts, outcomes.packed))
