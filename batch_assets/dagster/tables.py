"""What metadata shows of a results table: its columns and a few of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.config import Pipeline
from batch_assets.core.root import Root, results_parts
from batch_assets.dagster import markdown

_SHOWN = 5
_READ = 1024


def table_schema(schema: pa.Schema) -> dg.TableSchema:
    """An Arrow schema as Dagster shows it."""
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])


def sample_rows(root: Root, pipeline: Pipeline, partition: str) -> dg.MarkdownMetadataValue:
    """The first answered rows: the key and the answer."""
    typed = [field.name for field in pipeline.answers.fields]
    answer = typed if pipeline.output else ["response_text", *typed]
    return _first(root, pipeline, partition, ("succeeded",), answer)


def failed_rows(root: Root, pipeline: Pipeline, partition: str) -> dg.MarkdownMetadataValue:
    """The first rows without an answer: the key and why."""
    kinds = ("errored", "expired", "canceled", "rejected")
    return _first(root, pipeline, partition, kinds, ["error_type", "error_message"])


def _first(
    root: Root, pipeline: Pipeline, partition: str, kinds: tuple[str, ...], names: list[str]
) -> dg.MarkdownMetadataValue:
    with pq.ParquetFile(root.storage.open(*results_parts(pipeline.name, partition))) as file:
        # The schema may have been another one when the submission was written.
        present = set(file.schema_arrow.names)
        shown = [file.schema_arrow.names[0], "result_type", *(name for name in names if name in present)]
        rows = (row for row in _rows(file, shown) if row["result_type"] in kinds)
        return markdown.table(shown, islice(rows, _SHOWN))


def _rows(file: pq.ParquetFile, names: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(_READ, columns=names):
        yield from batch.to_pylist()
