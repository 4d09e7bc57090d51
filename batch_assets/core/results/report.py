"""Count what a results table contains, slice by slice while it is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.names import ResponseName
from batch_assets.core.prices.money import picodollars_by, picodollars_in, usd
from batch_assets.core.prices.prices import NAMELESS
from batch_assets.core.results.fate import RowFate
from batch_assets.core.results.join import JoinedRows
from batch_assets.core.results.value_counts import ValueCounts, add_values
from batch_assets.core.text import about_dollars

_COUNTED = ["result_type", "batch_id", "attempts", "cost_usd", "response_model"]


@dataclass
class Tally:
    """Counts of one table. Pending rows are left out.

    Attributes:
        errors: Rows with an error type, by (result_type, error_type).
        requests: Distinct requests with a response, by the id of the batch that the response came from.
        costs: The sum of the known costs of these requests in picodollars, by batch id.
        live_cost: What all of them would have cost as live calls, in picodollars.
        unpriced: The ids of batches with an answer whose cost is unknown.
        unpriced_models: The models of these answers, or `NAMELESS`.
        attempts: Distinct requests by the number of times they were submitted.
        cache_creation_input_tokens: The sum over the table.
        cache_read_input_tokens: The sum over the table.
        saved_cache: What the prompt cache has saved, in picodollars; negative if it has cost more.
    """

    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    costs: Counter[str] = field(default_factory=Counter)
    live_cost: int = 0
    unpriced: set[str] = field(default_factory=set)
    unpriced_models: set[str] = field(default_factory=set)
    attempts: Counter[int] = field(default_factory=Counter)
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    saved_cache: int = 0

    @property
    def cache_hit_rate(self) -> float | None:
        """The share of the tokens that the prompt cache had to do with that were read; `None` without any."""
        cached = self.cache_read_input_tokens + self.cache_creation_input_tokens
        return self.cache_read_input_tokens / cached if cached else None

    def add(self, table: pa.Table, is_first: pa.Array) -> None:
        """Count some rows.

        Args:
            table: The rows.
            is_first: Whether no earlier row has the same request; bool, one value per row.
        """
        self.cache_creation_input_tokens += pc.sum(table["cache_creation_input_tokens"]).as_py() or 0
        self.cache_read_input_tokens += pc.sum(table["cache_read_input_tokens"]).as_py() or 0
        arrived = pc.not_equal(table["result_type"], ResultType.PENDING)
        if table["error_type"].null_count < len(table):
            failed = table.select(["result_type", "error_type"]).filter(
                pc.and_(arrived, table["error_type"].is_valid())
            )
            kinds, kind = _pairs(*failed.columns)
            self.errors.update(dict(zip(kinds, np.bincount(kind, minlength=len(kinds)).tolist(), strict=True)))
        answered = pc.and_(pc.and_(arrived, is_first), table["batch_id"].is_valid())
        once = table.select(_COUNTED)
        self._add_requests(once if pc.all(answered).as_py() else once.filter(answered))

    def _add_requests(self, once: pa.Table) -> None:
        kinds, kind = _pairs(once["batch_id"], once["attempts"])
        costs = picodollars_by(kind, len(kinds), once["cost_usd"])
        requests = np.bincount(kind, minlength=len(kinds))
        for (batch_id, attempt), rows, cost in zip(kinds, requests.tolist(), costs, strict=True):
            self.requests[batch_id] += rows
            self.attempts[attempt] += rows
            self.costs[batch_id] += cost
        if once["cost_usd"].null_count:
            unknown = once.filter(
                pc.and_(pc.equal(once["result_type"], ResultType.SUCCEEDED), once["cost_usd"].is_null())
            )
            self.unpriced.update(unknown["batch_id"].unique().to_pylist())
            self.unpriced_models.update(
                name or NAMELESS for name in unknown["response_model"].unique().to_pylist()
            )

    def cost_of(self, batch_ids: set[str]) -> float | None:
        """Return the cost in USD of the table's answers from some batches; `None` if any of it is unknown."""
        if self.unpriced & batch_ids:
            return None
        return usd(sum(cost for batch_id, cost in self.costs.items() if batch_id in batch_ids))


