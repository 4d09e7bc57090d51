"""Examine a results table: whether it is complete, and how many of its answers are usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.answers.result_columns import fields_after
from batch_assets.core.answers.result_types import FAILED, ResultType
from batch_assets.core.answers.tool_calls import WAITS_FOR_TOOLS
from batch_assets.core.errors import DamagedFileError, ErrorType
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.retirement import retirement
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.results.causes import UNEXPECTED, Causes
from batch_assets.core.results.lost_rows import open_index
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_index import OWN, RequestIndex
from batch_assets.core.store.result_table import submission_of
from batch_assets.core.text import beginning, count


@dataclass
class Examination:
    """Findings about a results table.

    Attributes:
        rows: The number of rows in the table.
        counts: Rows by result_type.
        invalid: Succeeded rows whose answer does not match the output schema, by cause.
        unexpected: Those of them with a value that its enum does not have, by cause and value.
        failures: Rows without an answer, by cause.
        stopped: Succeeded rows by a stop_reason of `refusal`, `max_tokens`, `model_context_window_exceeded` or
            `pause_turn`, or of `tool_use` if all called tools have a function.
        expected_rows: The number of rows in the dataset, from the submission's index.
        misplaced: What distinguishes the row keys from those of the dataset, as texts.
        columns: Descriptions of missing columns, unexpected columns and wrong types.
        in_flight: The number of request files that will still bring answers, or whose answers the next join
            adds.
        retried: The number of requests that will be sent again.
        waiting_rows: The number of rows that a newer table waits for. It replaces this one when it is complete.
        retiring: When the pipeline's model retires, if that is soon.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    invalid: Causes = field(default_factory=Causes)
    unexpected: Causes = field(default_factory=lambda: Causes(keeps_values=True))
    failures: Causes = field(default_factory=Causes)
    stopped: Counter[str] = field(default_factory=Counter)
    expected_rows: int = 0
    misplaced: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    in_flight: int = 0
    retried: int = 0
    waiting_rows: int = 0
    retiring: str | None = None


def examine(root: Root, pipeline: Pipeline, partition: str = "") -> Examination | None:
    """Read the table and the index of its submission once, in slices.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.

    Returns:
        `None` if there is no table yet.

    Raises:
        DamagedFileError: When the table, the index or the manifest is damaged.
    """
    parts = results_parts(pipeline.name, partition)
    if root.storage.is_local and not root.storage.is_file(*parts):  # a folder may be in its place
        return None
    examination = Examination(retiring=retirement(pipeline, root.settings.prices, datetime.now(UTC).date()))
    try:
        opened = pq.ParquetFile(root.storage.open(*parts), pre_buffer=False)
    except FileNotFoundError:
        return None
    except pa.ArrowException as error:
        raise DamagedFileError(
            f"{root.storage.uri(*parts)} is damaged: {error}. Write the results again",
            remedy=RunStage(Stage.RESULTS, pipeline.name, partition),
        ) from None
    with opened as table:
        schema = table.schema_arrow
        submission_id = _submission(root, schema, pipeline.name, partition)
        location = pipeline.name, partition, submission_id
        index, manifest = root.storage.both(
            partial(open_index, root, *location), partial(Manifest.read, root.storage, *location)
        )
        examination.columns = _column_differences(schema, _expected(index, pipeline))
        examination.expected_rows = index.rows
        _count(examination, table, pipeline.follow_ups)
        _compare_keys(examination, table, index, manifest.key)
    with root.ledger.read() as tx:
        files = submissions.waited_on(tx, submission_id)
        submission = submissions.by_id(tx, submission_id)
        newest = submissions.newest(tx, pipeline.name, partition)
    if newest is not None and newest.held_back:
        examination.waiting_rows = newest.count_map.get(ResultType.PENDING, 0)
    joined = submission.joined_seq or 0
    examination.in_flight = sum(file.state.in_flight or (file.collected_seq or 0) > joined for file in files)
    examination.retried = submission.ask_again
    return examination


def _submission(root: Root, schema: pa.Schema, pipeline: str, partition: str) -> str:
    if (recorded := submission_of(schema)) is not None:
        return recorded
    with root.ledger.read() as tx:  # a table of a version that did not record its submission
        newest = submissions.newest(tx, pipeline, partition)
    assert newest is not None
    return newest.id


