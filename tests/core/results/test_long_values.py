"""Long answers and long carried columns make the slices of the join smaller, and old indexes get their table."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.slices import SLICE_BYTES, size_of
from batch_assets.core.results.write import write_results
from batch_assets.core.store.outcomes import read_responses
from batch_assets.core.store.responses import GROUP_BYTES

from ..support import World, params, texts

_LENGTH = 300_000
_DEEP = 60
# A slice ends with the row that exceeds the limit, and the sizes of answers are estimates.
_ALLOWED = 3 * SLICE_BYTES // 2


def lengthen(world: World, pipeline: str, *, equal: bool) -> dict[str, str]:
    """Replace every answer by a long one, in row groups like those of a download.

    Returns:
        The texts by custom_id.
    """
    answers: dict[str, str] = {}
    files, _ = read_responses(world.root.storage, pipeline)
    for number, name in enumerate(files.names):
        with files.open(number) as file:
            rows, schema = file.read().to_pylist(), file.schema_arrow
        with pq.ParquetWriter(world.path(pipeline, "responses", str(name)), schema) as writer:
            group: list[dict[str, Any]] = []
            for row in rows:
                text = ("" if equal else row["custom_id"]).ljust(_LENGTH, "x")
                answers[row["custom_id"]] = text
                message = json.dumps({"content": [{"type": "text", "text": text}]})
                group.append(row | {"response_text": text, "response_json": message})
                if len(group) * _LENGTH > GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(group, schema))
                    group = []
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema))
    return answers


def results_of(world: World, pipeline: str) -> pq.ParquetFile:
    return pq.ParquetFile(next(world.path(pipeline, "results").rglob("*.parquet")))


def largest_group(file: pq.ParquetFile) -> int:
    return max(size_of(file.read_row_group(number)) for number in range(file.num_row_groups))


@pytest.mark.parametrize("equal", [False, True])
def test_the_slices_of_long_answers_are_small_in_any_order(world: World, equal: bool) -> None:
    rows = texts(100)
    pipeline = world.pipeline(rows)
    world.run(pipeline)
    answers = lengthen(world, pipeline.name, equal=equal)
    for order in (list(rows), random.Random(5).sample(list(rows), len(rows))):
        world.build(world.pipeline({key: rows[key] for key in order}))
        report = write_results(world.root, pipeline.name)
        assert report is not None
        assert report.final
        file = results_of(world, pipeline.name)
        assert largest_group(file) < _ALLOWED
        table = file.read(["id", "custom_id", "response_text"])
        assert table["id"].to_pylist() == order
        assert table["response_text"].to_pylist() == [answers[own] for own in table["custom_id"].to_pylist()]


def test_one_answer_that_many_rows_share_is_not_repeated_in_memory(world: World) -> None:
    pipeline = world.pipeline(dict.fromkeys(map(str, range(150)), "the same"))
    world.run(pipeline)
    (answer,) = lengthen(world, pipeline.name, equal=True).values()
    write_results(world.root, pipeline.name)
    file = results_of(world, pipeline.name)
    assert largest_group(file) < _ALLOWED
    assert file.read(["response_text"])["response_text"].to_pylist() == [answer] * 150


def test_the_slices_of_long_carried_columns_are_small(world: World) -> None:
    table = pa.table({"id": range(150), "image": [{"bytes": b"x" * _LENGTH, "path": None}] * 150})
    pq.write_table(table, world.folder / "rows.parquet", row_group_size=150)
    pipeline = world.pipeline("rows.parquet", params=params("{{ id }}"))
    report = world.build(pipeline)
    index = pq.ParquetFile(world.submission_folder(pipeline, report) / "index.parquet")
    assert largest_group(index) < _ALLOWED
    world.submit(pipeline)
    world.finish(pipeline)
    assert largest_group(results_of(world, pipeline.name)) < _ALLOWED


def nested(levels: int) -> tuple[Any, pa.DataType]:
    value, type_ = 1, pa.int64()
    for _ in range(levels):
        value, type_ = [value], pa.list_(type_)  # type: ignore[assignment]
    return value, type_


def test_a_column_nested_too_deeply_is_text_in_results_and_itself_in_templates(world: World) -> None:
    value, _ = nested(_DEEP)
    (world.folder / "rows.jsonl").write_text(json.dumps({"id": "a", "v": {"k": value}}) + "\n")
    pipeline = world.pipeline(params=params("{{ v.k | tojson }}"))
    assert world.run(pipeline)["v"].tolist() == [json.dumps({"k": value}, separators=(",", ":"))]
    (batch_id,) = (batch["id"] for batch in world.accepted())
    assert f'"{json.dumps(value)}"'.encode() in world.sent_body(batch_id)


def test_an_index_with_a_column_nested_too_deeply_gets_its_table(world: World) -> None:
    """Earlier versions wrote such an index, sent the requests and could not read the index."""
    value, type_ = nested(_DEEP)
    rows = texts(3)
    pipeline = world.pipeline(rows)
    report = world.build(pipeline)
    _replace_text(world.submission_folder(pipeline, report) / "index.parquet", pa.array([value] * 3, type_))
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert table["id"].tolist() == list(rows)
    assert table["text"].tolist() == [json.dumps(value)] * 3
    assert set(table["result_type"]) == {"succeeded"}


def _replace_text(path: Path, values: pa.Array) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", values), path)
