"""The response in force for each digest, and the outcome of the request, packed: 24 bytes for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.chains import Chains, chains_of
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, SortedDigests, order_of
from batch_assets.core.store.packed_responses import (
    CANCELED,
    PASSING,
    SUCCEEDED,
    Responses,
    attempt_of,
    kind_of,
    packed_responses,
    read_outcomes,
    step_of,
    with_outcome,
)
from batch_assets.core.store.responses import (
    ResponseFacts,
    ResponseFiles,
    open_responses,
    reading_responses,
)

# `fresh_after` of the newest refresh that a response file belongs to. Other files belong to no refresh.
Refreshes = dict[ResponseName, float]
# The response files whose canceled requests are retried, with the most of their attempts that count: `NO_ATTEMPT`
# if only follow-ups are.
Untried = dict[ResponseName, int]
NO_ATTEMPT = -1


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


@dataclass(frozen=True)
class Outcomes:
    """The outcome in force of every request that ever had a response.

    Attributes:
        files: The response files.
        digests: S16, shape (n,), sorted, unique.
        chains: The chains of follow-up requests; `None` if there are none.
    """

    files: ResponseFiles
    digests: Digests
    _row: NDArray[np.int32]
    _packed: NDArray[np.int32]
    chains: Chains | None = None

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
        return UnpackedOutcomes(row, kind_of(packed), attempt_of(packed))

    def attempts(self, digests: Digests) -> NDArray[np.int32]:
        """Return how often requests and their follow-ups were sent: int32, shape (m,), 0 without a response.

        Args:
            digests: S16, shape (m,).
        """
        outcomes = self.for_digests(digests)
        if self.chains is None:
            return outcomes.attempt
        return self.chains.attempts_at(self.chains.find(outcomes.row), outcomes.attempt)

    def steps(self, digests: Digests) -> NDArray[np.int32]:
        """Return the number of follow-ups up to the response in force: int32, shape (m,), -1 without a response.

        Args:
            digests: S16, shape (m,).
        """
        position = self.position(digests)
        if len(self.digests) == 0:
            return np.full(len(digests), -1, np.int32)
        return np.where(position < 0, -1, step_of(self._packed[position])).astype(np.int32)

    def for_digests(self, digests: Digests) -> UnpackedOutcomes:
        """Return the outcomes of requests.

        Args:
            digests: S16, shape (m,).
        """
        return self.at(self.position(digests))

    def rows_of(self, kind: int) -> NDArray[np.int64]:
        """Return the row numbers of the responses with one kind of outcome: int64, shape (m,), sorted."""
        return np.sort(self._row[kind_of(self._packed) == kind].astype(np.int64))


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
            parts[name] = packed_responses(read_outcomes(file))
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


def in_force(
    responses: Responses,
    files: ResponseFiles,
    refreshes: Refreshes,
    fresh_after: float | None = None,
    untried: Untried | None = None,
) -> Outcomes:
    """Choose the response in force for each request.

    A succeeded response comes before any other. Of several succeeded ones, the newest refresh comes first, then
    the last of a chain of follow-ups, then the earliest ended. Without a succeeded one it is the last attempt.
    Every refresh counts attempts from 1 again.

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
    chains = None
    if not is_first.all():
        best = _best(responses, is_first, files, of_files)
        if responses.step.any():
            chains = chains_of(responses, is_first, best, files, of_files, untried or {})
        responses = responses.at(best)
    if untried:
        responses = _retried(responses, files, untried)
    return Outcomes(files, *responses, chains)


def _best(
    responses: Responses, is_first: NDArray[np.bool_], files: ResponseFiles, refreshes: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Choose one response to each request, by comparing those to the same request one after the other.

    Args:
        responses: Sorted by digest and then by row number, n of them.
        is_first: Whether each one is the first to its request: bool, shape (n,).
        files: All response files.
        refreshes: float64, shape (number of files,): `fresh_after` of each file's refresh, 0 without a refresh.

    Returns:
        The positions of the chosen responses: intp, shape (requests,).
    """
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.append(starts, len(is_first)))
    best = starts.copy()
    # A follow-up belongs to the refresh of the answer that it follows, also if a later submission sent it.
    best_refresh = refreshes[files.number_of(responses.row[starts])] if refreshes.any() else None
    for rank in range(1, int(sizes.max())):
        repeated = np.flatnonzero(sizes > rank)
        now, before = starts[repeated] + rank, best[repeated]
        newer = np.zeros(len(repeated), dtype=bool)
        if best_refresh is not None:
            refresh_of = refreshes[files.number_of(responses.row[now])]
            newer = refresh_of > best_refresh[repeated]
        better = _is_better(responses.packed[before], responses.packed[now], newer)
        best[repeated[better]] = now[better]
        if best_refresh is not None:
            chosen = repeated[better]
            is_next = responses.step[now[better]] > responses.step[before[better]]
            before_refresh = np.where(is_next, best_refresh[chosen], 0.0)
            best_refresh[chosen] = np.maximum(refresh_of[better], before_refresh)
    return best


def _is_better(before: NDArray[np.int32], now: NDArray[np.int32], newer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each response of a later file replaces the earlier one: bool, shape (m,).

    Args:
        before: int32, shape (m,): the packed outcomes from earlier files.
        now: int32, shape (m,): the packed outcomes of the same requests in the later file.
        newer: bool, shape (m,): whether the later response belongs to a newer refresh.
    """
    has_succeeded = kind_of(now) == SUCCEEDED
    # The earliest ended file comes first, so a later success of the same refresh never replaces an earlier one,
    # unless it follows it.
    follows = step_of(now) > step_of(before)
    better: NDArray[np.bool_] = np.where(
        kind_of(before) == SUCCEEDED,
        has_succeeded & (newer | follows),
        has_succeeded | newer | (attempt_of(now) >= attempt_of(before)),
    )
    return better


def _retried(outcomes: Responses, files: ResponseFiles, untried: Untried) -> Responses:
    """Turn the canceled requests of some files into failures that may pass, so that they are retried."""
    most = np.array([untried.get(name, NO_ATTEMPT) for name in files.names], np.int32)[
        files.number_of(outcomes.row)
    ]
    attempts = np.minimum(outcomes.attempt, most)
    canceled = (outcomes.kind == CANCELED) & (most > NO_ATTEMPT)
    return outcomes._replace(packed=np.where(canceled, with_outcome(PASSING, attempts), outcomes.packed))
