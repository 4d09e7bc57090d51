"""A query as a dataset, on real databases: types decided over all rows, one run, no secrets in errors."""

from __future__ import annotations

import datetime as dt
import sqlite3
import tempfile
import traceback
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pytest
import sqlalchemy as sa

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.spool import Spool
from batch_assets.core.dataset.valid_text import valid_text
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates

from ..postgres import PostgresServer
from ..support import World, make_pipeline, params, read

SECRET = "pa:ss/w%rd"
UTC = pa.timestamp("us", "UTC")


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SQLite file that WAREHOUSE_URL names."""
    path = tmp_path / "warehouse.db"
    sqlite3.connect(path).close()
    path.touch()
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{path}")
    return path


@pytest.fixture
def postgres(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    url = postgres_server.new_database()
    monkeypatch.setenv("WAREHOUSE_URL", url)
    return url


def _query(sql: str, **more: Any) -> dict[str, Any]:
    return {"sql": sql, "url_env": "WAREHOUSE_URL", **more}


def _column(folder: Path, values: str) -> pa.ChunkedArray:
    return read(folder, _query(f"select * from (values {values}) as t (v)"))["v"]


def _open_files() -> list[str]:
    """The unnamed temporary files that this process has open."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue  # the descriptor of the listing itself
    return [link for link in links if link.startswith(tempfile.gettempdir()) and "(deleted)" in link]


def test_postgresql_types_become_arrow_types(tmp_path: Path, postgres: str) -> None:
    values: dict[str, tuple[str, pa.DataType, Any]] = {
        "i": ("1::bigint", pa.int64(), 1),
        "f": ("1.5::float8", pa.float64(), 1.5),
        "n": ("2.50::numeric(10, 2)", pa.decimal128(38, 2), Decimal("2.50")),
        "b": ("true", pa.bool_(), True),
        "d": ("date '2024-01-02'", pa.date32(), dt.date(2024, 1, 2)),
        "at": ("timestamp '2024-01-02 03:04:05'", pa.timestamp("us"), dt.datetime(2024, 1, 2, 3, 4, 5)),
        "tz": (
            "timestamptz '2024-01-02 03:04:05+02'", UTC,
            dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC),
        ),
        "time": ("time '01:02'", pa.time64("us"), dt.time(1, 2)),
        "raw": (r"'\x00ff'::bytea", pa.binary(), b"\x00\xff"),
        "t": ("'100 % :name'::text", pa.string(), "100 % :name"),
        "u": ("'00000000-0000-0000-0000-000000000005'::uuid", pa.string(), "00000000-0000-0000-0000-000000000005"),
        "j": ("""'{"ä": [1, null]}'::jsonb""", pa.string(), '{"ä":[1,null]}'),
        "l": ("array[1, 2]", pa.string(), "[1,2]"),
        "null": ("null", pa.string(), None),
        "big": ("12345678901234567890::numeric", pa.decimal128(38, 0), Decimal("12345678901234567890")),
        "nan": ("'NaN'::numeric", pa.string(), "NaN"),
    }  # fmt: skip
    sql = ", ".join(f'{value[0]} as "{name}"' for name, value in values.items())
    table = read(tmp_path, _query(f"select {sql}"), list(values))
    assert table.schema.types == [value[1] for value in values.values()]
    assert table.to_pylist() == [{name: value[2] for name, value in values.items()}]


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ("(1), (null), (2)", pa.int64(), [1, None, 2]),
        ("(1), (2.5)", pa.string(), ["1", "2.5"]),  # 1 would come back as 1.0
        ("(1.5), (1e300)", pa.float64(), [1.5, 1e300]),
        ("(1), ('x'), (2.5)", pa.string(), ["1", "x", "2.5"]),
        ("(null), (null)", pa.string(), [None, None]),
        ("(x'00ff'), (null)", pa.binary(), [b"\x00\xff", None]),
    ],
)
def test_a_column_has_a_type_only_if_every_value_prints_unchanged(
    tmp_path: Path, warehouse: Path, values: str, type_: pa.DataType, expected: list[Any]
) -> None:
    rows = values.replace("(", "select ").replace(")", " as v").replace(", ", " union all ")
    column = read(tmp_path, _query(rows))["v"]
    assert (column.type, column.to_pylist()) == (type_, expected)


