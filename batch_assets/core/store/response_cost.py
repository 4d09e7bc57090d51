"""What the responses of a batch cost."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError, ErrorType
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.slices import slices_of
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.spend import Spend
from batch_assets.core.prices.money import picodollars_in
from batch_assets.core.store.responses import open_responses, reading_responses

# Responses with these error types were answers, and were paid for.
_PAID = [ErrorType.UNREADABLE_RESULT.value, ErrorType.PRUNED.value]
# A 64-bit integer holds this many picodollars.
_MOST = 2**62
# What the API answered to these requests was never seen, and may have been paid.
_UNSEEN = [ErrorType.MISSING_RESULT.value, ErrorType.RESULTS_ARCHIVED.value]
_UNSEEN += [ErrorType.LIVE_CALL_LOST.value, "unknown_result_type"]


class ResponseCost:
    """Adds up the costs of responses, slice by slice."""

    def __init__(self) -> None:
        self._picodollars = self._unpriced = self._answers = self._unseen = 0

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add a slice with the columns of RESPONSE_SCHEMA.

        Answers that were paid for without a known cost are counted: the model has no price, the usage is missing,
        or the columns cannot hold the answer.
        """
        cost = rows["cost_usd"]
        self._picodollars += picodollars_in(cost)
        is_paid = pc.or_kleene(
            pc.equal(rows["result_type"], ResultType.SUCCEEDED.value),
            pc.fill_null(pc.is_in(rows["error_type"], pa.array(_PAID)), False),
        )
        self._answers += pc.sum(is_paid).as_py() or 0
        self._unpriced += pc.sum(pc.and_(is_paid, cost.is_null())).as_py() or 0
        # The API shows no reason for a canceled request. With one, the batch was deleted before it was collected,
        # or the answer was pruned, which leaves its cost.
        was_deleted = pc.and_(
            pc.and_(pc.equal(rows["result_type"], ResultType.CANCELED.value), rows["error_message"].is_valid()),
            pc.fill_null(pc.not_equal(rows["error_type"], ErrorType.PRUNED.value), True),
        )
        is_unseen = pc.or_kleene(pc.is_in(rows["error_type"], pa.array(_UNSEEN)), was_deleted)
        self._unseen += pc.sum(is_unseen).as_py() or 0

    @property
    def total(self) -> Spend:
        """The sum so far. It is not known if the ledger cannot hold it, which no real one exceeds."""
        if self._picodollars > _MOST:
            return Spend(0, self._answers)
        return Spend(self._picodollars, self._unpriced)

    @property
    def certain(self) -> int | None:
        """The cost in picodollars; `None` if the bill may have more: answers without a cost, or never seen."""
        is_certain = self._picodollars <= _MOST and not self._unpriced and not self._unseen
        return self._picodollars if is_certain else None


def stored_cost(storage: Storage, pipeline: str, batch_id: str) -> ResponseCost | None:
    """Add up what the stored answers of a batch cost; `None` if its response file is missing or damaged."""
    name, cost = ResponseName.of_batch(batch_id), ResponseCost()
    if not storage.is_file(*response_parts(pipeline, batch_id)):
        return None
    try:
        with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
            for rows in slices_of(file, ["cost_usd", "result_type", "error_type", "error_message"]):
                cost.add(rows)
    except DamagedFileError:
        return None
    return cost
