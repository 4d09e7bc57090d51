"""A trial: whether a pipeline fits its dataset, found without a ledger and without sending anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.first_look import model_warnings
from batch_assets.core.requests.inputs import dataset_warnings, misfits
from batch_assets.core.requests.preview import rows_of
from batch_assets.core.requests.row_renderer import row_templates
from batch_assets.core.settings import Settings
from batch_assets.core.text import beginning, count

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
    trial = Trial(warnings=model_warnings(pipeline, settings.prices, today))
    try:
        with Dataset(pipeline, table, partition) as dataset:
            templates = row_templates(pipeline, dataset)
            trial.faults.extend(map(str, misfits(pipeline, dataset, templates)))
            if trial.faults:
                return trial
            trial.warnings.extend(dataset_warnings(pipeline, dataset))
            if not (templates.reads or templates.reads_row or pipeline.hooks.render_request):
                names = [name for name in dataset.schema.names if name != dataset.key] or [dataset.key]
                trial.warnings.append(
                    f"{dataset.source}: params: no template reads a column of {dataset.location}, so all rows get "
                    f"one and the same prompt: that is one request, which is paid once. "
                    f"{_written(names[0])} inserts the column {names[0]!r}"
                )
            rows = 0
            for rows, row in enumerate(rows_of(settings, pipeline, dataset, templates, most=_TRIED), 1):
                if row.rejection is None:
                    return trial
                if rows == 1:
                    first = f"row {beginning(row.key)}: {': '.join(row.rejection)}"
            if rows:
                which = "the only row is" if rows == 1 else f"the first {count(rows, 'row')} are"
                trial.faults.append(f"{dataset.source}: {which} rejected, so there is no request; {first}")
            else:
                trial.warnings.append(f"{dataset.source}: dataset: {dataset.location} has no rows")
    except (ConfigError, DatasetError) as error:
        trial.faults.append(str(error))
    return trial


def _written(column: str) -> str:
    """Return the template that inserts a column."""
    return f"{{{{ {column} }}}}" if column.isidentifier() else f"{{{{ row[{column!r}] }}}}"
