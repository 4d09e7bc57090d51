"""A complete table whose inputs are as they were is not written again, and its report is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.ledger import joins, submissions
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import collect_results

from ..support import CREATE, World, params, texts

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "mood": {"type": "string", "enum": ["glad", "sad"]},
        "stars": {"anyOf": [{"type": "integer", "enum": [1, 2, 3]}, {"type": "null"}]},
        "is_new": {"type": "boolean"},
        "topic": {"type": "string", "enum": [f"topic {number}" for number in range(40)]},
        "always": {"type": "string", "const": "same"},
        "flaws": {"type": "array", "items": {"type": "string", "enum": ["late", "broken", "dear"]}},
    },
    "required": ["label", "mood", "stars", "is_new", "topic", "always", "flaws"],
    "additionalProperties": False,
}


def joined(world: World, pipeline: Pipeline) -> ResultsReport:
    """Run `results`."""
    report = collect_results(world.root, pipeline.name, answers=pipeline.own_answers).results
    assert report is not None
    return report


def table_of(world: World, pipeline: Pipeline) -> Path:
    return world.path(pipeline.name, "results", "results.parquet")


def written_at(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def comparable(report: ResultsReport) -> dict[str, Any]:
    schema = report.schema
    return {**vars(report), "schema": (schema, schema.metadata) if schema is not None else None}


def test_the_same_table_is_not_written_again(world: World) -> None:
    """The report is the same in every field: refused answers, costs and attempts included."""
    mix = {"refusal": 0.2, "max_tokens": 0.2, "overloaded_error": 0.2, "first": 1}
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])
    pipeline = world.pipeline(texts(40) | {"same": "the text of row 1"}, output_schema=SCHEMA)
    world.send(pipeline)
    before = world.finish(pipeline).results
    assert before is not None
    assert before.invalid_outputs or before.refused_answers
    assert set(before.counts) == {"succeeded"}
    assert len(before.tally.attempts) == 2
    table = world.table(pipeline)
    names = {"mood": ["glad", "sad"], "stars": ["1", "2", "3"], "is_new": ["true", "false"]}
    assert before.values.keys() == {*names, "topic", "flaws"}
    for name, values in names.items():
        column = table[name].dropna()
        in_table = (column.astype(int) if name == "stars" else column).astype(str).str.lower()
        counted = before.values[name]
        assert counted.by_value == {value: int((in_table == value).sum()) for value in values}
        assert (list(counted.by_value), counted.rows) == (values, len(column)), "in the order of the schema"
    flaws, found = before.values["flaws"], [{*row} for row in table["flaws"].dropna()]
    assert flaws.by_value == {flaw: sum(flaw in row for row in found) for flaw in ("late", "broken", "dear")}
    assert flaws.rows == sum(map(bool, found)) < sum(flaws.by_value.values()), (
        "a row counts for each of its values"
    )
    assert before.values["topic"].by_value == {
        topic: rows for topic, rows in table["topic"].value_counts().to_dict().items() if rows
    }, "of many values only those that occur"
    at = written_at(table_of(world, pipeline))

    again = joined(world, pipeline)

    assert written_at(table_of(world, pipeline)) == at
    assert comparable(again) == comparable(before)


def test_a_table_with_failed_rows_is_written_again(world: World) -> None:
    """Another partition may have sent a failed request again, and then the row waits for it."""
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 0.5}}}])
    pipeline = world.pipeline(texts(20))
    world.run(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded", "errored"}
    at = written_at(table_of(world, pipeline))

    joined(world, pipeline)

    assert written_at(table_of(world, pipeline)) != at


def _delete_table(world: World, pipeline: Pipeline) -> None:
    table_of(world, pipeline).unlink()


def _edit_table(world: World, pipeline: Pipeline) -> None:
    path = table_of(world, pipeline)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def _copy_response(world: World, pipeline: Pipeline) -> None:
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def _damage_response(world: World, pipeline: Pipeline) -> None:
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    path.write_bytes(b"damaged")


@pytest.mark.parametrize("change", [_delete_table, _edit_table, _copy_response, _damage_response])
def test_a_table_whose_files_have_changed_is_written_again(
    world: World, change: Callable[[World, Pipeline], None]
) -> None:
    pipeline = world.pipeline(texts(3))
    before = world.run(pipeline)
    at = written_at(table_of(world, pipeline))

    change(world, pipeline)

    assert world.finish(pipeline).results is not None
    assert written_at(table_of(world, pipeline)) != at
    assert list(world.table(pipeline)["text"]) == list(before["text"])
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_a_new_submission_has_a_table_of_its_own(world: World) -> None:
    world.run(world.pipeline(texts(3)))

    table = world.run(world.pipeline(texts(4)))

    assert len(table) == 4


def test_own_code_makes_its_columns_again(world: World) -> None:
    words = ["one"]
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "additionalProperties": False}

    def word_of(message: Any) -> dict[str, str]:
        return {"word": words[0]}

    pipeline = world.pipeline(texts(2), params=params(), output_schema=schema, hooks=Hooks(parse_message=word_of))
    world.run(pipeline)

    words[0] = "two"
    joined(world, pipeline)

    assert set(world.table(pipeline)["word"]) == {"two"}


def test_a_canceled_submission_is_joined_as_such(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
    assert submission is not None
    with world.root.ledger.write() as tx:
        joins.join_again(tx, submission.id)
    at = written_at(table_of(world, pipeline))

    joined(world, pipeline)

    assert written_at(table_of(world, pipeline)) != at


def test_a_skipped_join_needs_no_round(world: World) -> None:
    """Else the sensor would ask for the same join again and again."""
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    world.query("update request_file set collected_seq = (select max(seq) from history)")

    joined(world, pipeline)

    assert world.query(
        "select count(*) from submission join request_file on submission.id = request_file.submission_id "
        "where collected_seq > joined_seq"
    ) == [(0,)]