@pytest.mark.parametrize(
    ("first", "last", "type_", "first_value"),
    [
        ("n", "'x'", pa.string(), "0"),
        ("case when n > 0 then n end", "5", pa.int64(), None),
        ("null", "5", pa.int64(), None),
        ("n + 0.5", "'x'", pa.string(), "0.5"),
        ("n + 0.5", "7", pa.string(), "0.5"),
    ],
)
def test_a_late_value_counts_for_the_type_but_changes_no_earlier_row(
    tmp_path: Path, warehouse: Path, first: str, last: str, type_: pa.DataType, first_value: Any
) -> None:
    count = 1200
    numbers = f"with recursive t (n) as (select 0 union all select n + 1 from t where n < {count - 1})"
    alone = read(tmp_path, _query(f"{numbers} select {first} as v from t"))["v"]
    column = read(tmp_path, _query(f"{numbers} select {first} as v from t union all select {last}"))["v"]
    assert (column.type, len(column)) == (type_, count + 1)
    assert column[0].as_py() == first_value
    assert [str(value) for value in alone.to_pylist()] == [str(value) for value in column[:count].to_pylist()]


def test_decimals_of_one_scale_stay_decimals_and_others_become_text(tmp_path: Path, postgres: str) -> None:
    same = _column(tmp_path, "(1.50), (10.25)")
    assert (same.type, [str(value) for value in same.to_pylist()]) == (pa.decimal128(38, 2), ["1.50", "10.25"])
    assert _column(tmp_path, "(1.5), (10.25)").to_pylist() == ["1.5", "10.25"]
    assert _column(tmp_path, "(10.25), (1.5)").to_pylist() == ["10.25", "1.5"]
    assert _column(tmp_path, f"(1.5), ({'9' * 40}.5)").to_pylist() == ["1.5", "9" * 40 + ".5"]


def test_rows_of_a_table_get_results_and_the_query_runs_once(
    world: World, postgres: str, request: pytest.FixtureRequest
) -> None:
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table reviews (id int primary key, text text, stars numeric(2, 1))")
        connection.exec_driver_sql(
            "insert into reviews select n, 'review ' || n, 3.5 from generate_series(1, 3) n"
        )
    (world.folder / "reviews.sql").write_text(
        "-- reviews; with text\nselect id, text, stars from reviews where text like '%review%' order by id;\n"
    )
    runs: list[str] = []

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def _count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        runs.extend([statement] if "-- reviews" in statement else [])

    request.addfinalizer(lambda: sa.event.remove(sa.Engine, "before_cursor_execute", _count))
    pipeline = world.pipeline(dataset=_query("reviews.sql", key="id"), params=params("{{ text }}: {{ stars }}"))
    assert runs == []  # loading the pipeline does not run the query
    before = _open_files()
    table = world.run(pipeline)
    assert list(table["id"]) == [1, 2, 3]
    assert list(table["stars"]) == [Decimal("3.5")] * 3
    assert list(table["result_type"]) == ["succeeded"] * 3
    (batch,) = world.accepted()
    (first, *_) = orjson.loads(world.sent_body(batch["id"]))["requests"]
    assert first["params"]["messages"][0]["content"] == "review 1: 3.5"
    assert len(runs) == 1
    engine.dispose()
    assert _open_files() == before


def test_rows_are_in_an_unnamed_file_until_the_dataset_is_closed(tmp_path: Path, warehouse: Path) -> None:
    before = _open_files()
    with Dataset(make_pipeline(tmp_path, _query("select 1 as a union all select 2"))) as dataset:
        assert len(_open_files()) == len(before) + 1
        assert [sum(len(rows.table) for rows in dataset.rows(["a"])) for _ in range(2)] == [2, 2]
    assert _open_files() == before
    with pytest.raises(DatasetError, match="no column 'id'") as caught:
        Dataset(make_pipeline(tmp_path, _query("select 1 as a", key="id")))
    assert _open_files() == before
    del caught  # kept until here, so that its traceback would have kept an unclosed file open


def test_rows_are_fetched_from_the_server_a_few_hundred_at_a_time(tmp_path: Path, postgres: str) -> None:
    sql = "select n as a, repeat('x', 10) as t from generate_series(1, 1201) n"
    with Dataset(make_pipeline(tmp_path, _query(sql))) as dataset:
        assert [len(rows.table) for rows in dataset.rows(["a"])] == [32, 64, 128, 256, 500, 221]


