"""Rows whose answer is followed by another request: they wait for the end of the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.ledger.records import Submission
from batch_assets.core.results.fate import RowFate
from batch_assets.core.results.join_slice import Slice
from batch_assets.core.store.chains import Chains
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.request_index import DIGEST
from batch_assets.core.store.responses import ResponseFiles, digest_array

_COLUMNS = ("stop_reason", "output_tokens", "response_model", "response_json")


class FollowUps:
    """Finds the answered rows of a submission whose answer is not the last of its chain.

    Args:
        submission: The submission.
        rules: Which answers are followed by another request.
        files: The response files that have the answers.
        chains: The chains so far; `None` if there are none.
        max_output: Returns the most tokens of an answer of a model; `None` if that is not known.
        in_flight: Returns of digests, S16, shape (n,), whether each is in a request file in flight.
    """

    def __init__(
        self,
        submission: Submission,
        rules: FollowUpRules,
        files: ResponseFiles,
        chains: Chains | None,
        max_output: Callable[[str], int | None],
        in_flight: Callable[[Digests], NDArray[np.bool_]],
    ) -> None:
        self._submission, self._rules, self._files, self._chains = submission, rules, files, chains
        self._max_output, self._in_flight = max_output, in_flight

    def waiting(self, slice_: Slice, responses: pa.Table, table: pa.Table) -> Slice:
        """Return a slice whose rows wait if their answer is followed by another request.

        Args:
            slice_: Some rows.
            responses: Their responses.
            table: Their rows of the table, as if no answer was followed by another request.

        Returns:
            The same object if no row waits.
        """
        columns = {name: responses[name] for name in _COLUMNS}
        columns["error_type"] = table["error_type"]
        counts, imported = counts_in(responses["custom_id"]), self._files.is_never_followed(slice_.response_row)
        kinds = self._rules.kinds(columns, counts, self._max_output, imported)
        due = (kinds >= 0) & (slice_.fates == RowFate.ANSWERED.value)
        if not due.any():
            return slice_
        waits = due.copy()
        waits[due] = self._in_flight(digest_array(slice_.rows.column(DIGEST).filter(pa.array(due))))
        fates = np.where(waits, np.int8(RowFate.IN_FLIGHT), slice_.fates)
        if not self._submission.is_canceled:
            is_sent = due & ~waits & ~self._is_over(slice_.response_row)
            fates = np.where(is_sent, np.int8(RowFate.FOLLOW_UP), fates)
            waits |= is_sent
        return replace(slice_, fates=fates, hidden=slice_.hidden | waits) if waits.any() else slice_

    def unanswered_calls(self, columns: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Return which rows have an answer that calls tools with a function: bool, shape (n,).

        Args:
            columns: `stop_reason` and `response_json` of n rows, by name.
        """
        return self._rules.calls_tools(columns["stop_reason"], columns["response_json"])

    def _is_over(self, response_row: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which follow-ups failed and are not sent again: bool, shape (n,)."""
        if self._chains is None:
            return np.zeros(len(response_row), bool)
        return self._chains.is_over(self._chains.find(response_row), self._submission.max_attempts)
