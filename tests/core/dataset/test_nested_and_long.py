"""Nested columns in templates and in results, and cells with tens of megabytes of text."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.rows import Rows

from ..support import World, params, read

_LONG = 12_000_000


def _sent(world: World) -> list[str]:
    (batch,) = world.accepted()
    requests = orjson.loads(world.sent_body(batch["id"]))["requests"]
    return [request["params"]["messages"][0]["content"] for request in requests]


def test_lists_structs_and_maps_from_parquet_work_in_templates_and_are_carried(world: World) -> None:
    map_ = pa.map_(pa.string(), pa.list_(pa.int64()))
    columns = {
        "id": pa.array(["a", "b"]),
        "tags": pa.array([["x", "y"], None], pa.list_(pa.string())),
        "who": pa.array([{"name": "N", "seen": [{"day": 1}]}, {"name": None, "seen": []}]),
        "more": pa.array([[("k", [1, 2]), ("l", [])], None], map_),
    }
    pq.write_table(pa.table(columns), world.folder / "rows.parquet")
    content = (
        "{% for tag in tags or ['none'] %}<{{ tag }}>{% endfor %}"
        "{% if who.name %} {{ who.name }} {{ who.seen[0].day }}{% endif %}"
        "{% if more %} {{ more.k | sum }}{% for key, values in more.items() %} {{ key }}{{ values | length }}"
        "{% endfor %}{% endif %}"
    )
    table = world.run(world.pipeline("rows.parquet", params=params(content)))
    assert _sent(world) == ["<x><y> N 1 3 k2 l0", "<none>"]
    assert list(table["tags"][0]) == ["x", "y"]
    assert table["tags"][1] is None
    assert table["who"][0]["name"] == "N"
    stored = pq.read_table(world.path("asked", "results", "results.parquet"))
    assert stored.schema.field("more").type == map_
    assert stored.column("more").to_pylist() == columns["more"].to_pylist()
    assert stored.column("who").to_pylist() == columns["who"].to_pylist()


def test_a_list_column_can_be_the_content_blocks_of_a_message(world: World) -> None:
    blocks = [[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]]
    pq.write_table(pa.table({"id": ["a"], "blocks": blocks}), world.folder / "rows.parquet")
    world.run(world.pipeline("rows.parquet", params=params("{{ blocks }}")))
    (content,) = _sent(world)
    assert content == blocks[0]


def test_a_map_with_one_key_twice_rejects_its_row(world: World) -> None:
    map_ = pa.map_(pa.string(), pa.int64())
    columns = {
        "id": pa.array(["a", "b"]),
        "more": pa.array([[("k", 1), ("k", 2)], [("k", 3)]], map_),
        "inner": pa.array([{"m": []}, {"m": [("k", 1)]}], pa.struct([("m", map_)])),
    }
    pq.write_table(pa.table(columns), world.folder / "rows.parquet")
    pipeline = world.pipeline("rows.parquet", params=params("{{ more.k }} {{ inner.m | length }}"))
    table = world.run(pipeline)
    assert list(table["result_type"]) == ["rejected", "succeeded"]
    assert "column 'more' has a map with one key twice" in table["error_message"][0]
    assert _sent(world) == ["3 1"]


_MAP = pa.map_(pa.string(), pa.float32())


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([[("a", 0.1), ("b", None)], None], _MAP), ['{"a":0.1,"b":null}', None]),
        (pa.array([[("a", 0.5), ("a", 1)], [("a", 0.1)]], _MAP), ['[["a",0.5],["a",1.0]]', '{"a":0.1}']),
        (pa.array([[0.1], None], pa.list_(pa.float32())), ["[0.1]", None]),
        (pa.array([np.float16(0.1), None], pa.float16()), ["0.1", None]),
        (pa.array([0.1, float("nan")], pa.float32()), ["0.1", None]),
        (pa.array([float("nan"), 2.5]), [None, "2.5"]),
        (pa.array([dt.timedelta(days=1), None]), ["1 day, 0:00:00", None]),
    ],
    ids=str,
)
def test_a_column_that_is_text_in_another_file_is_carried_as_a_person_would_write_it(
    tmp_path: Path, column: pa.Array, texts: list[Any]
) -> None:
    pq.write_table(pa.table({"v": column}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"v": ["text"]}), tmp_path / "2.parquet")
    assert read(tmp_path, "*.parquet", ["v"])["v"].to_pylist() == [*texts, "text"]


def test_a_map_with_one_key_twice_stays_as_it_was_in_the_first_rendering() -> None:
    maps = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    rows = Rows(pa.record_batch({"more": maps}))
    with pytest.warns(UserWarning, match="already encountered"):
        assert rows.stored_values("more") == [{"k": 2}]
    assert rows.rejects == {}
    assert rows.values("more") == [None]
    assert [error_type for error_type, _ in rows.rejects.values()] == ["template_error"]


@pytest.mark.parametrize("value", ["{}", "[{},{}]", '{"a":{}}'])
def test_a_column_of_empty_objects_becomes_text_with_their_json(world: World, value: str) -> None:
    (world.folder / "rows.jsonl").write_text(f'{{"id":"a","text":"x","more":{value}}}\n')
    table = world.run(world.pipeline())
    assert list(table["more"]) == [value]


def _write(folder: Path, ending: str, texts: list[str]) -> None:
    path = folder / f"rows.{ending}"
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "csv":
        path.write_text("id,text\n" + "".join(f'"{row["id"]}","{row["text"]}"\n' for row in rows))
    else:
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_text_of_tens_of_megabytes_is_sent_or_its_row_is_rejected(world: World, ending: str) -> None:
    texts = ["short", "long\n" * (_LONG // 5), "too long\n" * (_LONG // 6), "end"]
    _write(world.folder, ending, texts)
    rows = read(world.folder, {"path": f"rows.{ending}", "key": "id"})
    assert rows["text"].to_pylist() == texts
    dataset: dict[str, Any] = {"path": f"rows.{ending}", "key": "id", "columns": []}
    report = world.build(world.pipeline(dataset=dataset, batching={"max_mb": 16}))
    assert (report.rows, report.rejected, report.written) == (4, 1, 3)
    folder = world.path("asked", "requests", report.submission_id)
    (rejected,) = pq.read_table(folder / "rejected.parquet").to_pylist()
    assert (rejected["reason"], str(rejected["id"])) == ("request_too_large", "2")
    lines = b"".join((folder / name).read_bytes() for name in report.files).splitlines()
    contents = [orjson.loads(line)["params"]["messages"][0]["content"] for line in lines]
    assert contents == [texts[0], texts[1], texts[3]]
