"""Erase rows: nothing of them is left here or at the API, and the other rows lose nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.erase.run import EraseError, erase
from batch_assets.core.erase.search import Needles
from batch_assets.core.ledger import files, joins, submissions
from batch_assets.core.sink.write import write_sink
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_files import StoredRequestFile

from ..support import World, params, write_rows
from .support import GONE, ROWS, SECRET, erased, every_text


def test_nothing_is_left_of_an_erased_row(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    before = world.run(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    after = world.table(pipeline)
    assert list(after["id"]) == [key for key in ROWS if key != GONE]
    others = before[before["id"] != GONE].reset_index(drop=True)
    assert after.equals(others)
    everything = every_text(world.path())
    digest = before.loc[before["id"] == GONE, "custom_id"].item()[-22:]
    for text in (GONE, SECRET, digest):
        assert text not in everything
    assert report.deleted == [batch["id"] for batch in world.accepted()]


def test_what_an_erased_answer_cost_stays(world: World) -> None:
    """Not only the sum: the usage says what was written to the cache, which the columns of a response do not."""
    long = "Be brief. " * 1000
    system = [
        {"type": "text", "text": f"{long}{{{{ text }}}}", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    pipeline = world.pipeline(ROWS, params=params(system=system))
    world.run(pipeline)
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    before = pd.read_parquet(path).set_index(pd.RangeIndex(len(ROWS)))
    erased(world, pipeline)
    after = pd.read_parquet(path)
    money = ["cost_usd", "live_cost_usd", "output_tokens", "cache_creation_input_tokens", "response_model"]
    assert after[money].equals(before[money]) and (after["cache_creation_input_tokens"] > 0).all()
    gone = after["message_id"].isna()
    assert gone.sum() == 1
    (usage,) = [json.loads(text)["usage"] for text in after.loc[gone, "response_json"]]
    (was,) = [json.loads(text)["usage"] for text in before.loc[gone, "response_json"]]
    assert usage == {name: value for name, value in was.items() if name != "service_tier"}
    assert SECRET not in every_text(world.path())


def test_an_erased_row_is_rejected_and_not_sent(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    erased(world, pipeline)
    table = world.run(pipeline)
    assert len(world.accepted_custom_ids()) == len(ROWS)
    (row,) = table[table["id"] == GONE].to_dict("records")
    assert (row["result_type"], row["error_type"]) == ("rejected", "erased")
    assert pd.isna(row["text"])
    assert SECRET not in every_text(world.path())
    assert sorted(table["result_type"].unique()) == ["rejected", "succeeded"]


def _in_struct(values: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([values], ["name"])


ENCODED: dict[str, dict[str, Callable[[pa.Array], pa.Array]]] = {
    "carried": {"name": pa.Array.dictionary_encode},
    "prompt": {"text": pa.Array.dictionary_encode},
    "row key": {"id": pa.Array.dictionary_encode},
    "struct": {"name": lambda names: _in_struct(names.dictionary_encode())},
    "list": {"name": lambda names: pa.ListArray.from_arrays([0, 1, 2, 3], names.dictionary_encode())},
}


@pytest.mark.parametrize("encoded", ENCODED.values(), ids=ENCODED)
def test_nothing_is_left_in_dictionaries(world: World, encoded: dict[str, Callable[[pa.Array], pa.Array]]) -> None:
    """Parquet stores a dictionary whole, also values that no row has any longer."""
    names = {"id": ["one", GONE, "two"], "text": ["a text", SECRET, "b text"], "name": ["Ann", "Zaphod B.", "Bo"]}
    columns = {name: encoded.get(name, pa.array)(pa.array(values)) for name, values in names.items()}
    pq.write_table(pa.table(columns), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    types = pq.read_schema(world.folder / "rows.parquet")
    world.run(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    everything = every_text(world.path())
    assert not [text for text in (GONE, SECRET, "Zaphod B.") if text in everything]
    world.run(pipeline)
    everything = every_text(world.path())
    assert not [text for text in (SECRET, "Zaphod B.") if text in everything]
    (results,) = world.path().glob("*/results/*.parquet")
    assert pq.read_schema(results).field("name").type == types.field("name").type


@pytest.mark.parametrize("categories", [["Zaphod B.", "Bo"], ["Bo"]], ids=["with its category", "without"])
def test_a_row_that_the_dataset_no_longer_has_leaves_no_category(world: World, categories: list[str]) -> None:
    def write(ids: list[str], names: list[str], categories: list[str]) -> None:
        name = pd.Categorical(names, categories=categories)
        pd.DataFrame({"id": ids, "text": ids, "name": name}).to_parquet(world.folder / "rows.parquet")

    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    write([GONE, "other"], ["Zaphod B.", "Bo"], ["Zaphod B.", "Bo"])
    world.run(pipeline)
    write(["other"], ["Bo"], categories)
    table = world.run(pipeline)
    assert list(table["name"].cat.categories) == ["Bo"]
    (results,) = world.path().glob("*/results/*.parquet")
    assert b"Zaphod B." not in results.read_bytes()
    assert erased(world, pipeline).is_complete
    assert "Zaphod B." not in every_text(world.path())


@pytest.mark.parametrize(
    "line", [f"{GONE},{SECRET},too many", f'{GONE},"{SECRET}" and more', f'{GONE},"{SECRET}'], ids=str
)
def test_a_row_that_cannot_be_read_leaves_nothing(world: World, line: str) -> None:
    """It has no row key by which it could be found."""
    (world.folder / "rows.csv").write_text(f"id,text\none,a text\ntwo,b text\n{line}\n")
    pipeline = world.pipeline(dataset={"path": "rows.csv", "key": "id", "bad_rows": "reject"})
    table = world.run(pipeline)
    assert list(table["error_type"])[2] == "unreadable_row"
    assert "rows.csv, line 4: " in table["error_message"][2]
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    everything = every_text(world.path())
    assert not [text for text in (GONE, SECRET) if text in everything]


def test_a_shared_answer_stays_for_the_other_rows(world: World) -> None:
    pipeline = world.pipeline({GONE: SECRET, "other": SECRET, "third": "a third text"})
    before = world.run(pipeline)
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert report.shared == 1
    after = world.table(pipeline)
    assert list(after["id"]) == ["other", "third"]
    assert list(after["response_text"]) == list(before["response_text"][1:])
    assert after["input_tokens"].notna().all()
    assert after["shared_with"].isna().all()
    assert after["custom_id"][0] == before["custom_id"][0].replace(GONE, "other")
    assert GONE not in every_text(world.path())
    world.run(pipeline)
    assert len(world.accepted_custom_ids()) == 2


def test_a_lost_ledger_is_rebuilt_after_an_erasure(world: World) -> None:
    pipeline = world.pipeline(ROWS | {"shares": SECRET})
    world.run(pipeline)
    world.run(world.pipeline(ROWS | {"shares": "another text", "new": "a new text"}))
    erased(world, pipeline)
    before = world.table(pipeline)
    world.root.close()
    for path in world.path().glob("ledger.db*"):
        path.unlink()
    accepted = len(world.accepted_custom_ids())
    assert set(world.states(pipeline)) == {"collected"}
    world.finish(pipeline)
    pd.testing.assert_frame_equal(world.table(pipeline), before)
    world.run(pipeline)
    assert len(world.accepted_custom_ids()) == accepted


def test_a_row_is_erased_from_every_partition(world: World) -> None:
    dataset = {"path": "rows-{partition}.jsonl", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"static": ["a", "b"]})
    for partition in ("a", "b"):
        write_rows(world.folder / f"rows-{partition}.jsonl", ROWS | {GONE: f"{SECRET} in {partition}"})
        world.run(pipeline, partition)
    assert erased(world, pipeline).is_complete
    assert SECRET not in every_text(world.path())
    table = world.table(pipeline)
    assert len(table) == 2 * (len(ROWS) - 1)
    assert GONE not in set(table["id"])


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("7", [{"id": 7, "text": SECRET}, {"id": 77, "text": "7"}, {"id": 8, "text": "eight"}]),
        ("null", [{"id": "null", "text": SECRET}, {"id": "none", "text": "a"}, {"id": "", "text": "b"}]),
        ("", [{"id": "", "text": SECRET}, {"id": "none", "text": "a"}]),
        ('a b/c"é', [{"id": 'a b/c"é', "text": SECRET}, {"id": "a_b_c_é", "text": "a"}]),
        ("1.5", [{"id": 1.5, "text": SECRET}, {"id": 2.0, "text": "a"}]),
    ],
)
def test_keys_of_every_kind(world: World, key: str, rows: list[dict[str, object]]) -> None:
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline = world.pipeline()
    world.run(pipeline)
    report = erased(world, pipeline, key)
    assert not report.unknown
    assert report.is_complete, list(report.open_ends())
    assert list(world.table(pipeline)["id"]) == [row["id"] for row in rows[1:]]
    assert SECRET not in every_text(world.path())
    world.build(pipeline)
    table = pq.read_table(next(world.path(pipeline.name, "requests").rglob("rejected.parquet")))
    assert table.column("reason").to_pylist() in ([], ["erased"])


TIME, LARGE = pa.array([datetime(2024, 1, 5), datetime(2024, 1, 6)]), pa.array([1e22, 2.5])


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (TIME, "2024-01-05T00:00:00"),
        (TIME, "2024-01-05 00:00:00"),
        (TIME, "2024-01-05"),
        (TIME.cast(pa.timestamp("us", "UTC")), "2024-01-05T00:00:00Z"),
        (TIME.cast(pa.timestamp("ns", "Europe/Berlin")), "2024-01-05T00:00:00+00:00"),
        (LARGE, "1e22"),
        (LARGE, "1e+22"),
        (LARGE, "10000000000000000000000"),
        (pa.array([Decimal("1.50"), Decimal("2.50")]), "1.5"),
        (pa.array([7, 8]), "007"),
        (pa.array([True, False]), "True"),
        (pa.array([b"abcd1234", b"b"]), "abcd1234"),
        (pa.array([b"abcd1234", b"b"]), "b'abcd1234'"),
    ],
    ids=str,
)
def test_a_key_in_another_form(world: World, keys: pa.Array, key: str) -> None:
    pq.write_table(pa.table({"id": keys, "text": [SECRET, "another text"]}), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    world.run(pipeline)
    report = erased(world, pipeline, key)
    assert report.unknown == []
    assert report.is_complete, list(report.open_ends())
    assert SECRET not in every_text(world.path())
    table = world.run(pipeline)
    assert sorted(table["result_type"]) == ["rejected", "succeeded"]
    assert len(world.accepted_custom_ids()) == 2


LENGTHS = pa.array([timedelta(days=1, hours=2), timedelta(hours=3)])


@pytest.mark.parametrize(
    ("unit", "key"),
    [("us", "1 day, 2:00:00"), ("us", "PT26H"), ("ns", "1 days 02:00:00"), ("ns", "93600000000000")],
)
def test_a_duration_stays_erased_when_its_column_becomes_text(world: World, unit: str, key: str) -> None:
    keys = LENGTHS.cast(pa.duration(unit))
    pq.write_table(pa.table({"id": keys, "text": [SECRET, "another text"]}), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    world.run(pipeline)
    report = erased(world, pipeline, key)
    assert report.unknown == [] and report.is_complete, list(report.open_ends())
    for text in ("1 day, 2:00:00", "1 days 02:00:00", "P1DT2H0M0S"):
        rows = {"id": [text, "3:00:00", "93600000000"], "text": [SECRET, "another text", "a third text"]}
        pq.write_table(pa.table(rows), world.folder / "rows.parquet")
        folder = world.submission_folder(pipeline, world.build(pipeline))
        rejected = pq.read_table(folder / "rejected.parquet")
        assert rejected.column("id").to_pylist() == [text]
        assert rejected.column("reason").to_pylist() == ["erased"]


def test_a_month_that_was_erased_as_its_number_stays_erased(world: World) -> None:
    months = pd.PeriodIndex(["2024-01", "2024-02"], freq="M")
    pd.DataFrame({"id": months, "text": [SECRET, "another text"]}).to_parquet(world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    record = ErasedRecord.new().with_keys(["648"], "id", [pa.int64()])
    record.write(world.root.storage, pipeline.name)
    table = world.run(pipeline)
    assert list(table["result_type"]) == ["rejected", "succeeded"]
    assert list(table["id"]) == ["2024-01", "2024-02"]


@pytest.mark.parametrize(
    ("keys", "key"), [(TIME, "2024-01-05T00:00:00"), (LARGE, "1e22"), (LARGE, "1e+22")], ids=str
)
def test_a_key_as_json_before_the_first_submission(world: World, keys: pa.Array, key: str) -> None:
    pq.write_table(pa.table({"id": keys, "text": [SECRET, "another text"]}), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    erased(world, pipeline, key)
    assert sorted(world.run(pipeline)["result_type"]) == ["rejected", "succeeded"]


def test_a_text_that_is_no_key_is_named(world: World) -> None:
    pq.write_table(pa.table({"id": TIME, "text": [SECRET, "b"]}), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"})
    world.run(pipeline)
    report = erased(world, pipeline, "5 January 2024")
    assert not report.is_complete
    assert report.unknown == ["5 January 2024"]
    assert "is no row key of asked, whose keys have the type timestamp[us]" in report.problems[0]


def test_row_numbers_name_no_row_for_long(world: World) -> None:
    pipeline = world.pipeline(ROWS, dataset={"path": "rows.jsonl"})
    world.build(pipeline)
    with pytest.raises(EraseError, match=r"dataset\.key"):
        erased(world, pipeline, "1")
    assert not world.path(pipeline.name, "erasures", "keys.json").exists()


def test_the_sink_and_texts_of_the_ledger(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path}/warehouse.db")
    pipeline = world.pipeline({GONE: SECRET, "other": SECRET, "third": "3"}, sink={"url_env": "WAREHOUSE_URL"})
    table = world.run(pipeline)
    custom_id = table["custom_id"][0]
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        joins.announced(tx, newest.id)
    write_sink(world.root, pipeline, "", newest.id)
    world.query("update history set reason = :text where seq = 1", text=f"lost: {custom_id} and {GONE}")
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert report.sink_rows == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "warehouse.db")) as database:
        rows = database.execute("select id, custom_id, shared_with, cost_usd from asked order by id").fetchall()
    assert [row[0] for row in rows] == ["other", "third"]
    assert rows[0][1] == custom_id.replace(GONE, "other")
    assert rows[0][2] is None
    assert rows[0][3] > 0
    assert world.query("select reason from history where seq = 1") == [
        (f"lost: {custom_id.replace(GONE, 'other')} and erased",)
    ]


def test_what_is_left_is_named(world: World) -> None:
    pipeline = world.pipeline(ROWS | {"friend": f"a friend of {GONE}"})
    world.run(pipeline)
    report = erased(world, pipeline)
    assert not report.is_complete
    assert any("index.parquet" in where for where in report.left)
    assert not any("ledger.db" in where for where in report.left)


def test_rows_that_had_another_key_before(world: World) -> None:
    rows = [{"number": 1, "id": GONE, "text": SECRET}, {"number": 2, "id": "b", "text": ""}]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    world.run(world.pipeline(dataset={"path": "rows.jsonl", "key": "number"}))
    rows[0]["text"] = ""
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    world.run(world.pipeline(dataset={"path": "rows.jsonl", "key": "number"}))
    pipeline = world.pipeline()
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert SECRET not in every_text(world.path())
    rejected = [pq.read_table(path).column(0).to_pylist() for path in world.path().rglob("rejected.parquet")]
    assert rejected == [[2], [2]]


def test_a_server_is_searched_column_by_column(new_world: Callable[..., World], postgres_server: Any) -> None:
    world = new_world(ledger=postgres_server.new_database())
    pipeline = world.pipeline({GONE: SECRET, "Zoe": "another text"})
    world.run(pipeline)
    world.query("update history set reason = :text where seq = 1", text=f"{GONE}, and Zoe too")
    report = erased(world, pipeline, GONE, "Zoe-x")
    assert report.is_complete, list(report.open_ends())
    world.query("update history set reason = 'Zoe-x' where seq = 1")
    assert erased(world, pipeline, "Zoe-x").is_complete  # it is replaced
    world.query("update submission set headers = :text", text='{"a": "Zoe-x"}')
    assert erased(world, pipeline, "Zoe-x").left == ["submission.headers"]


def test_a_remote_root(new_world: Callable[..., World], tmp_path: Path) -> None:
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT="memory://erased/data")
    memory = fsspec.filesystem("memory")
    try:
        pipeline = world.pipeline(ROWS)
        world.send(pipeline)
        world.finish(pipeline)
        report = erased(world, pipeline)
        assert report.is_complete, list(report.open_ends())
        assert len(pd.read_parquet("memory://erased/data/asked/results/results.parquet")) == len(ROWS) - 1
        assert not any(GONE.encode() in memory.cat(name) for name in memory.find("/erased"))
    finally:
        memory.rm("/erased", recursive=True)


def test_a_pipeline_without_submissions(world: World) -> None:
    with pytest.raises(EraseError, match="nothing was submitted for a pipeline 'asked'"):
        erase(world.root, "asked", [GONE])
    pipeline = world.pipeline(ROWS)
    assert erased(world, pipeline).unknown == [GONE]
    assert world.build(pipeline).rejected == 1
    with pytest.raises(
        EraseError, match=r"pipeline 'askd' in .* \(did you mean 'asked'\?\); pipelines there: asked$"
    ):
        erase(world.root, "askd", [GONE])


def test_request_file_manifest_and_ledger_agree(world: World) -> None:
    pipeline = world.pipeline(ROWS | {"shares": SECRET, "fails": ""})
    report = world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    write_rows(world.folder / "rows.jsonl", ROWS | {"shares": "another text"})
    world.build(pipeline)
    assert erased(world, pipeline).request_files == 1
    with world.root.ledger.read() as tx:
        file = files.by_id(tx, f"{report.submission_id}/part-00000.jsonl")
        headers = files.headers_of(tx, file)
        submission = submissions.by_id(tx, report.submission_id)
    stored = StoredRequestFile.of(world.root.storage, file)
    assert stored.damage(file.requests, file.bytes, headers) is None
    assert sha256(world.root.storage.read_bytes(*stored.parts)).hexdigest() == file.checksum
    manifest = Manifest.read(world.root.storage, pipeline.name, "", report.submission_id)
    (entry,) = manifest.files
    assert (entry.requests, entry.bytes, entry.checksum) == (file.requests, file.bytes, file.checksum)
    index = pq.read_table(world.submission_folder(pipeline, report) / "index.parquet")
    assert (submission.rows, submission.rejected, submission.requests) == (6, 1, 5)
    assert (manifest.rows, manifest.rejected, manifest.requests) == (6, 1, 5)
    assert len(index) == 6


def test_a_row_key_with_another_name_in_results(world: World) -> None:
    pipeline = world.pipeline(ROWS, dataset={"path": "rows.jsonl", "key": {"id": "who"}})
    world.run(pipeline)
    assert erased(world, pipeline).is_complete
    assert list(world.table(pipeline)["who"]) == [key for key in ROWS if key != GONE]
    assert world.build(pipeline).rejected == 1


def test_a_damaged_manifest_or_index_is_named(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    first, second = (world.build(world.pipeline(ROWS)) for _ in range(2))
    (world.submission_folder(pipeline, first) / "manifest.json").write_text("{")
    (world.submission_folder(pipeline, second) / "index.parquet").unlink()
    report = erased(world, pipeline)
    assert [problem.rpartition(": ")[2] for problem in report.problems if "unknown" in problem] == [
        "whether its submission has the row is unknown"
    ] * 2
    assert report.submissions == 1
    assert not report.is_complete


def test_a_row_stays_erased_when_another_column_becomes_the_row_key(world: World, caplog: Any) -> None:
    rows = [{"id": f"key-{n}-abcd", "mail": f"m{n}@x.org", "text": f"text {n}"} for n in range(3)]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline = world.pipeline()
    world.run(pipeline)
    erased(world, pipeline, "key-1-abcd")
    by_mail = world.pipeline(dataset={"path": "rows.jsonl", "key": "mail", "columns": []})
    report = world.build(by_mail)
    assert (report.rejected, report.written) == (1, 0)
    for row in rows:
        del row["id"]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    world.build(by_mail)
    assert "rows were erased by the column 'id', which the dataset no longer has" in caplog.text


def test_a_ledger_that_names_the_request_is_cleaned_although_the_files_are(world: World) -> None:
    """A run was killed when no file had the request's custom_id any more."""
    pipeline = world.pipeline(ROWS)
    before = world.run(pipeline)
    (custom_id,) = before["custom_id"][before["id"] == GONE]
    erased(world, pipeline)
    world.query(f"update history set reason = 'errored: {custom_id}' where seq = (select max(seq) from history)")
    assert erased(world, pipeline).is_complete
    assert world.query(f"select count(*) from history where reason like '%{GONE}%'") == [(0,)]