def test_a_query_that_fails_midway_leaves_no_file_open(tmp_path: Path, postgres: str) -> None:
    before = _open_files()
    with pytest.raises(
        DatasetError, match=r"dataset.sql: the database of WAREHOUSE_URL refused: division by zero"
    ):
        read(tmp_path, _query("select 1 / (3000 - n) as v from generate_series(1, 5000) n"))
    assert _open_files() == before


def test_a_query_without_rows_has_its_columns(world: World, postgres: str) -> None:
    pipeline = world.pipeline(dataset=_query("select 1 as id, 'x' as text where false", key="id"))
    table = world.run(pipeline)
    assert (len(table), list(table.columns[:2])) == (0, ["id", "text"])
    assert not world.accepted()


def test_invalid_unicode_is_found_after_the_spool() -> None:
    """Lone surrogates come from JSON, and from drivers that decode leniently."""
    spool = Spool(["t"])
    spool.add([("fine",), ("bro\ud800ken",), ({"j": "\ud800"},)])
    ((batch, _, _),) = spool.batches(["t"])
    spool.close()
    rows = valid_text(batch)
    assert sorted(rows.rejects) == [1, 2]
    assert rows.table.column(0).to_pylist()[0] == "fine"
    assert "\ufffd" in rows.table.column(0).to_pylist()[1]


def test_an_sqlite_uri_works(tmp_path: Path, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///file:{warehouse}?mode=ro&uri=true")
    assert read(tmp_path, _query("select 1 as a"))["a"].to_pylist() == [1]


def test_duckdb_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", "duckdb:///facts.duckdb")
    with pytest.raises(DatasetError, match=r"WAREHOUSE_URL names a file that does not exist: .*/facts\.duckdb"):
        read(tmp_path, _query("select 1 as a"))
    assert not (tmp_path / "facts.duckdb").exists()
    engine = sa.create_engine(f"duckdb:///{tmp_path}/facts.duckdb")
    with engine.begin() as connection:
        connection.exec_driver_sql("create table t as select range as n, 1.5::decimal(5, 2) as d from range(2000)")
    engine.dispose()
    table = read(tmp_path, _query("select n, d, {'a': [n]} as s from t where n % 2 = 0 order by n"))
    assert table.schema.types == [pa.int64(), pa.int64(), pa.decimal128(38, 2), pa.string()]
    assert table.num_rows == 1000
    assert table.to_pylist()[999] == {"row_number": 999, "n": 1998, "d": Decimal("1.50"), "s": '{"a":[1998]}'}


def test_floats_of_duckdb_are_the_shortest_decimals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb.connect(tmp_path / "facts.duckdb").close()
    monkeypatch.setenv("WAREHOUSE_URL", "duckdb:///facts.duckdb")
    query = (
        "select 0.1::float as v, [0.1::float, null] as l, [0.3::float]::float[1] as a, "
        "{'f': [0.1::float], 'n': 1, 'd': 0.1::double} as s, map{0.1::float: 0.7::float} as m, 'nan'::float as x "
        "union all select null, null, null, null, null, 16777216::float"
    )
    rows = read(tmp_path, _query(query)).to_pylist()
    assert [row.pop("x") for row in rows][1] == 16777216.0
    expected = {"v": 0.1, "l": "[0.1,null]", "a": "[0.3]", "s": '{"f":[0.1],"n":1,"d":0.1}', "m": '{"0.1":0.7}'}
    assert rows == [{"row_number": 0, **expected}, {"row_number": 1, **dict.fromkeys(expected)}]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("select 1 as a, 2 as a", "two columns 'a': give one of them another name"),
        ('select 1 as ""', "column 1 of the query has no name: add `as name`"),
        ("select x'00' as a union all select 1", "the column 'a' holds bytes and other values: cast it"),
        ("select cast(x'ff' as text) as a", "Could not decode to UTF-8 column 'a'"),
        ("selec 1", "the query begins with SELEC: give one statement that only reads"),
        ("select 1 fro t", "the database of WAREHOUSE_URL refused: near"),
        ("select * from nope", "no such table: nope"),
        ("pragma foreign_keys = 1", "the query begins with PRAGMA: give one statement that only reads"),
    ],
)
def test_a_query_that_cannot_be_a_dataset_is_explained(
    tmp_path: Path, warehouse: Path, sql: str, problem: str
) -> None:
    with pytest.raises(DatasetError, match=f"asked/defs.yaml: dataset.sql: .*{problem}"):
        read(tmp_path, _query(sql))


