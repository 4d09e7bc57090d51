"""Results in a table of a database as well: SQLite, PostgreSQL and DuckDB, all of them real."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.config import Pipeline
from batch_assets.core.errors import ConfigError, SinkError
from batch_assets.core.sink import SinkReport, write_sink

from .support import World, make_pipeline, texts

NAME = "asked"
VARIABLE = "WAREHOUSE_URL"


@pytest.fixture(params=["sqlite", "postgresql", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database of each kind; the environment names it."""
    if request.param == "postgresql":
        found: str = request.getfixturevalue("postgres_server").new_database()
    else:
        found = f"{request.param}:///{tmp_path}/warehouse.db"
    monkeypatch.setenv(VARIABLE, found)
    return found


def query(url: str, sql: str) -> list[dict[str, Any]]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(sql)).mappings()]
    finally:
        engine.dispose()


def change(url: str, sql: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(sql))
    engine.dispose()


def done(world: World, rows: dict[str, str], **more: Any) -> Pipeline:
    pipeline = world.pipeline(rows, sink={"url_env": VARIABLE}, **more)
    world.run(pipeline)
    return pipeline


def test_every_row_of_the_results_stands_in_the_table(world: World, url: str) -> None:
    pipeline = done(world, texts(20))
    assert write_sink(world.root, pipeline) == SinkReport(pipeline.name, 20)
    wanted = world.table(pipeline)
    found = pd.DataFrame(query(url, f"select * from {pipeline.name}")).set_index("id").loc[list(wanted["id"])]
    assert list(found.columns) == [name for name in wanted.columns if name != "id"]
    for name in ("text", "custom_id", "result_type", "response_text", "input_tokens", "cost_usd", "response_json"):
        assert list(found[name]) == list(wanted[name]), name
    ended = pd.to_datetime(found["ended_at"], utc=True)
    assert list(ended) == list(wanted["ended_at"])


def test_rows_are_updated_by_their_key_and_others_stay(world: World, url: str) -> None:
    rows = texts(3)
    write_sink(world.root, done(world, rows))
    pipeline = done(world, {"row-1": "another text", "row-9": "a new row"})
    write_sink(world.root, pipeline)
    write_sink(world.root, pipeline)
    found = {row["id"]: row["text"] for row in query(url, f"select id, text from {pipeline.name}")}
    assert found == {**rows, "row-1": "another text", "row-9": "a new row"}


def test_columns_of_others_stay_and_missing_ones_are_added(world: World, url: str) -> None:
    pipeline = done(world, texts(2))
    change(url, f"create table {pipeline.name} (id varchar primary key, result_type varchar, remark varchar)")
    change(url, f"insert into {pipeline.name} values ('row-0', 'pending', 'ours')")
    write_sink(world.root, pipeline)
    first, second = query(url, f"select id, result_type, remark, response_text from {pipeline.name} order by id")
    assert (first["result_type"], first["remark"], second["remark"]) == ("succeeded", "ours", None)
    assert first["response_text"] == world.table(pipeline)["response_text"][0]


def test_partitions_share_one_table(world: World, url: str) -> None:
    pipeline = world.pipeline(texts(2), sink={"url_env": VARIABLE, "table": "answers"})
    for partition in ("2026-01-01", "2026-01-02"):
        world.run(pipeline, partition=partition)
        write_sink(world.root, pipeline, partition)
    found = query(url, 'select "partition", id from answers order by 1, 2')
    assert [tuple(row.values()) for row in found] == [
        (day, f"row-{number}") for day in ("2026-01-01", "2026-01-02") for number in range(2)
    ]


def test_every_type_of_column(world: World, url: str, tmp_path: Path) -> None:
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
    write_sink(world.root, pipeline)
    row, empty = query(url, f'select * from {NAME} order by "text"')
    assert (row["key"], float(row["price"]), row["share"], bool(row["yes"])) == (2**40, 1.5, 0.1, True)
    assert (str(row["day"]), bytes(row["raw"]), row["kind"]) == (str(day), b"\x00\xff", "k")
    assert (row["tags"], row["where"]) == ('["x","ü"]', '{"lat":1.5}')
    assert pd.Timestamp(row["time"]).tz_localize(None) == pd.Timestamp(time).tz_localize(None)
    assert [empty[name] for name in table.column_names[2:]] == [None] * 9


def test_a_failure_changes_nothing_and_shows_no_password(
    world: World, postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.new_database()
    pipeline = done(world, texts(3))
    change(url, f"create table {pipeline.name} (id varchar primary key, result_type integer)")
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(
        SinkError,
        match=f"refuses the table {pipeline.name}.*type integer: .succeeded.\\. .*materialize results again",
    ):
        write_sink(world.root, pipeline)
    assert query(url, f"select * from {pipeline.name}") == []
    monkeypatch.setenv(VARIABLE, "postgresql+psycopg2://someone:pass-word-x@127.0.0.1:1/nowhere")
    with pytest.raises(SinkError) as raised:
        write_sink(world.root, pipeline)
    assert "refused" in str(raised.value)
    assert "pass-word-x" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, f"variable {VARIABLE} is not set"),
        ("no url", "not a SQLAlchemy URL"),
        ("oracle://x@y/z", "no driver for oracle://"),
    ],
)
def test_a_database_that_cannot_be_had(
    world: World, monkeypatch: pytest.MonkeyPatch, value: str | None, said: str
) -> None:
    pipeline = done(world, texts(1))
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(SinkError, match=said):
        write_sink(world.root, pipeline)


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ({}, "give url_env"),
        ({"url": "sqlite:///a.db", "url_env": "X"}, "give url_env"),
        ({"url": "postgresql://me:secret@host/db"}, "holds a password"),
        ({"url_env": "postgresql://me:secret@host/db"}, "name of an environment variable"),
    ],
)
def test_a_sink_that_cannot_be(tmp_path: Path, sink: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"sink: .*{said}") as raised:
        make_pipeline(tmp_path, "rows.csv", sink=sink)
    assert "secret" not in str(raised.value)


def test_a_file_lies_where_the_project_is(new_world: Callable[..., World]) -> None:
    world = new_world()
    pipeline = world.pipeline(texts(1), sink={"url": "duckdb:///answers.duckdb"})
    world.run(pipeline)
    write_sink(world.root, pipeline)
    assert (pipeline.project / "answers.duckdb").is_file()


def test_the_file_says_where_its_rows_come_from(world: World) -> None:
    pipeline = done(world, texts(1))
    said = pq.read_schema(world.path(pipeline.name, "results", "results.parquet")).metadata
    ours = {key.decode().removeprefix("batch_assets."): value.decode() for key, value in said.items()}
    assert (ours["pipeline"], ours["partition"], ours["row_key"]) == (pipeline.name, "", "id")
    assert len(ours["template_digest"]) == 64
    assert ours["version"]