def _count(examination: Examination, table: pq.ParquetFile, rules: FollowUpRules | None) -> None:
    columns = ["result_type", "error_type", "error_message", "stop_reason"]
    with_tools = rules if rules is not None and rules.tools else None
    if with_tools is not None:
        columns.append("response_json")
    for batch in slices_of(table, columns):
        examination.rows += len(batch)
        for entry in batch.column("result_type").value_counts().to_pylist():
            examination.counts[entry["values"]] += entry["counts"]
        answered = batch.filter(pa.compute.equal(batch.column("result_type"), ResultType.SUCCEEDED))
        if len(answered) < len(batch):
            _count_failures(examination, batch)
        for entry in answered.column("stop_reason").value_counts().to_pylist():
            if entry["values"] == REFUSED or entry["values"] in TRUNCATED:
                examination.stopped[entry["values"]] += entry["counts"]
        if with_tools is not None:
            calls = with_tools.calls_tools(answered.column("stop_reason"), answered.column("response_json"))
            if calls.any():
                examination.stopped[WAITS_FOR_TOOLS] += int(calls.sum())
        invalid = answered.filter(pa.compute.equal(answered.column("error_type"), ErrorType.INVALID_OUTPUT))
        for entry in invalid.column("error_message").value_counts().to_pylist():
            reason = entry["values"] or ""
            examination.invalid.add("", reason, entry["counts"])
            if reason.startswith(UNEXPECTED):
                examination.unexpected.add("", reason, entry["counts"])


def _count_failures(examination: Examination, rows: pa.RecordBatch) -> None:
    failed = rows.filter(pa.compute.is_in(rows.column("result_type"), pa.array(FAILED, pa.string())))
    kinds = pa.compute.coalesce(failed.column("error_type"), failed.column("result_type"))
    for kind in kinds.unique().to_pylist():
        messages = failed.column("error_message").filter(pa.compute.equal(kinds, kind))
        for entry in messages.value_counts().to_pylist():
            examination.failures.add(kind, entry["values"] or "", entry["counts"])


def _compare_keys(examination: Examination, table: pq.ParquetFile, index: RequestIndex, key: str) -> None:
    """Compare row by row with the index, which has every row key of the dataset once."""
    wanted = (rows.column(0) for rows in index.slices([key]) if len(rows))
    present = (rows.column(0) for rows in slices_of(table, [key]) if len(rows))
    if all(due.equals(actual) for due, actual in _side_by_side(wanted, present)):
        return
    due, actual = (
        pa.chunked_array([rows.column(0) for rows in slices], schema.field(key).type)
        for slices, schema in (
            (index.slices([key]), index.schema),
            (slices_of(table, [key]), table.schema_arrow),
        )
    )
    examination.misplaced = _key_faults(due, actual)


def _key_faults(due: pa.ChunkedArray, actual: pa.ChunkedArray) -> list[str]:
    """Return what distinguishes the row keys of a table from those of the dataset, as texts.

    Args:
        due: The row keys of the dataset, each of which is there once.
        actual: Those of the table.
    """
    if due.type != actual.type:
        return [f"the row key is of the type {actual.type}, not {due.type}"]
    repeated = actual.value_counts()
    repeated = repeated.filter(pa.compute.greater(repeated.field("counts"), 1)).field("values")
    missing = due.filter(pa.compute.invert(pa.compute.is_in(due, actual)))
    foreign = actual.filter(pa.compute.invert(pa.compute.is_in(actual, due)))
    faults = [
        f"{count(len(keys), f'row {verb}', f'rows {verbs}')} {what}, such as {beginning(repr(keys[0].as_py()))}"
        for keys, verb, verbs, what in (
            (missing, "is", "are", "missing"),
            (repeated, "is", "are", "there more than once"),
            (foreign, "is", "are", "not in the dataset"),
        )
        if len(keys)
    ]
    return faults or ["the rows are in another order"]


def _side_by_side(first: Iterator[pa.Array], second: Iterator[pa.Array]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield two columns in pieces of the same length. When one ends, the other is paired with empty arrays."""
    nothing = pa.nulls(0)
    left = right = nothing
    while True:
        left = left if len(left) else next(first, nothing)
        right = right if len(right) else next(second, nothing)
        if not len(left) and not len(right):
            return
        size = min(len(left), len(right)) or max(len(left), len(right))
        yield left[:size], right[:size]
        left, right = left[size:], right[size:]


def _expected(index: RequestIndex, pipeline: Pipeline) -> pa.Schema:
    """Return the columns that the pipeline has now: those of the dataset as indexed, then its own."""
    carried = [field for field in index.schema if field.name not in OWN]
    return pa.schema([*carried, *fields_after([field.name for field in carried], pipeline.answers.fields)])


def _column_differences(schema: pa.Schema, expected: pa.Schema) -> list[str]:
    problems = [f"{name} is missing" for name in expected.names if name not in schema.names]
    problems += [f"{name} is not expected" for name in schema.names if name not in expected.names]
    for field_ in expected:
        if field_.name in schema.names and (actual := schema.field(field_.name).type) != field_.type:
            problems.append(f"{field_.name} is of the type {actual}, not {field_.type}")
    return problems
