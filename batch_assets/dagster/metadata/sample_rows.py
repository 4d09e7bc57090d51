"""A few rows of a results table, for metadata."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.answers.result_types import FAILED, ResultType
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.root import Root
from batch_assets.dagster.metadata import markdown

_SHOWN = 10


def sample_rows(root: Root, pipeline: Pipeline, partition: str) -> dg.MarkdownMetadataValue:
    """Return the first answered rows: the row key and the answer."""
    typed = [field.name for field in pipeline.answers.fields]
    answer = typed if pipeline.output else ["response_text", *typed]
    return markdown.table(*_first(root, pipeline, partition, [ResultType.SUCCEEDED], answer))


def failed_rows(root: Root, pipeline: Pipeline, partition: str) -> dg.MarkdownMetadataValue:
    """Return the first rows without an answer: the row key and the reason, and how to send them again."""
    shown = _first(root, pipeline, partition, FAILED, ["error_type", "error_message"])
    return markdown.table(*shown, note=_how_to_ask_again(pipeline.name, partition))


def _first(
    root: Root, pipeline: Pipeline, partition: str, kinds: list[ResultType], names: list[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and the rows. The table is read only as far as necessary."""
    with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition)), pre_buffer=False) as file:
        # The output schema may have been different when the submission was written.
        present = set(file.schema_arrow.names)
        shown = [file.schema_arrow.names[0], "result_type", *(name for name in names if name in present)]
        return shown, list(islice(_rows(file, shown, kinds), _SHOWN))


def _rows(file: pq.ParquetFile, names: list[str], kinds: list[ResultType]) -> Iterator[dict[str, Any]]:
    for batch in slices_of(file, names):
        matches = pc.is_in(batch["result_type"], pa.array(kinds, pa.string()))
        yield from batch.filter(matches).slice(0, _SHOWN).to_pylist()


def _how_to_ask_again(name: str, partition: str) -> str:
    suffix = f" for the partition {markdown.code(partition)}" if partition else ""
    option = f" --partition {shell_quoted(partition)}" if partition else ""
    command = markdown.code(f"batch-assets run {name}{option} --retry-failed")
    return (
        f"To send them again: launch the job `{name}_retry_failed`{suffix}, or {command}. "
        f"Rejected rows were never sent: fix the dataset, then materialize `{name}/requests`."
    )
