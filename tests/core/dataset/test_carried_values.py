"""What results carry is what the prompt prints, and earlier versions of the rendering keep what they printed."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import DatasetError
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from batch_assets.core.template.rendering import Rendering

from ..support import make_pipeline, params

AT = pd.Timestamp("2024-01-02 03:04:05.123456789")
LENGTH = pd.Timedelta("1 days 00:00:00.000000789")


def slices(folder: Path, dataset: dict[str, Any], table: Any = None) -> list[Rows]:
    with Dataset(make_pipeline(folder, dataset), table) as opened:
        return list(opened.rows(opened.schema.names))


def prompts(folder: Path, dataset: dict[str, Any], table: Any, rendering: Rendering, content: str) -> list[str]:
    """The prompts of all rows in a version of the rendering."""
    pipeline = make_pipeline(folder, dataset, params=params(content))
    found = []
    with Dataset(pipeline, table) as opened:
        renderer = RowRenderer(pipeline, opened, row_templates(pipeline, opened, rendering), rendering)
        for rows in opened.rows([opened.key, *renderer.reads]):
            bodies = [orjson.loads(body) for _, _, body, _ in renderer.render(rows, {})]
            found += [body["messages"][0]["content"] for body in bodies]
    return found


@pytest.mark.parametrize(
    "value",
    [
        [AT],
        [pd.NaT, AT],
        {"at": AT},
        {"at": [{"of": AT.tz_localize("Europe/Berlin")}]},
        [LENGTH],
        {"length": LENGTH, "at": dt.datetime(2024, 1, 2)},
        ([AT],),
    ],
    ids=str,
)
def test_nanoseconds_within_objects_are_carried(tmp_path: Path, value: Any) -> None:
    frame = pd.DataFrame({"v": [None, None]}, dtype=object)
    frame.at[0, "v"] = value
    expected = [str(_plain(value)), "None"]
    for table in (frame, [{"v": value}, {"v": None}], {"v": [value, None]}):
        (rows,) = slices(tmp_path, {"asset": "rows"}, table)
        assert [str(carried) for carried in rows.table["v"].to_pylist()] == expected
        short = str(rows.values_at_first("v")[0])  # what the first version printed
        assert "Timestamp" not in short and "Timedelta" not in short


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value) is dt.datetime:
        return value
    return None if value is pd.NaT else value


def test_times_far_off_beside_nanoseconds_become_text(tmp_path: Path) -> None:
    value = [AT, dt.datetime(3000, 1, 1)]
    (rows,) = slices(tmp_path, {"asset": "rows"}, [{"v": value}])
    assert rows.table["v"].to_pylist() == ['["2024-01-02 03:04:05.123456789","3000-01-01T00:00:00"]']


CLOCK = pa.array([36_000_000_000_789, 3_723_000_000_000, None], pa.time64("ns"))
CLOCKS: list[tuple[pa.Array, list[str]]] = [
    (CLOCK, ["10:00:00.000000789", "01:02:03", ""]),
    (CLOCK.dictionary_encode(), ["10:00:00.000000789", "01:02:03", ""]),
    (pa.array([[36_000_000_000_789]], pa.list_(pa.time64("ns"))), ["['10:00:00.000000789']"]),
    (pa.array([[1], None, [789, 2]], pa.list_view(pa.time64("ns"))),
     ["['00:00:00.000000001']", "", "['00:00:00.000000789', '00:00:00.000000002']"]),
    (pa.array([{"at": 789}], pa.struct([("at", pa.time64("ns"))])), ["{'at': '00:00:00.000000789'}"]),
    (pa.array([[("at", 789)]], pa.map_(pa.string(), pa.time64("ns"))), ["{'at': '00:00:00.000000789'}"]),
]  # fmt: skip


@pytest.mark.parametrize(("column", "printed"), CLOCKS, ids=[str(column.type) for column, _ in CLOCKS])
def test_times_of_the_day_print_their_nanoseconds(tmp_path: Path, column: pa.Array, printed: list[str]) -> None:
    table = pa.table({"v": column})
    pq.write_table(table, tmp_path / "rows.parquet")
    for dataset, asset in (({"asset": "rows"}, table), ({"path": "rows.parquet"}, None)):
        in_version = {version: prompts(tmp_path, dataset, asset, version, "<{{ v }}>") for version in Rendering}
        assert in_version[Rendering.WRITTEN] == [f"<{text}>" for text in printed]
        assert "789" not in str((in_version[Rendering.OWN], in_version[Rendering.STORED]))
        (rows,) = slices(tmp_path, dataset, asset)
        numbers = str(
            rows.table["v"].cast(pa.string()) if not pa.types.is_nested(column.type) else rows.table["v"]
        )
        assert "000000789" in numbers  # results keep them


def test_a_declared_time_of_the_day_keeps_its_nanoseconds(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": CLOCK[:1]}), tmp_path / "rows.parquet")
    dataset = {"path": "rows.parquet", "types": {"v": "time64[ns]"}}
    expected = ["10:00:00", "10:00:00", "10:00:00.000000789"]
    for version, text in zip(Rendering, expected, strict=True):
        assert prompts(tmp_path, dataset, None, version, "{{ v }}") == [text]


PERIODS = pd.DataFrame(
    {
        "month": pd.PeriodIndex(["2024-01", None], freq="M"),
        "quarter": pd.PeriodIndex(["2024Q2", "1969Q4"], freq="Q"),
        "day": pd.PeriodIndex(["2024-02-29", "2024-03-01"], freq="D"),
    }
)
PRINTED = {"month": ["2024-01", None], "quarter": ["2024Q2", "1969Q4"], "day": ["2024-02-29", "2024-03-01"]}


@pytest.mark.parametrize("stored", [False, True])
def test_results_carry_periods_as_they_print(tmp_path: Path, stored: bool) -> None:
    PERIODS.to_parquet(tmp_path / "rows.parquet")
    dataset, table = ({"path": "rows.parquet"}, None) if stored else ({"asset": "rows"}, PERIODS)
    (rows,) = slices(tmp_path, dataset, table)
    assert rows.table.to_pydict() == PRINTED
    assert rows.table.schema.types == [pa.string()] * 3
    in_version = [prompts(tmp_path, dataset, table, version, "<{{ month }}>") for version in Rendering]
    assert in_version == [["<648>", "<>"], ["<2024-01>", "<>"], ["<2024-01>", "<>"]]


def test_periods_within_lists_and_of_an_arrow_table_print(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(PERIODS)
    months = table["month"].combine_chunks()
    lists = pa.ListArray.from_arrays([0, 2], months)
    objects = pa.StructArray.from_arrays([months, pa.array([1, 2])], ["of", "n"])
    for name, column, expected in [
        ("month", months, ["2024-01", None]),
        ("list", lists, [["2024-01", None]]),
        ("object", objects, [{"of": "2024-01", "n": 1}, {"of": None, "n": 2}]),
    ]:
        pq.write_table(pa.table({name: column}), tmp_path / "rows.parquet")
        for dataset, asset in (({"asset": "rows"}, pa.table({name: column})), ({"path": "rows.parquet"}, None)):
            (rows,) = slices(tmp_path, dataset, asset)
            assert rows.table[name].to_pylist() == expected


@pytest.mark.parametrize(("type_", "carried"), [("string", "2024-01"), ("int64", 648), ("double", 648.0)])
def test_a_declared_type_decides_about_periods(tmp_path: Path, type_: str, carried: Any) -> None:
    PERIODS.to_parquet(tmp_path / "rows.parquet")
    for dataset, table in (({"path": "rows.parquet"}, None), ({"asset": "rows"}, PERIODS)):
        declared = {**dataset, "types": {"month": type_}}
        (rows,) = slices(tmp_path, declared, table)
        assert rows.table["month"].to_pylist() == [carried, None]
        before = prompts(tmp_path, declared, table, Rendering.OWN, "{{ month }}")
        assert before[0] == ("648.0" if type_ == "double" else "648")


def of_two_files(folder: Path, first: pa.Array, second: pa.Array, **dataset: Any) -> list[Rows]:
    (folder / "rows").mkdir()
    pq.write_table(pa.table({"v": first}), folder / "rows" / "1.parquet")
    pq.write_table(pa.table({"v": second}), folder / "rows" / "2.parquet")
    return slices(folder, {"path": "rows", **dataset})


LONG = Decimal("12345678901234567.89")
DECIMAL = pa.decimal128(38, 2)
LONGS: list[tuple[pa.Array, pa.Array]] = [
    (pa.array([Decimal("1.15"), LONG], DECIMAL), pa.array([0.5])),
    (pa.array([[Decimal("1.15")], [LONG]], pa.list_(DECIMAL)), pa.array([[0.5]])),
    (pa.array([{"a": Decimal("1.15")}, {"a": LONG}], pa.struct([("a", DECIMAL)])), pa.array([{"a": 0.5, "b": 1}])),
]


@pytest.mark.parametrize(("decimals", "floats"), LONGS, ids=[str(longs.type) for longs, _ in LONGS])
def test_a_decimal_that_no_float_holds_is_refused(tmp_path: Path, decimals: pa.Array, floats: pa.Array) -> None:
    with pytest.raises(
        DatasetError, match=r"1\.parquet, row 1 \(from 0\): column 'v' is not .*12345678901234567\.89"
    ):
        of_two_files(tmp_path, decimals, floats)
    rejected, _ = slices(tmp_path, {"path": "rows", "bad_rows": "reject"})
    assert list(rejected.rejects) == [1]
    assert "1.15" in str(rejected.table["v"].to_pylist()[0])
    assert "1.1500000000000001" in str(rejected.values_at_first("v")[0])  # Arrow's cast, in the first version


def test_a_decimal_beside_floats_is_the_nearest_float(tmp_path: Path) -> None:
    values = [Decimal("1.15"), Decimal("10.05"), Decimal("81.15"), None]
    first, _ = of_two_files(tmp_path, pa.array(values, DECIMAL), pa.array([0.5]))
    assert first.table["v"].to_pylist() == [1.15, 10.05, 81.15, None]


def test_a_declared_float_may_round_a_decimal(tmp_path: Path) -> None:
    values = [Decimal("1.15"), LONG]
    first, _ = of_two_files(tmp_path, pa.array(values, DECIMAL), pa.array([0.5]), types={"v": "double"})
    assert first.table["v"].to_pylist() == [1.15, float(LONG)]
    assert first.values_before("v") == [1.1500000000000001, float(LONG)]


def test_decimals_beside_whole_numbers_of_any_length_are_numbers(tmp_path: Path) -> None:
    value = [10**30, Decimal("1.50"), "é", float("nan"), {"a": None}]
    (rows,) = slices(tmp_path, {"asset": "rows"}, [{"v": value}])
    assert rows.table["v"].to_pylist() == ['[1000000000000000000000000000000,1.50,"é",null,{"a":null}]']