def test_a_value_that_python_cannot_represent_is_explained(tmp_path: Path, postgres: str) -> None:
    with pytest.raises(
        DatasetError, match=r"a value that Python cannot represent: .*cast it to text in the query"
    ):
        read(tmp_path, _query("select date '10000-01-01' as d"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("'infinity'::date", "infinity is an infinite date"),
        ("'-infinity'::timestamp", "-infinity is an infinite date"),
        ("'infinity'::timestamptz", "infinity is an infinite date"),
        ("array['infinity'::date]", "infinity is an infinite date"),
        ("'[2024-01-01,infinity)'::daterange", "infinity is an infinite date"),
        ("interval '1 year 2 months'", "1 year 2 mons is an interval of months or years"),
        ("'24:00'::time", "24:00:00 is the time 24:00"),
    ],
)
def test_a_value_that_psycopg2_would_change_is_refused(
    tmp_path: Path, postgres: str, value: str, problem: str
) -> None:
    with pytest.raises(DatasetError, match=f"Python cannot represent: {problem}.*; cast it to text in the query"):
        read(tmp_path, _query(f"select {value} as v"))


def test_other_values_of_these_types_arrive_from_postgresql(tmp_path: Path, postgres: str) -> None:
    sql = "select '9999-12-31'::date as d, '23:59'::time as t, interval '40 days' as i, array['00:01'::time] as a"
    assert read(tmp_path, _query(sql)).drop(["row_number"]).to_pylist() == [
        {"d": dt.date(9999, 12, 31), "t": dt.time(23, 59), "i": "40 days, 0:00:00", "a": '["00:01:00"]'}
    ]


