"""A query cannot change its database, and does nothing else on the server or this machine."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.dataset.query_guard import check_reads, reading, reading_engine
from batch_assets.core.errors import DatasetError

from ..postgres import PostgresServer
from ..support import read

# Queries that do more than read, for every database.
_WRITES = [
    "drop table t",
    "delete from t returning *",
    "insert into t values (2) returning v",
    "update t set v = 2 returning v",
    "create table u as select * from t",
    "with x as (select 1) delete from t",
    "select 1; drop table t",
    "select ';' ;; drop table t",
    "select 1 -- one\n; drop table t",
    "select 1 /* ' */; drop table t -- '",
    "select 1 /* /* */ ' */; drop table t -- '",
    "select 1 as \"it's\"; drop table t --'",
    "vacuum",
    "explain analyze delete from t",
    "commit",
    "-- select\ndrop table t",
    "(delete from t)",
]
_OF_SQLITE = [
    "attach 'new.db' as other",
    "pragma writable_schema = 1",
    "pragma journal_mode = delete",
    "select 1 as [it's]; drop table t --'",
    "replace into t values (2)",
]
_OF_DUCKDB = [
    "copy t to 'out.csv'",
    "install httpfs",
    "load httpfs",
    "attach 'new.db'",
    "export database 'out'",
    "checkpoint",
    "set threads = 1",
    "select $$'$$; drop table t --'",
    "select e'\\''; drop table t --'",
    "from t; copy t to 'out.csv'",
    "select * from enable_logging(storage='file', storage_path='log')",
    "from \"enable_logging\"('QueryLog', storage='file', storage_config={'path': 'log'})",
    "select * from query('from enable_' || 'logging(storage=''file'', storage_path=''log'')')",
    "select * from query /* a */ ('select 1')",
    "from \"query\"('select 1')",
    "from json_execute_serialized_sql(json_serialize_sql('from enable_' || 'profiling()'))",
    "select * from Enable_Logging\n-- (\n(storage='file', storage_path='log')",
    "select * from enable_profiling()",
    "from disable_logging()",
]
_OF_POSTGRES = [
    "with x as (delete from t returning *) select * from x",
    "with x as (insert into t values (2) returning *) select * from x",
    "with x as (update t set v = 2 returning *) select * from x",
    "select * into u from t",
    "copy (select 1) to program 'touch out.csv'",
    "copy t to '/tmp/out.csv'",
    "select nextval('numbers') as n",
    "select setval('numbers', 5) as n",
    "select change() as c",
    "select query_to_xml('drop table t', true, true, '') as x",
    "select set_config('transaction_read_only', 'off', false) as c",
    "do $$ begin drop table t; end $$",
    "call change_all()",
    "select $a$'$a$; drop table t --'",
    "select 'a\\'; commit; drop table t; --'",
    "set session characteristics as transaction read write",
]


def _dataset(sql: str) -> dict[str, Any]:
    return {"sql": sql, "url_env": "WAREHOUSE_URL"}


@pytest.mark.parametrize("sql", [*_WRITES, *_OF_SQLITE])
def test_sqlite_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    path = tmp_path / "facts.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table t as select 1 as v")
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DatasetError):
        read(tmp_path, _dataset(sql))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["facts.db"]


@pytest.mark.parametrize("sql", [*_WRITES, *_OF_DUCKDB])
def test_duckdb_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    path = tmp_path / "facts.duckdb"
    engine = sa.create_engine(f"duckdb:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("create table t as select 1 as v")
    engine.dispose()
    monkeypatch.setenv("WAREHOUSE_URL", f"duckdb:///{path}")
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DatasetError):
        read(tmp_path, _dataset(sql))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["facts.duckdb"]


@pytest.mark.parametrize("sql", [*_WRITES, *_OF_POSTGRES])
def test_postgresql_is_only_read(
    tmp_path: Path, shared_database: sa.Engine, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    url = shared_database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("WAREHOUSE_URL", url)
    with pytest.raises(DatasetError):
        read(tmp_path, _dataset(sql))
    state = "select (select array_agg(v) from t), (select last_value from numbers), to_regclass('u')"
    with shared_database.connect() as connection:
        assert connection.exec_driver_sql(state).one() == ([1], 1, None)


@pytest.fixture(scope="module")
def shared_database(postgres_server: PostgresServer) -> Any:
    engine = sa.create_engine(postgres_server.new_database())
    with engine.begin() as connection:
        for statement in (
            "create table t as select 1 as v",
            "create sequence numbers",
            "create function change() returns int language sql as 'delete from t returning v'",
            "create procedure change_all() language sql as 'delete from t'",
        ):
            connection.exec_driver_sql(statement)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("name", ["sqlite", "duckdb", "postgresql", "mariadb"])
def test_the_database_refuses_what_the_text_does_not_show(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """The first line of defense, without the check of the text."""
    url = sa.make_url(f"{name}:///{tmp_path}/facts.db")
    if name == "postgresql":
        url = request.getfixturevalue("shared_database").url
    elif name == "mariadb":
        url = sa.make_url(request.getfixturevalue("mariadb_server").new_database())
    if name != "postgresql":
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("create table t as select 1 as v")
        engine.dispose()
    for sql in ("delete from t", "create table u (v int)", "drop table t"):
        engine = reading_engine(url)
        with (
            pytest.raises(sa.exc.SQLAlchemyError, match=r"(?i)read[- ]?only"),
            engine.connect() as connection,
            reading(connection),
        ):
            connection.exec_driver_sql(sql)
        with engine.connect() as connection, reading(connection):
            assert connection.exec_driver_sql("select v from t").scalar() == 1
        engine.dispose()


@pytest.mark.parametrize("database", ["mysql", "mariadb", "mssql", "snowflake", "bigquery", "oracle"])
@pytest.mark.parametrize(
    "sql",
    [
        *_WRITES,
        "select * into u from t",
        "with x as (select 1 as v) update t set v = 2",
        "with x as (delete from t returning *) select * from x",
        "select a from t into outfile '/tmp/x'",
        "(select a from t into outfile '/tmp/x')",
        "merge into t using u on true when matched then delete",
        "call change()",
        "set a = 1",
    ],
)
def test_elsewhere_the_text_is_one_statement_that_reads(database: str, sql: str) -> None:
    with pytest.raises(DatasetError, match="the query "):
        check_reads(sql, database)


@pytest.mark.parametrize(
    ("database", "sql"),
    [
        ("mysql", "select 1 /*! into outfile '/tmp/x' */"),
        ("mariadb", "select 1 /*M! into outfile '/tmp/x' */"),
        ("mysql", "select 1--1; drop table t"),
        ("mysql", "select 1 --\x01' \n; drop table t -- '"),
        ("mysql", "select 1 --\u2003; drop table t"),
        ("mysql", "select 1 # ' \n; drop table t -- '"),
        ("mysql", 'select "\\"\'"; drop table t -- \''),
        ("snowflake", "select '\\'; drop table t --'"),
        ("snowflake", "select $$'$$; drop table t --'"),
        ("mssql", "select 1 as [it's]; drop table t --'"),
    ],
)
def test_the_quotes_and_comments_are_those_of_the_database(database: str, sql: str) -> None:
    with pytest.raises(DatasetError, match="the query has"):
        check_reads(sql, database)


_READS = """
select 'drop; table' as "a;b", 'it''s -- no /* comment' as t, -- ; a comment with 'one quote
  (select v from t limit 1) as v /* ; delete */
