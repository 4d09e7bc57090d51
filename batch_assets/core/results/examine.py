"""What is to be said of a table of results: whether it is whole, and how many of its answers are of use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_columns import AFTER_OUTPUT, BEFORE_OUTPUT
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import results_parts
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_index import OWN, RequestIndex
from batch_assets.core.store.result_table import submission_of

UNEXPECTED = "unexpected value"
"""How the message of an answer begins that holds a value which its enum does not have."""
_ROWS_AT_ONCE = 4096
_EXAMPLES = 5


@dataclass
class Examination:
    """What a table of results holds.

    Attributes:
        rows: of the table.
        counts: rows by result_type.
        invalid: succeeded rows whose answer does not match the output schema, by reason.
        unexpected: of these, the ones with a value that its enum does not have, by reason.
        stopped: succeeded rows by a stop_reason of `refusal`, `max_tokens` or `model_context_window_exceeded`.
        expected_rows: of the dataset, as the submission's index has them.
        misplaced: row number and what stands there, for the first rows that are not the dataset's.
        columns: names and types that the table lacks or has too many of, in words.
        on_their_way: request files that will still bring answers, or whose answers the next join brings.
        asked_again: failed requests that will be asked again.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    expected_rows: int = 0
    misplaced: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    on_their_way: int = 0
    asked_again: int = 0

    @property
    def failed(self) -> int:
        """Rows that have their final type and no answer, rejected ones among them."""
        return self.rows - self.counts["succeeded"] - self.counts["pending"]


def examine(root: Root, pipeline: Pipeline, partition: str = "") -> Examination | None:
    """Reads the table, and the index of the submission that it is the join of, once and in slices.

    Returns:
        None when there is no table yet.

    Errors:
        DamagedFileError: of a file that is not what it should be.
    """
    parts = results_parts(pipeline.name, partition)
    if not root.storage.exists(*parts):
        return None
    found = Examination()
    try:
        opened = pq.ParquetFile(root.storage.open(*parts))
    except pa.ArrowException as error:
        raise DamagedFileError(
            f"{root.storage.uri(*parts)} is damaged: {error}. "
            f"Materialize {pipeline.name}/results: it is written anew"
        ) from None
    with opened as table:
        schema = table.schema_arrow
        place = pipeline.name, partition, _submission(root, schema, pipeline.name, partition)
        index, manifest = RequestIndex(root.storage, *place), Manifest.read(root.storage, *place)
        found.columns = _column_differences(schema, _expected(index, pipeline))
        found.expected_rows = index.rows
        _count(found, table)
        _compare_keys(found, table, index, manifest.key)
    with root.ledger.read() as tx:
        files = submissions.waited_on(tx, place[2])
        submission = submissions.by_id(tx, place[2])
    joined = submission.joined_seq or 0
    found.on_their_way = sum(file.state.in_flight or (file.collected_seq or 0) > joined for file in files)
    found.asked_again = submission.ask_again
    return found


def _submission(root: Root, schema: pa.Schema, pipeline: str, partition: str) -> str:
    if (said := submission_of(schema)) is not None:
        return said
    with root.ledger.read() as tx:  # a table of a version that did not say
        newest = submissions.newest(tx, pipeline, partition)
    assert newest is not None
    return newest.id


def _count(found: Examination, table: pq.ParquetFile) -> None:
    columns = ["result_type", "error_type", "error_message", "stop_reason"]
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=columns):
        found.rows += len(batch)
        for entry in batch.column("result_type").value_counts().to_pylist():
            found.counts[entry["values"]] += entry["counts"]
        answered = batch.filter(pa.compute.equal(batch.column("result_type"), "succeeded"))
        for entry in answered.column("stop_reason").value_counts().to_pylist():
            if entry["values"] == REFUSED or entry["values"] in TRUNCATED:
                found.stopped[entry["values"]] += entry["counts"]
        invalid = answered.filter(pa.compute.equal(answered.column("error_type"), "invalid_output"))
        for reason in invalid.column("error_message").to_pylist():
            found.invalid[reason] += 1
            if reason and reason.startswith(UNEXPECTED):
                found.unexpected[reason] += 1


def _compare_keys(found: Examination, table: pq.ParquetFile, index: RequestIndex, key: str) -> None:
    """Row by row: the index holds every row key of the dataset once."""
    wanted = (rows.column(0) for rows in index.slices([key]) if len(rows))
    present = (rows.column(0) for rows in table.iter_batches(_ROWS_AT_ONCE, columns=[key]) if len(rows))
    number = 0
    for one, other in _side_by_side(wanted, present):
        if not one.equals(other):
            pairs = zip_longest(one.to_pylist(), other.to_pylist())
            different = [(at, *pair) for at, pair in enumerate(pairs, number) if not _same(*pair)]
            found.misplaced += [f"row {at} should be {due!r} and is {there!r}" for at, due, there in different]
            if len(found.misplaced) >= _EXAMPLES:
                del found.misplaced[_EXAMPLES:]
                return
        number += max(len(one), len(other))


def _side_by_side(one: Iterator[pa.Array], other: Iterator[pa.Array]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Two columns in pieces of the same length; where one is at its end, the rest of the other beside nothing."""
    nothing = pa.nulls(0)
    left = right = nothing
    while True:
        left = left if len(left) else next(one, nothing)
        right = right if len(right) else next(other, nothing)
        if not len(left) and not len(right):
            return
        size = min(len(left), len(right)) or max(len(left), len(right))
        yield left[:size], right[:size]
        left, right = left[size:], right[size:]


def _same(one: object, other: object) -> bool:
    """Whether two row keys are one: NaN, which differs from itself, is the same key as NaN."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


def _expected(index: RequestIndex, pipeline: Pipeline) -> pa.Schema:
    """The columns as the pipeline is now: those of the dataset as they were indexed, then its own."""
    carried = [field for field in index.schema if field.name not in OWN]
    return pa.schema([*carried, *BEFORE_OUTPUT, *pipeline.answers.fields, *AFTER_OUTPUT])


def _column_differences(schema: pa.Schema, expected: pa.Schema) -> list[str]:
    said = [f"{name} is missing" for name in expected.names if name not in schema.names]
    said += [f"{name} is not expected" for name in schema.names if name not in expected.names]
    for field_ in expected:
        if field_.name in schema.names and (found := schema.field(field_.name).type) != field_.type:
            said.append(f"{field_.name} is of the type {found}, not {field_.type}")
    return said
