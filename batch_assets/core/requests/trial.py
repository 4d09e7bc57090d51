"""A trial: whether a pipeline fits its dataset, found without a ledger and without sending anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.retirement import retirement
from batch_assets.core.prices.prices import Prices
from batch_assets.core.requests.inputs import late_column_warnings, misfits
from batch_assets.core.requests.preview import rows_of
from batch_assets.core.requests.row_renderer import row_templates
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, nearest

# A few rows may be rejected for good reasons, such as an empty text. So many of them hint at a mistake.
_TRIED = 20


@dataclass(frozen=True)
class Trial:
    """What a trial has found, as texts that say what to do.

    Attributes:
        faults: What keeps a run from sending its rows.
        warnings: What a user should know.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def try_pipeline(settings: Settings, pipeline: Pipeline, partition: str, table: Any, today: date) -> Trial:
    """Open the dataset of a pipeline, look for the columns that it needs, and render rows until one has a request.

    Args:
        settings: Where the root is.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        table: The value of `dataset.asset`, if the pipeline has one.
        today: The date in UTC.
    """
    trial = Trial(warnings=_of_model(pipeline, settings.prices, today))
    try:
        with Dataset(pipeline, table, partition) as dataset:
            templates = row_templates(pipeline, dataset)
            trial.faults.extend(map(str, misfits(pipeline, dataset, templates)))
            if trial.faults:
                return trial
            trial.warnings.extend(late_column_warnings(pipeline, dataset))
            rows = 0
            for rows, row in enumerate(rows_of(settings, pipeline, dataset, templates, most=_TRIED), 1):
                if row.rejection is None:
                    return trial
                if rows == 1:
                    first = f"row {row.key}: {': '.join(row.rejection)}"
            if rows:
                which = "the only row has" if rows == 1 else f"the first {count(rows, 'row')} have"
                trial.faults.append(f"{dataset.source}: {which} no request, because they are rejected; {first}")
            else:
                trial.warnings.append(f"{dataset.source}: dataset: {dataset.location} has no rows")
    except (ConfigError, DatasetError) as error:
        trial.faults.append(str(error))
    return trial


def _of_model(pipeline: Pipeline, prices: Prices, today: date) -> list[str]:
    """Return what a user should know about the model, unless it depends on the row."""
    model = pipeline.template.outline().get("model")
    if isinstance(model, str) and not prices.knows(model):
        meant = nearest(model, prices.models)
        hint = f"did you mean {meant!r}? Otherwise give" if meant is not None else "give"
        problem = f"{model!r} has no price, so the API may not know it, and its cost is unknown: {hint} it a price"
        return [str(pipeline.error("params.model", f"{problem} in the price file"))]
    retires = retirement(pipeline, prices, today)
    return [f"{pipeline.source}: {retires}"] if retires is not None else []
