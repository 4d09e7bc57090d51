"""Partitions in the core: which rows belong to a key, and which configurations are refused at load."""

from __future__ import annotations

import ast
import datetime as dt
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batch_assets.core.dataset import partition_keys as partitions_module
from batch_assets.core.dataset.changes import column_fingerprint
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.partition_keys import partition_keys_of
from batch_assets.core.dataset.partition_rows import rows_left_out
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.query_parameters import parameters_in
from tests.documentation import page

from ..postgres import PostgresServer
from ..support import World, make_pipeline, params, texts, write_rows

DAILY = {"daily": {"start": "2026-01-01"}}
UTC = dt.UTC
NO_KEY = "'lang' is null, empty, or cannot be a key: it contains ... or a control character, or is too long"


def rows_of(pipeline: Pipeline, key: str, *columns: str) -> list[tuple[Any, ...]]:
    """The rows of a partition as tuples of the named columns."""
    with Dataset(pipeline, partition=key) as dataset:
        names = list(columns) or [dataset.key]
        dicts = [row for rows in dataset.rows(names) for row in rows.table.to_pylist()]
    return [tuple(row[name] for name in names) for row in dicts]


def keys_in(folder: Path, dataset: Mapping[str, Any], partitions: Mapping[str, Any], key: str) -> list[Any]:
    """The row keys of a partition."""
    return [row[0] for row in rows_of(make_pipeline(folder, dataset, partitions=partitions), key)]


def code_blocks(language: str) -> list[str]:
    """The code blocks in a language on the page about partitions."""
    return [block.text for block in page("docs/partitions.md").blocks() if block.language == language]


