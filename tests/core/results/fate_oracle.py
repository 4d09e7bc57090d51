"""The decisions of `fate` beside those of the code it is to replace, on combinations made up and on real roots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from batch_assets.core.batches import ask_again
from batch_assets.core.ledger import submissions
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.selection import StandingOfPipeline
from batch_assets.core.results.fate import RowFate, is_pending, result_types, row_fates
from batch_assets.core.results.join import Join, _position
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, DigestSet, pack
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import HeldRequests
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, MESSAGE, REASON, RequestIndex
from batch_assets.core.store.responses import (
    CANCELED,
    FAILED,
    PASSING,
    SUCCEEDED,
    ResponseFiles,
    ResponseReader,
    Standing,
    digest_array,
    load_standing,
)

OUTCOMES = (SUCCEEDED, FAILED, PASSING, CANCELED)
TYPES = {SUCCEEDED: "succeeded", FAILED: "errored", PASSING: "expired", CANCELED: "canceled"}
MAX_ATTEMPTS = 2


@dataclass(frozen=True)
class Case:
    """All that decides about a request, and about a row that wants it.

    Attributes:
        counts: (outcome, attempt) of the response that counts for the submission.
        in_force: the same of the response in force.
        is_same: whether both are one response.
    """

    rejected: bool
    counts: tuple[int, int] | None
    in_force: tuple[int, int] | None
    is_same: bool
    in_flight: bool
    left_out: bool


def all_cases() -> list[Case]:
    """Every combination that files can hold: what counts is in force, or an answer or a failure is besides it."""
    responses = [None, *itertools.product(OUTCOMES, (MAX_ATTEMPTS - 1, MAX_ATTEMPTS))]
    found = [Case(True, None, None, True, False, False)]
    for counts, in_force, is_same, in_flight, left_out in itertools.product(
        responses, responses, (True, False), (True, False), (True, False)
    ):
        if is_same != (counts == in_force) and (is_same or counts is None or in_force is None):
            continue
        if counts is not None and (in_force is None or (counts[0] == SUCCEEDED != in_force[0])):
            continue
        if left_out and in_force is None:
            continue  # the mark is looked up for requests with a response only
        found.append(Case(False, counts, in_force, is_same, in_flight, left_out))
    return found


class Held:
    """Request files that hold the digests given."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self.waited_on: list[str] = []

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        return np.isin(digests, self._digests)