from t where v = 1;
"""


@pytest.mark.parametrize("database", ["sqlite", "duckdb", "postgresql", "mysql", "mssql", "snowflake"])
@pytest.mark.parametrize(
    "sql",
    [
        _READS,
        "with x as (select 1 as v) select v from x",
        "(select 1) union all (select 2)",
        "SELECT replace(v, 'a', 'b') as deleted, updated from t order by 1",
        "select v from t for update",
        "select extract(epoch from v) as insert_at from t",
    ],
)
def test_what_reads_is_not_refused(database: str, sql: str) -> None:
    check_reads(sql, database)


def test_other_statements_of_duckdb_that_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.duckdb"
    (tmp_path / "a.csv").write_text("k,v\na,1\nb,2\n")
    engine = sa.create_engine(f"duckdb:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("create table t as select 1 as v, 'x' as k")
    engine.dispose()
    monkeypatch.setenv("WAREHOUSE_URL", f"duckdb:///{path}")
    assert read(tmp_path, _dataset("from t"))["v"].to_pylist() == [1]
    assert read(tmp_path, _dataset(f"select v from read_csv('{tmp_path}/a.csv')"))["v"].to_pylist() == [1, 2]
    assert read(tmp_path, _dataset("unpivot t on v into name n value x"))["x"].to_pylist() == [1]
    assert read(tmp_path, _dataset("pivot t on k using sum(v)")).num_rows == 1
    query = (
        "with query as (select v as enable_logging from t) select enable_logging as query from query -- query (a)"
    )
    assert read(tmp_path, _dataset(query))["query"].to_pylist() == [1]
    monkeypatch.setenv("WAREHOUSE_URL", "duckdb:///:memory:")
    assert read(tmp_path, _dataset("select 5 as v"))["v"].to_pylist() == [5]


def test_a_query_reads_what_another_connection_of_the_process_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"duckdb:///{tmp_path}/facts.duckdb"
    writer = sa.create_engine(url)
    with writer.begin() as connection:
        connection.exec_driver_sql("create table t as select 1 as v")
    writer.dispose()
    monkeypatch.setenv("WAREHOUSE_URL", url)
    reader = sa.create_engine(url, connect_args={"read_only": True})
    with reader.connect():
        for _ in range(2):
            assert read(tmp_path, _dataset("from t"))["v"].to_pylist() == [1]
    reader.dispose()


def test_a_query_reads_while_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("pragma journal_mode = wal")
    writer.execute("create table t as select 1 as v")
    writer.execute("begin immediate")
    writer.execute("insert into t values (2)")
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{path}")
    assert read(tmp_path, _dataset(_READS))["v"].to_pylist() == [1]
    writer.execute("commit")
    writer.close()


def test_the_refusal_says_what_to_give(tmp_path: Path) -> None:
    problem = "the query begins with DROP: give one statement that only reads: SELECT, or WITH and SELECT"
    with pytest.raises(DatasetError, match=re.escape(problem)):
        check_reads("drop table t", "sqlite")