def values_of(code: str) -> list[Any]:
    """Run code and return the values of its expression statements."""
    names: dict[str, Any] = {}
    values = []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            values.append(eval(compile(ast.Expression(statement.value), "page", "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), "page", "exec"), names)
    return values


# Partitions in the pipeline file


@pytest.mark.parametrize(
    ("partitions", "field", "problem"),
    [
        ({}, "partitions", "give exactly one of hourly, daily, weekly, monthly, static, dynamic, or column alone"),
        ({"static": ["a"], "dynamic": True}, "partitions", "got static and dynamic"),
        ({"daily": {}}, "partitions.daily.start", "required"),
        ({"daily": {"start": "yesterday"}}, "partitions.daily.start", "not a date like 2026-01-01"),
        ({"daily": {"start": "2026-01-01T00:00Z"}}, "partitions.daily.start", "leave it out"),
        ({"daily": {"start": "2026-01-01", "timezone": "Berlin"}}, "partitions.daily.timezone", "Europe/Berlin"),
        ({"daily": {"start": "2026-01-01", "begin": 1}}, "partitions.daily.begin", "start, end, timezone"),
        (
            {"monthly": {"start": "2026-01-15"}},
            "partitions.monthly",
            "`start` 2026-01-15 is not where a month begins: give 2026-01-01 or 2026-02-01",
        ),
        (
            {"monthly": {"start": "2026-01-01", "end": "2026-12-31"}},
            "partitions.monthly",
            "`end` 2026-12-31 is not where a month begins: give 2026-12-01 or 2027-01-01",
        ),
        (
            {"weekly": {"start": "2026-01-01"}},
            "partitions.weekly",
            "`start` 2026-01-01 is not where a week begins, on Sunday: give 2025-12-28 or 2026-01-04",
        ),
        (
            {"hourly": {"start": "2026-01-01T05:30"}},
            "partitions.hourly",
            "`start` 2026-01-01T05:30 is not where an hour begins: give 2026-01-01T05:00 or 2026-01-01T06:00",
        ),
        (
            {"daily": {"start": "2026-01-31T13:00"}},
            "partitions.daily",
            "`start` 2026-01-31T13:00 is not where a day begins: give 2026-01-31 or 2026-02-01",
        ),
        (
            {"daily": {"start": "2026-01-05", "end": "2026-01-05"}},
            "partitions.daily",
            "`end` 2026-01-05 must be after `start` 2026-01-05: there would be no partition",
        ),
        ({"static": []}, "partitions.static", "at least one"),
        ({"static": [2024]}, "partitions.static.0", "give a text, not 2024; put it in quotes"),
        ({"static": ["a", "b", "a"]}, "partitions.static", "'a' is listed twice"),
        ({"static": [""]}, "partitions.static", "empty"),
        ({"static": ["a\tb"]}, "partitions.static", "control character"),
        ({"static": ["ä" * 50]}, "partitions.static", "too long"),
        ({"static": ["a"]}, "partitions", "every partition would read the same rows: put {partition} into"),
    ],
)
def test_invalid_partitions_are_refused_at_load(
    tmp_path: Path, partitions: Mapping[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, "rows.csv", partitions=partitions)
    assert caught.value.field == field
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("dataset", "partitions", "field", "problem"),
    [
        ({"path": "{partition}.csv"}, None, "dataset.path", "needs the field `partitions`"),
        ({"files": "{partition}/*.pdf"}, None, "dataset.files", "needs the field `partitions`"),
        (
            {"path": "{partition}.csv"}, {"column": "id"}, "partitions",
            "`column` alone reads whole files: use `dynamic: true` beside `column`",
        ),
        ({"sql": "select :partition", "url_env": "U"}, None, "dataset.sql", ":partition needs the field"),
        ({"sql": "select 1", "url_env": "U"}, DAILY, "partitions", "read :partition, :partition_start or"),
        (
            {"sql": "select :partition_start", "url_env": "U"}, {"static": ["a"]}, "dataset.sql",
            ":partition_start is only for time partitions",
        ),
    ],
)  # fmt: skip
def test_dataset_and_partitions_must_fit(
    tmp_path: Path, dataset: dict[str, Any], partitions: dict[str, Any] | None, field: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, dataset, partitions=partitions)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_a_yaml_date_is_accepted_as_a_date(tmp_path: Path) -> None:
    start = dt.date(2026, 1, 1)
    pipeline = make_pipeline(tmp_path, "{partition}.csv", partitions={"daily": {"start": start}})
    assert pipeline.config.partitions is not None
    assert pipeline.config.partitions.times.start == "2026-01-01"


@pytest.mark.parametrize("key", ["2026-1", "x", "2026-01-01-10:00", "2026-02-30"])
def test_the_error_for_an_invalid_daily_key_shows_the_format(tmp_path: Path, key: str) -> None:
    (tmp_path / "rows.csv").write_text("at\n2026-01-01\n")
    with pytest.raises(DatasetError, match="is not a key of a daily partition; keys look like 2026-01-31"):
        keys_in(tmp_path, {"path": "rows.csv"}, {**DAILY, "column": "at"}, key)


# A file per partition


def test_the_key_is_put_into_the_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("id\n1\n")
    (tmp_path / "b.csv").write_text("id\n2\n")
    (tmp_path / "b[1]*.csv").write_text("id\n3\n")
    (tmp_path / "b1x.csv").write_text("id\n4\n")
    static = {"static": ["a/x", "b", "b[1]*"]}
    dataset = {"path": "{partition}.csv", "key": "id"}
    assert [keys_in(tmp_path, dataset, static, key) for key in static["static"]] == [[1], [2], [3]]
    with pytest.raises(DatasetError, match=r"partition b\*: dataset.path: "):
        keys_in(tmp_path, dataset, {"dynamic": True}, "b*")
    assert rows_of(make_pipeline(tmp_path, {"files": "{partition}/*"}, partitions=static), "a") == [("x.csv",)]


def test_an_error_names_the_missing_file_and_its_partition(tmp_path: Path) -> None:
    (tmp_path / "2026-01-01.csv").write_text("id\n1\n")
    with pytest.raises(DatasetError) as caught:
        keys_in(tmp_path, {"path": "{partition}.csv"}, DAILY, "2026-01-02")
    assert "partition 2026-01-02: dataset.path: there is no file or folder 2026-01-02.csv" in str(caught.value)
    assert "in the same folder: 2026-01-01.csv" in str(caught.value)
    with pytest.raises(DatasetError, match=r"partition 2026-01-02: .*2026-01-02/\*\.csv"):
        keys_in(tmp_path, {"path": "{partition}/*.csv"}, DAILY, "2026-01-02")


@pytest.mark.parametrize("key", ["..", "../rows", "a/../../rows", "/etc/x", "a//b", ".", "a\\..\\b", "x::file"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="it would lead out of its folder"):
        keys_in(tmp_path, {"path": "in/{partition}.csv"}, {"dynamic": True}, key)


def test_without_a_partition_nothing_is_built(world: World) -> None:
    write_rows(world.folder / "rows.jsonl", texts(1))
    pipeline = world.pipeline(partitions={"column": "id"})
    with pytest.raises(DatasetError, match="this pipeline has partitions: name the one to run"):
        world.build(pipeline)


# A query


QUERY = """
select id, ':partition' as quoted, '10:30 %s \\: \\:x' as text -- :partition_end
from t where moment >= :partition_start and moment < :partition_end and :partition <> '' order by id
"""


def test_parameters_in_text_and_comments_do_not_count() -> None:
    assert parameters_in(QUERY) == {"partition", "partition_start", "partition_end"}
    assert parameters_in("select ':partition', x::partition, \"a:partition_start\" /* :partition */") == set()
    assert parameters_in("select ':a''b', :partition::text, :partitions") == {"partition"}


def query_rows(folder: Path, partitions: Mapping[str, Any], key: str, query: str = QUERY) -> list[Any]:
    dataset = {"sql": query, "url_env": "WAREHOUSE_URL", "key": "id"}
    pipeline = make_pipeline(folder, dataset, partitions=partitions, params=params("{{ id }}"))
    rows = rows_of(pipeline, key, "id", "quoted", "text") if query == QUERY else rows_of(pipeline, key)
    assert all(row[1:] == (":partition", r"10:30 %s \: \:x") for row in rows if query == QUERY)
    return [row[0] for row in rows]


def test_parameters_on_sqlite_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "w.db") as connection:
        connection.execute("create table t (id integer, moment text)")
        moments = ["2026-01-01", "2026-01-01 23:59:59", "2026-01-02", "2026-01-02 00:00:00", "2025-12-31 23:59:59"]
        connection.executemany("insert into t values (?, ?)", enumerate(moments))
        connection.execute("create view reviews as select id, moment as submitted_at from t")
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path}/w.db")
    assert query_rows(tmp_path, DAILY, "2026-01-01") == [0, 1]
    assert query_rows(tmp_path, DAILY, "2026-01-02") == [2, 3]
    (documented,) = code_blocks("sql")
    assert query_rows(tmp_path, DAILY, "2026-01-02", documented) == [2, 3]
    hourly = {"hourly": {"start": "2026-01-01"}}
    assert query_rows(tmp_path, hourly, "2026-01-01-23:00") == [1]
    injected = "select id from t where :partition = 'it''s; --'"
    assert query_rows(tmp_path, {"dynamic": True}, "it's; --", injected) == [0, 1, 2, 3, 4]


def test_parameters_on_postgresql_take_the_type_of_the_column(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", postgres_server.new_database())
    berlin = {"daily": {"start": "2026-01-01", "timezone": "Europe/Berlin"}}
    moments = ("2026-01-01 23:30:00+00", "2026-01-02 22:30:00+00", "2026-01-02 23:30:00+00")
    values = ", ".join(f"({at}, '{moment}')" for at, moment in enumerate(moments))
    for type_, expected in (("timestamptz", [0, 1]), ("timestamp", [1, 2]), ("date", [1, 2])):
        query = QUERY.replace(
            "from t", f"from (select c.i as id, c.at::{type_} as moment from (values {values}) c (i, at)) t"
        )
        dataset = {"sql": query, "url_env": "WAREHOUSE_URL", "key": "id"}
        pipeline = make_pipeline(tmp_path, dataset, partitions=berlin, params=params("{{ id }}"))
        assert [row[0] for row in rows_of(pipeline, "2026-01-02")] == expected
    cast = "select 1 as id where :partition_start::timestamptz = timestamptz '2026-01-02 00:00:00+01'"
    assert query_rows(tmp_path, berlin, "2026-01-02", cast) == [1]


def test_parameters_on_duckdb_are_timestamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("create table t as select * from (values (0, timestamp '2026-01-01 12:00'), "
                           "(1, timestamp '2026-01-02')) v (id, moment)")  # fmt: skip
    monkeypatch.setenv("WAREHOUSE_URL", f"duckdb:///{tmp_path}/w.duckdb")
    assert query_rows(tmp_path, DAILY, "2026-01-01") == [0]
    assert query_rows(tmp_path, DAILY, "2026-01-02") == [1]
    typed = "select 1 as id where typeof(:partition_start) = 'TIMESTAMP' and typeof(:partition) = 'VARCHAR'"
    assert query_rows(tmp_path, DAILY, "2026-01-02", typed) == [1]


# A column


def test_a_column_with_dates_or_timestamps_selects_rows_by_time(tmp_path: Path) -> None:
    moments = [
        dt.datetime(2026, 1, 1, 22, 59, 59, 999999), dt.datetime(2026, 1, 1, 23), None,
        dt.datetime(2026, 1, 2, 22, 59, 59), dt.datetime(2026, 1, 2, 23),
    ]  # fmt: skip
    (berlin,) = [
        block["partitions"]
        for text in code_blocks("yaml")
        if "timezone" in str((block := yaml.safe_load(text)).get("partitions"))
    ]
    assert berlin["daily"]["timezone"] == "Europe/Berlin"
    for type_, expected in (
        (pa.timestamp("us", "UTC"), [1, 3]),  # by the instant
        (pa.timestamp("ms", "America/New_York"), [1, 3]),
        (pa.timestamp("ns"), [3, 4]),  # by Berlin's wall clock
        (pa.date32(), [3, 4]),
        (pa.date64(), [3, 4]),
    ):
        column = pa.array(moments, pa.timestamp("us")).cast(type_, safe=False)
        pq.write_table(pa.table({"submitted_at": column}), tmp_path / "rows.parquet")
        assert keys_in(tmp_path, {"path": "rows.parquet"}, berlin, "2026-01-02") == expected, type_


def test_rows_with_text_that_is_not_a_date_belong_to_no_partition_and_are_counted(world: World) -> None:
    moments = ["2026-01-01", None, "2026-01-01T23:59:59.9Z", "soon", "2026-01-02T00:30:00+01:00", "2026-01-02", ""]
    moments += ["2025-12-31T23:59:59.9", "2026-12-31T23:59:59.9", "2027-01-01"]
    lines = [json.dumps({"id": at, "text": f"t{at}", "at": moment}) for at, moment in enumerate(moments)]
    (world.folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    year = {"daily": {"start": "2026-01-01", "end": "2027-01-01"}, "column": "at"}
    pipeline = world.pipeline(partitions=year)
    report = world.build(pipeline, "2026-01-01")
    assert (report.rows, report.without_partition) == (3, 5)
    assert rows_of(pipeline, "2026-01-01", "id") == [(0,), (2,), (4,)]
    assert rows_left_out(pipeline, 5).endswith(
        "and are never sent: 5. Their 'at' is null, not a date, before 2026-01-01, or on or after 2027-01-01"
    )
    assert report.without_partition_examples == [
        "row 1 (from 0): null", "row 3 (from 0): 'soon'", "row 6 (from 0): ''",
    ]  # fmt: skip
    # A partition without any row is complete at once.
    assert world.build(pipeline, "2026-03-01").rows == 0


def test_a_row_whose_partition_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,at\na,2026-01-01\nb,n/a\nc\nd,2026-01-01\n")
    dataset_of = {"path": "rows.csv", "key": "id", "types": {"at": "date32"}, "bad_rows": "reject"}
    pipeline = make_pipeline(tmp_path, dataset_of, partitions={"daily": {"start": "2026-01-01"}, "column": "at"})
    with Dataset(pipeline, partition="2026-01-01") as dataset:
        for _ in range(2):  # may be read again
            assert [rows.table.column(0).to_pylist() for rows in dataset.rows(["id"])] == [["a", "d"]]
            value, line = dataset.without_partition_examples
            assert dataset.without_partition == 2
    assert value.endswith("rows.csv, line 3: column 'at' is not date32[day] throughout: it has 'n/a'")
    assert "rows.csv, line 4: 1 fields where the header has 2" in line
    assert rows_left_out(pipeline, 2, [value]).endswith(f"or before 2026-01-01. The first: {value}")


def test_row_numbers_and_rejects_refer_to_the_whole_dataset(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(
        b'{"lang": "de", "text": "a"}\n{"lang": "en", "text": "\\ud800"}\n{"lang": "de", "text": "\\ud800"}\n'
    )
    (tmp_path / "rows2.jsonl").write_bytes(b'{"lang": null, "text": "b"}\n{"lang": "de", "text": "c"}\n')
    pipeline = make_pipeline(tmp_path, "*.jsonl", partitions={"static": ["de", "en"], "column": "lang"})
    with Dataset(pipeline, partition="de") as dataset:
        for _ in range(2):  # may be read again
            rows, more = dataset.rows(["row_number", "text"])
            assert dataset.without_partition == 1
    assert more.table.to_pylist() == [{"row_number": 4, "text": "c"}]
    assert rows.table.column("row_number").to_pylist() == [0, 2]
    assert list(rows.rejects) == [1]
    assert rows.table.schema.names == ["row_number", "text"]
    with Dataset(pipeline, partition="en") as dataset:
        assert [r.table.column(0).to_pylist() for r in dataset.rows(["row_number"])] == [[1]]


@pytest.mark.parametrize(
    ("partitions", "without", "why"),
    [
        ({"static": ["de", "en"]}, 6, "'lang' is null, empty, or not one of the keys in partitions.static"),
        ({"dynamic": True}, 5, NO_KEY),
        ({}, 5, NO_KEY),
    ],
)
def test_rows_whose_value_cannot_be_a_key_are_counted(
    tmp_path: Path, partitions: dict[str, Any], without: int, why: str
) -> None:
    values = ["de", "DE", "", None, "en", "x" * 241, "d...e", "d\te"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"lang": value}) + "\n" for value in values))
    pipeline = make_pipeline(tmp_path, "*.jsonl", partitions={**partitions, "column": "lang"})
    with Dataset(pipeline, partition="de") as dataset:
        assert sum(rows.table.num_rows for rows in dataset.rows(["lang"])) == 1
        assert dataset.without_partition == without
    assert rows_left_out(pipeline, without).endswith(why)


def test_rows_of_the_running_partition_belong_to_it_even_if_dagster_would_reject_its_key(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("lang\nd...e\nf...r\n")
    pipeline = make_pipeline(tmp_path, "rows.csv", partitions={"dynamic": True, "column": "lang"})
    with Dataset(pipeline, partition="d...e") as dataset:
        assert sum(rows.table.num_rows for rows in dataset.rows(["lang"])) == 1
        assert dataset.without_partition == 1


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        (pa.array([7, 70, None, 7]), "7", [0, 3]),
        (pa.array([True, False]), "True", [0]),
        (pa.array([1.0, 1.5]), "1.0", [0]),
        (pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]), "2026-01-02", [1]),
        (pa.array(["a", "A", " a", "a"]).dictionary_encode(), "a", [0, 3]),
    ],
)
def test_values_are_compared_as_a_prompt_shows_them(
    tmp_path: Path, values: pa.Array, key: str, expected: list[int]
) -> None:
    pq.write_table(pa.table({"value": values}), tmp_path / "rows.parquet")
    partitions = {"dynamic": True, "column": "value"}
    assert keys_in(tmp_path, {"path": "rows.parquet"}, partitions, key) == expected


