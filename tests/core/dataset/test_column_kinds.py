"""The kind of a column is on record, so that a later row, file or day changes no prompt of an earlier row."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates

from ..support import World, make_pipeline, params, read


def prompts(pipeline: Pipeline, recorded: Kinds | None = None, table: Any = None) -> tuple[list[str], Kinds]:
    """The prompt of each row, or the reason why it has none; and the kinds to record, as a manifest has them."""
    found: list[str] = []
    with Dataset(pipeline, table, recorded=recorded) as dataset:
        renderer = RowRenderer(pipeline, dataset, row_templates(pipeline, dataset))
        for rows in dataset.rows(list(dict.fromkeys([dataset.key, *renderer.reads]))):
            rejects: dict[int, tuple[str, str]] = {}
            rendered = {at: orjson.loads(body) for at, _, body, _ in renderer.render(rows, rejects)}
            for at in range(len(rows.table)):
                found.append(rendered[at]["messages"][0]["content"] if at in rendered else rejects[at][0])
        return found, json.loads(json.dumps(dataset.kinds))


def csv_prompts(
    folder: Path, cells: list[str], content: str, recorded: Kinds | None = None, **dataset: Any
) -> tuple[list[str], Kinds]:
    (folder / "a.csv").write_text("v,n\n" + "".join(f"{cell},{at}\n" for at, cell in enumerate(cells)))
    return prompts(make_pipeline(folder, {"path": "a.csv"} | dataset, params=params(content)), recorded)


NUMBERS = ["1", "20", "-3", ""]
KINDS = [
    ("{{ v + 1 if v is not none }}", NUMBERS, "n/a", ["2", "21", "-2"]),
    ("= {{ v | tojson }}", NUMBERS, "unknown", ["= 1", "= 20", "= -3", "= null"]),
    ("= {{ v > 2 if v is not none }}", NUMBERS, "n/a", ["= False", "= True", "= False", "= "]),
    ("= {{ v | round(1) }}", ["1.25", "20.0"], "n/a", ["= 1.2", "= 20.0"]),
    ("= {{ v + 1 }}", ["1", "2"], "2.5", ["= 2", "= 3"]),  # a fraction among whole numbers
    ("= {{ v + 1 }}", ["1.5", "2.5"], "2", ["= 2.5", "= 3.5"]),
    ("= {{ 'yes' if v else 'no' }}", ["True", "False"], "unknown", ["= yes", "= no"]),
    ("= {{ v.year }}", ["2024-02-29", "1999-12-31"], "soon", ["= 2024", "= 1999"]),
    ("= {{ v.year }}", ["2024-02-29T10:00:00", "1999-12-31 00:00"], "unknown", ["= 2024", "= 1999"]),
    ("= {{ v.hour }}", ["2024-02-29T10:00:00Z", "1999-12-31T01:00:00+02:00"], "n/a", ["= 10", "= 23"]),
    ("= {{ v.split('/') }}", ["n/a", "1"], "7", ["= ['n', 'a']", "= ['1']"]),
]


@pytest.mark.parametrize(("content", "cells", "late", "expected"), KINDS)
def test_a_late_value_in_a_csv_column_changes_no_earlier_prompt(
    tmp_path: Path, content: str, cells: list[str], late: str, expected: list[str]
) -> None:
    before, recorded = csv_prompts(tmp_path, cells, content)
    assert before[: len(expected)] == expected
    after, still = csv_prompts(tmp_path, [*cells, late], content, recorded)
    assert after[: len(before)] == before
    assert still == recorded
    assert csv_prompts(tmp_path, cells, content, still) == (before, recorded)


@pytest.mark.parametrize(
    ("cells", "late", "content", "expected"),
    [
        (["1", "2"], "n/a", "{{ v }}|{{ v is string }}", "n/a|True"),
        (["1", "2"], "007", "{{ v }}|{{ v is string }}", "007|True"),
        (["1", "2"], "9223372036854775808", "{{ v }}|{{ v is string }}", "9223372036854775808|True"),
        (["1", "2"], "2.5", "{{ v }}|{{ v + 1 }}", "2.5|3.5"),
        (["1.5", "2.5"], "2", "{{ v }}|{{ v + 1 }}", "2|3"),
        (["1.5", "2.5"], "2.50", "{{ v }}|{{ v is string }}", "2.50|True"),
        (["1", "2"], '""', "<{{ v }}>{{ v is string }}", "<>True"),
        (["1", "2"], "2024-01-02T03:04:05", "{{ v }}|{{ v.year }}", "2024-01-02 03:04:05|2024"),
        (["True", "False"], "true", "{{ v }}|{{ v is string }}", "true|True"),
        (["2024-01-01", "2024-01-02"], "2023-02-29", "{{ v }}|{{ v is string }}", "2023-02-29|True"),
        (["n/a", "2"], "3", "{{ v }}|{{ v is string }}", "3|True"),
    ],
)
def test_a_value_that_does_not_fit_is_what_it_is_by_itself(
    tmp_path: Path, cells: list[str], late: str, content: str, expected: str
) -> None:
    _, recorded = csv_prompts(tmp_path, cells, content)
    assert csv_prompts(tmp_path, [*cells, late], content, recorded)[0][-1] == expected


def test_a_column_stays_text_when_the_odd_value_is_gone(tmp_path: Path) -> None:
    content = "{{ 'yes' if v else 'no' }} {{ v | tojson }}"
    before, recorded = csv_prompts(tmp_path, ["False", "True", "unknown"], content)
    assert before[0] == 'yes "False"'
    assert csv_prompts(tmp_path, ["False", "True"], content, recorded)[0] == before[:2]


def test_a_declared_type_comes_first_and_ends_the_record(tmp_path: Path) -> None:
    text, recorded = csv_prompts(tmp_path, ["1", "n/a"], "{{ v is string }}")
    assert (text, recorded["csv"]) == (["True", "True"], {"v": "text", "n": "number"})
    typed, next_ = csv_prompts(tmp_path, ["1", ""], "{{ v is string }}", recorded, types={"v": "int64"})
    assert (typed, next_["csv"]) == (["False", "False"], {"n": "number"})


def test_a_column_without_values_has_no_kind_yet(tmp_path: Path) -> None:
    _, recorded = csv_prompts(tmp_path, ["", ""], "{{ v }}{{ n }}")
    assert recorded["csv"] == {"n": "number"}
    assert csv_prompts(tmp_path, ["", "2"], "= {{ v + 1 if v }}", recorded)[0] == ["= ", "= 3"]


def test_kinds_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    found, recorded = csv_prompts(tmp_path, ["1"], "{{ v + 1 }}", {"csv": {"v": "money"}})
    assert (found, recorded["csv"]["v"]) == (["2"], "money")


def test_a_later_file_of_a_folder_changes_no_earlier_prompt(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    pipeline = make_pipeline(tmp_path, "days", params=params("= {{ v + 1 }}"))
    (folder / "1.csv").write_text("v\n1\n2\n")
    before, recorded = prompts(pipeline)
    (folder / "0.csv.gz").write_bytes(gzip.compress(b"v\n7\nn/a\n"))
    (folder / "2.tsv").write_text("v\nmany\n")
    assert prompts(pipeline, recorded)[0] == ["= 8", "template_error", *before, "template_error"]


def test_rejected_rows_and_encodings(tmp_path: Path) -> None:
    dataset = {"path": "a.csv", "bad_rows": "reject", "csv": {"encoding": "cp1252"}}
    pipeline = make_pipeline(tmp_path, dataset, params=params("{{ t }} {{ v + 1 }}"))
    (tmp_path / "a.csv").write_bytes(b"t,v\n\xfc,1\nb,2\n")
    before, recorded = prompts(pipeline)
    assert before == ["ü 2", "b 3"]
    (tmp_path / "a.csv").write_bytes(b"t,v\n\xfc,1\nx\nb,2\nc,n/a\n")
    assert prompts(pipeline, recorded)[0] == ["ü 2", "unreadable_row", "b 3", "template_error"]


UTC_TIME = dt.datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=dt.UTC)
BERLIN = pa.timestamp("us", "Europe/Berlin")
DURATIONS = [dt.timedelta(days=1, hours=2, microseconds=5), dt.timedelta(hours=-3)]
CLOCK = [dt.time(10, 0, 5, 250000), dt.time(0)]
BIG = [2**53 + 1, 2**63 - 1]
DAY = dt.date(2024, 1, 2)
MIDNIGHT = dt.datetime(2024, 1, 2)
SHOWN = "= {{ v }} {{ v | tojson }} {{ v is string }}"
TABLES: list[tuple[str, list[Any], pa.DataType | None, list[Any], pa.DataType | None]] = [
    ("whole numbers with a fraction", [1, 2], None, [1.0, 2.0, 2.5], None),
    ("whole numbers, then all floats", [1, 2], None, [1.0, 2.0], pa.float64()),
    ("floats whose fraction is gone", [1.0, 2.0], pa.float64(), [1, 2], pa.int64()),
    ("short floats", [0.1, 2.5], pa.float32(), [0.10000000149011612, 2.5, 0.1], pa.float64()),
    ("decimals of another scale", [Decimal("1.50")], None, [Decimal("1.5000"), Decimal("0.1234")], None),
    ("decimals and floats", [Decimal("1.50")], None, [1.5, 0.123], None),
    ("floats and decimals", [1.5], None, [Decimal("1.50"), Decimal("2.55")], None),
    ("dates and times", [DAY], None, [MIDNIGHT, dt.datetime(2024, 1, 3, 4)], pa.timestamp("us")),
    ("times and dates", [MIDNIGHT], pa.timestamp("us"), [DAY], pa.date32()),
    ("numbers, then text", [1, 20], None, ["1", "20", "n/a", "007"], None),
    ("text, then numbers", ["1", "20"], None, [1.0, 20.0, None], None),
    ("floats, then text", [1.5, 2.0], None, ["1.5", "2.0", "n/a"], None),
    ("decimals, then text", [Decimal("1.50")], None, ["1.50", "n/a"], None),
    ("booleans, then text", [True, False], None, ["true", "False", "unknown"], None),
    ("dates, then text", [DAY], None, ["2024-01-02", "soon"], None),
    ("times, then text", [MIDNIGHT], None, ["2024-01-02T00:00:00", "2023-02-29T00:00:00"], None),
    ("categories", ["1"], pa.dictionary(pa.int32(), pa.string()), [1], pa.int64()),
    ("lists", [[1], [2, None]], None, [[1.0], [2.0, None], [2.5]], None),
    ("maps", [[("a", 1)]], pa.map_("string", "int64"), [[("a", 1.0)]], pa.map_("string", "double")),
    ("another zone", [UTC_TIME], pa.timestamp("us", "UTC"), [UTC_TIME], BERLIN),
    ("UTC", [UTC_TIME], BERLIN, [UTC_TIME], pa.timestamp("ns", "UTC")),
    ("zones, then text", [UTC_TIME], BERLIN, [str(UTC_TIME), "n/a", "2024-01-02"], None),
    ("text, then zones", [str(UTC_TIME)], None, [UTC_TIME], pa.timestamp("us", "UTC")),
    ("zones in a list", [[UTC_TIME]], pa.list_(BERLIN), [[UTC_TIME]], pa.list_(pa.timestamp("us", "UTC"))),
    ("durations in nanoseconds", DURATIONS, pa.duration("us"), DURATIONS, pa.duration("ns")),
    ("nanoseconds no more", DURATIONS, pa.duration("ns"), DURATIONS, pa.duration("us")),
    ("durations, then text", DURATIONS, pa.duration("us"), [*map(str, DURATIONS), "n/a"], None),
    ("as pandas prints them", DURATIONS, pa.duration("ns"), [str(pd.Timedelta(one)) for one in DURATIONS], None),
    ("text, then durations", list(map(str, DURATIONS)), None, DURATIONS, pa.duration("us")),
    ("times of day, then text", CLOCK, pa.time64("us"), [*map(str, CLOCK), "n/a", "25:00:00"], None),
    ("text, then times of day", list(map(str, CLOCK)), None, CLOCK, pa.time64("ns")),
    ("large numbers, then text", BIG, pa.uint64(), [*map(str, BIG), "n/a"], None),
    ("large numbers as decimals", BIG, pa.int64(), list(map(Decimal, BIG)), pa.decimal128(22, 2)),
    ("text, then bytes", ["é", "x"], None, ["é".encode(), b"x", b"\xff"], None),
    ("text, then large bytes", ["é"], pa.large_string(), ["é".encode()], pa.large_binary()),
    ("text, then bytes of a size", ["ab"], None, [b"ab"], pa.binary(2)),
    ("a new key", [{"a": 1}], None, [{"a": 1}, {"a": 2, "b": 3}], None),
    ("a key less", [{"a": 1, "b": None}, {"a": 2, "b": 3}], None, [{"a": 1}], None),
    ("keys in another order", [{"a": 1, "b": 2}], None, [{"b": 2, "a": 1}], None),
    ("a key within a list", [[{"a": 1}]], None, [[{"a": 1.0, "b": None}], [{"a": 1.5, "b": "x"}]], None),
]


@pytest.mark.parametrize(("case", "first", "type_", "later", "now"), TABLES, ids=[case[0] for case in TABLES])
def test_a_table_that_is_written_again_with_other_types_changes_no_prompt(
    tmp_path: Path, case: str, first: list[Any], type_: pa.DataType | None, later: list[Any], now: Any
) -> None:
    in_file = make_pipeline(tmp_path, "a.parquet", params=params(SHOWN))
    as_asset = make_pipeline(tmp_path, {"asset": "raw"}, params=params(SHOWN))
    first_table, later_table = (pa.table({"v": pa.array(*of)}) for of in ((first, type_), (later, now)))
    pq.write_table(first_table, tmp_path / "a.parquet")
    before, recorded = prompts(in_file)
    assert prompts(as_asset, table=first_table)[0] == before
    pq.write_table(later_table, tmp_path / "a.parquet")
    common = min(len(first), len(later))
    assert prompts(in_file)[0][:common] != before[:common]  # so the record is what keeps them
    for after, still in (
        prompts(in_file, recorded),
        prompts(as_asset, {"table": recorded["parquet"]}, later_table),
    ):
        assert after[:common] == before[:common]
        assert list(still.values()) == list(recorded.values())


FRAMES: list[tuple[list[Any], list[Any]]] = [
    ([1, 2], ["1", "2", "unknown"]),
    (["1", "2", "unknown"], [1, 2]),
    ([1.5, 2.5], ["1.5", "2.5", "unknown"]),
    ([True, False], ["True", "False", "unknown"]),
    ([1, 2], [1, 2, None]),
    ([1, 2, None], [1, 2]),
    ([1, 2], [1, 2, 2.5]),
    ([1, None], [1, "n/a"]),
    ([1, "n/a"], [1, None]),
    ([1.0, 2.5], [1.0, 2.5, "n/a"]),
    ([True, False], [True, False, None]),
    ([True, False], [True, False, "unknown"]),
    ([MIDNIGHT], [MIDNIGHT, None]),
    ([UTC_TIME], [UTC_TIME, None]),
    ([pd.Timestamp(UTC_TIME)], [pd.Timestamp(UTC_TIME), pd.Timestamp(UTC_TIME).tz_convert("Europe/Berlin")]),
    (DURATIONS, [*DURATIONS, None]),
    (CLOCK, [*CLOCK, None]),
    (BIG, [*BIG, "n/a"]),
    (BIG, [*BIG, 2**63]),
    (BIG, [*BIG, 2**70]),
    ([1, 2], [1, 2, 2**63]),
    ([Decimal("1.50")], [Decimal("1.50"), Decimal("1.123")]),
    ([{"a": 1}], [{"a": 1}, {"b": 2.5}]),
    (["é", "x"], ["é".encode(), b"x", b"\xff"]),
]


@pytest.mark.parametrize(("first", "later"), FRAMES, ids=map(str, FRAMES))
def test_a_row_more_or_less_in_a_frame_changes_no_prompt(
    tmp_path: Path, first: list[Any], later: list[Any]
) -> None:
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("= {{ v }} {{ v | tojson }}"))
    before, recorded = prompts(pipeline, table=pd.DataFrame({"v": first}))
    after, _ = prompts(pipeline, recorded, pd.DataFrame({"v": later}))
    common = 1 if "n/a" in later or "n/a" in first else min(len(first), len(later))
    assert after[:common] == before[:common]


def test_a_time_keeps_the_zone_on_record_whatever_rows_are_beside_it(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("= {{ v }}"))
    utc = pd.Timestamp(UTC_TIME)
    berlin = utc.tz_convert("Europe/Berlin")
    _, recorded = prompts(pipeline, table=pd.DataFrame({"v": [utc]}))
    together, still = prompts(pipeline, recorded, pd.DataFrame({"v": [utc, berlin]}))
    assert together == [f"= {UTC_TIME}"] * 2
    assert prompts(pipeline, still, pd.DataFrame({"v": [berlin]}))[0] == together[1:]


def test_large_numbers_that_have_lost_digits_are_what_they_are(tmp_path: Path) -> None:
    """No one can tell which numbers they were."""
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("= {{ v }}"))
    _, recorded = prompts(pipeline, table=pd.DataFrame({"v": [1, *BIG]}))
    after, _ = prompts(pipeline, recorded, pd.DataFrame({"v": [1, *BIG, None]}))
    assert after == ["= 1", "= 9007199254740992.0", "= 9.223372036854776e+18", "= "]


def test_a_zone_or_fraction_that_python_lacks_changes_nothing(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, "a.parquet", params=params("= {{ v }}"))
    texts = ["2024-01-02T03:04:05.123456789", "9999-12-31T23:59:59-02:00", "0001-01-01T00:00:00+00:00"]
    pq.write_table(pa.table({"v": texts}), tmp_path / "a.parquet")
    for kind in ("timestamp", "timestamp UTC", "timestamp Nowhere/Land", "timestamp -12:00", "duration", "time"):
        found, _ = prompts(pipeline, {"parquet": {"v": kind}})
        assert found[0] == f"= {texts[0]}" and len(found) == 3


def test_files_of_a_folder_keep_the_types_that_they_had(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    pipeline = make_pipeline(tmp_path, "days", params=params("= {{ v }}"))

    def write(name: str, values: list[Any], type_: pa.DataType) -> None:
        pq.write_table(pa.table({"v": pa.array(values, type_)}), folder / name)

    for number in (1, 2):
        write(f"{number}.parquet", [number], pa.int64())
    write("3.parquet", [3], pa.float64())
    before, recorded = prompts(pipeline)
    assert before == ["= 1", "= 2", "= 3.0"]
    digests = recorded.pop("parquet contents")
    assert recorded == {"parquet": {"v": "integer"}, "parquet/3.parquet": {"v": "float"}}
    assert list(digests) == ["parquet/3.parquet"]
    recorded["parquet contents"] = digests
    write("1.parquet", [1, 1.5], pa.float64())
    write("3.parquet", [3], pa.int64())
    write("4.parquet", [4, 4.5], pa.float64())
    after, still = prompts(pipeline, recorded)
    assert after == ["= 1", "= 1.5", "= 2", "= 3.0", "= 4", "= 4.5"]
    assert still.pop("parquet contents").keys() == recorded.pop("parquet contents").keys()
    assert still == recorded


@pytest.mark.parametrize(
    "names", [["9", "0", "5", "7"], ["b", "a", "c", "d"], ["d", "c", "b", "a"], ["b", "c", "d", "e"]]
)
def test_prompts_do_not_depend_on_the_names_of_files(tmp_path: Path, names: list[str]) -> None:
    tables = {
        "a": ([1], pa.int64()),
        "b": ([2.0], pa.float64()),
        "c": ([3.0], pa.float64()),
        "d": ([4], pa.int64()),
    }
    folder, pipeline = tmp_path / "days", make_pipeline(tmp_path, "days", params=params("= {{ v }}"))
    folder.mkdir()
    for name, (values, type_) in tables.items():
        pq.write_table(pa.table({"v": pa.array(values, type_)}), folder / f"{name}.parquet")
    before, recorded = prompts(pipeline)
    assert before == ["= 1", "= 2.0", "= 3.0", "= 4"]
    for name, now in zip(tables, names, strict=True):
        (folder / f"{name}.parquet").rename(folder / f"{now}.new")
    for now in names:
        (folder / f"{now}.new").rename(folder / f"{now}.parquet")
    after, still = prompts(pipeline, recorded)
    assert sorted(after) == sorted(before)
    pq.write_table(pa.table({"v": pa.array([5.0])}), folder / "-.parquet")
    with_more, still = prompts(pipeline, still)
    assert with_more == ["= 5", *after]  # whatever the names are
    for table in ("b", "c"):  # the record follows the file under its new name
        path = folder / f"{names[list(tables).index(table)]}.parquet"
        pq.write_table(pa.table({"v": pa.array([int(tables[table][0][0])])}), path)
    assert prompts(pipeline, still)[0] == with_more


def test_lines_and_dicts_need_no_record(tmp_path: Path) -> None:
    """Each of their values has the kind that it has by itself."""
    values = [1, 1.0, 2.5, True, "x", None, [1], {"a": 1}, 2**63, "2024-01-02T03:04:05"]
    content = "= {{ v }} {{ v | tojson }}"
    together, alone = [], []
    for rows in ([*values], *([value] for value in values)):
        found = []
        (tmp_path / "a.jsonl").write_bytes(b"".join(orjson.dumps({"v": value}) + b"\n" for value in rows))
        for dataset, table in (("a.jsonl", None), ({"asset": "raw"}, [{"v": value} for value in rows])):
            texts, recorded = prompts(make_pipeline(tmp_path, dataset, params=params(content)), table=table)
            assert recorded == {}
            found.append(texts)
        if len(rows) > 1:
            together = found
        else:
            alone.append([texts[0] for texts in found])
    assert [list(pair) for pair in zip(*together, strict=True)] == alone


def test_the_next_build_sends_only_the_new_row(world: World) -> None:
    path = world.folder / "rows.csv"
    path.write_text("id,stars\na,1\nb,2\n")
    pipeline = world.pipeline(dataset={"path": "rows.csv", "key": "id"}, params=params("Is {{ stars == 1 }}"))
    first = world.build(pipeline)
    assert (first.written, first.mixed_columns) == (2, [])
    world.submit(pipeline)
    path.write_text("id,stars\na,1\nb,2\nc,n/a\n")
    report = world.build(pipeline)
    assert (report.in_flight, report.written, report.mixed_columns) == (2, 0, [])  # "n/a" == 1 is false, as for b
    manifest = world.submission_folder(pipeline, report) / "manifest.json"
    assert json.loads(manifest.read_text())["column_kinds"] == {"csv": {"id": "text", "stars": "number"}}
    manifest.unlink()  # then the one before is the best that is known
    path.write_text("id,stars\nc,n/a\na,1\n")
    report = world.build(pipeline)
    assert (report.in_flight, report.written) == (2, 0)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_objects_of_a_new_file_have_the_keys_of_that_file(tmp_path: Path, is_reversed: bool) -> None:
    folder, pipeline = tmp_path / "days", make_pipeline(tmp_path, "days", params=params("{{ v | tojson }}"))
    folder.mkdir()
    files: list[tuple[Any, str]] = [
        ([{"a": 1, "b": None}], '{"a": 1, "b": null}'),
        ([{"a": 1, "c": 2}], '{"a": 1, "c": 2}'),
        ([{"a": 1}], '{"a": 1}'),
    ]
    found, recorded = [], None
    for day, (values, prompt) in enumerate(reversed(files) if is_reversed else files):
        column = pa.array(values, pa.struct([(name, pa.int64()) for name in values[0]]))
        lists = pa.array([[value] for value in values], pa.list_(column.type))
        pq.write_table(pa.table({"v": column, "l": lists}), folder / f"{day}.parquet")
        found.append(prompt)
        for _ in range(2):  # also once it is on record
            after, recorded = prompts(pipeline, recorded)
            assert after == found
    (folder / "0.parquet").rename(folder / "9.parquet")
    assert prompts(pipeline, recorded)[0] == [*found[1:], found[0]]
    # A file that is written again, with a key more in another row and without one that was null, prints as before.
    more = pa.array([{"a": 1, "d": None}, {"a": 2, "d": 5}])
    pq.write_table(pa.table({"v": more, "l": pa.array([None, None], pa.list_(more.type))}), folder / "1.parquet")
    known = files[1][1].replace("2", "null")
    assert prompts(pipeline, recorded)[0][:2] == [known, known.replace("1", "2").replace("}", ', "d": 5}')]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (pa.array([5]), pa.array([Decimal("7.125")], pa.decimal128(20, 3))),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([Decimal("1.50")], pa.decimal128(9, 2))),
        (pa.array([1.5], pa.float16()), pa.array([Decimal("7.25")], pa.decimal128(9, 2))),
        (pa.array([[5]]), pa.array([[Decimal("7.125")]], pa.list_(pa.decimal128(20, 3)))),
        (pa.array([{"a": 5}]), pa.array([{"a": Decimal("7.125")}], pa.struct([("a", pa.decimal128(20, 3))]))),
        (pa.array([5]), pa.array([Decimal("7.125")], pa.decimal256(60, 50))),
        (pa.array([2**63 + 1], pa.uint64()), pa.array([-3])),
        (pa.array([2**62]), pa.array([1.5])),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_later_file_with_other_numbers_rejects_no_earlier_row(
    tmp_path: Path, first: pa.Array, later: pa.Array, is_reversed: bool
) -> None:
    folder, pipeline = tmp_path / "days", make_pipeline(tmp_path, "days", params=params("= {{ v }}"))
    folder.mkdir()
    first, later = (later, first) if is_reversed else (first, later)
    pq.write_table(pa.table({"v": first}), folder / "1.parquet")
    before, recorded = prompts(pipeline)
    pq.write_table(pa.table({"v": later}), folder / "2.parquet")
    assert prompts(pipeline, recorded)[0][0] == before[0]
    numbers = [value.as_py() for array in (first, later) for value in array]
    assert read(tmp_path, "days")["v"].to_pylist() == numbers  # results hold them all


def test_a_column_of_bytes_may_become_text(tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path, {"asset": "raw"}, params=params("{{ v }}"))
    before, recorded = prompts(pipeline, table=pd.DataFrame({"v": [b"a"]}))
    assert before == ["template_error"]
    assert prompts(pipeline, recorded, pd.DataFrame({"v": ["a"]}))[0] == ["a"]