@pytest.fixture
def duckdb_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty DuckDB file that WAREHOUSE_URL names."""
    engine = sa.create_engine(f"duckdb:///{tmp_path}/facts.duckdb")
    engine.connect().close()
    engine.dispose()
    monkeypatch.setenv("WAREHOUSE_URL", "duckdb:///facts.duckdb")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("'infinity'::date", "an infinite date"),
        ("'-infinity'::timestamp", "an infinite date"),
        ("'infinity'::timestamptz", "an infinite date"),
        ("'-infinity'::timestamp_s", "an infinite date"),
        ("'infinity'::timestamp_ns", "an infinite date"),
        ("timestamp_ns '2024-01-01 00:00:00.000000001'", ".* a time with nanoseconds"),
        ("'10:00:00.000000001'::time_ns", "a time with nanoseconds"),
        ("interval '-1 month'", "an interval of months or years"),
        ("[date '2024-01-01', 'infinity'::date]", "an infinite date"),
        ("['-infinity'::timestamptz]::timestamptz[1]", "an infinite date"),
        ("{'a': [{'b': 'infinity'::timestamp}]}", "an infinite date"),
        ("map{'infinity'::date: 1}", "an infinite date"),
        ("map{'a': ['-infinity'::timestamp_s]}", "an infinite date"),
        ("row(1, 'infinity'::date)", "an infinite date"),
        ("union_value(k := 'infinity'::date)", "an infinite date"),
        ("[timestamp_ns '2024-01-01 00:00:00.000000001']", ".* a time with nanoseconds"),
        ("{'n': 1, 'at': 'infinity'::timestamp_ns}", ".* a time with nanoseconds"),
        ("['10:00:00.000000001'::time_ns]", "a time with nanoseconds"),
        ("{'i': interval '-1 month'}", "an interval of months or years"),
    ],
)
@pytest.mark.usefixtures("duckdb_file")
def test_a_value_that_the_driver_of_duckdb_would_change_is_refused(
    tmp_path: Path, value: str, problem: str
) -> None:
    query = f'from (select 1 as a, null as v union all select 2, {value}) select v as "the ""v" order by a; -- %'
    refusal = f"column 'the \"v' of the query has {problem}.*; cast it to text"
    unknown = 'Unsupported type: "TIME_NS"'  # DuckDB before 2.0 does not pass it on at all
    with pytest.raises(DatasetError, match=f"{refusal}|{unknown}" if "time_ns" in value else refusal):
        read(tmp_path, _query(query))


@pytest.mark.usefixtures("duckdb_file")
def test_other_values_of_these_types_arrive_from_duckdb(tmp_path: Path) -> None:
    sql = """select '9999-12-31'::date as d, timestamp_ns '2024-01-01 00:00:00.000001' as t,
        interval '40 days' as i, '9999-12-31 23:59:59.999999'::timestamp as e where strftime(d, '%Y') = '9999'"""
    assert read(tmp_path, _query(sql)).drop(["row_number"]).to_pylist() == [
        {
            "d": dt.date(9999, 12, 31),
            "t": dt.datetime(2024, 1, 1, 0, 0, 0, 1),
            "i": "40 days, 0:00:00",
            "e": dt.datetime.max,
        }
    ]


@pytest.mark.usefixtures("duckdb_file")
def test_other_values_of_these_types_arrive_within_others(tmp_path: Path) -> None:
    sql = """select ['9999-12-31'::date, null] as d, {'t': timestamp_ns '2024-01-01 00:00:00.000001'} as t,
        map{date '2024-01-01': [interval '40 days']} as i, null::date[] as n where 'a::b' = 'a::b'"""
    assert read(tmp_path, _query(sql)).drop(["row_number"]).to_pylist() == [
        {
            "d": '["9999-12-31",null]',
            "t": '{"t":"2024-01-01 00:00:00.000001"}',
            "i": '{"2024-01-01":["40 days, 0:00:00"]}',
            "n": None,
        }
    ]


NESTED = (
    ("[1.50::decimal(9, 2), null]", "[1.50,null]", '["1.50",null]'),
    ("{'p': 0::decimal(20, 10), 'n': [1]}", '{"p":0.0000000000,"n":[1]}', '{"p":"0E-10","n":[1]}'),
    ("['nan'::double, 'inf'::double, 1.5::double]", "[null,null,1.5]", "[NaN,Infinity,1.5]"),
    ("{'f': '-inf'::float}", '{"f":null}', '{"f":-Infinity}'),
    ("['a'::blob]", '["YQ=="]', "[\"b'a'\"]"),
    ("[1, 2]", "[1,2]", "[1,2]"),
    ("['1.50', 'é\n']", '["1.50","é\\n"]', '["1.50","é\\n"]'),
)


@pytest.mark.parametrize(("value", "printed", "before"), NESTED, ids=[value for value, _, _ in NESTED])
@pytest.mark.usefixtures("duckdb_file")
def test_numbers_within_nested_values_are_numbers(tmp_path: Path, value: str, printed: str, before: str) -> None:
    query = f"select null as k, null as v union all select {value}, {value}"
    assert _column_of(tmp_path, query) == [None, printed]
    for columns in (["v"], ["k", "v"], ["v", "k"]):
        with Dataset(make_pipeline(tmp_path, _query(query))) as dataset:
            (rows,) = dataset.rows(columns)
        for name in columns:
            assert rows.values(name) == rows.stored_values(name) == [None, printed]
            assert rows.values_before(name) == rows.values_at_first(name) == [None, before]


def _column_of(folder: Path, query: str) -> list[Any]:
    values: list[Any] = read(folder, _query(query))["v"].to_pylist()
    return values


@pytest.mark.usefixtures("duckdb_file")
def test_a_decimal_within_a_nested_value_is_a_number_for_tojson(tmp_path: Path) -> None:
    pipeline = make_pipeline(
        tmp_path, _query("select {'p': [1.5::decimal(9, 1)]} as v"), params=params("{{ v | fromjson | tojson }}")
    )
    with Dataset(pipeline) as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        (rows,) = dataset.rows([dataset.key, *renderer.reads])
        ((_, _, body, _),) = renderer.render(rows, {})
    assert orjson.loads(body)["messages"][0]["content"] == '{"p": [1.5]}'


@pytest.mark.usefixtures("duckdb_file")
def test_an_infinite_date_of_a_partition_is_refused(tmp_path: Path) -> None:
    sql = "select 'infinity'::date as d, 'a::b' as t where :partition = 'de' and 1::int = 1"
    pipeline = make_pipeline(tmp_path, _query(sql), partitions={"static": ["de", "fr"]}, params=params("{{ d }}"))
    with pytest.raises(DatasetError, match="column 'd' of the query has an infinite date"):
        Dataset(pipeline, partition="de")
    with Dataset(pipeline, partition="fr") as dataset:
        assert not list(dataset.rows(["d"]))


def test_an_error_names_the_unset_variable_or_missing_file_and_no_file_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match=r"WAREHOUSE_URL of dataset.url_env is not set: set it to the SQLAlch"):
        read(tmp_path, _query("select 1 as a"))
    monkeypatch.setenv("WAREHOUSE_URL", "sqlite:///nope.db")
    with pytest.raises(DatasetError, match=r"names a file that does not exist: .*/nope\.db"):
        read(tmp_path, _query("select 1 as a"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql+psycopg2://user:{}@127.0.0.1:1/x", "Connection refused"),
        ("postgresql+psycopg2://user:{}@127.0.0.1:port/x", "holds no SQLAlchemy URL"),
        ("postgresql+psycopg2://user@127.0.0.1:1/x?sslmode={}", r"invalid sslmode value: \"\*\*\*\""),
        ("nonesuch://user:{}@127.0.0.1/x", "a database nonesuch://, for which there is no driver here: install"),
        ("mssql://user:{}@127.0.0.1/x", "no driver here: pip install pyodbc"),
        (
            "mysql://user:{}@127.0.0.1/x",
            r"no driver here: begin the URL with mysql\+pymysql://, and pip install 'batch-assets.mysql",
        ),
        ("mysql+pymysql://user:{}@127.0.0.1:1/x", r"refused: Can't connect to MySQL server on .* \(error 2003\)"),
        (
            "mysql+pymysql://user@127.0.0.1:1/x?sslmode={}",
            "cannot be used: .*unexpected keyword argument 'sslmode'",
        ),
        ("mysql+pymysql://user@127.0.0.1:1/x?ssl_ca=/nowhere/{}", "cannot be used: .*No such file or directory"),
        ("user:{}@127.0.0.1", "holds no SQLAlchemy URL, such as"),
        ("postgresql+psycopg2://user:a@{}@127.0.0.1:1/x", "holds a URL with an @ in .*: write it as %40"),
    ],
)
def test_no_error_contains_the_url_or_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    encoded = sa.URL.create("x", username="u", password=SECRET).render_as_string(False)[6:-1]
    monkeypatch.setenv("WAREHOUSE_URL", url.format(encoded))
    with pytest.raises(DatasetError, match=problem) as caught:
        read(tmp_path, _query("select 1 as a"))
    text = "".join(traceback.format_exception(caught.value))
    assert SECRET not in text
    assert encoded not in text
    assert f"user:{encoded}" not in text


def _load(folder: Path, dataset: dict[str, Any]) -> Pipeline:
    attributes = {"name": "asked", "dataset": dataset, "params": params()}
    return load_pipeline(attributes, folder=folder, source="asked/defs.yaml")


@pytest.mark.parametrize(
    ("dataset", "field", "problem"),
    [
        ({"sql": "select 1"}, "dataset", "sql needs url_env"),
        (_query(" ; "), "dataset.sql", "the query is empty"),
        (_query("empty.sql"), "dataset.sql", "the query is empty"),
        (
            _query("nope.sql"),
            "dataset.sql",
            "nope.sql is not beside the pipeline file; SQL files there: empty.sql",
        ),
        (_query("../up.sql"), "dataset.sql", "../up.sql is outside the pipeline's folder"),
        (_query("latin.sql"), "dataset.sql", "latin.sql is not UTF-8"),
        (
            {"sql": "select 1", "url_env": f"postgresql://u:{SECRET}@h/x"},
            "dataset.url_env",
            "such as WAREHOUSE_URL",
        ),
    ],
)
def test_errors_that_need_no_database_are_raised_at_load(
    tmp_path: Path, dataset: dict[str, Any], field: str, problem: str
) -> None:
    folder = tmp_path / "asked"
    folder.mkdir()
    (tmp_path / "up.sql").write_text("select 1")
    (folder / "empty.sql").write_text("\n")
    if "latin.sql" in dataset["sql"]:
        (folder / "latin.sql").write_bytes("select 'ä'".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        _load(folder, dataset)
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert SECRET not in str(caught.value)


def test_rows_of_a_query_cannot_name_files(tmp_path: Path, warehouse: Path) -> None:
    with (
        Dataset(make_pipeline(tmp_path, _query("select 1 as a"))) as dataset,
        pytest.raises(ValueError, match=r"'x\.png': the rows of a query cannot name files"),
    ):
        dataset.read_file("x.png")


MIXED = [
    1,
    2.5,
    "text",
    None,
    "2024-01-02",
    0,
    7.0,
]
PRINTED = ["1 number int", "2.5 number float", "text", "", "2024-01-02", "0 number int", "7.0 number float"]


@pytest.mark.parametrize("rows", [len(MIXED), 1200])
def test_each_value_of_a_query_keeps_its_kind_in_templates(world: World, warehouse: Path, rows: int) -> None:
    values = [MIXED[number % len(MIXED)] if rows < 600 else (1 if number < 600 else 2.5) for number in range(rows)]
    with sqlite3.connect(warehouse) as connection:
        connection.execute("create table t (id integer primary key, part text, v)")
        connection.executemany("insert into t (part, v) values (?, ?)", [("a", value) for value in values])
    content = "<{{ v }}{% if v is number %} number {{ 'int' if v is integer else 'float' }}{% endif %}"
    pipeline = make_pipeline(world.folder, _query("select * from t order by id", key="id"), params=params(content))
    report = world.build(pipeline)
    expected = [f"<{PRINTED[number % len(MIXED)]}" for number in range(rows)]
    if rows > 600:
        expected = [f"<{PRINTED[0]}", f"<{PRINTED[1]}"]
    folder = world.submission_folder(pipeline, report)
    lines = [orjson.loads(line) for name in report.files for line in (folder / name).read_bytes().splitlines()]
    assert [line["params"]["messages"][0]["content"] for line in lines] == list(dict.fromkeys(expected))


def test_rows_of_a_partition_keep_the_kinds_of_their_values(world: World, warehouse: Path) -> None:
    with sqlite3.connect(warehouse) as connection:
        connection.execute("create table t (part text, v)")
        connection.executemany("insert into t values (?, ?)", [("a", 1), ("b", "x"), ("a", "y"), ("a", None)])
    pipeline = make_pipeline(
        world.folder,
        _query("select * from t order by rowid"),
        params=params("{{ v | tojson }}"),
        partitions={"column": "part", "static": ["a", "b"]},
    )
    report = world.build(pipeline, "a")
    folder = world.submission_folder(pipeline, report, "a")
    lines = [orjson.loads(line) for name in report.files for line in (folder / name).read_bytes().splitlines()]
    assert [line["params"]["messages"][0]["content"] for line in lines] == ["1", '"y"', "null"]


def test_a_decimal_keeps_its_digits_whatever_other_rows_have(tmp_path: Path, postgres: str) -> None:
    values = "(1.5::numeric), (2.125), (null), (3), ('NaN'), (12345678901234567890123456789012345678901234567890)"
    pipeline = make_pipeline(
        tmp_path, _query(f"select * from (values {values}) as t (v)"), params=params("{{ v }}")
    )
    with Dataset(pipeline) as dataset:
        (rows,) = dataset.rows(["v"])
        decimals = rows.values("v")
        stored = rows.stored_values("v")
    long = "12345678901234567890123456789012345678901234567890"
    assert decimals == [Decimal("1.5"), Decimal("2.125"), None, Decimal("3"), "NaN", long]
    assert [str(value) for value in decimals[:2]] == ["1.5", "2.125"]
    assert stored == ["1.5", "2.125", None, "3", "NaN", long]


def test_nested_values_of_a_query_are_json_that_fromjson_reads(tmp_path: Path, postgres: str) -> None:
    sql = """select '{"b": [1, 2], "a": "ü"}'::jsonb as v, array['x', 'y'] as tags"""
    content = "{{ (v | fromjson).a }} {{ (v | fromjson).b[1] }} {{ tags | fromjson | join(', ') }}"
    pipeline = make_pipeline(tmp_path, _query(sql), params=params(content))
    with Dataset(pipeline) as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        (rows,) = dataset.rows(renderer.reads)
        ((_, _, body, _),) = renderer.render(rows, {})
    assert orjson.loads(body)["messages"][0]["content"] == "ü 2 x, y"