def test_texts_of_the_ledger_keep_keys_that_begin_alike(world: World) -> None:
    pipeline = world.pipeline({"R-1042": SECRET, "R-10421": "another text"})
    world.run(pipeline)
    world.query("update history set reason = 'lost: R-1042, R-10421 and XR-1042' where seq = 1")
    assert erased(world, pipeline, "R-1042").is_complete
    assert world.query("select reason from history where seq = 1") == [("lost: erased, R-10421 and XR-1042",)]


@pytest.mark.parametrize("key", ['quo"te-4711', "back\\slash-4711", "Jürgen-4711", "a\ttab-4711"])
def test_a_key_in_json_leaves_the_ledger(world: World, key: str) -> None:
    pipeline = world.pipeline({key: SECRET, "other": "another text"})
    world.run(pipeline)
    for seq, text in enumerate((orjson.dumps(key).decode(), json.dumps(key)), start=1):
        world.query("update history set reason = :text where seq = :seq", text=f"lost: {text}", seq=seq)
    report = erased(world, pipeline, key)
    assert report.is_complete, list(report.open_ends())
    assert world.query("select reason from history where seq < 3") == [('lost: "erased"',)] * 2


def test_the_time_of_the_search_hardly_grows_with_the_keys() -> None:
    """It grew with keys times rows: 400 keys took half a minute in 4,000 rows."""
    rows = pa.record_batch({"text": [f"customer-{number} has a text of some words" for number in range(20_000)]})

    def seconds(count: int) -> float:
        needles = Needles.of([f"person-{number:06}" for number in range(count)], [])
        assert needles is not None
        start = time.process_time()
        assert not needles.are_in(rows["text"])
        return time.process_time() - start

    few = min(seconds(25) for _ in range(3))
    assert seconds(2_500) < 30 * few


