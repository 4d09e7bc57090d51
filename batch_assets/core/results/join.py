"""Request index + responses in force -> the rows of the results table, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answers import REFUSED, TRUNCATED, Answers
from batch_assets.core.answers.result_columns import AFTER_OUTPUT, BEFORE_OUTPUT, COUNTED_ONCE
from batch_assets.core.errors import ResultsError
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.results.reorder import Reordered
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.outcomes import PASSING, SUCCEEDED, Outcomes, Refreshes, Untried, load_outcomes
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, MESSAGE, OWN, REASON, RequestIndex
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.store.responses import ResponseFiles, digest_array
from batch_assets.core.store.result_table import results_metadata

# A dataset in another order than the request files: more loads of row groups than this many times their
# number, and the responses are first laid out in the dataset's order on disk.
_LOADS = 3


class Join:
    """Index rows and responses, slice by slice."""

    def __init__(
        self,
        root: Root,
        submission: Submission,
        report: ResultsReport,
        holding: list[RequestFile],
        refreshes: Refreshes,
        untried: Untried,
        answers: Answers | None,
    ) -> None:
        self._root, self._submission, self._report = root, submission, report
        self._holding = holding
        self._held: RequestsInFlight | None = None
        place = (submission.pipeline, submission.partition, submission.id)
        self._index = RequestIndex(root.storage, *place)
        self._manifest = Manifest.read(root.storage, *place)
        self._answers = answers or self._manifest.answers
        self._carried = [f for f in self._index.schema if f.name not in OWN]
        self._check_names()
        columns = [*self._carried, *BEFORE_OUTPUT, *self._answers.fields, *AFTER_OUTPUT]
        self.schema = pa.schema(columns, results_metadata(self._manifest))
        files = ResponseFiles(root.storage, submission.pipeline)
        self._standing: Outcomes = load_outcomes(files, refreshes, untried=untried)
        # Of a refresh what counts for it; the table takes what is in force. Both of the same files: what comes in
        # between would be there for one alone.
        self._fresh = self._standing
        if submission.fresh_after is not None:
            self._fresh = load_outcomes(files, refreshes, submission.fresh_after, untried)

    def _check_names(self) -> None:
        """Columns that a pipeline's own code makes may be others than those that its requests were built with."""
        typed = {field.name for field in self._answers.fields}
        if taken := [field.name for field in self._carried if field.name in typed]:
            place = self._submission.pipeline
            raise ResultsError(
                f"the column {taken[0]!r} that parse_message makes was carried from the dataset when the requests "
                f"were built: name one of the two otherwise, and materialize {place}/requests again"
            )

    def _in_flight_of(self, digests: Digests) -> NDArray[np.bool_]:
        """Which digests are in flight. The request files are read at the first call."""
        if self._held is None:
            self._held = RequestsInFlight(self._root, self._holding, may_be_gone=True)
            self._report.problems += self._held.problems
        return self._held.contains(digests)

    @property
    def waits(self) -> list[str]:
        """Request files that hold requests which failed before, whoever asks them again."""
        return self._held.waited_on if self._held is not None else []

    def tables(self) -> Iterator[pa.Table]:
        """The table, slice by slice, in the dataset's order."""
        with ResponseReader(self._standing.files) as reader, ExitStack() as spill:
            firsts, shared, is_scattered = self._survey(reader)
            source: ResponseReader | Reordered = reader
            if is_scattered:
                source = spill.enter_context(Reordered(reader, self._places()))
            for slice_ in self._slices(firsts):
                yield self._table(slice_, source.take(slice_.place), shared)

    def _positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(number of the first row, positions in the standing) slice by slice; -1 for rows without response."""
        start = 0
        for rows in self._index.slices([DIGEST]):
            yield start, _position(self._standing, rows.column(0))
            start += len(rows)

    def _survey(self, reader: ResponseReader) -> tuple[NDArray[np.int32], _SharedKeys, bool]:
        """For each response the first row that has it; the row keys of those that others share; whether reading in
        the dataset's order would load row groups over and over.
        """
        firsts = np.full(len(self._standing.digests), -1, dtype=np.int32)
        sharing: list[NDArray[np.int32]] = []
        loads, groups = 0, set[int]()
        for start, position in self._positions():
            found = np.flatnonzero(position >= 0)
            distinct, first = np.unique(position[found], return_index=True)
            unseen = firsts[distinct] < 0
            firsts[distinct[unseen]] = start + found[first[unseen]]
            owner = firsts[position[found]]
            sharing.append(np.unique(owner[owner != start + found]))
            touched = np.unique(reader.groups_of(self._standing.at(distinct)[0])).tolist()
            loads += len(touched)
            groups.update(touched)
        return firsts, self._keys_of(sharing), loads > _LOADS * len(groups)

    def _keys_of(self, sharing: list[NDArray[np.int32]]) -> _SharedKeys:
        wanted = np.unique(np.concatenate(sharing)) if sharing else np.empty(0, dtype=np.int32)
        keys: list[pa.Array] = []
        start = 0
        for rows in self._index.slices([self._manifest.key]) if len(wanted) else ():
            inside = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
            keys.append(rows.column(0).take(pa.array(inside)).cast(pa.string()))
            start += len(rows)
        return _SharedKeys(wanted, pa.concat_arrays(keys) if keys else pa.array([], pa.string()))

    def _places(self) -> NDArray[np.int32]:
        places = np.full(self._index.rows, -1, dtype=np.int32)
        for start, position in self._positions():
            places[start : start + len(position)] = self._standing.at(position)[0]
        return places

    def _left_out(self) -> NDArray[np.bool_]:
        """For each position in the standing whether a limit left the request out."""
        left_out = np.zeros(len(self._standing.digests), dtype=bool)
        for rows in self._index.slices([DIGEST, LEFT_OUT]) if self._index.is_limited else ():
            position = _position(self._standing, rows.column(0))
            marked = rows.column(1).to_numpy(zero_copy_only=False)
            left_out[position[marked & (position >= 0)]] = True
        return left_out

    def _slices(self, firsts: NDArray[np.int32]) -> Iterator[_Slice]:
        start, left_out = 0, self._left_out()
        for rows in self._index.slices():
            position = _position(self._standing, rows.column(DIGEST))
            place, how, _ = self._standing.at(position)
            fresh, fresh_how, attempt = self._fresh_at(rows.column(DIGEST), position)
            first = np.where(position >= 0, firsts[position], -1) if len(firsts) else position
            left = (position >= 0) & left_out[position] if len(left_out) else position >= 0
            held = self._on_their_way(rows.column(DIGEST), fresh, fresh_how)
            again = (fresh >= 0) & (fresh_how == PASSING) & (attempt < self._submission.attempts_allowed)
            again &= ~held & ~left
            is_answered = (fresh >= 0) & (fresh_how == SUCCEEDED)
            # What was never asked is asked by somebody, unless it was canceled.
            unasked = ((fresh < 0) | (left & ~is_answered)) & (not self._submission.is_canceled)
            waiting = held | again | unasked
            hidden = waiting & (place != fresh)
            self._report.kept += int((~waiting & ~is_answered & (place >= 0) & (how == SUCCEEDED)).sum())
            yield _Slice(rows, place, waiting, again, hidden, first, start)
            start += len(rows)

    def _fresh_at(
        self, digests: pa.Array, position: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """(place, how it stands, attempt) as far as it counts for the submission."""
        return self._fresh.at(position if self._fresh is self._standing else _position(self._fresh, digests))

    def _on_their_way(
        self, digests: pa.Array, place: NDArray[np.int64], how: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Which rows without success have their request in a file that will bring an answer.

        The request files are read for this only where something failed or was canceled.
        """
        unanswered: NDArray[np.bool_] = (place >= 0) & (how != SUCCEEDED)
        if self._submission.is_canceled:
            unanswered |= (place < 0) & digests.is_valid().to_numpy(zero_copy_only=False)
        if unanswered.any():
            unanswered[unanswered] = self._in_flight_of(digest_array(digests.filter(pa.array(unanswered))))
        return unanswered

    def _table(self, slice_: _Slice, responses: pa.Table, shared: _SharedKeys) -> pa.Table:
        rejected = slice_.rows.column(REASON).is_valid()
        waiting = pa.array(slice_.waiting)
        unsent = pa.array((slice_.place < 0) & ~slice_.waiting)
        kind = pc.if_else(unsent, "canceled", responses["result_type"])
        kind = pc.if_else(waiting, "pending", kind)
        kind = pc.if_else(rejected, "rejected", kind)
        is_first = pa.array(slice_.is_first)
        columns: dict[str, Any] = {name: responses[name] for name in responses.column_names}
        if slice_.hidden.any():
            hidden = pa.array(slice_.hidden)
            columns = {
                name: pc.if_else(hidden, pa.scalar(None, column.type), column) for name, column in columns.items()
            }
        columns["result_type"] = kind
        for name in COUNTED_ONCE:
            columns[name] = pc.if_else(is_first, columns[name], pa.scalar(None, columns[name].type))
        columns["shared_with"] = shared.of(slice_)
        columns["error_type"] = pc.if_else(rejected, slice_.rows.column(REASON), columns["error_type"])
        message = pc.if_else(unsent, "it was canceled before it was sent", columns["error_message"])
        columns["error_message"] = pc.if_else(rejected, slice_.rows.column(MESSAGE), message)
        for carried in self._carried:
            columns[carried.name] = slice_.rows.column(carried.name)
        self._report.invalid_outputs += self._answers.add(columns)
        table = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        self._count(table, slice_)
        return table

    def _count(self, table: pa.Table, slice_: _Slice) -> None:
        report = self._report
        report.rows += len(table)
        for entry in table["result_type"].value_counts().to_pylist():
            report.counts[entry["values"]] += entry["counts"]
        answered = table["stop_reason"].filter(pc.equal(table["result_type"], "succeeded"))
        for entry in answered.value_counts().to_pylist():
            report.refused += entry["counts"] * (entry["values"] == REFUSED)
            report.truncated += entry["counts"] * (entry["values"] in TRUNCATED)
        report.input_tokens += pc.sum(table["input_tokens"]).as_py() or 0
        report.output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
        report.tally.add(table, pa.array(slice_.is_first))
        report.ask_again += int((slice_.again & slice_.is_first).sum())


