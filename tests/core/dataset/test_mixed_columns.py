"""A column that is text because of a few values is named, with the first of them and what to do."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.mixed_columns import MixedColumn

from ..support import World, make_pipeline, params


def mixed(folder: Path, dataset: Any = "a.csv", **more: Any) -> list[MixedColumn]:
    with Dataset(make_pipeline(folder, dataset), **more) as opened:
        return opened.mixed_columns


@pytest.mark.parametrize(
    ("cells", "type_", "values", "misfits", "first"),
    [
        (["1", "2", "n/a"], "int64", 3, 1, "n/a"),
        (["1", "n/a"], None, 0, 0, ""),  # which of the two is odd?
        (["1"] * 18 + ["", "?", "?"], "int64", 20, 2, "?"),
        (["1"] * 18 + ["?"] * 3, None, 0, 0, ""),
        (["n/a", *["1.5"] * 5000], "double", 5001, 1, "n/a"),
        ([*["1.5"] * 5000, "2"], "double", 5001, 1, "2"),
        (["True", "False", "False", "false"], "bool", 4, 1, "false"),
        (["2024-01-01"] * 3 + ["2023-02-29"], "date32[day]", 4, 1, "2023-02-29"),
        (["2024-01-01T10:00:00"] * 20 + ["unknown"], "timestamp[us]", 21, 1, "unknown"),
        (["2024-01-01T10:00:00Z"] * 20 + ["unknown"], "timestamp[us, tz=UTC]", 21, 1, "unknown"),
        (["a", "b", "c", "1"], None, 0, 0, ""),
        (["1", "2", "3"], None, 0, 0, ""),
        (["", "", ""], None, 0, 0, ""),
    ],
)
def test_only_a_small_share_is_worth_a_word(
    tmp_path: Path, cells: list[str], type_: str | None, values: int, misfits: int, first: str
) -> None:
    (tmp_path / "a.csv").write_text("v,n\n" + "".join(f"{cell},0\n" for cell in cells))
    found = [(str(one.type), one.values, one.misfits, one.first, one.location) for one in mixed(tmp_path)]
    place = f"{tmp_path}/a.csv, line {cells.index(first) + 2}" if type_ else ""
    assert found == ([(type_, values, misfits, first, place)] if type_ else [])


@pytest.mark.parametrize(
    ("content", "csv", "line"),
    [
        ('v,t\n\n1,"a\nb"\r\n2,""""\n\n\n3,x\nn/a,x\n', {}, 9),
        ("sep=;\nv;t\n1;a\n2;b\nn/a;c\n", {}, 5),
        ("a report\nof a day\nv,t\n1,a\n2,b\nn/a,c\n", {"skip": 2}, 6),
        ("1,a\n2,b\nn/a,c\n", {"header": ["v", "t"]}, 3),
        ("v,t\r1,'a,\r'\r2,b\rn/a,c\r", {"quote": "'"}, 5),
        ('v,t\n1,"\n2,b\nn/a,c\n', {"quote": "none"}, 4),
        ('v,t\n1,"a\\"\n"\n2,b\nn/a,c\n', {"escape": "\\"}, 5),
        ("v,t\n1," + "a" * 200_000 + "\n2,b\nn/a,c\n", {}, 4),
    ],
)
def test_the_line_of_the_first_value(tmp_path: Path, content: str, csv: dict[str, Any], line: int) -> None:
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(content.encode()))
    for bad_rows in ("refuse", "reject"):
        (found,) = mixed(tmp_path, {"path": "a.csv.bz2", "csv": csv, "bad_rows": bad_rows})
        assert (found.column, found.first) == ("v", "n/a")
        assert found.location == f"{tmp_path}/a.csv.bz2, line {line}"


def test_the_values_of_all_files_count(tmp_path: Path) -> None:
    for name, cells in (("1", "5\n6\n"), ("2", "7\nn/a\n8\n"), ("3", "9\n")):
        (tmp_path / f"{name}.csv").write_text(f"v\n{cells}")
    (found,) = mixed(tmp_path, ".")
    assert (found.values, found.misfits) == (6, 1)
    assert found.as_text == (
        "The column 'v' is read as text, because 1 of 6 values is not a whole number: first 'n/a' "
        f"({tmp_path}/2.csv, line 3). It stays text when these values are gone. To read it as whole numbers, "
        "leave their cells empty or name them in dataset.csv.null_values, and set dataset.types: {v: int64}"
    )
    for dataset in (
        {"path": ".", "types": {"v": "string"}},
        {"path": ".", "csv": {"null_values": ["n/a"]}},
        {"path": ".", "csv": {"null_values": ["n/a"]}, "types": {"v": "int64"}},
    ):
        assert mixed(tmp_path, dataset) == []
    assert mixed(tmp_path, ".", recorded={"csv": {"v": "text"}}) == []


def test_texts_that_mean_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('v,t\nn/a,n/a\n2,"n/a"\n?,x\n')
    csv = {"path": "a.csv", "csv": {"null_values": ["n/a", "?"]}}
    with Dataset(make_pipeline(tmp_path, csv)) as dataset:
        (rows,) = dataset.rows(["v", "t"])
        assert rows.table.to_pydict() == {"v": [None, 2, None], "t": [None, "n/a", "x"]}


def test_the_report_names_them_once(world: World) -> None:
    (world.folder / "rows.csv").write_text("id,stars\na,1\nb,2\nc,n/a\n")
    pipeline = world.pipeline(dataset={"path": "rows.csv", "key": "id"}, params=params("Is {{ stars }}"))
    assert [mixed.column for mixed in world.build(pipeline).mixed_columns] == ["stars"]
    assert world.build(pipeline).mixed_columns == []
