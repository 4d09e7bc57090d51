"""The first rows of a results table of some result types. The table is read only as far as necessary."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.answers.result_types import FAILED, ResultType
from batch_assets.core.io.layout import results_parts, waiting_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root

REASON = ("error_type", "error_message")
_AT_ONCE = 100


def first_answers(
    root: Root, pipeline: Pipeline, partition: str, most: int, *, is_waiting: bool = False
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the first rows that have an answer.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        most: The most rows.
        is_waiting: Whether the table waits until it is complete, while users read the one before it.

    Returns:
        The columns, row key and result type first, and the rows.
    """
    typed = [field.name for field in pipeline.answers.fields]
    names = typed if pipeline.output else ["response_text", *typed]
    return _first(root, _parts(pipeline, partition, is_waiting), [ResultType.SUCCEEDED], names, most)


def first_failed(
    root: Root, pipeline: Pipeline, partition: str, most: int, *, is_waiting: bool = False, distinct: bool = False
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the first rows that failed, with their reasons; see `first_answers`.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        most: The most rows.
        is_waiting: See `first_answers`.
        distinct: Whether each reason is shown once.
    """
    return _first(root, _parts(pipeline, partition, is_waiting), FAILED, REASON, most, REASON if distinct else ())


def _parts(pipeline: Pipeline, partition: str, is_waiting: bool) -> tuple[str, ...]:
    return (waiting_parts if is_waiting else results_parts)(pipeline.name, partition)


def _first(
    root: Root,
    parts: tuple[str, ...],
    kinds: Collection[ResultType],
    names: Sequence[str],
    most: int,
    distinct: Sequence[str] = (),
) -> tuple[list[str], list[dict[str, Any]]]:
    with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file:
        # The output schema may have been different when the submission was written.
        present = set(file.schema_arrow.names)
        shown = [file.schema_arrow.names[0], "result_type", *(name for name in names if name in present)]
        rows = _rows(file, shown, kinds)
        return shown, list(islice(_once(rows, distinct) if distinct else rows, most))


def _rows(file: pq.ParquetFile, names: list[str], kinds: Collection[ResultType]) -> Iterator[dict[str, Any]]:
    wanted = pa.array(list(kinds), pa.string())
    for batch in slices_of(file, names):
        matches = batch.filter(pc.is_in(batch["result_type"], wanted))
        for start in range(0, len(matches), _AT_ONCE):
            yield from matches.slice(start, _AT_ONCE).to_pylist()


def _once(rows: Iterator[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    known: set[tuple[Any, ...]] = set()
    for row in rows:
        values = tuple(row.get(name) for name in names)
        if values not in known:
            known.add(values)
            yield row
