"""What the responses of a batch cost."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.ledger.spend import Spend
from batch_assets.core.prices.money import picodollars_in


class ResponseCost:
    """Adds up the costs of responses, slice by slice."""

    def __init__(self) -> None:
        self._picodollars = self._unpriced = 0

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add a slice with the columns of RESPONSE_SCHEMA.

        Answers that were paid for without a known cost are counted: the model has no price, the usage is missing,
        or the columns cannot hold the answer.
        """
        cost = rows["cost_usd"]
        self._picodollars += picodollars_in(cost)
        is_paid = pc.or_kleene(
            pc.equal(rows["result_type"], ResultType.SUCCEEDED.value),
            pc.fill_null(pc.equal(rows["error_type"], ErrorType.UNREADABLE_RESULT.value), False),
        )
        self._unpriced += pc.sum(pc.and_(is_paid, cost.is_null())).as_py() or 0

    @property
    def total(self) -> Spend:
        """The sum so far."""
        return Spend(self._picodollars, self._unpriced)
