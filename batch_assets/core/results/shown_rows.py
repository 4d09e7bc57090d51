"""The first rows of a results table with answers, and those without. It is read only as far as necessary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.answers.ok_rows import answered, ok_rows
from batch_assets.core.answers.result_columns import ColumnGroups
from batch_assets.core.answers.result_types import FAILED
from batch_assets.core.io.layout import results_parts, waiting_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.causes import without_varying
from batch_assets.core.root import Root

REASON = ("error_type", "error_message")
_OK, _OK_FROM = "is_ok", ("result_type", "error_type", "stop_reason")
_AT_ONCE = 100
_Choose = Callable[[pa.RecordBatch], pa.Array]


def first_answers(
    root: Root, pipeline: Pipeline, partition: str, most: int, *, is_waiting: bool = False
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the first rows with an answer that can be used.

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
    return _first(root, _parts(pipeline, partition, is_waiting), _is_ok, names, most)


def first_unusable(
    root: Root, pipeline: Pipeline, partition: str, most: int, *, is_waiting: bool = False, distinct: bool = False
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the first rows with an answer that cannot be used, with the reason and the answer.

    Args:
        root: See `first_answers`.
        pipeline: See `first_answers`.
        partition: See `first_answers`.
        most: See `first_answers`.
        is_waiting: See `first_answers`.
        distinct: Whether each cause is shown once.
    """
    reason = ("stop_reason", *REASON)
    names = (*reason, "response_text")
    parts = _parts(pipeline, partition, is_waiting)
    return _first(root, parts, _is_unusable, names, most, reason if distinct else ())


def first_failed(
    root: Root, pipeline: Pipeline, partition: str, most: int, *, is_waiting: bool = False, distinct: bool = False
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the first rows that failed, with their reasons; see `first_unusable`."""
    parts = _parts(pipeline, partition, is_waiting)
    return _first(root, parts, _has_failed, REASON, most, REASON if distinct else ())


def _is_ok(rows: pa.RecordBatch) -> pa.Array:
    is_ok = ok_rows({name: rows[name] for name in _OK_FROM})
    return pc.and_(is_ok, pc.fill_null(rows[_OK], True)) if _OK in rows.schema.names else is_ok


def _is_unusable(rows: pa.RecordBatch) -> pa.Array:
    return pc.and_not(answered(rows["result_type"]), _is_ok(rows))


def _has_failed(rows: pa.RecordBatch) -> pa.Array:
    return pc.is_in(rows["result_type"], pa.array(FAILED, pa.string()))


def _parts(pipeline: Pipeline, partition: str, is_waiting: bool) -> tuple[str, ...]:
    return (waiting_parts if is_waiting else results_parts)(pipeline.name, partition)


def _first(
    root: Root,
    parts: tuple[str, ...],
    choose: _Choose,
    names: Sequence[str],
    most: int,
    distinct: Sequence[str] = (),
) -> tuple[list[str], list[dict[str, Any]]]:
    with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file:
        # The output schema may have been different when the submission was written.
        schema = file.schema_arrow
        shown = [schema.names[0], "result_type", *(name for name in names if name in schema.names)]
        # A column of this name may be the pipeline's own.
        has_ok = _OK in ColumnGroups.of(schema).ours
        read = list(dict.fromkeys([*shown, *_OK_FROM, *([_OK] if has_ok else [])]))
        rows = ({name: row[name] for name in shown} for row in _rows(file, read, choose))
        return shown, list(islice(_once(rows, distinct) if distinct else rows, most))


def _rows(file: pq.ParquetFile, names: list[str], choose: _Choose) -> Iterator[dict[str, Any]]:
    for batch in slices_of(file, names):
        matches = batch.filter(choose(batch))
        for start in range(0, len(matches), _AT_ONCE):
            yield from matches.slice(start, _AT_ONCE).to_pylist()


def _once(rows: Iterator[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    known: set[tuple[str, ...]] = set()
    for row in rows:
        values = tuple(without_varying(row.get(name) or "") for name in names)
        if values not in known:
            known.add(values)
            yield row