@pytest.mark.parametrize("length", [10, 2_000, 100_000, 1_500_000])
def test_long_keys_are_searched_for(length: int) -> None:
    """Each pattern had 500 keys, and RE2 refuses a pattern of a megabyte, also of one key."""
    keys = [f"{number:06}{'.' * length}" for number in range(min(501, 2_000_000 // length + 2))]
    needles = Needles.of(keys, [])
    assert needles is not None
    assert not needles.are_in(pa.array([f"999999{'.' * length}", "another text"]))
    for key in (keys[0], keys[2], needles.texts[-1]):
        assert needles.are_in(pa.array(["another text", f"the key {key}, in a text"]))


def test_a_row_with_a_key_of_more_than_a_megabyte_is_erased(world: World) -> None:
    key = "".join(map(str, range(210_000)))
    assert len(key) > 1 << 20
    pipeline = world.pipeline({"a": "a text", key: SECRET})
    world.run(pipeline)
    report = erased(world, pipeline, key)
    assert report.is_complete, [end[:300] for end in report.open_ends()]
    everything = every_text(world.path())
    assert key not in everything and SECRET not in everything and "a text" in everything


@pytest.mark.parametrize(
    ("written", "key", "first", "then"),
    [
        ("2024-01-05T10:00:00Z", "2024-01-05 10:00:00+00:00", None, "string"),
        ("2024-01-05 10:00", "2024-01-05 10:00:00", None, "string"),
        ("2024-01-05T10:00:00.500", "2024-01-05 10:00:00.500000", None, "string"),
        ("2024-01-05T10:00:00Z", "2024-01-05T10:00:00Z", "string", "timestamp[us, tz=UTC]"),
        ("4711.50", "4711.5", "float64", "string"),
        ("4711.50", "4711.50", "string", "float64"),
        ("0004711", "0004711", "string", "int64"),
        ("4711.5", "4711.50", "decimal128(10, 2)", "string"),
        ("4711", "4711", "int64", "string"),
        ("4711", "4711", "int64", "decimal128(10, 2)"),
        ("4711", "4711", "int32", "float64"),
    ],
)
def test_a_row_stays_erased_when_its_key_gets_another_type(
    world: World, written: str, key: str, first: str | None, then: str
) -> None:
    (world.folder / "rows.csv").write_text(f"id,text\n{written},{SECRET}\n")
    source = {"path": "rows.csv", "key": "id"}
    pipeline = world.pipeline(dataset=source | ({"types": {"id": first}} if first else {}))
    world.run(pipeline)
    report = erased(world, pipeline, key)
    assert report.is_complete, list(report.open_ends())
    table = world.run(world.pipeline(dataset=source | {"types": {"id": then}}))
    assert list(table["error_type"]) == ["erased"]
    assert len(world.accepted()) == 1
    assert SECRET not in every_text(world.path())


@pytest.mark.parametrize("type_", [None, "int64"])
def test_a_text_that_is_no_erased_number_is_another_row(world: World, type_: str | None) -> None:
    """The same key in the type that the column gets, and in other forms."""
    path = world.folder / "rows.csv"
    path.write_text("id,text\n4711,a\n12,b\n")
    source = {"path": "rows.csv", "key": "id"}
    pipeline = world.pipeline(dataset=source | ({"types": {"id": type_}} if type_ else {}))
    world.run(pipeline)
    erased(world, pipeline, "4711")
    path.write_text("id,text\n4711,a\n04711,c\n4711.0,d\n")
    table = world.run(world.pipeline(dataset=source | {"types": {"id": "string"}}))
    assert list(table["id"][table["error_type"] == "erased"]) == ["4711"]


def test_another_form_of_an_erased_text_is_another_row(world: World) -> None:
    rows = {"007": "a", "7": "b", "7.0": "c", "2024-01-05 10:00": "d", "2024-01-05 10:00:00": "e"}
    pipeline = world.pipeline(rows)
    world.run(pipeline)
    erased(world, pipeline, "7", "2024-01-05 10:00")
    table = world.run(pipeline)
    assert list(table["id"][table["error_type"] == "erased"]) == ["7", "2024-01-05 10:00"]


@pytest.mark.parametrize(("key", "remedy"), [("number", True), (None, False)], ids=str)
def test_submissions_without_the_column_of_the_key_are_named(world: World, key: str | None, remedy: bool) -> None:
    """Their content was left without a word."""
    source: dict[str, Any] = {"path": "rows.jsonl", "columns": []} | ({"key": key} if key else {})
    rows = [{"number": 1, "id": GONE, "text": SECRET}, {"number": 2, "id": "b", "text": "b"}]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    world.run(world.pipeline(dataset=source))
    rows[0]["text"] = "another text"
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline = world.pipeline()
    world.run(pipeline)
    report = erased(world, pipeline)
    (problem,) = report.problems
    assert f"with the row key {key or 'row_number'} and without the column id" in problem
    assert ("erase that key as well" in problem) == remedy
    if remedy:
        assert SECRET in every_text(world.path())
        world.run(pipeline)
        report = erased(world, pipeline, GONE, "1")
        assert report.is_complete, list(report.open_ends())
        assert SECRET not in every_text(world.path())


def test_what_a_killed_erasure_of_another_row_left_goes(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    for index in [*world.path().rglob("index.parquet")]:
        (index.parent / ".index.parquet.3c52baa50b9d.tmp").write_bytes(index.read_bytes())
        (index.parent / ".manifest.json.3c52baa50b9d.tmp").write_bytes(b"{}")
    report = erased(world, pipeline)
    assert report.is_complete, list(report.open_ends())
    assert not [*world.path().rglob(".*.tmp")]
    assert SECRET not in every_text(world.path())


def test_a_damaged_table_does_not_stop_an_erasure(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    world.path("asked", "results", "results.parquet").write_bytes(b"PAR1")
    world.path("asked", "results", "copy.parquet").write_bytes(b"")
    report = erased(world, pipeline)
    (problem,) = report.problems
    assert "copy.parquet is damaged" in problem
    assert report.deleted == [batch["id"] for batch in world.accepted()]
    assert SECRET not in every_text(world.path().joinpath("asked", "responses"))
    world.path("asked", "results", "copy.parquet").unlink()
    assert erased(world, pipeline).is_complete
    assert GONE not in list(world.table(pipeline)["id"])
