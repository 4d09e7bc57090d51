"""Datasets from a table in memory: pandas, polars, pyarrow, and objects that export Arrow data."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.table_rows import TableRows
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.pipeline.dataset import DatasetConfig

from ..support import World, make_pipeline, params

ROWS = {"id": ["a", "b"], "text": ["one", "zwei ü"], "price": [1.5, None], "day": [dt.date(2026, 1, 2), None]}
TABLES: dict[str, Any] = {
    "pandas": pd.DataFrame(ROWS),
    "pandas, indexed": pd.DataFrame(ROWS).set_index("id"),
    "pandas, on Arrow": pa.table(ROWS).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.DataFrame(ROWS),
    "polars, lazy": pl.DataFrame(ROWS).lazy(),
    "pyarrow": pa.table(ROWS),
    "pyarrow, batches": pa.RecordBatchReader.from_batches(
        pa.table(ROWS).schema, pa.table(ROWS).to_batches(max_chunksize=1)
    ),
    "dicts": pa.table(ROWS).to_pylist(),
    "columns": ROWS,
}


def _deep() -> list[Any]:
    """Values that are nested so deeply that Arrow ends the process, or without end."""
    lists: Any = 1
    objects: Any = 1
    for _ in range(50_000):
        lists, objects = [lists], {"a": objects}
    itself: list[Any] = [1]
    itself += [itself, itself]
    return [[{"v": lists}], [{"v": objects}], {"v": [itself]}, pd.DataFrame({"v": [(lists,)]})]


def rows_of(value: Any, folder: Path, **dataset: Any) -> list[dict[str, Any]]:
    pipeline = make_pipeline(folder, {"asset": "raw/reviews", **dataset})
    with Dataset(pipeline, value) as dataset_:
        return [row for rows in dataset_.rows(dataset_.schema.names) for row in rows.table.to_pylist()]


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    rows = rows_of(TABLES[kind], tmp_path, key="id")
    assert [{name: row[name] for name in ROWS} for row in rows] == pa.table(ROWS).to_pylist()


def test_a_duckdb_relation_is_a_table(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        relation = connection.sql("select 'a' as id, 'one' as text")
        assert rows_of(relation, tmp_path) == [{"id": "a", "text": "one"}]


def test_an_index_that_is_a_column_too_is_that_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "n": [1.5, None], "text": ["x", "y"]})
    for names in (["id"], ["n"], ["id", "n"]):
        rows = rows_of(frame.set_index(names, drop=False), tmp_path, key="id")
        assert rows == [{"id": "a", "n": 1.5, "text": "x"}, {"id": "b", "n": None, "text": "y"}]
    rows = rows_of(frame.set_index(["id", "n"], drop=False).drop(columns="n"), tmp_path, key="id")
    assert rows == [{"n": 1.5, "id": "a", "text": "x"}, {"n": None, "id": "b", "text": "y"}]


def test_values_of_the_most_levels_are_read(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    assert rows_of([{"v": value}], tmp_path) == [{"v": "[" * 200 + "1" + "]" * 200}]


def test_an_unnamed_index_is_left_out_and_categories_are_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.Categorical(["x", "y"])}, index=[7, 9])
    assert rows_of(frame, tmp_path) == [{"text": "x"}, {"text": "y"}]


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"kind": ["x", None, "y"]}, schema={"kind": pl.Categorical}),
        pl.DataFrame({"kind": ["x", None, "y"]}, schema={"kind": pl.Enum(["y", "x"])}),
        pl.DataFrame({"kind": [["x"], None, ["y", None]]}, schema={"kind": pl.List(pl.Categorical)}),
        pl.DataFrame({"kind": [["x"], None, ["y"]]}, schema={"kind": pl.Array(pl.Categorical, 1)}),
        pl.DataFrame({"kind": [{"of": "x"}, None]}, schema={"kind": pl.Struct({"of": pl.Categorical})}),
    ],
    ids=["categories", "enum", "lists of categories", "arrays of categories", "structs of categories"],
)
def test_polars_categories_are_text(tmp_path: Path, frame: pl.DataFrame) -> None:
    assert rows_of(frame, tmp_path) == frame.to_dicts()
    assert "view" not in str(
        TableRows(frame, "it", DatasetConfig(asset="it")).schema
    )  # results cannot be written with views


def test_list_views_are_lists(tmp_path: Path) -> None:
    values = [[1], None, [2, 3]]
    assert rows_of(pa.table({"found": pa.array(values, pa.list_view(pa.int64()))}), tmp_path) == [
        {"found": value} for value in values
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "the asset raw/reviews has a value of the type int: it must be a table of pandas, polars or pyarrow"),
        (None, "has a value of the type NoneType"),
        (
            pd.DataFrame({"a": [1, object()]}),
            "the asset raw/reviews: column 'a' holds Python objects .*such as text",
        ),
        (pa.table([["x"], ["y"]], names=["a", "a"]), "two columns 'a'"),
        (
            pd.DataFrame({"a": pd.Series([10**5000, 1], dtype=object)}),
            "raw/reviews: column 'a' has a whole number of more than .* digits",
        ),
        (
            pl.DataFrame({"id": [1], "a": [2**100]}, schema_overrides={"a": pl.Int128}),
            "the asset raw/reviews: column 'a' of the type Int128 cannot be converted to a table",
        ),
        (pl.DataFrame({"a": [object()]}), "raw/reviews: column 'a' holds Python objects .*such as String"),
        (pd.DataFrame({"other": [1]}), "has no column 'id'; its columns: other"),
        ({"text": "hello"}, "is a dict whose column 'text' is of the type str: make it a list"),
        ({"text": {0: "a"}}, "is a dict whose column 'text' is of the type dict: make it a list"),
        ({"text": {"a", "b"}}, "is a dict whose column 'text' is of the type set: make it a list"),
        ({0: ["a"]}, "is a dict with the column name 0: make it text"),
        ([{}, {}], "raw/reviews has rows, but none of them has a key"),
        ([{"id": 1}, None], r"raw/reviews, row 1 \(from 0\) is of the type NoneType: make it a dict"),
        ([{"id": 1, 2: "b"}], r"raw/reviews, row 0 \(from 0\) has the key 2: make it text"),
        (
            pd.DataFrame({"id": ["a"]}, index=pd.Index(["b"], name="id")),
            "its index and a column have the name 'id', but different values: rename one",
        ),
        ([{"v": {1: "a", "1": "b"}}], "column 'v' has an object with two keys that are one as text"),
        *((value, "column 'v' has a value that is nested more than 200 levels deep") for value in _deep()),
    ],
)
def test_a_value_that_is_not_a_table_is_explained(tmp_path: Path, value: Any, problem: str) -> None:
    with pytest.raises(DatasetError, match=f"dataset.*{problem}"):
        rows_of(value, tmp_path, key="id")


def test_a_dataset_has_only_one_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one of path, files, sql and asset; got path and asset"):
        make_pipeline(tmp_path, {"asset": "x", "path": "y.csv"})


def test_rows_of_an_asset_cannot_name_files(world: World) -> None:
    content = "{{ text | file_base64 }}"
    pipeline = make_pipeline(world.folder, {"asset": "x", "key": "id"}, params=params(content))
    report = world.build(pipeline, table=pd.DataFrame(ROWS))
    assert (report.rows, report.rejected) == (2, 2)


def test_a_list_of_dicts_has_the_keys_of_all_its_dicts(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b", "note": "n"}, {"more": 1, "text": "c"}]
    dataset = Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows)
    assert dataset.schema.names == ["text", "note", "more"]
    (slice_,) = dataset.rows(["text", "note", "more"])
    assert slice_.table.to_pylist() == [
        {"text": "a", "note": None, "more": None},
        {"text": "b", "note": "n", "more": None},
        {"text": "c", "note": None, "more": 1},
    ]


@pytest.mark.parametrize(
    "value", [lambda values: [{"v": value} for value in values], lambda values: pd.DataFrame({"v": values})]
)
@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([2**70, 1], [str(2**70), "1"]),
        ([1, "a", None], ["1", "a", None]),
        ([["x"], {"k": 1}], ['["x"]', '{"k":1}']),
    ],
)
def test_objects_of_several_kinds_are_carried_as_json(
    tmp_path: Path, value: Any, values: list[Any], texts: list[Any]
) -> None:
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), value(values)) as dataset:
        (rows,) = dataset.rows(["v"])
        assert rows.values("v") == values
        assert rows.table["v"].to_pylist() == texts


DAY, AT = dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3, 4, 5)
TOKYO = dt.timezone(dt.timedelta(hours=9))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([DAY, AT, None], ["2024-01-02", "2024-01-02 03:04:05", None]),
        ([AT, DAY, pd.NaT], ["2024-01-02 03:04:05", "2024-01-02", None]),
        ([AT, AT.replace(tzinfo=TOKYO)], ["2024-01-02 03:04:05", "2024-01-02 03:04:05+09:00"]),
        ([dt.time(3, tzinfo=TOKYO), None], ["03:00:00+09:00", None]),
        ([DAY, "unknown", {"at": DAY}], ["2024-01-02", "unknown", '{"at":"2024-01-02"}']),
        ([DAY, 5], ["2024-01-02", "5"]),
        ([[DAY, 5], []], ['["2024-01-02",5]', "[]"]),
        ([dt.timedelta(days=1), 5], ["1 day, 0:00:00", "5"]),
        ([1.5, True], ["1.5", "true"]),
        ([{"a": [1.5]}, {"a": [True, 2]}], ['{"a":[1.5]}', '{"a":[true,2]}']),
        ([decimal.Decimal("1.50"), "n/a"], ["1.50", "n/a"]),
    ],
    ids=str,
)
def test_values_that_arrow_would_change_are_carried_as_text(
    tmp_path: Path, values: list[Any], texts: list[Any]
) -> None:
    frame = pd.DataFrame({"v": np.array(values, dtype=object)})
    for table in (frame, [{"v": value} for value in values]):
        with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), table) as dataset:
            (rows,) = dataset.rows(["v"])
            assert rows.table["v"].to_pylist() == texts
            assert rows.values("v") == [None if value is pd.NaT else value for value in values]


def test_missing_values_of_every_kind_are_null_beside_values_of_one_kind(tmp_path: Path) -> None:
    for value in (DAY, AT, 5, "text", [DAY], {"k": 1.5}, True):
        rows = [{"v": missing} for missing in (value, None, float("nan"), pd.NaT, pd.NA)]
        with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows) as dataset:
            (slice_,) = dataset.rows(["v"])
            assert slice_.table["v"].to_pylist() == [value, None, None, None, None]
            assert slice_.values("v") == [value, None, None, None, None]


@pytest.mark.parametrize(
    "missing",
    [
        np.float64("nan"),
        np.float32("nan"),
        np.float16("nan"),
        decimal.Decimal("nan"),
        np.datetime64("NaT"),
        np.datetime64("NaT", "us"),
        np.timedelta64("NaT"),
    ],
    ids=repr,
)
def test_missing_values_of_numpy_are_null_beside_values_of_one_kind(tmp_path: Path, missing: Any) -> None:
    for value in (DAY, AT, dt.timedelta(days=1), "text", [DAY], {"k": 1.5}, True):
        rows = [{"v": value}, {"v": missing}]
        with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows) as dataset:
            (slice_,) = dataset.rows(["v"])
            assert slice_.table["v"].to_pylist() == [value, None]
            assert slice_.values("v") == [value, None]


@pytest.mark.parametrize("numbers", [[1.5], [], [float("nan")]], ids=str)
def test_numbers_in_an_array_and_booleans_in_a_list_are_several_kinds(
    tmp_path: Path, numbers: list[float]
) -> None:
    rows = [{"v": np.array(numbers)}, {"v": [True]}]
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows) as dataset:
        (slice_,) = dataset.rows(["v"])
    assert slice_.table["v"].to_pylist()[1] == "[true]"
    assert slice_.values("v")[1] == [True]


def test_days_of_numpy_are_durations(tmp_path: Path) -> None:
    rows = [{"v": np.timedelta64(1, "D")}, {"v": np.timedelta64(2, "W")}]
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows) as dataset:
        (slice_,) = dataset.rows(["v"])
    assert slice_.values("v") == [dt.timedelta(days=1), dt.timedelta(days=14)]


def test_a_duration_without_length_is_refused_by_column(tmp_path: Path) -> None:
    rows = [{"v": np.timedelta64(1, "M")}]
    with pytest.raises(DatasetError, match="column 'v' has a value that cannot be converted"):
        Dataset(make_pipeline(tmp_path, {"asset": "rows"}), rows)


def test_times_of_numpy_and_python_are_read_together(tmp_path: Path) -> None:
    values = [np.datetime64("2024-01-02"), AT, np.timedelta64(5, "s")]
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), {"v": values}) as dataset:
        (rows,) = dataset.rows(["v"])
    assert rows.values("v") == [DAY, AT, dt.timedelta(seconds=5)]


@pytest.mark.parametrize(
    "values",
    [
        [AT, pd.Timestamp("2024-01-02 03:04:05.123456789"), None],
        [pd.Timestamp("2024-01-02 03:04:05.123456789", tz="Asia/Tokyo"), pd.NaT],
        [pd.Timedelta("1500ns"), dt.timedelta(days=1)],
    ],
    ids=str,
)
def test_nanoseconds_among_objects_are_carried(tmp_path: Path, values: list[Any]) -> None:
    frame = pd.DataFrame({"v": np.array(values, dtype=object)})
    for table in (frame, [{"v": value} for value in values], {"v": values}):
        with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), table) as dataset:
            (rows,) = dataset.rows(["v"])
        assert rows.table["v"].to_pylist() == [None if value is pd.NaT else value for value in values]


def test_nan_is_no_row_key(world: World) -> None:
    pipeline = make_pipeline(world.folder, {"asset": "rows", "key": "id"}, params=params("constant"))
    with pytest.raises(DatasetError, match="1 rows have none; the first are rows 1"):
        world.build(pipeline, table=pa.table({"id": [1.5, float("nan")]}))


SHORT = np.float32(0.1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SHORT, 0.1),
        (np.float16(0.1), 0.1),
        (np.float32("nan"), None),
        (np.array([0.1, 2], dtype="float32"), [0.1, 2.0]),
        ({"scores": [SHORT, 1], "mean": SHORT}, {"scores": [0.1, 1], "mean": 0.1}),
    ],
    ids=str,
)
def test_short_floats_among_objects_are_the_shortest_decimals(tmp_path: Path, value: Any, shown: Any) -> None:
    frame = pd.DataFrame({"v": [None, None]}, dtype=object)
    frame.at[0, "v"] = value
    for table in (frame, [{"v": value}, {"v": None}], {"v": [value, None]}):
        with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), table) as dataset:
            (rows,) = dataset.rows(["v"])
        assert rows.values("v") == [shown, None]
        before = rows.values_before("v")[0]
        assert before == shown if shown is None else str(before) != str(shown)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (pa.RunEndEncodedArray.from_arrays([2], ["a"]), ["a", "a"]),
        (pa.RunEndEncodedArray.from_arrays([2], pa.array([0.1], pa.float32())), [0.1, 0.1]),
        (pa.DictionaryArray.from_arrays([0, None], pa.array([{"of": 1}])), [{"of": 1}, None]),
        (pd.Categorical(pd.period_range("2024-01", periods=2, freq="M")), ["2024-01", "2024-02"]),
        (pd.cut([1, 9], 2), ["(0.992, 5.0]", "(5.0, 9.0]"]),
    ],
    ids=["runs", "runs of float32", "categories that are objects", "months", "intervals"],
)
def test_runs_and_categories_are_their_values(tmp_path: Path, column: Any, shown: list[Any]) -> None:
    table = pd.DataFrame({"v": column}) if isinstance(column, pd.Categorical) else pa.table({"v": column})
    with Dataset(make_pipeline(tmp_path, {"asset": "rows"}), table) as dataset:
        (rows,) = dataset.rows(["v"])
        assert rows.values("v") == shown
        assert rows.rejects == {}