class Made:
    """Cases as the stores and files that the old code reads."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        numbers = range(1, len(cases) + 1)
        self.digests = pack(number.to_bytes(DIGEST_BYTES, "big") for number in numbers)
        self.held = Held(self.digests[[case.in_flight for case in cases]])
        self.standing = self._standing([case.in_force for case in cases], 0)
        self.left = np.array([case.left_out for case in cases if case.in_force is not None], dtype=bool)
        counts = [case.counts for case in cases]
        apart = [0 if case.is_same else len(cases) for case in cases]
        self.fresh = self._standing(counts, np.array(apart))
        rows = [None if case.rejected else bytes(number.to_bytes(DIGEST_BYTES, "big")) for number, case in
                zip(numbers, cases, strict=True)]  # fmt: skip
        reasons = ["a reason" if case.rejected else None for case in cases]
        self.rows = pa.RecordBatch.from_arrays(
            [
                pa.array(rows, pa.binary(DIGEST_BYTES)),
                pa.array(reasons, pa.string()),
                pa.array(reasons, pa.string()),
                pa.array([case.left_out for case in cases], pa.bool_()),
            ],
            names=[DIGEST, REASON, MESSAGE, LEFT_OUT],
        )

    def _standing(self, responses: list[tuple[int, int] | None], apart: Any) -> Standing:
        has = np.array([response is not None for response in responses])
        state = np.array([(r[0] << 16) | r[1] for r in responses if r is not None], np.int32)
        place = (np.arange(len(responses)) + apart)[has].astype(np.int32)
        files: Any = SimpleNamespace(names=[], starts=np.array([0, 2 * len(responses)]))
        return Standing(files, self.digests[has], place, state)

    def slices(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        yield self.rows.select(columns) if columns is not None else self.rows

    def types(self, place: NDArray[np.int64]) -> pa.Array:
        """result_type of the responses in force."""
        by_case = [TYPES[case.in_force[0]] if case.in_force is not None else None for case in self.cases]
        return pa.array([by_case[at] if at >= 0 else None for at in place.tolist()], pa.string())


def old_slices(made: Made, submission: Any) -> tuple[list[Any], ResultsReport]:
    """The rows of made up cases, decided by the join."""
    report = ResultsReport("any", "any")
    index = SimpleNamespace(slices=made.slices, is_limited=True)
    join: Any = SimpleNamespace(
        _standing=made.standing, _fresh=made.fresh, _index=index, _submission=submission, _report=report,
        _held=made.held,
    )  # fmt: skip
    for name in ("_left_out", "_fresh_at", "_on_their_way"):
        setattr(join, name, partial(getattr(Join, name), join))
    firsts = np.arange(len(made.standing.digests), dtype=np.int32)
    return list(Join._slices(join, firsts)), report


def check_join(
    slices: list[Any], standing: Standing, fresh: Standing, held: Any, left: NDArray[np.bool_],
    submission: Any, kept: int, types: Any,
) -> set[tuple[RowFate, bool]]:  # fmt: skip
    """Holds what the join has decided against `fate`; returns the fates that there are."""
    seen: set[tuple[RowFate, bool]] = set()
    kept_now = 0
    for slice_ in slices:
        digests = slice_.rows.column(DIGEST)
        rejected = slice_.rows.column(REASON).is_valid().to_numpy(zero_copy_only=False)
        position = _position(standing, digests)
        place, how, _ = standing.at(position)
        counting, outcome, attempt = fresh.at(_position(fresh, digests))
        in_flight = np.zeros(len(rejected), dtype=bool)
        valid = digests.is_valid().to_numpy(zero_copy_only=False)
        in_flight[valid] = held.contains(digest_array(digests.drop_null()))
        left_out = (position >= 0) & (left[position] if len(left) else False)
        requests = request_fates(
            counting >= 0, outcome, attempt,
            max_attempts=submission.max_attempts, in_flight=in_flight, left_out=left_out,
        )  # fmt: skip
        fates = row_fates(rejected, requests, place >= 0, how == SUCCEEDED, is_canceled=submission.is_canceled)
        pending = is_pending(fates)
        np.testing.assert_array_equal(pending, slice_.waiting & ~rejected)
        np.testing.assert_array_equal(fates == RowFate.RETRY, slice_.again)
        np.testing.assert_array_equal(pending & (place != counting), slice_.hidden)
        of_responses = types(place)
        unsent = (place < 0) & ~slice_.waiting
        was = np.where(unsent, "canceled", np.array(of_responses.to_pylist(), dtype=object))
        was = np.where(rejected, "rejected", np.where(slice_.waiting, "pending", was))
        assert result_types(fates, of_responses).to_pylist() == was.tolist()
        np.testing.assert_array_equal(fates == RowFate.UNSENT, unsent & ~rejected)
        kept_now += int((fates == RowFate.KEPT).sum())
        seen |= {(RowFate(fate), submission.is_canceled) for fate in np.unique(fates)}
    assert kept_now == kept
    return seen


def check_selection(
    standing: Standing, held: Any, digests: Digests, max_attempts: int, again: AskAgain
) -> set[RequestFate]:
    """Holds what a new submission asks for against `fate`."""
    digests = np.unique(digests)
    report = RequestsReport("any")
    selection: Any = SimpleNamespace(
        _desired=DigestSet(), _held=held, _standing=standing, _max_attempts=max_attempts, _again=again
    )
    chosen, attempts, left_out = StandingOfPipeline.choose(selection, digests, report)
    place, outcome, attempt = standing.of(digests)
    fates = request_fates(
        place >= 0, outcome, attempt, max_attempts=max_attempts, in_flight=held.contains(digests)
    )
    unsettled = np.isin(fates, (RequestFate.UNASKED, RequestFate.RETRY, RequestFate.CANCELED))
    wanted = np.flatnonzero(unsettled | ((fates == RequestFate.GIVEN_UP) & again.retry_failed))
    room = len(wanted) if again.limit is None else again.limit
    assert chosen.tolist() == wanted[:room].tolist()
    assert left_out.tolist() == [at for at in wanted[room:].tolist() if unsettled[at]]
    assert attempts.tolist() == np.where(place < 0, 1, attempt + 1)[chosen].tolist()
    return {RequestFate(fate) for fate in np.unique(fates)}


def check_retries(
    root: Any, submission: Any, standing: Standing, held: Any, rows: list[pa.RecordBatch], limited: bool
) -> int:  # fmt: skip
    """Holds what is retried automatically against `fate`; returns how many requests are."""

    def lines_at(_root: Any, _submission: Any, _files: Any, place: Any, attempt: Any) -> Iterator[Any]:
        yield from zip(place.tolist(), attempt.tolist(), strict=True)

    def select(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield batch.select(columns)

    index = SimpleNamespace(slices=select, is_limited=limited)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ask_again, "standing_for", lambda *_: standing)
        patched.setattr(ask_again, "RequestIndex", lambda *_: index)
        patched.setattr(ask_again, "_lines_at", lines_at)
        old = list(ask_again._failed_lines(root, submission, held))
    expected: dict[int, int] = {}
    for batch in rows:
        digests = digest_array(batch.column(DIGEST).drop_null())
        marked = digest_array(batch.column(DIGEST).filter(batch.column(LEFT_OUT))) if limited else digests[:0]
        place, outcome, attempt = standing.of(digests)
        fates = request_fates(
            place >= 0, outcome, attempt, max_attempts=submission.max_attempts,
            in_flight=held.contains(digests), left_out=np.isin(digests, marked),
        )  # fmt: skip
        retried = fates == RequestFate.RETRY
        expected |= dict(zip(place[retried].tolist(), attempt[retried].tolist(), strict=True))
    assert dict(old) == expected
    return len(old)


def check_root(root: Root, pipeline: str, partition: str, max_attempts: int) -> set[tuple[RowFate, bool]]:
    """Holds every decision about a partition of a real root against `fate`; returns the fates of its rows."""
    with root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline, partition)
        if submission is None:
            return set()
        holding, refreshes = submissions.holding(tx, pipeline), refreshes_of(tx, pipeline)
        untried = untried_of(tx, submission)
    report = ResultsReport("any", "any")
    join = Join(root, submission, report, holding, refreshes, untried, None)
    reader = ResponseReader(join._standing.files)
    try:
        firsts, _, _ = join._survey(reader)
        slices = list(join._slices(firsts))
        left = join._left_out()
        kept = report.kept
        seen = check_join(
            slices, join._standing, join._fresh, HeldRequests(root, holding), left, submission, kept,
            lambda place: reader.take(place)["result_type"],
        )  # fmt: skip
    finally:
        reader.close()
    index = RequestIndex(root.storage, pipeline, partition, submission.id)
    rows = list(index.slices())
    held = HeldRequests(root, holding)
    check_retries(root, submission, join._fresh, held, rows, index.is_limited)
    responses = ResponseFiles(root.storage, pipeline)
    standing = load_standing(responses, refreshes, submission.fresh_after)
    wanted = [digest_array(batch.column(DIGEST).drop_null()) for batch in rows]
    digests = np.concatenate([np.empty(0, f"S{DIGEST_BYTES}"), standing.digests, *wanted])
    for retry_failed, limit in itertools.product((False, True), (None, 1)):
        again = AskAgain(retry_failed=retry_failed, limit=limit)
        check_selection(standing, HeldRequests(root, holding), digests, max_attempts, again)
    return seen