@pytest.mark.parametrize(
    ("values", "partitions", "problem"),
    [
        ([1], {**DAILY, "column": "value"}, "'value': its type is int64, but time partitions need dates"),
        ([[1]], {"static": ["a"], "column": "value"}, "partitions need plain values"),
        ([b"x"], {"column": "value"}, "partitions need plain values"),
        (
            ["x"],
            {"column": "valeu"},
            "rows.parquet has no column 'valeu' (did you mean 'value'?); its columns: value",
        ),
    ],
)
def test_a_column_that_cannot_define_partitions_is_refused(
    tmp_path: Path, values: list[Any], partitions: Mapping[str, Any], problem: str
) -> None:
    pq.write_table(pa.table({"value": values}), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError) as caught:
        keys_in(tmp_path, {"path": "rows.parquet"}, partitions, "2026-01-01")
    assert problem in str(caught.value)
    assert "partition 2026-01-01: partitions.column: " in str(caught.value)


@pytest.mark.parametrize("content", ["", "id,lang\n"])
def test_a_dataset_without_rows_has_empty_partitions(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    assert keys_in(tmp_path, {"path": "rows.csv"}, {"column": "lang"}, "de") == []


# A column alone


def column_keys(folder: Path, **more: Any) -> Any:
    pipeline = make_pipeline(folder, "rows.csv", partitions={"column": "lang"})
    with Dataset(pipeline) as dataset:
        return partition_keys_of(dataset, "lang", **more)


def test_every_value_is_a_key_in_the_order_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "x" * 250
    (tmp_path / "rows.csv").write_text(f'lang\nde\nen\n""\nde\n{bad}\nno\na...b\n')
    keys = column_keys(tmp_path)
    assert keys.keys == ["de", "en", "no"]
    assert len(keys.unusable) == 2
    assert column_keys(tmp_path, seconds=60.0) == keys
    with pytest.raises(DatasetError, match=r"could not be read within 0 s: name the keys in `static`"):
        column_keys(tmp_path, seconds=0.0)
    monkeypatch.setattr(partitions_module, "MAX_KEYS", 3)
    with pytest.raises(DatasetError, match="has more than 3 values, too many for partitions"):
        column_keys(tmp_path)


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("lang\nde\n")
    pipeline = make_pipeline(tmp_path, "*.csv", partitions={"column": "lang"})
    first = column_fingerprint(pipeline, "lang")
    assert column_fingerprint(pipeline, "lang") == first
    path.write_text("lang\nde\nen\n")
    second = column_fingerprint(pipeline, "lang")
    (tmp_path / "more.csv").write_text("lang\n")
    assert len({first, second, column_fingerprint(pipeline, "lang")}) == 3


# Results


def test_results_of_unusual_keys_can_be_read_as_one_table(world: World) -> None:
    keys = ["2026-01-01", "a/b c%", "ä=ß&'", "007", "no"]
    lines = [f'{{"id": "{at}", "text": "of {at}", "lang": "{key}"}}' for at, key in enumerate(keys)]
    (world.folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    pipeline = world.pipeline(partitions={"column": "lang"})
    for key in keys:
        world.send(pipeline, key)
        world.finish(pipeline, key)
    folder = world.path(pipeline.name, "results")
    code = "".join(block for block in code_blocks("python") if "read_results" not in block)
    documented_folder = '"data/output/daily_reviews/results"'
    assert code.count(documented_folder) == 1
    tables = values_of(code.replace(documented_folder, repr(str(folder))))
    assert len(tables) == 6  # pandas, polars and DuckDB, each with inferred types and as text
    for table in tables:
        read = table.fetchnumpy() if isinstance(table, duckdb.DuckDBPyRelation) else table
        assert sorted(map(str, read["partition"])) == sorted(keys), type(table)


def test_partitions_are_described_as_text() -> None:
    descriptions = [
        PartitionsConfig.model_validate(config).as_text
        for config in (
            {"daily": {"start": "2026-01-01", "end": "2026-02-01"}, "column": "at"},
            {"static": ["a", "b"]},
            {"dynamic": True},
            {"column": "lang"},
        )
    ]
    assert descriptions == [
        "daily from 2026-01-01 to 2026-02-01, UTC, by the column at",
        "2 static ones",
        "dynamic",
        "one for every value of the column lang",
    ]
