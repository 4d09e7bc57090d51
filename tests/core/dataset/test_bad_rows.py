"""`dataset.bad_rows`: lines that cannot be read refuse the dataset, or become rejected rows with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.dataset import csv_guard
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.ledger import submissions
from batch_assets.core.sink.write import write_sink

from ..support import World, make_pipeline, params, read

CSV = b'id,text\na,fine\nb\nc,"x" y\nd,"two\nlines"\n\ne,too,many\nf,bro\xffken\ng,"20" wide"\nh,end\n'
JSONL = (
    b'{"id":"a","text":"fine"}\nnot json\n[1]\n{"id":"b","text":"bro\xffken"}\n'
    b'{"id":"c","text":' + b"[" * 500 + b"]" * 500 + b'}\n{"id":"d","text":"end"}\n'
)


def _dataset(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "key": "id", "bad_rows": "reject", **more}


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_csv_lines_that_cannot_be_read_become_rejected_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(csv_guard, "_BLOCK_BYTES", block_bytes)
    (world.folder / "rows.csv").write_bytes(CSV)
    with pytest.raises(DatasetError, match=r"rows\.csv, line \d: "):
        world.build(world.pipeline("rows.csv"))
    pipeline = world.pipeline(dataset=_dataset("rows.csv"))
    report = world.build(pipeline)
    assert (report.rows, report.rejected, report.written) == (8, 5, 3)
    rejected = pq.read_table(world.submission_folder(pipeline, report) / "rejected.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in rejected] == [
        (None, "unreadable_row"),
        (None, "unreadable_row"),
        (None, "unreadable_row"),
        ("f", "invalid_unicode"),
        (None, "unreadable_row"),
    ]
    problems = [row["message"].split("rows.csv, ")[1] for row in rejected]
    starts = [
        "line 3: 1 fields where the header has 2",
        "line 4: text follows the closing quote of a field. Write",
        "line 8: 3 fields where the header has 2. Is there a field that has the delimiter in it",
        "line 9: not UTF-8: the bytes ff after 'f,bro'",
        "line 10: text follows the closing quote",
    ]
    assert [problem[: len(start)] for problem, start in zip(problems, starts, strict=True)] == starts
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert [None if key != key else key for key in table["id"]] == ["a", None, None, "d", None, "f", None, "h"]
    assert list(table["text"])[3] == "two\nlines"
    assert list(table["result_type"]).count("succeeded") == len(world.accepted_custom_ids()) == 3


def test_json_lines_that_cannot_be_read_become_rejected_rows(world: World) -> None:
    (world.folder / "rows.jsonl").write_bytes(JSONL)
    table = world.run(world.pipeline(dataset=_dataset("rows.jsonl")))
    assert list(table["result_type"]) == ["succeeded", *["rejected"] * 4, "succeeded"]
    assert [text.split("rows.jsonl, ")[1][:6] for text in table["error_message"][1:5]] == [
        f"line {number}" for number in (2, 3, 4, 5)
    ]
    assert list(table["error_type"][1:5]) == [
        "unreadable_row",
        "unreadable_row",
        "invalid_unicode",
        "unreadable_row",
    ]


@pytest.mark.parametrize(
    ("dataset", "params_"),
    [({"key": "id"}, params()), ({}, params("constant")), ({"types": {"text": "string"}}, params())],
)
def test_a_file_of_which_no_line_can_be_read_has_rejected_rows_only(
    world: World, dataset: dict[str, Any], params_: dict[str, Any]
) -> None:
    (world.folder / "rows.jsonl").write_text("not json\n[1]\n")
    pipeline = world.pipeline(dataset={"path": "rows.jsonl", "bad_rows": "reject", **dataset}, params=params_)
    table = world.run(pipeline)
    assert list(table["error_type"]) == ["unreadable_row"] * 2
    assert [text.split("rows.jsonl, ")[1][:6] for text in table["error_message"]] == ["line 1", "line 2"]
    (world.folder / "rows.jsonl").write_text('not json\n{"id":"b","text":"readable"}\n')
    assert list(world.run(pipeline)["result_type"]) == ["rejected", "succeeded"]


def test_rows_without_any_column_are_rows(world: World) -> None:
    (world.folder / "rows.jsonl").write_text("{}\n{}\n")
    table = world.run(world.pipeline(dataset={"path": "rows.jsonl"}, params=params("constant")))
    assert list(table["result_type"]) == ["succeeded"] * 2


def test_rows_without_a_named_key_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\n1\n\n\xff\n2\n")
    table = read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})
    assert table["row_number"].to_pylist() == [0, 1, 2]
    assert table["n"].to_pylist() == ["1", "\ufffd", "2"]
    (tmp_path / "a.csv").write_bytes(b'n\n1\n"x"y\n2\n')
    table = read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})
    assert table["n"].to_pylist() == [1, None, 2]


def test_rows_swallowed_by_a_quote_are_read_and_the_line_of_the_quote_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('k\tv\n1\t"x\n2\ty\n3\tz"\n4\t"open\n5\tend\n')
    rows = read(tmp_path, {"path": "a.tsv", "bad_rows": "reject"}).to_pylist()
    assert [(row["k"], row["v"]) for row in rows] == [(None, None), (2, "y"), (3, 'z"'), (None, None), (5, "end")]


def test_bytes_that_another_encoding_lacks_reject_their_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("k,v\n1,€\n2,".encode("cp1252") + b"\x81\n3,x\n")
    rows = read(tmp_path, {"path": "a.csv", "bad_rows": "reject", "csv": {"encoding": "cp1252"}})
    assert rows["v"].to_pylist() == ["€", "\ufffd\ufffd\ufffd", "x"]


def test_many_bad_rows_in_many_blocks_stay_at_their_places(tmp_path: Path) -> None:
    lines = [f"{n},{'x' * 50}" if n % 3 else f"{n},{'x' * 50},y" for n in range(60_000)]
    (tmp_path / "a.csv").write_text("n,v\n" + "\n".join(lines))
    rows = read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})
    assert rows["n"].to_pylist() == [n if n % 3 else None for n in range(60_000)]


def test_a_header_that_cannot_be_read_is_always_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\xff,v\n1,2\n")
    with pytest.raises(DatasetError, match="the header is not valid UTF-8: line 1"):
        read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})


def test_a_readable_row_without_a_key_is_refused_as_before(world: World) -> None:
    (world.folder / "rows.csv").write_bytes(b"id,text\na,x\n,y\nz\n")
    with pytest.raises(DatasetError, match=r"1 rows have none; the first are rows 1 \(counted from 0\)"):
        world.build(world.pipeline(dataset=_dataset("rows.csv")))


def test_a_sink_has_no_rows_that_could_not_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_URL", f"sqlite:///{world.folder}/sink.db")
    (world.folder / "rows.csv").write_bytes(CSV)
    pipeline = world.pipeline(dataset=_dataset("rows.csv"), sink={"url_env": "SINK_URL", "table": "answers"})
    world.send(pipeline)
    world.finish(pipeline)
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    assert newest is not None
    write_sink(world.root, pipeline, "", newest.id)
    engine = sa.create_engine(f"sqlite:///{world.folder}/sink.db")
    with engine.connect() as connection:
        keys = connection.execute(sa.text("select id from answers order by id")).scalars().all()
    engine.dispose()
    assert keys == ["a", "d", "f", "h"]


@pytest.mark.parametrize("more", [{"bad_rows": "skip"}, {"files": "docs", "path": None, "bad_rows": "reject"}])
def test_the_switch_has_two_positions_and_is_for_files_of_rows(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="bad_rows"):
        make_pipeline(tmp_path, {"path": "a.csv", **more})
