"""The requests of a pilot with the last answers of their chains: what came back, and whether more is to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.ok_rows import ok_rows
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.pilots import PilotState, PilotTerms
from batch_assets.core.prices.money import PICODOLLARS, usd
from batch_assets.core.prices.projection import project
from batch_assets.core.prices.range import Range
from batch_assets.core.root import Root
from batch_assets.core.store.chains import Chains
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.outcomes import in_force
from batch_assets.core.store.pilot_requests import requests_of_pilot
from batch_assets.core.store.pipeline_outcomes import digests_of_rows, open_answers, responses_to
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.text import count, dollars, percent

# A text names this many failures and shows this many answers, of which it shows this many characters.
_FAILURES, _ANSWERS, _CHARACTERS = 5, 5, 300


@dataclass(frozen=True)
class PilotAnswers:
    """The n requests of a pilot with what came back for them.

    A request that would be sent again or followed, and that no row wants any more, is left out.

    Attributes:
        is_unfinished: Whether some of them are sent again automatically, or followed by another request.
        is_canceled: Whether some of them were canceled, or not sent again or followed because of that, or all of
            them are left out.
        table: The responses in force, each the last of its chain, with the columns of a response file.
        sizes: The bytes of the lines of these requests; float64, shape (n,).
        costs: What the answers of each chain cost, in picodollars; `None` if that is not known, or there is none.
        first_costs: What the first answer of each chain cost: the plan's estimate has no follow-ups.
        failed: Whether each of them failed; bool, shape (n,).
        invalid: Whether each of them has an answer that is refused, cut off, does not match, or calls a tool whose
            result is not given; bool, shape (n,).
        problems_by_row: Why each request failed or its answer is invalid; for others perhaps the stop reason.
    """

    is_unfinished: bool
    is_canceled: bool
    table: pa.Table
    sizes: NDArray[np.float64]
    costs: list[int | None]
    first_costs: list[int | None]
    failed: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    problems_by_row: list[str]

    @classmethod
    def read(cls, root: Root, state: PilotState, answers: Answers | None) -> PilotAnswers:
        """Read them.

        Raises:
            FileNotFoundError: When a request file is lost.
            MissingFileError: When the request index of the submission that asks them again is lost.
            DamagedFileError: When a file cannot be read.
        """
        pilot = state.pilot
        with root.ledger.read() as tx:
            submission = submissions.by_id(tx, pilot.submission_id)
            current = submissions.newest(tx, pilot.pipeline, submission.partition) or submission
            refreshes, untried = refreshes_of(tx, pilot.pipeline), untried_of(tx, current)
        digests, sizes = requests_of_pilot(root, state)
        stored = open_answers(root, pilot.pipeline, len(digests))
        responses = responses_to(stored, [digests])
        outcomes = in_force(responses, stored.files, refreshes, submission.fresh_after, untried)
        row, kind, attempt = outcomes.for_digests(digests)
        known = row >= 0
        fates = request_fates(known, kind, attempt, max_attempts=current.attempts_allowed)
        with ResponseReader(stored.files) as reader:
            table = reader.take(row[known])
            costs, first_costs = _costs(reader, table, row[known], outcomes.chains)
        how = answers
        if how is None:
            manifest = Manifest.read(root.storage, pilot.pipeline, submission.partition, submission.id)
            how = manifest.answers
        columns: dict[str, Any] = {name: table[name] for name in table.column_names}
        how.add(columns)
        failed = fates[known] != RequestFate.ANSWERED.value
        invalid = ~failed & ~np.array(ok_rows(columns).to_pylist(), bool)
        goes_on = fates == RequestFate.RETRY.value
        if (rules := current.follow_up_rules) is not None:
            invalid |= ~failed & rules.calls_tools(columns["stop_reason"], columns["response_json"])
            imported = stored.files.is_never_followed(row[known])
            counts = counts_in(table["custom_id"])
            follows = ~failed & (rules.kinds(columns, counts, root.settings.prices.max_output, imported) >= 0)
            if outcomes.chains is not None and not current.is_canceled:
                follows &= ~outcomes.chains.is_over(outcomes.chains.find(row[known]), current.max_attempts)
            goes_on[np.flatnonzero(known)[follows]] = True
        problems = _problems(columns, table)
        wanted, is_stopped = _wanted(root, state, digests) if goes_on.any() else (goes_on, False)
        is_unfinished = bool((goes_on & wanted).any())
        is_canceled = bool((fates == RequestFate.CANCELED.value).any()) or (is_stopped and bool(goes_on.any()))
        found = cls(
            is_unfinished,
            is_canceled and not is_unfinished,
            table,
            sizes[known],
            costs,
            first_costs,
            failed,
            invalid,
            problems,
        )
        return found._without((goes_on & ~wanted)[known])

    def _without(self, left_out: NDArray[np.bool_]) -> PilotAnswers:
        """Return it without some of its requests: bool, shape (n,)."""
        if not left_out.any():
            return self
        kept = ~left_out
        rows = np.flatnonzero(kept).tolist()
        return replace(
            self,
            is_canceled=self.is_canceled or not rows,
            table=self.table.filter(pa.array(kept)),
            sizes=self.sizes[kept],
            costs=[self.costs[row] for row in rows],
            first_costs=[self.first_costs[row] for row in rows],
            failed=self.failed[kept],
            invalid=self.invalid[kept],
            problems_by_row=[self.problems_by_row[row] for row in rows],
        )

    @property
    def cost(self) -> int | None:
        """What the answers cost in picodollars, those of whole chains; `None` if that is not known."""
        return self._sum(self.costs)

    def _sum(self, costs: Sequence[int | None]) -> int | None:
        has_answer = pc.equal(self.table["result_type"], ResultType.SUCCEEDED).to_pylist()
        of_answers = [cost for cost, is_one in zip(costs, has_answer, strict=True) if is_one]
        known = [cost for cost in of_answers if cost is not None]
        return sum(known) if len(known) == len(of_answers) else None

    @property
    def summary(self) -> str:
        """What came back, as text."""
        cost = f" for {dollars(usd(self.cost))}" if self.cost is not None else ""
        failed = f", {int(self.failed.sum()):,} failed" if self.failed.any() else ""
        invalid = f", {int(self.invalid.sum()):,} invalid" if self.invalid.any() else ""
        return f"{count(int((~self.failed).sum()), 'answer')}{cost}{failed}{invalid}"

    def problems(self, terms: PilotTerms) -> list[str]:
        """Return why a user has to decide, as texts; an empty list if the rest may go."""
        requests, failed, invalid = len(self.failed), int(self.failed.sum()), int(self.invalid.sum())
        answered = requests - failed
        if not requests:
            return ["none of its answers is stored"]
        texts = []
        if failed > terms.max_failed * requests:
            texts.append(
                f"{failed:,} of {count(requests, 'request')} failed, and max_failed is {percent(terms.max_failed)}"
                f" ({self._named(self.failed)})"
            )
        if invalid > terms.max_invalid * answered:
            texts.append(
                f"{invalid:,} of {count(answered, 'answer')} are invalid, and max_invalid is "
                f"{percent(terms.max_invalid)} ({self._named(self.invalid)})"
            )
        cost = self._sum(self.first_costs)
        if cost is not None and terms.low is not None and terms.high is not None and answered:
            least = round(terms.low * answered / requests)
            if not least <= cost <= terms.high:
                planned = Range(least, None, terms.high).as_text
                follow_ups = " without follow-ups" if cost != self.cost else ""
                texts.append(f"it cost {dollars(usd(cost))}{follow_ups}, and {planned} was estimated")
        return texts

    def _named(self, chosen: NDArray[np.bool_]) -> str:
        ids = self.table["custom_id"].to_pylist()
        rows = np.flatnonzero(chosen).tolist()
        named = [f"{ids[row]}: {self.problems_by_row[row]}" for row in rows[:_FAILURES]]
        more = f"; and {len(rows) - _FAILURES:,} more" if len(rows) > _FAILURES else ""
        return "; ".join(named) + more

    def rest_as_text(self, requests: int, size: int) -> str:
        """Return what other requests would cost with their follow-ups, for users; "" if too few costs are known.

        Args:
            requests: Their number.
            size: The bytes of their files.
        """
        known = [(cost, own) for cost, own in zip(self.costs, self.sizes, strict=True) if cost is not None]
        costs, sizes = np.array(known, np.float64).reshape(-1, 2).T
        rest = project(costs, sizes, requests, size) if requests else None
        return rest.as_text if rest is not None else ""

    def sample(self) -> list[tuple[str, str]]:
        """Return some answers and what failed, each as the custom_id and a text."""
        ids, texts = self.table["custom_id"].to_pylist(), self.table["response_text"].to_pylist()
        bad = self.failed | self.invalid
        rows = [*np.flatnonzero(bad)[:_FAILURES].tolist(), *np.flatnonzero(~bad)[:_ANSWERS].tolist()]
        return [
            (
                ids[row] or "",
                ": ".join(filter(None, [self.problems_by_row[row], (texts[row] or "")[:_CHARACTERS]])),
            )
            for row in rows
        ]


def _costs(
    reader: ResponseReader, table: pa.Table, row: NDArray[np.int64], chains: Chains | None
) -> tuple[list[int | None], list[int | None]]:
    """Return what n chains and their first answers cost, in picodollars; `None` if that is not known.

    Args:
        reader: Reads responses.
        table: The answers in force.
        row: Their row numbers: int64, shape (n,).
        chains: The chains among the answers; `None` if there are none.
    """

    def cost_in(answers: pa.Table) -> list[int | None]:
        costs = answers["cost_usd"].to_pylist()
        return [round(cost * PICODOLLARS) if cost is not None else None for cost in costs]

    def is_first(answers: pa.Table) -> list[bool]:
        first: list[bool] = (counts_in(answers["custom_id"]) == 0).all(axis=1).tolist()
        return first

    costs = cost_in(table)
    first_costs = [cost if first else None for cost, first in zip(costs, is_first(table), strict=True)]
    if chains is None:
        return costs, first_costs
    numbers = {of_row: number for number, of_row in enumerate(row.tolist())}
    is_ours = np.isin(chains.earlier_of, row)
    earlier = reader.take(chains.earlier[is_ours].astype(np.int64))
    owners = [numbers[of_row] for of_row in chains.earlier_of[is_ours].tolist()]
    for number, cost, first in zip(owners, cost_in(earlier), is_first(earlier), strict=True):
        before = costs[number]
        costs[number] = before + cost if before is not None and cost is not None else None
        if first:
            first_costs[number] = cost
    return costs, first_costs


def _problems(columns: Mapping[str, Any], table: pa.Table) -> list[str]:
    names = ("error_message", "error_type", "stop_reason", "result_type")
    texts = [(columns if name in names[:2] else table)[name].to_pylist() for name in names]
    return [next(filter(None, reasons), "") for reasons in zip(*texts, strict=True)]


def _wanted(root: Root, state: PilotState, digests: Digests) -> tuple[NDArray[np.bool_], bool]:
    """Return which requests of a pilot rows still want, in the submissions in force of all its partitions.

    Args:
        root: The root.
        state: The pilot.
        digests: Those of its requests: S16, shape (n,).

    Returns:
        bool, shape (n,), and whether one of these submissions is canceled. A canceled one wants nothing.
    """
    wanted, is_stopped = np.zeros(len(digests), bool), False
    with root.ledger.read() as tx:
        partitions = submissions.partitions_waiting_on(tx, [file.id for file in state.files])
        newest = [submissions.newest(tx, state.pilot.pipeline, partition) for partition in partitions]
    in_force = [each for each in newest if each is not None]
    owners = {file.submission_id for file in state.files}
    if len(in_force) == 1 and owners == {in_force[0].id}:  # its rows want all
        return np.full(len(digests), not in_force[0].is_canceled), in_force[0].is_canceled
    for current in in_force:
        if current.is_canceled:
            is_stopped = True
            continue
        index = RequestIndex(root.storage, current.pipeline, current.partition, current.id)
        for rows in index.slices([DIGEST]):
            wanted |= np.isin(digests, digests_of_rows(rows))
    return wanted, is_stopped