def _pairs(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[list[tuple[Any, Any]], NDArray[np.intp]]:
    """Return the distinct pairs of values of two columns, and the number of each row's pair: intp, shape (n,).

    `Table.group_by` would do the same, and import Arrow's query engine, which takes longer than all the counting.

    Args:
        first: A column of n values.
        second: Another one.
    """
    encoded = [pc.dictionary_encode(column.combine_chunks(), "encode") for column in (first, second)]
    names, others = (column.dictionary.to_pylist() for column in encoded)
    codes = [column.indices.to_numpy().astype(np.intp) for column in encoded]
    distinct, number = np.unique(codes[0] * len(others) + codes[1], return_inverse=True)
    return [(names[code // len(others)], others[code % len(others)]) for code in distinct.tolist()], number


@dataclass
class ResultsReport:
    """Report of one join of a results table.

    Attributes:
        submission_id: The id of the submission whose table it is.
        uri: The location of the table.
        schema: The schema of the table.
        rows: The number of rows.
        counts: Rows by result_type.
        input_tokens: The sum over the table.
        output_tokens: The sum over the table.
        invalid_outputs: The number of rows whose answer does not match the schema.
        unusable: The number of rows with an answer that cannot be used: their `is_ok` is false.
        refused_answers: The number of rows whose answer the model refused to give.
        truncated: The number of rows whose answer was cut off, or still calls tools with a function.
        values: The answers by the value of each column of enums or booleans.
        tally: Requests, costs and failures in more detail.
        ask_again: The number of distinct requests that are retried automatically.
        kept: The number of rows of a refresh that keep their older answer: the new request failed permanently.
        left_out: The number of distinct requests that a limit left out.
        held_back: The table that users read was kept: it is complete, and this one is not.
        final: Every row has its final type.
        problems: Why rows are pending that may not have to be.
    """

    submission_id: str
    uri: str
    schema: pa.Schema | None = None
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    invalid_outputs: int = 0
    unusable: int = 0
    refused_answers: int = 0
    truncated: int = 0
    values: ValueCounts = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    ask_again: int = 0
    kept: int = 0
    left_out: int = 0
    held_back: bool = False
    final: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def left_by_cancel(self) -> int:
        """The number of rows that a cancel left without an answer: of the pipeline, or of one of its batches."""
        return self.counts[ResultType.CANCELED] - self.tally.errors[ResultType.CANCELED, ErrorType.PRUNED]

    @property
    def is_complete(self) -> bool:
        """Whether each row has its final result, and no cancel left one without an answer."""
        return not self.counts[ResultType.PENDING] and not self.left_by_cancel

    @property
    def cost_usd(self) -> float | None:
        """The cost in USD of the answers, each request counted once; `None` if any of it is unknown."""
        return None if self.tally.unpriced_models else usd(self.tally.costs.total())

    @property
    def live_cost_usd(self) -> float | None:
        """What the same answers would have cost as live calls, in USD; `None` if any of it is unknown."""
        return None if self.tally.unpriced_models else usd(self.tally.live_cost)

    @property
    def rescued(self) -> int:
        """The number of distinct requests whose answer is that of a live call."""
        return sum(self.tally.requests[id_] for id_ in self._live_groups)

    @property
    def rescue_cost_usd(self) -> float | None:
        """What these answers cost in USD; `None` if any of it is unknown."""
        return self.tally.cost_of(self._live_groups)

    @property
    def _live_groups(self) -> set[str]:
        return {id_ for id_ in self.tally.requests if ResponseName(id_).is_live}

    @property
    def saved_cache_usd(self) -> float | None:
        """What the prompt cache has saved in USD, negative if it has cost more; `None` if it was not used."""
        return None if self.tally.cache_hit_rate is None else usd(self.tally.saved_cache)

    def cache_problem(self, *, has_cache_control: bool) -> str | None:
        """Return why the prompt cache has saved nothing; `None` if it has, or if it was not to be used.

        Args:
            has_cache_control: Whether `params` have `cache_control`.
        """
        saved = self.saved_cache_usd
        if saved is None:
            if not has_cache_control or not self.counts[ResultType.SUCCEEDED]:
                return None
            return "`cache_control` in `params` has had no effect: what it marks is shorter than the model caches"
        if saved >= 0:
            return None
        cost = f"the prompt cache has cost {about_dollars(-saved)} more than it has saved"
        if self.tally.cache_read_input_tokens:
            return f"{cost}: few requests have read what others have written"
        return (
            f"{cost}: no request has read what another one has written, because those of a batch do not read from "
            "each other. Use `cache: auto` in place of your own `cache_control`, or leave it out"
        )

    def add(self, joined: JoinedRows) -> None:
        """Count a slice of the table."""
        table = joined.table
        self.rows += len(table)
        for entry in table["result_type"].value_counts().to_pylist():
            self.counts[entry["values"]] += entry["counts"]
        answered = table["stop_reason"].filter(pc.equal(table["result_type"], ResultType.SUCCEEDED))
        for entry in answered.value_counts().to_pylist():
            self.refused_answers += entry["counts"] * (entry["values"] == REFUSED)
            self.truncated += entry["counts"] * (entry["values"] in TRUNCATED)
        self.input_tokens += pc.sum(table["input_tokens"]).as_py() or 0
        self.output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
        self.truncated += joined.unanswered_calls
        self.invalid_outputs += joined.invalid_outputs
        self.unusable += joined.unusable
        add_values(self.values, table)
        self.tally.add(table, pa.array(joined.is_first))
        self.tally.live_cost += picodollars_in(joined.live_cost_usd)
        asked_again = np.isin(joined.fates, (RowFate.RETRY.value, RowFate.FOLLOW_UP.value))
        self.ask_again += int((asked_again & joined.is_first).sum())
        self.kept += int((joined.fates == RowFate.KEPT.value).sum())
