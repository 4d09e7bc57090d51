"""Write follow-ups: the next requests of chains whose last answer pauses, was cut off, or does not match."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.follow_up_rules import FollowUpKind, FollowUpRules
from batch_assets.core.answers.tool_calls import WAITS_FOR_TOOLS
from batch_assets.core.batches.follow_up_params import follow_up_params
from batch_assets.core.batches.stored_lines import LostTexts, StoredLines, file_of
from batch_assets.core.batches.tool_results import ToolResults
from batch_assets.core.io.json_text import load_line
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests, digester
from batch_assets.core.store.follow_up_ids import counts_in, follow_up_id
from batch_assets.core.store.outcomes import Outcomes
from batch_assets.core.store.request_lines import custom_id_of, make_lines, params_of
from batch_assets.core.text import count


@dataclass(frozen=True)
class Answered:
    """n requests with an answer in force, in the order of their responses.

    Attributes:
        response_rows: The row numbers of the answers: int64, shape (n,), sorted.
        attempts: How often each request was sent, and the follow-ups of its chain: int32, shape (n,).
        digests: S16, shape (n,).
    """

    response_rows: NDArray[np.int64]
    attempts: NDArray[np.int32]
    digests: Digests

    @classmethod
    def of(
        cls, outcomes: Outcomes, rows: NDArray[np.int64], attempts: NDArray[np.int32], digests: Digests, most: int
    ) -> Answered:
        """Return those whose next follow-up did not fail for good.

        Args:
            outcomes: The outcomes of the requests.
            rows: The row numbers of their answers: int64, shape (m,).
            attempts: The attempts of these answers: int32, shape (m,).
            digests: S16, shape (m,).
            most: The most attempts for a request.
        """
        order = np.argsort(rows)
        rows, attempts, digests = rows[order], attempts[order], digests[order]
        if (chains := outcomes.chains) is None:
            return cls(rows, attempts, digests)
        at = chains.find(rows)
        goes_on = ~chains.is_over(at, most)
        return cls(rows[goes_on], chains.attempts_at(at, attempts)[goes_on], digests[goes_on])


class FollowUpLines:
    """Makes the lines of the follow-ups of a submission.

    Args:
        root: The root.
        submission: The submission.
        rules: Which answers are followed by another request.
        answers: How its answers are read.
        tools: Gives the results of tools that answers call.
        in_flight: Returns of digests, S16, shape (n,), whether each is in a request file in flight.
        lost: Where to note requests whose line is lost.
        wanted: Gets the digests of the requests that are followed.
    """

    def __init__(
        self,
        root: Root,
        submission: Submission,
        rules: FollowUpRules,
        answers: Answers,
        tools: ToolResults,
        in_flight: Callable[[Digests], NDArray[np.bool_]],
        lost: LostTexts,
        wanted: DigestSet,
    ) -> None:
        self._root, self._submission, self._rules, self._answers = root, submission, rules, answers
        self._tools = tools
        self._in_flight, self._lost, self._wanted = in_flight, lost, wanted
        self._max_output = root.settings.prices.max_output

    def of(self, outcomes: Outcomes, answered: Answered) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
        """Yield (attempt, headers, line) of every follow-up. The headers are `None` if they are the submission's.

        Args:
            outcomes: The outcomes that the answers are from.
            answered: The answered requests.
        """
        for number, selected, rows in outcomes.files.by_file(answered.response_rows):
            due = list(self._due(outcomes, number, rows, answered.digests[selected]))
            if not due:
                continue
            file, headers = file_of(self._root, self._submission, outcomes.files.names[number])
            if file is None:
                self._lost.add(
                    len(due), f"{count(len(due), 'answer')} of {outcomes.files.names[number]} {_NO_REQUEST}"
                )
                continue
            primed = digester(json.loads(self._submission.headers) if headers is None else headers)
            lines, missed, exhausted = StoredLines(self._root, file), 0, 0
            attempts, digests = answered.attempts[selected].tolist(), answered.digests[selected]
            for one in due:
                line = lines.at(int(rows[one.number]), digests[one.number], primed)
                if line is None:
                    missed += 1
                elif (results := self._tool_results(line, one)) is None:
                    continue
                elif (follow_up := self._line(line, one, primed, results)) is None:
                    exhausted += 1
                else:
                    yield attempts[one.number] + 1, headers, follow_up
            if missed:
                self._lost.add(missed, lines.problem(missed, answered=True))
            if exhausted:
                self._lost.add(exhausted, f"{count(exhausted, 'answer')} of {file.id} {_EXHAUSTED}")
        self._tools.note_waiting(self._lost)

    def _due(self, outcomes: Outcomes, number: int, rows: NDArray[np.int64], digests: Digests) -> Iterator[_Due]:
        """Yield the answers of a response file that are followed by another request which is not in flight."""
        files, start = outcomes.files, 0
        with files.open(number) as file:
            for group, size in enumerate(files.group_rows[number]):
                low, high = np.searchsorted(rows, [start, start + size]).tolist()
                if low < high:
                    table = files.read_group(number, file, group).take(pa.array(rows[low:high] - start))
                    imported = np.full(high - low, files.names[number].is_never_followed)
                    yield from self._due_in(table, low, digests[low:high], imported)
                start += size

    def _due_in(
        self, table: pa.Table, first: int, digests: Digests, imported: NDArray[np.bool_]
    ) -> Iterator[_Due]:
        columns: dict[str, Any] = {name: table[name] for name in table.column_names}
        self._answers.add(columns)
        counts = counts_in(table["custom_id"])
        kinds = self._rules.kinds(columns, counts, self._max_output, imported)
        due = np.flatnonzero(kinds >= 0)
        due = due[~self._in_flight(digests[due])] if len(due) else due
        self._wanted.add_new(digests[due])
        for at in due.tolist():
            kind, reason = FollowUpKind(int(kinds[at])), columns["error_message"][at].as_py()
            next_counts = counts[at].copy()
            next_counts[kind] += 1
            calls_tools = columns["stop_reason"][at].as_py() == WAITS_FOR_TOOLS and kind is FollowUpKind.PAUSED
            yield _Due(first + at, kind, table["response_json"][at].as_py(), calls_tools, reason, next_counts)

    def _tool_results(self, line: bytes, due: _Due) -> list[dict[str, Any]] | None:
        """Return the results of the tools that an answer calls; `None` if they cannot be given now."""
        return self._tools.of(due.message, params_of(line), self._rules.tools) if due.calls_tools else []

    def _line(self, line: bytes, due: _Due, primed: Any, tool_results: list[dict[str, Any]]) -> bytes | None:
        """Return the line of a follow-up; `None` if it would be the same request again."""
        before, custom_id = params_of(line), custom_id_of(line)
        assert custom_id is not None
        model = load_line(before).get("model")
        most = self._max_output(str(model))
        params = follow_up_params(due.kind, before, due.message, due.reason, self._rules, most, tool_results)
        if params is None:
            return None
        hash_ = primed.copy()
        hash_.update(params)
        new_id = follow_up_id(custom_id, due.counts, hash_.digest(), self._root.mark)
        return make_lines([new_id], [params])[0]


_EXHAUSTED = (
    "cannot be asked again with a larger max_tokens: the request has the largest already. Raise or leave out "
    "`retry.truncated`, and build the requests again"
)
_NO_REQUEST = (
    "cannot be asked again: the ledger knows no request file of their batch. Leave out the fields of `retry` that "
    "ask answers again, and build the requests again"
)


@dataclass(frozen=True)
class _Due:
    """An answer that is followed by another request.

    Attributes:
        number: Its position among the answers of its response file that were asked for.
        kind: Why.
        message: The answer, as the API sent it.
        calls_tools: Whether it waits for the results of tools.
        reason: Why it does not match the output schema.
        counts: The follow-ups of its chain of each kind, the new one included: int8, shape (3,).
    """

    number: int
    kind: FollowUpKind
    message: str
    calls_tools: bool
    reason: str | None
    counts: NDArray[np.int8]
