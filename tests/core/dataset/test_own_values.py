"""What a template sees of a row depends on that row alone, whatever other rows, lines and files have."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from tests.media import image, png

from ..support import World, make_pipeline, params

IMAGE = image(png())


def bodies(pipeline: Pipeline, table: Any = None) -> list[Any]:
    """The params of every row in order; the reason instead for a row that is rejected."""
    found: list[Any] = []
    with Dataset(pipeline, table) as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        for rows in dataset.rows(list(dict.fromkeys([dataset.key, *renderer.reads]))):
            rejects: dict[int, tuple[str, str]] = {}
            rendered = {at: orjson.loads(body) for at, _, body, _ in renderer.render(rows, rejects)}
            found += [rendered.get(at) or rejects[at] for at in range(len(rows.table))]
    return found


def contents(pipeline: Pipeline, table: Any = None) -> list[Any]:
    return [body["messages"][0]["content"] if isinstance(body, dict) else body for body in bodies(pipeline, table)]


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def of_lines(folder: Path, rows: list[Any], content: Any, **attributes: Any) -> list[Any]:
    write_lines(folder / "rows.jsonl", rows)
    pipeline = make_pipeline(folder, {"path": "rows.jsonl"}, params=params(content), **attributes)
    return contents(pipeline)


def test_an_object_has_the_keys_of_its_own_line_in_their_own_order(tmp_path: Path) -> None:
    rows = [{"v": {"b": 1, "a": [{"x": 1}, {"y": None}]}}, {"v": {"a": 2}}, {"v": {}}, {"v": None}, {}]
    assert of_lines(tmp_path, rows, "<{{ v }}> {{ v | tojson }}") == [
        "<{'b': 1, 'a': [{'x': 1}, {'y': None}]}> " + '{"b": 1, "a": [{"x": 1}, {"y": null}]}',
        "<{'a': 2}> " + '{"a": 2}',
        "<{}> {}",
        "<> null",
        "<> null",
    ]


def test_many_objects_with_keys_of_their_own_make_short_prompts(tmp_path: Path) -> None:
    rows = [{"id": number, "scores": {f"user_{number}": number}} for number in range(1500)]
    found = of_lines(tmp_path, rows, "Scores: {{ scores }}")
    assert found == [f"Scores: {{'user_{number}': {number}}}" for number in range(1500)]


ROWS: list[dict[str, Any]] = [
    {"v": {"a": 1}},
    {"v": {"b": 2, "items": 3}},
    {"v": [{"a": 1}, {"b": [1.0, 2.5]}]},
    {"v": ["a", "b"]},
    {"v": "c"},
    {"v": 7},
    {"v": 7.0},
    {"v": 0.5},
    {"v": True},
    {"v": None, "w": 1},
    {"w": {"x": []}, "v": False},
    {"v": 2**70},
    {"v": {}},
]
TEMPLATES = [
    "{{ v }}!",
    "{{ v | tojson }}",
    "{{ row | tojson }}",
    "{{ row }} {{ row | length }} {{ row.keys() | join(',') }}",
    "{% for key, value in row.items() %}{{ key }}={{ value }};{% endfor %}.",
    "{{ v.b is defined }} {{ v.b | default('-') }}",
    "{{ v is string }}{{ v is mapping }}{{ v is number }}{{ v is boolean }}",
    "{% if v %}yes{% else %}no{% endif %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_line_renders_as_it_does_alone(tmp_path: Path, template: str) -> None:
    alone = [content for row in ROWS for content in of_lines(tmp_path, [row | {"id": 1}], template)]
    together = of_lines(tmp_path, [row | {"id": 1} for row in ROWS], template)
    assert together == alone


def test_lines_of_several_kinds_keep_their_kinds(tmp_path: Path) -> None:
    rows = [{"v": ["a", "b"]}, {"v": "c"}]
    assert of_lines(tmp_path, rows, "{{ (v if v is not string else [v]) | join(', ') }}") == ["a, b", "c"]


def test_a_key_that_other_rows_have_is_absent_and_prints_as_nothing(tmp_path: Path) -> None:
    rows = [{"v": {"a": 1}}, {"v": {"b": 2}}]
    template = (
        "[{{ v.b }}{{ v['b'] }}] {{ v.b or 'none' }} {{ v.b == none }} {{ v.b is defined }} {{ [v.b] | tojson }}"
    )
    assert of_lines(tmp_path, rows, template) == [
        "[] none True False [null]",
        "[22] 2 False True [2]",
    ]
    mixed = [*rows, {"v": "c"}, {"v": {"a": [{"x": 1}, {"y": 2}]}}, {"v": {"a": [True]}}]
    assert of_lines(tmp_path, mixed, "[{{ v.b }}]")[:2] == ["[]", "[2]"]  # not text, though the column is
    template = "{{ v.a[0].y is defined }}{{ v.a[0].y }}{{ v.a[1].y }}"
    assert of_lines(tmp_path, mixed, template)[3] == "False2"
    (mistake, _) = of_lines(tmp_path, rows, "{{ v.c }}")
    assert mistake == ("template_error", "params.messages[0].content: 'dict object' has no attribute 'c'")


@pytest.mark.parametrize("name", ["text", "other", "price"])
def test_a_key_of_other_objects_or_a_column_of_that_name_is_a_mistake(tmp_path: Path, name: str) -> None:
    rows = [{"v": {"a": 1}, "text": "x", "other": {"price": 2}}]
    (mistake,) = of_lines(tmp_path, rows, f"<{{{{ v.{name} }}}}")
    assert mistake[1].startswith(f"params.messages[0].content: 'dict object' has no attribute '{name}'")


def test_columns_named_like_methods_are_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,items,values,get\n1,2,3,4\n")
    content = "{{ row.items }}{{ row.values }}{{ row['get'] }} {{ row.keys() | join(',') }} {{ items }}"
    pipeline = make_pipeline(tmp_path, "rows.csv", params=params(content))
    assert contents(pipeline) == ["234 id,items,values,get 2"]


def test_a_column_that_a_line_lacks_is_null_in_row_as_elsewhere(tmp_path: Path) -> None:
    rows = [{"b": 1, "a": 2}, {"items": 3}]
    content = "[{{ row.items }}{{ items }}{{ row['items'] }}] {{ row | tojson }} {{ row.items() | length }}"
    assert of_lines(tmp_path, rows, content) == ['[] {"b": 1, "a": 2} 2', '[333] {"items": 3} 1']


def test_an_absent_key_as_a_whole_value_drops_its_entry(tmp_path: Path) -> None:
    rows = [{"v": {"more": [{"type": "text", "text": "x"}]}}, {"v": {"a": 1}}]
    blocks: list[Any] = [{"type": "text", "text": "hello"}, "{{ v.more }}"]
    assert of_lines(tmp_path, rows, blocks) == [
        [blocks[0], {"type": "text", "text": "x"}],
        [blocks[0]],
    ]


def test_prepared_content_of_different_kinds_is_sent_as_it_is(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"content": [{"type": "text", "text": "see"}, IMAGE]},
        {"content": [{"type": "text", "text": "only text"}]},
        {"content": "plain"},
    ]
    assert of_lines(tmp_path, rows, "{{ content }}") == [row["content"] for row in rows]


def test_prepared_messages_with_tool_use_are_sent_as_they_are(tmp_path: Path) -> None:
    conversations: list[Any] = [
        [{"role": "user", "content": "hi"}],
        [
            {"role": "user", "content": "weather?"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "w", "input": {"at": "x"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sun"}]},
        ],
        [{"role": "user", "content": [IMAGE, {"type": "text", "text": "what?"}]}],
    ]
    write_lines(tmp_path / "rows.jsonl", [{"messages": messages} for messages in conversations])
    body = params() | {"messages": ["{{ messages }}"]}
    pipeline = make_pipeline(tmp_path, "rows.jsonl", params=body)
    assert [found["messages"] for found in bodies(pipeline)] == conversations


def test_a_new_key_does_not_send_answered_rows_again(world: World) -> None:
    path, content = world.folder / "rows.jsonl", "{{ meta | tojson }} {{ row | tojson }}"
    write_lines(path, [{"id": 1, "meta": {"a": 1}}])
    pipeline = world.pipeline("rows.jsonl", params=params(content))
    world.run(pipeline)
    write_lines(path, [{"id": 1, "meta": {"a": 1}}, {"id": 2, "meta": {"b": 2}, "new": [1]}])
    pipeline = world.pipeline("rows.jsonl", params=params(content))
    report = world.build(pipeline)
    assert (report.reused, report.written) == (1, 1)
    table = world.run(pipeline)
    assert table["meta"].tolist() == [{"a": 1.0, "b": None}, {"a": None, "b": 2.0}]  # results have unified objects


def test_a_partition_sees_the_own_values_of_its_rows(tmp_path: Path) -> None:
    rows = [{"day": "a", "v": {"x": 1}}, {"day": "b", "v": [2]}, {"day": "a", "v": "three"}]
    write_lines(tmp_path / "rows.jsonl", rows)
    pipeline = make_pipeline(
        tmp_path,
        "rows.jsonl",
        params=params("{{ v | tojson }} {{ row | tojson }}"),
        partitions={"column": "day", "static": ["a", "b"]},
    )
    with Dataset(pipeline, partition="a") as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        (slice_,) = dataset.rows(renderer.reads)
        found = [orjson.loads(body)["messages"][0]["content"] for _, _, body, _ in renderer.render(slice_, {})]
    assert found == [
        '{"x": 1} {"day": "a", "v": {"x": 1}}',
        '"three" {"day": "a", "v": "three"}',
    ]


def test_rejected_lines_shift_no_own_values(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "1.csv").write_bytes(b'k,v\n1,1\n2\n3,"x" y\n4,\xff\n5,2024-01-02T03:04:05\n')
    (folder / "2.jsonl").write_bytes(b'{"k":6,"v":{"a":1}}\nbroken\n{"k":7,"v":"\xff"}\n{"v":[2],"k":"8"}\n')
    _parquet(folder / "3.parquet", k=[9], w=[1.5])
    dataset = {"path": "days", "bad_rows": "reject", "missing_columns": None}
    found = contents(make_pipeline(tmp_path, dataset, params=params("{{ v }} {{ row | tojson }}")))
    assert [row if isinstance(row, str) else row[0] for row in found] == [
        '1 {"k": 1, "v": "1"}',
        "unreadable_row",
        "unreadable_row",
        "invalid_unicode",
        '2024-01-02 03:04:05 {"k": 5, "v": "2024-01-02T03:04:05"}',
        "{'a': 1} " + '{"k": 6, "v": {"a": 1}}',
        "unreadable_row",
        "invalid_unicode",
        '[2] {"v": [2], "k": "8"}',
        ' {"k": 9, "w": 1.5}',
    ]


def test_a_partition_with_rejected_lines_sees_the_own_values_of_its_rows(tmp_path: Path) -> None:
    lines = [b'{"day":"b","v":1}', b"broken", b'{"v":[2],"day":"a"}', b'{"day":"a","v":"\xff"}', b'{"day":"a"}']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*lines, b""]))
    pipeline = make_pipeline(
        tmp_path,
        {"path": "rows.jsonl", "bad_rows": "reject"},
        params=params("{{ row | tojson }}"),
        partitions={"column": "day", "static": ["a", "b"]},
    )
    with Dataset(pipeline, partition="a") as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        rejects: dict[int, tuple[str, str]] = {}
        (slice_,) = dataset.rows(renderer.reads)
        rendered = [(at, orjson.loads(body)) for at, _, body, _ in renderer.render(slice_, rejects)]
    assert [(at, body["messages"][0]["content"]) for at, body in rendered] == [
        (0, '{"v": [2], "day": "a"}'),
        (2, '{"day": "a"}'),
    ]
    assert {at: error_type for at, (error_type, _) in rejects.items()} == {1: "invalid_unicode"}


def test_declared_types_hold_in_templates(tmp_path: Path) -> None:
    rows = [{"v": 1}, {"v": "2"}]
    write_lines(tmp_path / "rows.jsonl", rows)
    dataset = {"path": "rows.jsonl", "types": {"v": "int64"}}
    assert contents(make_pipeline(tmp_path, dataset, params=params("{{ v + 1 }}"))) == ["2", "3"]


def _parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([0, 5]), pa.array([0.5])),
        (pa.array([True, False]), pa.array(["unknown"])),
        (pa.array([dt.datetime(2024, 1, 2), None]), pa.array(["later"])),
        (pa.array([dt.date(2024, 1, 2), None]), pa.array([dt.datetime(2024, 1, 2, 3)])),
        (pa.array([decimal.Decimal("1.5")]), pa.array([decimal.Decimal("2.125")])),
        (pa.array([0.5, 1.0], pa.float32()), pa.array([0.1])),
        (pa.array([1, 2]), pa.array(["x"])),
        (pa.array([[1], [2, 3]]), pa.array(["x"])),
        (pa.array([{"a": 1}]), pa.array([{"b": 1}])),
        (pa.array([[{"a": 1}]]), pa.array([[{"a": 1.5, "b": True}]])),
        (pa.array([10**12, 7]), pa.array([dt.datetime(2024, 1, 1)])),
    ],
    ids=str,
)
@pytest.mark.parametrize("template", ["{{ v }}!", "{{ v | tojson }}", "{{ row | tojson }}"])
def test_a_later_parquet_file_of_another_type_changes_no_prompt(
    tmp_path: Path, first: pa.Array, second: pa.Array, template: str
) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    pipeline = make_pipeline(tmp_path, {"path": "days", "missing_columns": None}, params=params(template))
    _parquet(folder / "1.parquet", v=first)
    before = contents(pipeline)
    _parquet(folder / "2.parquet", v=second, new=pa.array([1] * len(second)))
    assert contents(pipeline)[: len(before)] == before
    assert len(before) == len(first)


def test_files_of_several_formats_keep_their_values(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "1.csv").write_text("v,w\n1,2024-01-02T03:04:05\n2,2024-01-02T03:04:06\n")
    write_lines(folder / "2.jsonl", [{"v": {"a": 1}, "w": 1}])
    _parquet(folder / "3.parquet", v=[1.5], w=["x"])
    pipeline = make_pipeline(tmp_path, "days", params=params("{{ v }} {{ w }} {{ v is number }}"))
    assert contents(pipeline) == [
        "1 2024-01-02 03:04:05 True",
        "2 2024-01-02 03:04:06 True",
        "{'a': 1} 1 False",
        "1.5 x True",
    ]


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("2024-01-02T03:04:05", "2024-01-02 03:04:05"),
        ("2024-01-02T03:04:05Z", "2024-01-02 03:04:05+00:00"),
        ("2024-01-02 03:04", "2024-01-02 03:04:00"),
    ],
)
def test_a_late_word_in_a_csv_column_of_timestamps_changes_no_prompt(
    world: World, written: str, printed: str
) -> None:
    path = world.folder / "rows.csv"
    lines = ["id,at", *(f"{number},{written}" for number in range(20))]
    path.write_text("\n".join(lines) + "\n")
    content = "{{ id }} {{ at }} {{ at.year }}"
    pipeline = world.pipeline("rows.csv", params=params(content))
    assert contents(pipeline)[0] == f"0 {printed} 2024"
    world.run(pipeline)
    path.write_text("\n".join([*lines, "20,unknown", "21,2024-02-30T00:00"]) + "\n")
    pipeline = world.pipeline("rows.csv", params=params("{{ id }} {{ at }} {{ at.year or '' }}"))
    assert contents(pipeline)[0] == f"0 {printed} 2024"
    report = world.build(world.pipeline("rows.csv", params=params(content)))
    assert (report.reused, report.written, report.rejected) == (20, 0, 2)


def test_frames_with_objects_keep_the_keys_of_each(tmp_path: Path) -> None:
    values: list[Any] = [{"b": 1, "a": {"x": 1}}, {"a": {"y": 2}}, None, {"c": [{"k": 1}, {"l": 2.5}]}]
    expected = [json.dumps(value) for value in values]
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v | tojson }}"))
    frames: list[Any] = [
        pd.DataFrame({"v": values}),
        pd.DataFrame({"v": values}, index=pd.Index(list("abcd"), name="id")),
        [{"v": value} for value in values],
        {"v": values},
        {"v": pd.Series(values, dtype=object)},
        {"v": pd.Series(values, dtype=object).to_numpy()},
    ]
    for frame in frames:
        assert contents(pipeline, frame) == expected


def test_dicts_keep_the_kinds_of_their_values_and_none_of_their_keys_is_lost(tmp_path: Path) -> None:
    rows = [{"n": 1, "d": decimal.Decimal("1.5")}, {"n": 2.5, "d": decimal.Decimal("2.125"), "late": "x"}]
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ row | tojson }} {{ d }} {{ late }}"))
    assert contents(pipeline, rows) == [
        '{"n": 1, "d": 1.5} 1.5 ',
        '{"n": 2.5, "d": 2.125, "late": "x"} 2.125 x',
    ]


def test_values_within_objects_of_a_frame_are_plain(tmp_path: Path) -> None:
    series = pd.Series([1.5, float("nan")])
    value = {
        "array": series.to_numpy(),
        "number": series.to_numpy()[0],
        "none": float("nan"),
        "at": pd.Timestamp("2024-01-02 03:04:05"),
        "gone": pd.NaT,
    }
    frame = pd.DataFrame({"v": [value]})
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v | tojson }}"))
    assert contents(pipeline, frame) == [
        '{"array": [1.5, null], "number": 1.5, "none": null, "at": "2024-01-02T03:04:05", "gone": null}'
    ]


_FLOAT32 = pa.array([0.1, None, 3.4e38, float("nan")], pa.float32())


@pytest.mark.parametrize(
    ("column", "printed"),
    [
        (_FLOAT32, ["0.1", "", "3.4e+38", ""]),
        (pa.array([0.1], pa.float16()), ["0.1"]),
        (pa.array([[0.1, float("nan")]], pa.list_(pa.float32())), ["[0.1, None]"]),
        (pa.array([[0.1, 0.2]], pa.list_(pa.float32(), 2)), ["[0.1, 0.2]"]),
        (pa.array([{"x": 0.1, "y": 1}], pa.struct([("x", pa.float32()), ("y", pa.int8())])),
         ["{'x': 0.1, 'y': 1}"]),
        (pa.array([[("k", 0.1)]], pa.map_(pa.string(), pa.float32())), ["{'k': 0.1}"]),
        (pa.array([float("nan"), 1.5]), ["", "1.5"]),
        (pa.array([[float("nan")]]), ["[None]"]),
        (pa.array([decimal.Decimal("0E-10"), decimal.Decimal("1E-7")], pa.decimal128(20, 10)),
         ["0.0000000000", "0.0000001000"]),
        (pa.array([1, 0, None], pa.int8()).cast(pa.bool8()), ["True", "False", ""]),
        (pa.array([0.1, None], pa.float32()).dictionary_encode(), ["0.1", ""]),
    ],
    ids=str,
)  # fmt: skip
def test_a_parquet_value_prints_as_a_person_would_write_it(
    tmp_path: Path, column: pa.Array, printed: list[str]
) -> None:
    pq.write_table(pa.table({"v": column}), tmp_path / "rows.parquet")
    pipeline = make_pipeline(tmp_path, "rows.parquet", params=params("<{{ v }}>"))
    assert contents(pipeline) == [f"<{text}>" for text in printed]


def test_nan_is_null_and_not_a_word_that_is_true(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": pa.array([float("nan"), 1.0])}), tmp_path / "rows.parquet")
    pipeline = make_pipeline(
        tmp_path, "rows.parquet", params=params("{{ 'some' if v else 'none' }} {{ v is none }}")
    )
    assert contents(pipeline) == ["none True", "some False"]


@pytest.mark.parametrize("stored", [False, True])
def test_months_and_intervals_print_as_pandas_prints_them(tmp_path: Path, stored: bool) -> None:
    frame = pd.DataFrame(
        {
            "month": pd.PeriodIndex(["2024-01", None], freq="M"),
            "quarter": pd.PeriodIndex(["2024Q2", "1969Q4"], freq="Q"),
            "range": pd.arrays.IntervalArray.from_tuples([(0, 1), (1, 2)], closed="left"),
        }
    )
    dataset: dict[str, Any] = {"asset": "raw"}
    if stored:
        frame.to_parquet(tmp_path / "rows.parquet")
        dataset = {"path": "rows.parquet"}
    pipeline = make_pipeline(tmp_path, dataset, params=params("<{{ month }}> {{ quarter }} {{ range }}"))
    assert contents(pipeline, None if stored else frame) == ["<2024-01> 2024Q2 [0, 1)", "<> 1969Q4 [1, 2)"]


@pytest.mark.parametrize(
    "intervals",
    [
        pd.interval_range(pd.Timestamp("2024-01-01"), periods=2, freq="D"),
        pd.interval_range(pd.Timestamp("2024-01-01 10:00", tz="UTC"), periods=2, freq="h", closed="both"),
        pd.interval_range(pd.Timestamp("2024-07-01", tz="Europe/Berlin"), periods=2, freq="D"),
        pd.interval_range(pd.Timedelta("1D"), periods=2, freq="36h", closed="left"),
        pd.interval_range(0.5, periods=2),
        pd.IntervalIndex([pd.Interval(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01 00:00:00.000000123"))]),
    ],
    ids=lambda intervals: str(intervals.dtype),
)
def test_intervals_of_any_kind_print_as_pandas_prints_them(tmp_path: Path, intervals: pd.IntervalIndex) -> None:
    frame = pd.DataFrame({"v": intervals.insert(0, None)})
    frame.to_parquet(tmp_path / "rows.parquet")
    expected = ["<>", *(f"<{interval}>" for interval in intervals)]
    for dataset, table in (({"asset": "raw"}, frame), ({"path": "rows.parquet"}, None)):
        assert contents(make_pipeline(tmp_path, dataset, params=params("<{{ v }}>")), table) == expected


DAY, AT = dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3, 4, 5)
NESTED: list[tuple[Any, pa.DataType, str]] = [
    ([decimal.Decimal("1.50")], pa.list_(pa.decimal128(9, 2)), "[1.50]"),
    ([DAY, None], pa.list_(pa.date32()), "['2024-01-02', None]"),
    ([AT], pa.list_(pa.timestamp("us")), "['2024-01-02 03:04:05']"),
    ([AT], pa.list_(pa.timestamp("ns")), "['2024-01-02 03:04:05']"),
    ([AT.replace(tzinfo=dt.UTC)], pa.list_(pa.timestamp("us", "UTC")), "['2024-01-02 03:04:05+00:00']"),
    ([dt.timedelta(days=1)], pa.list_(pa.duration("us")), "['1 day, 0:00:00']"),
    ([dt.time(3, 4)], pa.list_(pa.time64("us")), "['03:04:00']"),
    ([float("nan"), float("inf"), 1.5], pa.list_(pa.float64()), "[None, None, 1.5]"),
    ([float("-inf"), 0.1], pa.list_(pa.float32()), "[None, 0.1]"),
    ({"at": DAY, "p": decimal.Decimal("2.00")}, pa.struct([("at", pa.date32()), ("p", pa.decimal128(9, 2))]),
     "{'at': '2024-01-02', 'p': 2.00}"),
    ([("a", decimal.Decimal("2.00"))], pa.map_(pa.string(), pa.decimal128(9, 2)), "{'a': 2.00}"),
    ([(DAY, [AT])], pa.map_(pa.date32(), pa.list_(pa.timestamp("us"))), "{'2024-01-02': ['2024-01-02 03:04:05']}"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "type_", "printed"), NESTED, ids=[str(type_) for _, type_, _ in NESTED])
def test_values_within_a_value_print_as_they_do_alone(
    tmp_path: Path, value: Any, type_: pa.DataType, printed: str
) -> None:
    table = pa.table({"v": pa.array([value], type_)})
    pq.write_table(table, tmp_path / "rows.parquet")
    for dataset, asset in (({"asset": "raw"}, table), ({"path": "rows.parquet"}, None)):
        assert contents(make_pipeline(tmp_path, dataset, params=params("<{{ v }}>")), asset) == [f"<{printed}>"]


def test_months_of_a_partition_print_as_months(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"part": ["a", "b", "a"], "v": pd.PeriodIndex(["2024-01", "2024-02", "2024-03"], freq="M")}
    )
    partitions = {"column": "part", "static": ["a", "b"]}
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v }}"), partitions=partitions)
    with Dataset(pipeline, frame, "a") as dataset:
        (rows,) = dataset.rows(["v"])
    assert rows.values("v") == ["2024-01", "2024-03"]


def test_calendar_intervals_print_as_iso_durations(tmp_path: Path) -> None:
    values = pa.array([(14, 3, 1_500_000_000), (0, 0, 0)], pa.month_day_nano_interval())
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v }}"))
    assert contents(pipeline, pa.table({"v": values})) == ["P14M3DT1.5S", "P0D"]


def test_a_polars_struct_has_the_fields_of_its_type(tmp_path: Path) -> None:
    frame = pl.DataFrame({"v": [{"a": 1, "b": None}, {"a": 2, "b": "x"}]})
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v | tojson }}"))
    assert contents(pipeline, frame) == ['{"a": 1, "b": null}', '{"a": 2, "b": "x"}']
