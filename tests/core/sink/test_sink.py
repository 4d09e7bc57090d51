"""A copy of the results in a database table, with real SQLite, PostgreSQL, DuckDB and MariaDB."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.errors import ConfigError, SinkError
from batch_assets.core.io.database import file_of, in_project
from batch_assets.core.io.layout import results_parts
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.sink.table import SinkTable
from batch_assets.core.sink.target import Target
from batch_assets.core.sink.write import SinkReport, write_sink

from ..postgres import PostgresServer
from ..support import World, environment, make_pipeline, params, texts, wait_for

NAME = "asked"
VARIABLE = "WAREHOUSE_URL"


def standard(sink_url: str) -> sa.URL:
    """The URL for standard SQL, in which double quotes are those of names."""
    url = sa.make_url(sink_url)
    return url.update_query_dict({"sql_mode": "ANSI_QUOTES"}) if url.get_backend_name() == "mysql" else url


def query(sink_url: str, sql: str) -> list[dict[str, Any]]:
    engine = sa.create_engine(standard(sink_url))
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(sql)).mappings()]
    finally:
        engine.dispose()


def change(sink_url: str, sql: str) -> None:
    engine = sa.create_engine(sink_url)
    with engine.begin() as connection:
        connection.execute(sa.text(sql))
    engine.dispose()


def done(world: World, rows: dict[str, str], **more: Any) -> Pipeline:
    pipeline = world.pipeline(rows, sink={"url_env": VARIABLE}, **more)
    world.run(pipeline)
    return pipeline


def write(world: World, pipeline: Pipeline, partition: str = "") -> SinkReport | None:
    """Write the current results to the sink."""
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, partition)
    assert submission is not None
    return write_sink(world.root, pipeline, partition, submission.id)


def test_every_row_of_the_results_is_in_the_table(world: World, sink_url: str) -> None:
    pipeline = done(world, texts(20))
    assert write(world, pipeline) == SinkReport(pipeline.name, 20)
    expected = world.table(pipeline)
    stored = (
        pd.DataFrame(query(sink_url, f"select * from {pipeline.name}")).set_index("id").loc[list(expected["id"])]
    )
    assert list(stored.columns) == [name for name in expected.columns if name != "id"]
    for name in ("text", "custom_id", "result_type", "response_text", "input_tokens", "cost_usd", "response_json"):
        assert list(stored[name]) == list(expected[name]), name
    ended = pd.to_datetime(stored["ended_at"], utc=True)
    assert list(ended) == list(expected["ended_at"])


def test_rows_are_updated_by_their_key_and_other_rows_stay(world: World, sink_url: str) -> None:
    rows = texts(3)
    write(world, done(world, rows))
    pipeline = done(world, {"row-1": "another text", "row-9": "a new row"})
    write(world, pipeline)
    write(world, pipeline)
    stored = {row["id"]: row["text"] for row in query(sink_url, f"select id, text from {pipeline.name}")}
    assert stored == {**rows, "row-1": "another text", "row-9": "a new row"}


def test_other_columns_stay_and_missing_columns_are_added(world: World, sink_url: str) -> None:
    pipeline = done(world, texts(2))
    change(
        sink_url,
        f"create table {pipeline.name} (id varchar(99) primary key, result_type varchar(99), remark varchar(99))",
    )
    change(sink_url, f"insert into {pipeline.name} values ('row-0', 'pending', 'ours')")
    write(world, pipeline)
    first, second = query(
        sink_url, f"select id, result_type, remark, response_text from {pipeline.name} order by id"
    )
    assert (first["result_type"], first["remark"], second["remark"]) == ("succeeded", "ours", None)
    assert first["response_text"] == world.table(pipeline)["response_text"][0]


def test_partitions_share_one_table(world: World, sink_url: str) -> None:
    pipeline = world.pipeline(texts(2), sink={"url_env": VARIABLE, "table": "answers"})
    for partition in ("2026-01-01", "2026-01-02"):
        world.run(pipeline, partition=partition)
        write(world, pipeline, partition)
    stored = query(sink_url, 'select "partition", id from answers order by 1, 2')
    assert [tuple(row.values()) for row in stored] == [
        (day, f"row-{number}") for day in ("2026-01-01", "2026-01-02") for number in range(2)
    ]


def test_every_type_of_column_is_stored(world: World, sink_url: str, tmp_path: Path) -> None:
    day, time = dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    table = pa.table(
        {
            "key": pa.array([2**40, 7]),
            "text": ["a", "b"],
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "share": [0.1, None],
            "yes": [True, None],
            "day": [day, None],
            "time": pa.array([time, None], pa.timestamp("us", "UTC")),
            "raw": [b"\x00\xff", None],
            "tags": [["x", "ü"], None],
            "where": [{"lat": 1.5}, None],
            "kind": pa.array(["k", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    pipeline = make_pipeline(
        tmp_path, {"path": "rows.parquet", "key": "key"}, name=NAME, sink={"url_env": VARIABLE}
    )
    world.run(pipeline)
    write(world, pipeline)
    row, empty = query(sink_url, f'select * from {NAME} order by "text"')
    assert (row["key"], float(row["price"]), row["share"], bool(row["yes"])) == (2**40, 1.5, 0.1, True)
    assert (str(row["day"]), bytes(row["raw"]), row["kind"]) == (str(day), b"\x00\xff", "k")
    assert (row["tags"], row["where"]) == ('["x","ü"]', '{"lat":1.5}')
    assert pd.Timestamp(row["time"]).tz_localize(None) == pd.Timestamp(time).tz_localize(None)
    assert [empty[name] for name in table.column_names[2:]] == [None] * 9


def test_a_failure_changes_nothing_and_shows_no_password(
    world: World, sink_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = done(world, texts(3))
    change(sink_url, f"create table {pipeline.name} (id varchar(99), remark varchar(99))")
    with pytest.raises(
        SinkError, match=r"refuses the table asked: .*give the table a primary key of exactly id, .* in Parquet"
    ) as refused:
        write(world, pipeline)
    assert refused.value.remedy == RunStage(Stage.RESULTS, "asked")
    change(sink_url, f"insert into {pipeline.name} values ('row-0', 'ours')")
    assert query(sink_url, f"select * from {pipeline.name}") == [{"id": "row-0", "remark": "ours"}]
    monkeypatch.setenv(VARIABLE, "postgresql+psycopg2://someone:pass-word-x@127.0.0.1:1/nowhere")
    with pytest.raises(SinkError, match=r"cannot be reached: .*refused.*accepts this machine") as raised:
        write(world, pipeline)
    assert "pass-word-x" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, f"variable {VARIABLE} is not set"),
        ("no url", "holds no SQLAlchemy URL"),
        ("oracle://x@y/z", "the driver for oracle:// is not installed"),
        ("postgresql://me:pa@ss-word@127.0.0.1:1/x", "holds a URL with an @ .* write it as %40"),
        ("postgresql+psycopg2://me:ss-word@127.0.0.1:1/x", "cannot be reached: .*refused"),
        ("sqlite:///nowhere/at/all.db", "there is no folder .*/nowhere/at for the database: create it"),
    ],
)
def test_an_unusable_database_is_noticed_before_anything_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    pipeline = world.pipeline(texts(1), sink={"url_env": VARIABLE})
    with pytest.raises(SinkError, match=problem) as raised:
        world.build(pipeline)
    assert "ss-word" not in str(raised.value)
    with world.root.ledger.read() as tx:
        assert submissions.newest(tx, pipeline.name, "") is None


def test_names_that_the_database_cannot_have_are_noticed_before_anything_is_sent(
    world: World, sink_url: str
) -> None:
    postgres = sink_url.startswith("postgresql")
    row = {"id": ["a"], "text": ["b"]}
    refused = {
        "": "'' has a name that a database cannot have",
        "x" * 64: "has a name longer than the 63 bytes" if postgres else "",
        "Text": "" if postgres else "'Text' and 'text' have the same name|'text' and 'Text' have the same name",
        "Attempts": "" if postgres else "'attempts' and 'Attempts' have the same name|'Attempts' and 'attempts'",
    }
    for name, problem in refused.items():
        pq.write_table(pa.table({**row, name: ["c"]}), world.folder / "rows.parquet")
        pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"}, sink={"url_env": VARIABLE})
        if problem:
            with pytest.raises(SinkError, match=problem):
                world.build(pipeline)
        else:
            world.build(pipeline)
    assert not world.accepted()


LOSSES = [
    ("n", "boolean"), ("share", "bigint"), ("share", "numeric(5, 0)"), ("word", "boolean"), ("word", "bigint"),
    ("moment", "date"), ("price", "numeric(5, 1)"), ("id", "bigint"), ("raw", "varchar(99)"),
    ("big", "double precision"),
]  # fmt: skip
WIDER = [
    ("n", "varchar(99)", "7"), ("n", "double precision", 7.0), ("n", "numeric(9, 2)", 7.0),
    ("day", "timestamp", None), ("none", "bigint", None), ("share", "varchar(99)", "1.5"),
    ("small", "numeric(20, 0)", 3.0),
    ("small", "bigint", 3),
]  # fmt: skip


def odd_rows(world: World) -> None:
    table = pa.table(
        {
            "id": ["007"],
            "n": [7],
            "share": [1.5],
            "word": ["no"],
            "moment": pa.array([dt.datetime(2026, 1, 2, 3, 4)], pa.timestamp("us")),
            "price": pa.array([Decimal("1.25")], pa.decimal128(10, 2)),
            "raw": [b"\x00\xff"],
            "big": [2**53 + 1],
            "day": [dt.date(2026, 1, 2)],
            "none": pa.array([None], pa.string()),
            "small": pa.array([3], pa.uint8()),
        }
    )
    pq.write_table(table, world.folder / "rows.parquet")


def test_a_column_of_another_type_stores_what_it_can_hold_and_refuses_what_it_would_change(
    world: World, sink_url: str
) -> None:
    odd_rows(world)
    fields: dict[str, Any] = {"dataset": {"path": "rows.parquet", "key": "id"}, "params": params("{{ n }}")}
    world.run(world.pipeline(**fields))

    def into(name: str, type_: str) -> Pipeline:
        change(sink_url, "drop table if exists there")
        key = "" if name == "id" else "id varchar(99) primary key, "
        change(sink_url, f"create table there ({key}{name} {type_}{'' if key else ' primary key'})")
        return world.pipeline(**fields, sink={"url_env": VARIABLE, "table": "there"})

    # A boolean of MySQL is a small number.
    for name, type_ in LOSSES[1:] if sink_url.startswith("mysql") else LOSSES:
        pipeline = into(name, type_)
        with pytest.raises(
            SinkError,
            match=rf"the column '{name}' of the table there has the type \w+.*, which would.*a new table",
        ):
            write(world, pipeline)
        assert query(sink_url, "select * from there") == []
    for name, type_, value in WIDER:
        write(world, into(name, type_))
        ((stored,),) = (row.values() for row in query(sink_url, f"select {name} from there"))
        if name == "day":
            assert str(stored).startswith("2026-01-02 00:00")
        else:
            assert stored == value, (name, type_)


def test_a_column_that_would_round_seconds_is_refused(
    world: World, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server.new_database())
    pipeline = world.pipeline(texts(1), sink={"url_env": VARIABLE, "table": "there"})
    assert pipeline.config.sink is not None
    target = Target(pipeline, pipeline.config.sink)
    with target.transaction() as connection:
        connection.exec_driver_sql("create table there (id varchar(99) primary key, v timestamp(3), w time(0))")
        moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000)
        rows = pa.table({"id": ["a"], "v": [moment], "w": [moment.replace(microsecond=0).time()]})
        SinkTable(connection, target, rows.schema, ["id"]).put(rows)
        assert connection.exec_driver_sql("select v from there").scalar() == moment
        for name, value in {"v": moment.replace(microsecond=678_901), "w": moment.time()}.items():
            finer = pa.table({"id": ["a"], name: [value]})
            with pytest.raises(SinkError, match=f"the column '{name}' of the table there .* would change values"):
                SinkTable(connection, target, finer.schema, ["id"]).put(finer)


def test_values_that_drivers_do_not_accept_unchanged(world: World, sink_url: str) -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "nul": ["x\0y", None],
            "u": pa.array([2**64 - 1, None], pa.uint64()),
            "half": pa.array([1.5, None], pa.float32()).cast(pa.float16()),
            "fixed": pa.array([b"\xff" * 4, None], pa.binary(4)),
            "exact": pa.array([Decimal("1234567890123456789.25"), None], pa.decimal128(38, 2)),
            "wide": pa.array([Decimal(10) ** 60, None], pa.decimal256(76, 2)),
            "long": pa.array([dt.timedelta(days=1), None]),
            "nested": [{"raw": b"\xff", "nan": float("nan")}, None],
            "berlin": pa.array([0, None], pa.timestamp("us", "Europe/Berlin")),
            "nano": pa.array([1001, None], pa.timestamp("ns")),
            "p%c": [1, None],
            'q"x': [1, None],
        }
    )
    pq.write_table(table, world.folder / "rows.parquet")
    pipeline = world.pipeline(
        dataset={"path": "rows.parquet", "key": "id"}, params=params("{{ id }}"), sink={"url_env": VARIABLE}
    )
    world.run(pipeline)
    assert write(world, pipeline) == SinkReport(pipeline.name, 2)
    row, empty = query(sink_url, f"select * from {pipeline.name} order by id")
    assert row["nul"] == ("x\ufffdy" if sink_url.startswith("postgresql") else "x\0y")
    assert (int(row["u"]), row["half"], bytes(row["fixed"])) == (2**64 - 1, 1.5, b"\xff" * 4)
    assert (str(row["exact"]), Decimal(row["wide"])) == ("1234567890123456789.25", Decimal(10) ** 60)
    assert (row["long"], row["nested"]) == ("1 day, 0:00:00", '{"raw":"/w==","nan":null}')
    assert pd.Timestamp(row["berlin"]).timestamp() == 0
    assert pd.Timestamp(row["nano"]).microsecond == 1
    assert [empty[name] for name in table.column_names[1:]] == [None] * 12


def test_errors_of_a_driver_are_explained(
    world: World, postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server.new_database())
    pipeline = done(world, texts(1))
    with pytest.raises(SinkError, match=r"refuses the table nowhere.t: .*create the schema first"):
        write(world, world.pipeline(sink={"url_env": VARIABLE, "table": "nowhere.t"}))
    monkeypatch.setenv(VARIABLE, f"duckdb:///{world.folder}/x.duckdb")
    change(f"duckdb:///{world.folder}/x.duckdb", "create table asked (id varchar primary key check (id = 'x'))")
    with pytest.raises(SinkError, match=r"refuses the table asked: .*CHECK constraint failed"):
        write(world, pipeline)


def test_results_of_another_submission_are_left_alone(world: World, sink_url: str) -> None:
    pipeline = done(world, texts(1))
    assert write_sink(world.root, pipeline, "", "another") is None
    with pytest.raises(sa.exc.DBAPIError):
        query(sink_url, f"select * from {pipeline.name}")


_WRITE = """
import os, sys
from pathlib import Path
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.sink.write import write_sink
folder, sink_url, partition, submission = sys.argv[1:]
fields = {"name": "asked", "dataset": {"path": "rows.jsonl", "key": "id"}, "sink": {"url_env": "WAREHOUSE_URL"}}
fields["params"] = {"model": "claude-haiku-5-5", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
pipeline = load_pipeline(fields, folder=Path(folder))
sys.stdin.readline()
with open_root(Settings.from_env(dict(os.environ))) as root:
    for _ in range(3):
        print(write_sink(root, pipeline, partition, submission).rows)
"""


def test_partitions_written_at_once_wait_for_each_other(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    sink_url = f"duckdb:///{tmp_path}/shared.duckdb"
    monkeypatch.setenv(VARIABLE, sink_url)
    pipeline = world.pipeline(texts(300), sink={"url_env": VARIABLE})
    writers = []
    for partition in ("p1", "p2"):
        world.run(pipeline, partition=partition)
        with world.root.ledger.read() as tx:
            submission = submissions.newest(tx, pipeline.name, partition)
        assert submission is not None
        command = [sys.executable, "-c", _WRITE, str(world.folder), sink_url, partition, submission.id]
        variables = environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
        writers.append(
            subprocess.Popen(
                command, env={**os.environ, **variables}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [out.split() for out, _ in outputs] == [["300"] * 3] * 2, outputs
    assert query(sink_url, "select count(*) as n from asked") == [{"n": 600}]


_WAITING = {
    "postgres_server": "select 1 from pg_stat_activity where wait_event_type = 'Lock'",
    "mariadb_server": "select 1 from information_schema.processlist where state = 'User lock'",
}


@pytest.mark.parametrize("server", _WAITING)
def test_two_roots_that_create_the_same_table_wait_for_each_other(
    world: World, server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease belongs to one root, so only the database can make the two wait for each other."""
    sink_url = request.getfixturevalue(server).new_database()
    monkeypatch.setenv(VARIABLE, sink_url)
    pipeline = done(world, texts(4))
    assert pipeline.config.sink is not None
    target = Target(pipeline, pipeline.config.sink)
    with pq.ParquetFile(world.root.storage.open(*results_parts(pipeline.name, ""))) as file:
        rows = file.read()
    with ThreadPoolExecutor() as threads:
        with target.transaction() as connection:
            SinkTable(connection, target, rows.schema, ["id"]).put(rows.slice(0, 2))
            other = threads.submit(write, world, pipeline)
            wait_for(lambda: other.done() or query(sink_url, _WAITING[server]), "the other root")
        assert other.result(60) == SinkReport(pipeline.name, 4)
    assert query(sink_url, f"select count(*) as n from {pipeline.name}") == [{"n": 4}]


@pytest.mark.parametrize(
    ("sink", "problem"),
    [
        ({}, "give url_env"),
        ({"url": "sqlite:///a.db", "url_env": "X"}, "give url_env"),
        ({"url": "postgresql://me:secret@host/db"}, "contains a password"),
        ({"url": "postgresql://me:sec/ret@host/db"}, "contains a password"),
        ({"url": "postgresql:///db?user=me&password=secret"}, "contains a password"),
        ({"url": "duckdb:///md:db?motherduck_token=secret"}, "contains a password"),
        ({"url": "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dsecret"}, "contains a password"),
        ({"url": "postgresql://me:p@secret@host/db"}, "write it as %40"),
        ({"url_env": "postgresql://me:secret@host/db"}, "name of an environment variable"),
    ],
)
def test_an_invalid_sink_is_refused_at_load(tmp_path: Path, sink: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"sink: .*{problem}") as raised:
        make_pipeline(tmp_path, "rows.csv", sink=sink)
    assert "secret" not in str(raised.value)


def test_a_relative_database_file_is_in_the_project_folder(new_world: Callable[..., World]) -> None:
    world = new_world()
    pipeline = world.pipeline(texts(1), sink={"url": "duckdb:///answers.duckdb"})
    world.run(pipeline)
    write(world, pipeline)
    assert (pipeline.project / "answers.duckdb").is_file()


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("duckdb:///a.db", "/project/a.db"),
        ("sqlite:////abs/a.db", "/abs/a.db"),
        ("duckdb:///md:db", None),
        ("sqlite:///file:a.db?mode=ro&uri=true", None),
        ("duckdb:///:memory:", None),
        ("postgresql://host/a.db", None),
    ],
)
def test_only_a_file_is_resolved_against_the_project_folder(url: str, file: str | None) -> None:
    resolved = in_project(sa.make_url(url), Path("/project"))
    assert file_of(resolved) == file
    if file is None:
        assert resolved == sa.make_url(url)


def test_the_metadata_of_the_file_say_where_its_rows_come_from(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    metadata = pq.read_schema(world.path(pipeline.name, "results", "results.parquet")).metadata
    ours = {key.decode().removeprefix("batch_assets."): value.decode() for key, value in metadata.items()}
    assert (ours["pipeline"], ours["partition"], ours["row_key"]) == (pipeline.name, "", "id")
    assert len(ours["template_digest"]) == 64
    assert ours["version"]
