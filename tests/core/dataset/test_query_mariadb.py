"""A query as a dataset in a real MariaDB: values as the database prints them, and nothing is written."""

from __future__ import annotations

import datetime as dt
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError

from ..mariadb import MariadbServer
from ..support import make_pipeline, params, read, wait_for

URL = "WAREHOUSE_URL"
MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 1)
# Queries that do more than read, or that the check of the text reads in another way than the server.
_WRITES = [
    "drop table t",
    "insert into t values (2)",
    "insert into t values (2) returning v",
    "create temporary table u (v int)",
    "call change_all()",
    "select change_one() as c",
    "select change_myisam() as c",
    "with x as (select change_one() as c) select c from x",
    "select v from t where v in (select change_one())",
    "select nextval(numbers) as n",
    "select next value for numbers as n",
    "select setval(numbers, 100) as n",
    "select 1; drop table t",
    "begin not atomic insert into t values (4); end",
    "set statement tx_read_only = 0 for select change_one() as c",
    "handler t open",
    "select v from t into outfile '{file}'",
    "select v from t limit 1 into @x",
    "select 1 --\x01' \n into outfile '{file}' -- '",
    "select 1 /*! into outfile '{file}' */",
    "select 1 /*M! into outfile '{file}' */",
]
_IN_MODE = [
    ("NO_BACKSLASH_ESCAPES", "select 'a\\' as b from t into outfile '{file}' -- '"),
    ("NO_BACKSLASH_ESCAPES", "select 'a\\' into outfile '{file}' -- '"),
    ("ANSI_QUOTES", 'select v as "a\\" from t into outfile \'{file}\' -- "'),
]


@pytest.fixture
def url(mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch) -> str:
    new = mariadb_server.new_database()
    monkeypatch.setenv(URL, new)
    return new