def _position(standing: Outcomes, digests: pa.Array) -> NDArray[np.int64]:
    """For each digest its position in a standing; -1 for null and for one without response."""
    if digests.null_count == 0:
        return standing.position(digest_array(digests))
    position = np.full(len(digests), -1, dtype=np.int64)
    valid = digests.is_valid().to_numpy(zero_copy_only=False)
    position[valid] = standing.position(digest_array(digests.drop_null()))
    return position


@dataclass(frozen=True)
class _Slice:
    """Some rows of the index with what was found for them.

    Attributes:
        place: of the response in force; -1 for none.
        waiting: rows whose answer is to come.
        again: of these, the ones whose request failed for a passing reason and that no request file holds yet.
        hidden: of these, the ones of a refresh whose response in force is not of it.
        first: number of the first row that has the response; -1 for none.
        start: number of the slice's first row.
    """

    rows: pa.RecordBatch
    place: NDArray[np.int64]
    waiting: NDArray[np.bool_]
    again: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    first: NDArray[np.int64]
    start: int

    @property
    def is_first(self) -> NDArray[np.bool_]:
        numbers = self.start + np.arange(len(self.first), dtype=np.int64)
        mask: NDArray[np.bool_] = (self.first < 0) | (self.first == numbers)
        return mask


@dataclass(frozen=True)
class _SharedKeys:
    """Row keys of first rows, by row number."""

    numbers: NDArray[np.int32]
    keys: pa.Array

    def of(self, slice_: _Slice) -> pa.Array:
        """For each row the key of the first row that shares its request, null for that one itself."""
        if len(self.numbers) == 0:
            return pa.nulls(len(slice_.first), pa.string())
        position = np.searchsorted(self.numbers, slice_.first)
        return self.keys.take(pa.array(position, mask=slice_.is_first))
