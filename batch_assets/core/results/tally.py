"""What a table of results says of its requests, counted slice by slice while the table is written."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.prices import NAMELESS

_COUNTED = ["result_type", "batch_id", "attempts", "cost_usd", "response_model"]


@dataclass
class Tally:
    """Counts of one table. Rows that wait for an answer are left out.

    Attributes:
        errors: rows by (result_type, error_type), where there is an error type.
        requests: distinct requests with a response, by the batch it came from.
        cost_usd: of these, the sum of what is known, by batch.
        unpriced: batches with an answer whose cost is not known.
        unpriced_models: of these answers, or `NAMELESS`.
        attempts: distinct requests by how often they were submitted.
        cache_creation_input_tokens, cache_read_input_tokens: sums over the table.
    """

    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    cost_usd: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    unpriced: set[str] = field(default_factory=set)
    unpriced_models: set[str] = field(default_factory=set)
    attempts: Counter[int] = field(default_factory=Counter)
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def add(self, table: pa.Table, is_first: pa.Array) -> None:
        """Counts some rows.

        Args:
            table: with the columns of results.
            is_first: which rows do not share the request of an earlier one.
        """
        self.cache_creation_input_tokens += pc.sum(table["cache_creation_input_tokens"]).as_py() or 0
        self.cache_read_input_tokens += pc.sum(table["cache_read_input_tokens"]).as_py() or 0
        arrived = pc.not_equal(table["result_type"], "pending")
        if table["error_type"].null_count < len(table):
            failed = table.select(["result_type", "error_type"]).filter(
                pc.and_(arrived, table["error_type"].is_valid())
            )
            counts = failed.group_by(failed.column_names, use_threads=False).aggregate([([], "count_all")])
            for row in counts.to_pylist():
                self.errors[row["result_type"], row["error_type"]] += row["count_all"]
        answered = pc.and_(pc.and_(arrived, is_first), table["batch_id"].is_valid())
        self._add_requests(table.select(_COUNTED).filter(answered))

    def _add_requests(self, once: pa.Table) -> None:
        sums = once.group_by(["batch_id", "attempts"], use_threads=False).aggregate(
            [([], "count_all"), ("cost_usd", "sum")]
        )
        for row in sums.to_pylist():
            self.requests[row["batch_id"]] += row["count_all"]
            self.attempts[row["attempts"]] += row["count_all"]
            self.cost_usd[row["batch_id"]] += row["cost_usd_sum"] or 0.0
        unknown = once.filter(pc.and_(pc.equal(once["result_type"], "succeeded"), once["cost_usd"].is_null()))
        self.unpriced.update(unknown["batch_id"].unique().to_pylist())
        self.unpriced_models.update(name or NAMELESS for name in unknown["response_model"].unique().to_pylist())

    def cost_of(self, batch_ids: set[str]) -> float | None:
        """What the table's answers from some batches cost, USD; None when that of any of them is not known."""
        if self.unpriced & batch_ids:
            return None
        return sum((cost for batch_id, cost in self.cost_usd.items() if batch_id in batch_ids), 0.0)