def _run(url: str, *statements: str) -> list[Any]:
    """Run statements as another client, and return the rows of the last one."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        done = [connection.exec_driver_sql(statement) for statement in statements][-1]
        return list(done) if done.returns_rows else []


def _query(sql: str) -> dict[str, str]:
    return {"sql": sql, "url_env": URL}


def _values(folder: Path, sql: str) -> dict[str, list[Any]]:
    table = read(folder, _query(sql))
    return table.drop([name for name in ("row_number",) if name in table.column_names]).to_pydict()


def test_types_become_arrow_types(tmp_path: Path, url: str) -> None:
    columns: dict[str, tuple[str, str, pa.DataType, Any]] = {
        "exact": ("decimal(10, 2)", "1.5", pa.decimal128(38, 2), Decimal("1.50")),
        "big": ("bigint unsigned", "18446744073709551615", pa.string(), "18446744073709551615"),
        "flag": ("bit(1)", "b'1'", pa.int64(), 1),
        "bits": ("bit(12)", "0xabc", pa.int64(), 0xABC),
        "yes": ("boolean", "true", pa.int64(), 1),
        "year": ("year", "1999", pa.int64(), 1999),
        "ratio": ("double", "0.1", pa.float64(), 0.1),
        "day": ("date", "'2024-01-02'", pa.date32(), dt.date(2024, 1, 2)),
        "at": ("datetime(6)", f"'{MOMENT}'", pa.timestamp("us"), MOMENT),
        "opens": ("time", "'01:02:03'", pa.time64("us"), dt.time(1, 2, 3)),
        "ends": ("time(2)", "'01:02:03.25'", pa.time64("us"), dt.time(1, 2, 3, 250_000)),
        "lasts": ("time", "'26:00:00'", pa.string(), "26:00:00"),
        "before": ("time(1)", "'-00:00:01.5'", pa.string(), "-00:00:01.5"),
        "midnight": ("time", "'24:00:00'", pa.string(), "24:00:00"),
        "data": ("json", """'{"a": [1, null]}'""", pa.string(), '{"a": [1, null]}'),
        "kind": ("enum('a', 'b')", "'b'", pa.string(), "b"),
        "kinds": ("set('x', 'y')", "'y,x'", pa.string(), "x,y"),
        "raw": ("blob", "0x00ff", pa.binary(), b"\x00\xff"),
        "latin": ("varchar(9) character set latin1", "'é€'", pa.string(), "é€"),
        "wide": ("text character set utf8mb4", "'😀 ü'", pa.string(), "😀 ü"),
        "none": ("int", "null", pa.string(), None),
    }  # fmt: skip
    definition = ", ".join(f"`{name}` {column[0]}" for name, column in columns.items())
    values = ", ".join(column[1] for column in columns.values())
    _run(url, f"create table t ({definition})", f"insert into t values ({values})")
    table = read(tmp_path, _query("select * from t"), list(columns))
    assert table.schema.types == [column[2] for column in columns.values()]
    assert table.to_pylist() == [{name: column[3] for name, column in columns.items()}]


def test_times_of_which_one_is_none_of_a_day_stay_as_they_are_printed(tmp_path: Path, url: str) -> None:
    _run(url, "create table t (v time(1))", "insert into t values ('01:02:03'), ('838:59:58'), (null)")
    assert _values(tmp_path, "select v from t")["v"] == ["01:02:03", "838:59:58.0", None]


def test_zero_dates_stay_as_they_are_printed(tmp_path: Path, url: str) -> None:
    mode = "set session sql_mode = ''"
    _run(
        url,
        mode,
        "create table t (d date, at datetime)",
        "insert into t values (0, 0), ('2024-00-00', '2024-01-01')",
    )
    zero = "0000-00-00"
    expected = {"d": [zero, "2024-00-00"], "at": [f"{zero} 00:00:00", "2024-01-01 00:00:00"]}
    assert _values(tmp_path, "select * from t") == expected


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mariadb+pymysql"])
@pytest.mark.parametrize("charset", ["utf8", "latin1", "ascii"])
def test_every_character_arrives_whatever_charset_the_url_has(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, scheme: str, charset: str
) -> None:
    _run(url, "create table t (v text character set utf8mb4)", "insert into t values ('😀 ü')")
    monkeypatch.setenv(URL, f"{url.replace('mysql+pymysql', scheme)}?charset={charset}")
    assert _values(tmp_path, "select v, 'é😀' as w from t where v like '%😀%'") == {"v": ["😀 ü"], "w": ["é😀"]}


def test_a_long_group_concat_is_not_cut(tmp_path: Path, url: str, mariadb_server: MariadbServer) -> None:
    mariadb_server.execute("set global group_concat_max_len = 1024")
    (text,) = _values(tmp_path, "select group_concat(repeat('x', 1000)) as v from seq_1_to_3")["v"]
    mariadb_server.execute("set global group_concat_max_len = default")
    assert text == ",".join(["x" * 1000] * 3)


def test_a_partition_is_bound_and_percent_signs_stay(tmp_path: Path, url: str) -> None:
    _run(url, "create table t (v int, at datetime(6))")
    _run(url, "insert into t values (1, '2024-01-01 23:59:59.999999'), (2, '2024-01-02'), (3, '2024-01-03')")
    sql = """select v, 10 % 3 as m, '% :x' as p, :partition as day from t
        where at >= :partition_start and at < :partition_end"""
    pipeline = make_pipeline(
        tmp_path, _query(sql), partitions={"daily": {"start": "2024-01-01"}}, params=params("{{ v }}")
    )
    with Dataset(pipeline, partition="2024-01-02") as dataset:
        (rows,) = dataset.rows(["v", "m", "p", "day"])
    assert rows.table.to_pylist() == [{"v": 2, "m": 1, "p": "% :x", "day": "2024-01-02"}]


def test_rows_are_fetched_a_few_hundred_at_a_time(tmp_path: Path, url: str) -> None:
    sql = "select seq as a, 'some text' as t from seq_1_to_1201"
    with Dataset(make_pipeline(tmp_path, _query(sql))) as dataset:
        assert [len(rows.table) for rows in dataset.rows(["a"])] == [32, 64, 128, 256, 500, 221]


def test_a_refused_query_does_not_read_the_rows_that_are_left(tmp_path: Path, url: str) -> None:
    """The server would take minutes for all of them."""
    sql = "select seq as a, repeat('x', 1000000) as t, 2 as a from seq_1_to_1000000"
    with warnings.catch_warnings(), pytest.raises(DatasetError, match="two columns 'a'"):
        warnings.simplefilter("error")
        read(tmp_path, _query(sql))


@pytest.fixture(scope="module")
def shared_database(mariadb_server: MariadbServer) -> str:
    url = mariadb_server.new_database()
    _run(
        url,
        "create table t as select 1 as v",
        "create table m (v int) engine = myisam",
        "create sequence numbers",
        "create function change_one() returns int begin insert into t values (9); return 1; end",
        "create function change_myisam() returns int begin insert into m values (9); return 1; end",
        "create procedure change_all() begin commit; set session transaction read write; delete from t; end",
    )
    return url


def _is_unchanged(url: str) -> bool:
    (state,) = _run(
        url, "select (select sum(v) from t), (select count(*) from m), next_not_cached_value from numbers"
    )
    return tuple(state) == (1, 0, 1)


@pytest.mark.parametrize("sql", _WRITES)
def test_mariadb_is_only_read(
    tmp_path: Path, mariadb_server: MariadbServer, shared_database: str, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setenv(URL, shared_database)
    file = mariadb_server.folder / "written"
    with pytest.raises(DatasetError):
        read(tmp_path, _query(sql.replace("{file}", str(file))))
    assert _is_unchanged(shared_database)
    assert not file.exists()


@pytest.mark.parametrize(("mode", "sql"), _IN_MODE)
def test_quotes_are_read_as_the_mode_of_the_server_has_it(
    tmp_path: Path,
    mariadb_server: MariadbServer,
    shared_database: str,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    sql: str,
) -> None:
    file = mariadb_server.folder / "written"
    monkeypatch.setenv(URL, f"{shared_database}?sql_mode={mode}")
    with pytest.raises(DatasetError, match="the query has INTO, which writes"):
        read(tmp_path, _query(sql.replace("{file}", str(file))))
    assert not file.exists()
    quote = '"' if mode == "ANSI_QUOTES" else "`"
    assert _values(tmp_path, f"select 'C:\\\\' as {quote}it's{quote} from t") == {
        "it's": ["C:\\" if mode == "ANSI_QUOTES" else "C:\\\\"]
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            ("root@", "root:pass-word@"),
            "Access denied for user 'root'@'localhost' (using password: YES) (error 1045)",
        ),
        (("/test_", "/nope_"), "Unknown database 'nope_"),
    ],
)
def test_errors_are_sentences(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], problem: str
) -> None:
    monkeypatch.setenv(URL, url.replace(*change))
    with pytest.raises(DatasetError, match=re.escape(f"the database of {URL} refused: {problem}")) as caught:
        read(tmp_path, _query("select 1 as v"))
    assert "pass-word" not in str(caught.value)


def test_a_connection_that_the_server_ends_is_a_sentence(
    tmp_path: Path, url: str, mariadb_server: MariadbServer
) -> None:
    running = "select id from information_schema.processlist where info = 'select sleep(60) as v'"
    with ThreadPoolExecutor(1) as thread:
        reads = thread.submit(read, tmp_path, _query("select sleep(60) as v"))
        ((number,),) = wait_for(lambda: _run(url, running), "the query")
        mariadb_server.execute(f"kill {number}")
        with pytest.raises(DatasetError, match=f"the database of {URL} refused: .*Lost connection"):
            reads.result()
