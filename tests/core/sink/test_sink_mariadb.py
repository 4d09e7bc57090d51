"""The sink in a real MariaDB, which by itself would change, mix up or cut values."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from batch_assets.core.errors import SinkError
from batch_assets.core.sink.table import SinkTable
from batch_assets.core.sink.target import Target

from ..mariadb import MariadbServer
from ..support import make_pipeline

URL = "WAREHOUSE_URL"
MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678_901)
Rows = list[tuple[Any, ...]]


class Warehouse:
    """A database, and what a pipeline writes into its table t."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self._folder, self._monkeypatch = url, folder, monkeypatch

    def sql(self, *statements: str) -> Rows:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            done = [connection.exec_driver_sql(statement) for statement in statements][-1]
            return [tuple(row) for row in done] if done.returns_rows else []

    def target(self, url: str | None = None, table: str = "t") -> Target:
        self._monkeypatch.setenv(URL, url or self.url)
        pipeline = make_pipeline(self._folder, "rows.jsonl", sink={"url_env": URL, "table": table})
        assert pipeline.config.sink is not None
        return Target(pipeline, pipeline.config.sink)

    def put(self, url: str | None = None, table: str = "t", **columns: Any) -> None:
        """Write rows, whose key is the partition, if there is one, and the first other column."""
        rows = pa.table(columns)
        keys = rows.column_names[: 2 if "partition" in columns else 1]
        target = self.target(url, table)
        with target.transaction() as connection, target.explained(keys[-1]):
            SinkTable(connection, target, rows.schema, keys).put(rows)

    def rows(self) -> Rows:
        return sorted(self.sql("select * from t"), key=repr)


