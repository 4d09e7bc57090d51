"""What a table of results cost, from the table itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from batch_assets.core.places import results_parts
from batch_assets.core.root import Root

_COLUMNS = ["result_type", "response_model", "cost_usd", "shared_with"]


@dataclass
class TableCost:
    """USD, at batch prices.

    Attributes:
        usd: of the answers whose cost is known.
        unpriced_models: of the others; the sum is not the whole cost when there are any.
    """

    usd: float = 0.0
    unpriced_models: set[str] = field(default_factory=set)


def table_cost(root: Root, pipeline: str, partition: str) -> TableCost | None:
    """Adds up the costs of a partition's table, None where there is no table."""
    import pyarrow.compute as pc  # who only looks has no use for it before there is a table
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(root.storage.open(*results_parts(pipeline, partition)))
    except FileNotFoundError:
        return None
    found = TableCost()
    with file:
        for rows in file.iter_batches(columns=_COLUMNS):
            found.usd += pc.sum(rows["cost_usd"]).as_py() or 0.0
            answered = pc.and_(pc.equal(rows["result_type"], "succeeded"), rows["shared_with"].is_null())
            unknown = rows["response_model"].filter(pc.and_(answered, rows["cost_usd"].is_null())).unique()
            found.unpriced_models.update(model or "an answer that names no model" for model in unknown.to_pylist())
    return found
