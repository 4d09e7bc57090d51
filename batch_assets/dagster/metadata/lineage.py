"""The columns of an upstream asset that the columns of results come from."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa

from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.dagster.pipelines import upstream_key

# The columns that an answer fills, apart from the typed ones.
_OF_ANSWER = ("response_text", "tool_calls")
# The first column after the row key and the carried columns.
_SENT = "custom_id"


def lineage_of(pipeline: Pipeline, schema: pa.Schema) -> dg.TableColumnLineage | None:
    """Return where the columns of a results table come from.

    The row key and each carried column come from one column of the dataset, and what the model answers from all
    columns that the templates read.

    Args:
        pipeline: The pipeline.
        schema: The schema of the table. The row key and the carried columns are its first columns.

    Returns:
        `None` if the dataset is no asset, because Dagster knows only columns of assets.
    """
    upstream = upstream_key(pipeline)
    if upstream is None:
        return None
    dataset = pipeline.config.dataset
    renamed = (
        {name: column for column, name in dataset.columns.items()} if isinstance(dataset.columns, dict) else {}
    )
    renamed[dataset.key_name] = dataset.key_column
    copied = {name: renamed.get(name, name) for name in schema.names[: schema.names.index(_SENT)]}
    asked = _asked(pipeline, set(copied.values())) - {ROW_NUMBER}
    answers = [*_OF_ANSWER, *(field.name for field in pipeline.answers.fields)]
    columns = {name: {column} - {ROW_NUMBER} for name, column in copied.items()}
    columns |= {name: asked for name in answers if name in schema.names}
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(upstream, column) for column in sorted(sources)]
            for name, sources in columns.items()
            if sources
        }
    )


def _asked(pipeline: Pipeline, copied: set[str]) -> set[str]:
    """Return the columns that a request is made of: all that are known, if something reads the row as a whole."""
    templates = RowTemplates(pipeline.template, pipeline.betas)
    reads_all = templates.reads_row or pipeline.hooks.render_request is not None
    return templates.reads | (copied if reads_all else set())