@pytest.fixture
def warehouse(mariadb_server: MariadbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    return Warehouse(mariadb_server.new_database(), tmp_path, monkeypatch)


KEYS: dict[str, tuple[pa.Array, list[Any]]] = {
    name: (keys, expected or keys.to_pylist())
    for name, keys, expected in [
        ("case", pa.array(["A", "a", "ä", "Ä"]), []),
        ("blanks", pa.array(["a", "a ", " a", "a\0"]), []),
        ("emoji", pa.array(["😀", "😎", "?"]), []),
        ("long", pa.array(["x" * 768, "é" * 768, "😀" * 768]), []),
        ("bytes", pa.array([b"\xff\0", b"a", b"A", b"a "]), []),
        ("zero", pa.array([0, 1, -1]), []),
        ("unsigned", pa.array([2**64 - 1, 0], pa.uint64()), []),
        ("double", pa.array([0.1, 1e300, 5e-324]), []),
        ("decimal", pa.array([Decimal("1.50"), Decimal("-2.25")]), []),
        ("boolean", pa.array([True, False]), [1, 0]),
        ("day", pa.array([dt.date(1, 1, 1), dt.date.max]), []),
        ("moment", pa.array([MOMENT, dt.datetime.max]), []),
        ("instant", pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")), [MOMENT]),
        (
            "time",
            pa.array([dt.time(1, 2, 3, 4)]),
            [dt.timedelta(hours=1, minutes=2, seconds=3, microseconds=4)],
        ),
    ]
}  # fmt: skip


@pytest.mark.parametrize(("keys", "expected"), KEYS.values(), ids=KEYS)
def test_keys_stay_apart_and_are_found_again(warehouse: Warehouse, keys: pa.Array, expected: list[Any]) -> None:
    for offset in (0, 10):
        warehouse.put(id=keys, v=pa.array(range(offset, offset + len(keys))))
        rows = [(key, offset + number) for number, key in enumerate(expected)]
        assert warehouse.rows() == sorted(rows, key=repr)


def test_a_key_next_to_a_partition_may_be_long(warehouse: Warehouse) -> None:
    rows = [("p" * 255, "😀" * 512, 1), ("P" * 255, "😀" * 512, 2)]
    names, keys, values = (list(column) for column in zip(*rows, strict=True))
    for _ in range(2):
        for name, key, value in zip(names, keys, values, strict=True):
            warehouse.put(partition=[name], id=[key], v=[value])
    assert warehouse.rows() == sorted(rows, key=repr)


@pytest.mark.parametrize(
    ("definition", "before", "keys"),
    [
        ("id varchar(255) primary key", "", ["A", "a"]),
        ("id varchar(255) primary key", "A", ["a"]),
        ("id varchar(255) collate latin1_bin primary key", "", ["a", "a "]),
        ("id varchar(255) primary key", "é", ["e"]),
        ("id varchar(255) not null, unique (id(2))", "", ["aab", "aac"]),
        ("id varchar(255) primary key, w int default 1 unique", "other", ["a"]),
    ],
)
def test_two_keys_that_a_table_counts_as_equal_are_refused(
    warehouse: Warehouse, definition: str, before: str, keys: list[str]
) -> None:
    warehouse.sql(f"create table t (v int default -1, {definition})")
    if before:
        warehouse.sql(f"insert into t (id) values ('{before}')")
    unchanged = warehouse.rows()
    with pytest.raises(SinkError, match=r"counts 1 row key as equal to others.* No row was changed.* a new table"):
        warehouse.put(id=keys, v=pa.array(range(len(keys))))
    assert warehouse.rows() == unchanged


def test_a_table_of_ones_own_is_used_while_its_keys_are_distinct(warehouse: Warehouse) -> None:
    warehouse.sql(
        "create table t (n int auto_increment primary key, id varchar(99) not null unique, v int, mine int)",
        "insert into t (id, v, mine) values ('b', 1, 7)",
    )
    warehouse.put(id=["a", "b"], v=[2, 3])
    assert warehouse.sql("select id, v, mine from t order by id") == [("a", 2, None), ("b", 3, 7)]


def test_values_that_mysql_would_cut_or_round(warehouse: Warehouse) -> None:
    columns: dict[str, tuple[pa.Array, Any]] = {
        "text": (pa.array(["é" * 100_000 + "😀"]), "é" * 100_000 + "😀"),
        "raw": (pa.array([b"\xff" * 70_000]), b"\xff" * 70_000),
        "moment": (pa.array([MOMENT]), MOMENT),
        "time": (pa.array([MOMENT.time()]), MOMENT - dt.datetime(2024, 1, 2)),
        "single": (pa.array([0.1], pa.float32()), 0.10000000149011612),
        "nan": (pa.array([math.nan]), None),
        "infinite": (pa.array([-math.inf]), None),
        "digits": (pa.array([Decimal("1.5")], pa.decimal128(38, 35)), "1.5" + "0" * 34),
        "tens": (pa.array([Decimal("1200")], pa.decimal128(5, -2)), "1.2E+3"),
        "yes": (pa.array([True]), 1),
        "50% (`s".replace("`", "'"): (pa.array([1]), 1),
        "partition": (pa.array(["p"]), "p"),
    }
    values = {name: value for name, (value, _) in columns.items() if name != "partition"}
    for _ in range(2):  # inserted, then updated
        warehouse.put(id=pa.array(["a"]), **values)
        assert warehouse.rows() == [("a", *(columns[name][1] for name in values))]


LOSSES: list[tuple[str, pa.Array, str]] = [
    ("datetime", pa.array([MOMENT]), "has the type DATETIME, which would change"),
    ("datetime(3)", pa.array([MOMENT]), r"has the type DATETIME\(3\), which would change"),
    ("time", pa.array([MOMENT.time()]), "has the type TIME, which would change"),
    ("float", pa.array([0.1]), "has the type FLOAT, which would change"),
    ("double(5, 2)", pa.array([0.125]), r"has the type DOUBLE\(5, 2\), which would change"),
    ("enum('a')", pa.array(["A"]), r"has the type ENUM\('a'\), which would change"),
    ("set('a', 'b')", pa.array(["b,a"]), r"has the type SET\('a','b'\), which would change"),
    ("tinyint", pa.array([300]), "Out of range value for column 'v'"),
    ("int unsigned", pa.array([-1]), "Out of range value for column 'v'"),
    ("decimal(5, 2)", pa.array([Decimal("123456.78")]), "Out of range value for column 'v'"),
    ("text", pa.array(["x" * 70_000]), "Data too long for column 'v' .* a type for longer values"),
    ("text", pa.array(["PRIVATE 😀"]), "Incorrect string value: '…' for column"),
    ("int unique default 1", pa.array([7, 7]), "counts 1 row key as equal"),
]


@pytest.mark.parametrize(("type_", "values", "problem"), LOSSES)
def test_values_that_a_column_cannot_hold_are_refused(
    warehouse: Warehouse, type_: str, values: pa.Array, problem: str
) -> None:
    warehouse.sql(f"create table t (id varchar(99) primary key, v {type_})")
    with pytest.raises(SinkError, match=problem) as caught:
        warehouse.put(f"{warehouse.url}?sql_mode=", id=[f"{number}" for number in range(len(values))], v=values)
    assert "PRIVATE" not in str(caught.value)
    assert warehouse.rows() == []


@pytest.mark.parametrize(
    ("type_", "values", "held"),
    [
        ("datetime", pa.array([dt.datetime(2024, 1, 2, 3, 4, 5)]), dt.datetime(2024, 1, 2, 3, 4, 5)),
        ("datetime(3)", pa.array([MOMENT.replace(microsecond=678_000)]), MOMENT.replace(microsecond=678_000)),
        ("datetime", pa.array([dt.date(2024, 1, 2)]), dt.datetime(2024, 1, 2)),
        ("tinyint(1)", pa.array([7]), 7),
        ("boolean", pa.array([True]), 1),
        ("json", pa.array([[1, 2]]), "[1,2]"),
        ("varbinary(9)", pa.array([b"\xff"]), b"\xff"),
        ("float", pa.array([1.5], pa.float32()), 1.5),
    ],
)
def test_values_that_a_column_can_hold_are_stored(
    warehouse: Warehouse, type_: str, values: pa.Array, held: object
) -> None:
    warehouse.sql(f"create table t (id varchar(99) primary key, v {type_})")
    warehouse.put(id=["a"], v=values)
    assert warehouse.rows() == [("a", held)]


def test_an_instant_in_a_timestamp_is_the_same_instant(warehouse: Warehouse) -> None:
    warehouse.sql("create table t (id varchar(99) primary key, v timestamp null)")
    warehouse.put(id=["a"], v=pa.array([1_735_689_600], pa.timestamp("s", "Europe/Berlin")))
    assert warehouse.sql("select unix_timestamp(v) from t") == [(1_735_689_600,)]


@pytest.mark.parametrize("parameters", ["charset=utf8", "sql_mode=ANSI_QUOTES", "sql_mode=NO_BACKSLASH_ESCAPES"])
@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_every_way_to_connect_stores_the_same(warehouse: Warehouse, scheme: str, parameters: str) -> None:
    url = f"{warehouse.url.replace('mysql', scheme, 1)}?{parameters}"
    warehouse.put(url, id=["a\\'😀"], v=["b\\"])
    assert warehouse.rows() == [("a\\'😀", "b\\")]


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ("id varchar(99)", "no unique key of these columns.* a primary key of exactly id"),
        (
            "id varchar(99) primary key) engine = myisam -- ",
            "its engine MyISAM has no transactions.* convert the table",
        ),
        ("id varchar(99) primary key, check (v > 5)", "CONSTRAINT .* failed"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(warehouse: Warehouse, definition: str, problem: str) -> None:
    warehouse.sql(f"create table t (v int, {definition})")
    with pytest.raises(SinkError, match=problem):
        warehouse.put(id=["a"], v=[1])
    assert warehouse.rows() == []


@pytest.mark.parametrize(
    ("url", "table", "problem"),
    [
        (
            lambda url: url.replace("root@", "root:pass-word@"),
            "t",
            "cannot be reached: Access denied .* URL is right",
        ),
        (lambda url: url.rpartition("/")[0], "t", "the URL names no database: end it with /name"),
        (lambda url: f"{url}x", "t", "cannot be reached: Unknown database"),
        (lambda url: f"{url}?nonsense=1", "t", "cannot be reached: .*unexpected keyword argument 'nonsense'"),
        (lambda url: url.replace("+pymysql", ""), "t", r"begin the URL with mysql\+pymysql://, and pip install"),
        (lambda url: url, "nowhere.t", "Unknown database 'nowhere'.* CREATE SCHEMA"),
    ],
)
def test_errors_say_what_to_do(warehouse: Warehouse, url: Callable[[str], str], table: str, problem: str) -> None:
    with pytest.raises(SinkError, match=problem) as caught:
        warehouse.put(url(warehouse.url), table, id=["a"], v=[1])
    assert "pass-word" not in str(caught.value)


def test_a_user_who_may_only_write_the_table_needs_no_other_permission(
    warehouse: Warehouse, mariadb_server: MariadbServer
) -> None:
    warehouse.put(id=["a"], v=[1])
    database = warehouse.url.rpartition("/")[2]
    mariadb_server.execute(
        f"create user {database}", f"grant select, insert, update on {database}.t to {database}"
    )
    warehouse.put(warehouse.url.replace("root@", f"{database}@"), id=["a"], v=[2])
    assert warehouse.rows() == [("a", 2)]
    with pytest.raises(SinkError, match=r"command denied .* the permission to create and write the table"):
        warehouse.put(warehouse.url.replace("root@", f"{database}@"), "other", id=["a"], v=[2])


def test_a_locked_table_is_a_sentence(warehouse: Warehouse) -> None:
    warehouse.put(id=["a"], v=[1])
    engine = sa.create_engine(warehouse.url, poolclass=sa.NullPool)
    waits = f"{warehouse.url}?init_command=set+innodb_lock_wait_timeout%3D1"
    with engine.begin() as connection:
        connection.exec_driver_sql("update t set v = 5")
        with pytest.raises(SinkError, match=r"Lock wait timeout exceeded.*end the other transaction"):
            warehouse.put(waits, id=["a"], v=[2])
    assert warehouse.rows() == [("a", 5)]


@pytest.mark.parametrize("server", ["mariadb_server", "postgres_server"])
def test_a_connection_that_is_lost_is_a_sentence_and_nothing_is_written(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    own, kill = {
        "mariadb_server": ("connection_id()", "kill {}"),
        "postgres_server": ("pg_backend_pid()", "select pg_terminate_backend({})"),
    }[server]
    warehouse = Warehouse(request.getfixturevalue(server).new_database(), tmp_path, monkeypatch)
    warehouse.put(id=["a"], v=[1])
    rows, target = pa.table({"id": ["b"], "v": [2]}), warehouse.target()
    with (
        pytest.raises(SinkError, match=r"check that the database runs, and write the results again"),
        target.transaction() as connection,
        target.explained(),
    ):
        table = SinkTable(connection, target, rows.schema, ["id"])
        table.put(rows)
        warehouse.sql(kill.format(connection.exec_driver_sql(f"select {own}").scalar()))
        table.put(rows)
    assert warehouse.rows() == [("a", 1)]
