"""The cost of a table of results, from the table itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.parquet import UNREADABLE
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger.records import Submission
from batch_assets.core.prices.money import picodollars_in, usd
from batch_assets.core.prices.prices import NAMELESS
from batch_assets.core.root import Root
from batch_assets.core.store.result_table import submission_of, table_of

_COLUMNS = ["result_type", "response_model", "cost_usd", "shared_with"]


@dataclass
class TableCost:
    """The cost of a table, at batch prices.

    Attributes:
        picodollars: The cost of the answers whose cost is known.
        unpriced_models: The models of the other answers. If there are any, this is not the whole cost.
    """

    picodollars: int = 0
    unpriced_models: set[str] = field(default_factory=set)

    @property
    def usd(self) -> float:
        """The known cost in USD."""
        return usd(self.picodollars)


def table_cost(root: Root, submission: Submission) -> TableCost | None:
    """Add up the costs of a submission's table.

    Returns:
        The cost; `None` if there is no table, or the table is of an earlier or later submission.

    Raises:
        DamagedFileError: When the table cannot be read.
    """
    parts = table_of(submission)
    if not root.storage.is_file(*parts):
        return None
    try:
        with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file:
            return _added(file) if submission_of(file.schema_arrow) == submission.id else None
    except UNREADABLE as error:
        raise DamagedFileError(f"{root.storage.uri(*parts)} cannot be read: {error}") from error


def _added(file: pq.ParquetFile) -> TableCost:
    cost = TableCost()
    for rows in slices_of(file, _COLUMNS):
        cost.picodollars += picodollars_in(rows["cost_usd"])
        # A value of the column itself: to make one of a text, Arrow imports pandas, for a third of a second.
        for kind in rows["result_type"].unique():
            if kind.as_py() == ResultType.SUCCEEDED:
                answered = pc.and_(pc.equal(rows["result_type"], kind), rows["shared_with"].is_null())
                unknown = rows["response_model"].filter(pc.and_(answered, rows["cost_usd"].is_null())).unique()
                cost.unpriced_models.update(model or NAMELESS for model in unknown.to_pylist())
    return cost
