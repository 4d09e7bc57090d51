"""Join the request index with the responses in force: the results table in slices, in the dataset's order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.ok_rows import answered, ok_rows
from batch_assets.core.answers.result_columns import COUNTED_ONCE, fields_after, given_way
from batch_assets.core.errors import ErrorType, ResultsError
from batch_assets.core.io.dictionaries import with_used_values
from batch_assets.core.io.slices import bounds_by_weight
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.results.chain_sums import ChainSums
from batch_assets.core.results.fate import RowFate, is_pending, result_types, row_fates
from batch_assets.core.results.follow_ups import FollowUps
from batch_assets.core.results.join_slice import Slice
from batch_assets.core.results.lost_rows import MESSAGE as LOST
from batch_assets.core.results.lost_rows import LostRows, open_index
from batch_assets.core.results.reorder import Reordered
from batch_assets.core.results.survey import Counted, survey
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.fate import request_fates
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.outcomes import Refreshes, Untried
from batch_assets.core.store.packed_responses import SUCCEEDED
from batch_assets.core.store.request_index import DIGEST, MESSAGE, OWN, REASON
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.store.responses import digest_array
from batch_assets.core.store.result_table import results_metadata

_LIVE_COST = "live_cost_usd"


@dataclass(frozen=True)
class JoinedRows:
    """A slice of the results table.

    Attributes:
        table: The rows.
        fates: A `RowFate` for each row; int8, shape (n,).
        is_first: Whether no earlier row has the same request; bool, shape (n,).
        invalid_outputs: The number of rows whose answer does not match the output schema.
        unusable: The number of rows with an answer that cannot be used, see `ok_rows`.
        unanswered_calls: The number of rows whose answer still calls tools, because its chain may not go on.
        live_cost_usd: What each row would have cost as a live call; float64, length n.
    """

    table: pa.Table
    fates: NDArray[np.int8]
    is_first: NDArray[np.bool_]
    invalid_outputs: int
    live_cost_usd: pa.ChunkedArray
    unusable: int
    unanswered_calls: int = 0


class ResultsJoin:
    """The results table of a submission.

    Args:
        root: The root that has the index and the responses.
        submission: The submission whose rows are joined.
        files_in_flight: The pipeline's request files in flight.
        refreshes: See `refreshes_of`.
        untried: See `untried_of`.
        answers: How the pipeline's own code makes columns of answers; `None` to follow the manifest.

    Attributes:
        schema: The schema of the table.
        classes: See `Answers`.
        versions: The `versions_digest` of the pipeline's response files; `None` if one of them is unknown.

    Raises:
        ResultsError: When two columns have the same name.
    """

    def __init__(
        self,
        root: Root,
        submission: Submission,
        files_in_flight: list[RequestFile],
        refreshes: Refreshes,
        untried: Untried,
        answers: Answers | None,
    ) -> None:
        self._root, self._submission, self._files_in_flight = root, submission, files_in_flight
        self._requests_in_flight: RequestsInFlight | None = None
        self._lost_rows = LostRows(root, files_in_flight)
        location = (submission.pipeline, submission.partition, submission.id)
        self._index, self._manifest = root.storage.both(
            partial(open_index, root, *location), partial(Manifest.read, root.storage, *location)
        )
        self._answers = answers or self._manifest.answers
        self._carried = [field.name for field in self._index.schema if field.name not in OWN]
        self.schema = self._schema()
        self._has_own_ok = "is_ok" in given_way([*self._carried, *(field.name for field in self._answers.fields)])
        counted = Counted(refreshes, untried, submission.fresh_after)
        self._survey = survey(root, submission.pipeline, self._index, self._manifest.key, counted)
        self.classes = self._answers.classes
        self.versions = self._survey.versions
        self._sums: ChainSums | None = None
        if (chains := self._survey.chains) is not None:
            self._sums = ChainSums(self._survey.files, chains, self._discount)
        self._follow_ups: FollowUps | None = None
        if (rules := submission.follow_up_rules) is not None:
            files, max_output = self._survey.files, root.settings.prices.max_output
            self._follow_ups = FollowUps(submission, rules, files, chains, max_output, self._are_in_flight)

    def _schema(self) -> pa.Schema:
        # Columns that a pipeline's own code makes may differ from those that its requests were built with.
        typed = {field.name for field in self._answers.fields}
        if twice := [name for name in self._carried if name in typed]:
            raise ResultsError(
                f"parse_message makes the column {twice[0]!r}, which was also carried from the dataset when the "
                "requests were built: rename one of the two, and build the requests again",
                remedy=RunStage(Stage.REQUESTS, self._submission.pipeline, self._submission.partition),
            )
        carried = [self._index.schema.field(name) for name in self._carried]
        columns = [*carried, *fields_after(self._carried, self._answers.fields)]
        return pa.schema(columns, results_metadata(self._manifest))

    @property
    def waits(self) -> list[str]:
        """Ids of the request files in flight, of any submission, that contain requests which failed before."""
        waited_on = self._requests_in_flight.waited_on if self._requests_in_flight is not None else []
        return list(dict.fromkeys([*waited_on, *self._lost_rows.waited_on]))

    @property
    def problems(self) -> list[str]:
        """Why rows are pending that may not have to be."""
        return self._requests_in_flight.lost() if self._requests_in_flight is not None else []

    def slices(self) -> Iterator[JoinedRows]:
        """Yield the table in the dataset's order. Memory use depends neither on its size nor on its values."""
        with ResponseReader(self._survey.files) as reader, ExitStack() as spill:
            source: ResponseReader | Reordered = reader
            if self._survey.is_scattered(reader):
                rows = (matches["response"] for matches in self._survey.matches.ranges())
                source = spill.enter_context(Reordered(reader, rows))
            for slice_ in self._decided():
                # The carried columns are in memory, the responses are not yet.
                for start, end in bounds_by_weight(reader.sizes(slice_.response_row)):
                    part = slice_.part(start, end)
                    responses = source.take(part.response_row)
                    joined = self._joined(part, responses)
                    if self._follow_ups is not None:
                        waiting = self._follow_ups.waiting(part, responses, joined.table)
                        if waiting is not part:  # their answers are not the last ones, so the table hides them
                            joined = self._joined(waiting, responses)
                    yield joined

    def _decided(self) -> Iterator[Slice]:
        """Yield the index in slices, with the fate of each row."""
        start, matches = 0, self._survey.matches.slices()
        for rows in map(with_used_values, self._index.slices()):
            matched = matches.take(len(rows))
            response_row = matched["response"].astype(np.int64)
            fates = row_fates(
                rows.column(REASON).is_valid().to_numpy(zero_copy_only=False),
                self._requests(rows.column(DIGEST), matched),
                response_row >= 0,
                matched["kind"] == SUCCEEDED,
                is_canceled=self._submission.is_canceled,
            )
            first = matched["first"]
            is_first = (first < 0) | (first == np.arange(start, start + len(rows)))
            pending = is_pending(fates)
            hidden = pending & (response_row != matched["counting"])
            lost = self._lost_rows.among(rows.column(DIGEST), pending & (matched["counting"] < 0))
            yield Slice(rows, response_row, fates, hidden, lost, first, is_first)
            start += len(rows)

    def _requests(self, digests: pa.Array, matched: NDArray[Any]) -> NDArray[np.int8]:
        """Decide what becomes of each row's request, by the response that counts for the submission.

        Args:
            digests: The digest of each row's request, null for rejected rows; length n.
            matched: What was found for the rows: MATCH, shape (n,).

        Returns:
            A `RequestFate` for each row; int8, shape (n,).
        """
        has_response = matched["counting"] >= 0
        outcome = matched["counting_kind"].astype(np.int32)
        return request_fates(
            has_response,
            outcome,
            matched["counting_attempt"].astype(np.int32),
            max_attempts=self._submission.attempts_allowed,
            in_flight=self._in_flight(digests, has_response, outcome),
            left_out=matched["left_out"],
        )

    def _in_flight(
        self, digests: pa.Array, has_response: NDArray[np.bool_], outcome: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Return which requests without an answer are in a file that will bring one; bool, shape (n,).

        The request files are read only for requests that failed or were canceled. Any other row waits for its
        answer, whichever file its request is in.
        """
        unanswered: NDArray[np.bool_] = has_response & (outcome != SUCCEEDED)
        if self._submission.is_canceled:
            unanswered |= ~has_response & digests.is_valid().to_numpy(zero_copy_only=False)
        if unanswered.any():
            unanswered[unanswered] = self._are_in_flight(digest_array(digests.filter(pa.array(unanswered))))
        return unanswered

    def _are_in_flight(self, digests: Digests) -> NDArray[np.bool_]:
        """Return which requests are in a request file in flight; bool, shape (n,)."""
        self._requests_in_flight = self._requests_in_flight or RequestsInFlight(
            self._root, self._files_in_flight, may_be_unknown=True, rows=self._index.rows
        )
        return self._requests_in_flight.contains(digests)

    @property
    def _discount(self) -> float:
        return float(self._root.settings.prices.table.batch_multiplier)

    def _joined(self, slice_: Slice, responses: pa.Table) -> JoinedRows:
        """Make the table's rows from a slice and the responses of its rows."""
        columns: dict[str, Any] = {name: responses[name] for name in responses.column_names}
        if self._sums is not None:
            self._sums.add_to(columns, slice_.response_row)
        if slice_.hidden.any():
            hidden = pa.array(slice_.hidden)
            columns = {
                name: pc.if_else(hidden, pa.scalar(None, column.type), column) for name, column in columns.items()
            }
        columns["result_type"] = result_types(slice_.fates, columns["result_type"])
        is_first = pa.array(slice_.is_first)
        for name in (*COUNTED_ONCE, _LIVE_COST) if not slice_.is_first.all() else ():
            columns[name] = pc.if_else(is_first, columns[name], pa.scalar(None, columns[name].type))
        # Taken out before the pipeline's own columns come in, one of which may have this name.
        live = columns.pop(_LIVE_COST)
        columns["shared_with"] = self._survey.shared.first_keys(slice_.first, slice_.is_first)
        rejected = pa.array(slice_.fates == RowFate.REJECTED.value)
        columns["error_type"] = pc.if_else(rejected, slice_.rows.column(REASON), columns["error_type"])
        unsent = pa.array(slice_.fates == RowFate.UNSENT.value)
        message = pc.if_else(unsent, "it was canceled before it was sent", columns["error_message"])
        columns["error_message"] = pc.if_else(rejected, slice_.rows.column(MESSAGE), message)
        if slice_.lost.any():
            lost = pa.array(slice_.lost)
            columns["error_type"] = pc.if_else(lost, ErrorType.ANSWER_LOST, columns["error_type"])
            columns["error_message"] = pc.if_else(lost, LOST, columns["error_message"])
        cost = columns["cost_usd"]
        for name in self._carried:
            columns[name] = slice_.rows.column(name)
        invalid_outputs = self._answers.add(columns)
        calls = self._follow_ups.unanswered_calls(columns) if self._follow_ups is not None else None
        is_ok = ok_rows(columns)
        if calls is not None:
            is_ok = pc.and_(is_ok, pa.array(~calls))
        if not self._has_own_ok:
            columns["is_ok"] = is_ok
        unusable = pc.sum(pc.and_not(answered(columns["result_type"]), is_ok)).as_py() or 0
        table = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        # Response files of earlier versions have only the cost in a batch, without fees.
        live = pc.coalesce(live, pc.divide(cost, self._discount))
        unanswered = int(calls.sum()) if calls is not None else 0
        return JoinedRows(table, slice_.fates, slice_.is_first, invalid_outputs, live, unusable, unanswered)
