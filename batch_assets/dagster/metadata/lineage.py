"""The columns of an upstream asset that the columns of results come from."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.dagster.pipelines import upstream_key

# The columns that an answer fills, apart from the typed ones.
_OF_ANSWER = ("response_text", "tool_calls")
# The first column after the row key and the carried columns.
_SENT = "custom_id"


def lineage_of(
    pipeline: Pipeline, names: Sequence[str], *, are_all_known: bool = True
) -> dg.TableColumnLineage | None:
    """Return where the columns of a results table come from.

    The row key and each carried column come from one column of the dataset, and what the model answers from all
    columns that the templates read.

    Args:
        pipeline: The pipeline.
        names: The columns of the table. The row key and the carried columns are the first.
        are_all_known: Whether all carried columns are among them.

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
    copied = {name: renamed.get(name, name) for name in names[: names.index(_SENT)]}
    asked = _asked(pipeline, set(copied.values()) if are_all_known else None) - {ROW_NUMBER}
    answers = [*_OF_ANSWER, *(field.name for field in pipeline.answers.fields)]
    columns = {name: {column} - {ROW_NUMBER} for name, column in copied.items()}
    columns |= {name: asked for name in answers if name in names}
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(upstream, column) for column in sorted(sources)]
            for name, sources in columns.items()
            if sources
        }
    )


def _asked(pipeline: Pipeline, copied: set[str] | None) -> set[str]:
    """Return the columns that a request is made of.

    Args:
        pipeline: The pipeline.
        copied: All columns that a row has, as far as results show; `None` if they are not known. Then nothing is
            returned for a pipeline that reads the row as a whole.
    """
    templates = RowTemplates(pipeline.template, pipeline.betas)
    if not templates.reads_row and pipeline.hooks.render_request is None:
        return set(templates.reads)
    return templates.reads | copied if copied is not None else set()
