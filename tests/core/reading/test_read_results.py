"""`read_results`, on tables of real runs and with every library that it returns frames of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch_assets
from batch_assets import read_results
from batch_assets.core.errors import DamagedFileError, SettingsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.open_root import open_root
from batch_assets.core.reading import frames
from batch_assets.core.reading.tables import NoResultsError
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from tests.documentation import page

from ..support import BATCHES, World, as_new, environment, params, texts

_CREATE = {"method": "POST", "path": BATCHES}
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"type": "string", "enum": ["glad", "sad", "odd"]},
        "stars": {"type": "integer"},
        "is_urgent": {"type": "boolean"},
        "topics": {"type": "array", "items": {"type": "string", "enum": ["price", "size"]}},
    },
    "required": ["mood", "stars", "is_urgent", "topics"],
    "additionalProperties": False,
}
TYPED = [*SCHEMA["properties"]]  # type: ignore[misc]
LEAN = ["id", "text", "is_ok", *TYPED]
DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture(scope="module")
def root(shared_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A root with `asked`, some of whose requests fail, `plain` without typed columns, and `daily` in two days."""
    folder = tmp_path_factory.mktemp("read")
    settings = Settings.from_env(environment(as_new(shared_emulator).url, folder / "output"))
    with open_root(settings) as opened:
        world = World(shared_emulator, folder, opened)
        shares = {"refusal": 0.2, "permission_error": 0.2, "malformed": 0.2}
        shared_emulator.faults([{"match": _CREATE, "action": {"error_mix": shares}}])
        world.run(world.pipeline(texts(40), output_schema=SCHEMA))
        shared_emulator.reset_faults()
        world.run(world.pipeline(texts(2), name="plain"))
        for day in ("2026-01-02", "2026-01-01"):
            pipeline = world.pipeline(texts(3, day), name="daily", output_schema=SCHEMA)
            world.send(pipeline, day)
            world.finish(pipeline, day)
        world.build(world.pipeline(texts(1), name="new"))
        yield settings.root


def test_the_default_is_a_lean_frame_of_pandas(root: str) -> None:
    table = read_results("asked", root=root)
    assert isinstance(table, pd.DataFrame) and list(table.columns) == LEAN
    types = {name: str(table[name].dtype) for name in LEAN}
    assert (types["stars"], types["is_urgent"], types["is_ok"]) == ("Int64", "boolean", "boolean")
    assert list(table["mood"].cat.categories) == ["glad", "sad", "odd"], "in the order of the schema"
    assert table["stars"].isna().any() and table["stars"].dropna().map(type).eq(int).all()
    usable = table[table["is_ok"]]
    assert 0 < len(usable) < 40 == len(table) and usable[TYPED].notna().all(axis=None)
    assert list(read_results("plain", root=root).columns) == ["id", "text", "is_ok", "response_text"]


def test_all_columns_are_those_of_the_file_with_dictionaries(root: str) -> None:
    stored = pq.read_table(Path(root, "asked", "results", "results.parquet"))
    table = read_results("asked", columns="all", as_="arrow", root=root)
    assert table.column_names == stored.column_names
    changed = {field.name for field in table.schema if field.type != stored.schema.field(field.name).type}
    assert changed == {"result_type", "stop_reason", "error_type", "batch_id"}
    assert {table.schema.field(name).type for name in changed} == {DICTIONARY}
    assert table.to_pylist() == stored.to_pylist()


def test_named_columns_come_in_the_order_of_their_names(root: str) -> None:
    table = read_results("asked", columns=["cost_usd", "attempts", "id", "batch_id"], root=root)
    assert list(table.columns) == ["cost_usd", "attempts", "id", "batch_id"]
    assert str(table["attempts"].dtype) == "Int32" and str(table["batch_id"].dtype) == "category"
    assert list(read_results("asked", columns="id", root=root).columns) == ["id"]  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", ["lean", "all"])
def test_polars_and_duckdb_have_the_same_values(root: str, columns: Any) -> None:
    expected = read_results("asked", columns=columns, as_="arrow", root=root).to_pylist()
    frame = read_results("asked", columns=columns, as_="polars", root=root)
    assert isinstance(frame, pl.DataFrame) and frame.schema["stars"] == pl.Int64
    assert frame.schema["mood"] in (pl.Categorical, pl.Enum(["glad", "sad", "odd"]))
    assert frame.to_dicts() == expected
    relation = read_results("asked", columns=columns, as_="duckdb", root=root)
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    assert [(row["mood"], row["topics"]) for row in rows] == [(row["mood"], row["topics"]) for row in expected]


def test_partitions_follow_each_other(root: str) -> None:
    table = read_results("daily", root=root)
    assert list(table.columns) == [*LEAN, "partition"]
    assert table["partition"].tolist() == ["2026-01-01"] * 3 + ["2026-01-02"] * 3
    assert str(table["partition"].dtype) == "category"
    assert table["id"].str.startswith(table["partition"].iloc[0]).tolist() == [True] * 3 + [False] * 3
    for wanted in ("2026-01-02", ["2026-01-02"]):
        assert read_results("daily", wanted, root=root)["id"].tolist() == table["id"].tolist()[3:]
    assert len(read_results("daily", ["2026-01-02", "2026-01-01"], columns=["id"], root=root)) == 6
    assert list(read_results("daily", columns=["partition"], root=root).columns) == ["partition"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"name": "asket"},
            r"no results of 'asket' under .* \(did you mean 'asked'\?\); it has results of asked, ",
        ),
        ({"name": "new"}, "new has no results under .* yet: its first table is written when"),
        ({"name": "asked", "partitions": "2026-01-01"}, "asked has no partitions: leave `partitions` out"),
        ({"name": "daily", "partitions": []}, "no partition of daily is named"),
        ({"name": "daily", "partitions": "2026-01-03"}, r"did you mean.*its partitions: 2026-01-01, 2026-01-02"),
        ({"name": "asked", "columns": ["mod"]}, r"no column 'mod' \(did you mean 'mood'\?\); their columns: id, "),
        ({"name": "asked", "columns": ["partition"]}, "no column 'partition'"),
        ({"name": "asked", "columns": []}, "no column of asked is named: leave `columns` out"),
        ({"name": "asked", "columns": ()}, "no column of asked is named: leave `columns` out"),
    ],
)
def test_errors_name_what_there_is(root: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(NoResultsError, match=problem):
        read_results(**arguments, root=root)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": None}, "name is None: give the name of a pipeline, as text"),
        ({"name": 5}, "name is 5: give the name"),
        ({"partitions": 5}, "partitions is 5: give a key, or a list of keys"),
        ({"partitions": ["2026-01-01", 5]}, r"partitions is \['2026-01-01', 5\]: give a key"),
        ({"columns": None}, "columns is None: give 'lean', 'all', or a list of names"),
        ({"columns": [1]}, r"columns is \[1\]: give 'lean'"),
        ({"as_": None}, "as_ is None: give 'pandas', 'polars', 'arrow' or 'duckdb'"),
        ({"root": 5}, "root is 5: give a folder or a URL"),
    ],
)
def test_an_argument_of_another_kind_is_named(root: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_results(**({"name": "daily", "root": root} | arguments))


def test_an_unknown_or_missing_library_is_named(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SettingsError, match=r"did you mean 'polars'\?\): use one of pandas, polars, arrow, duckdb"
    ):
        read_results("asked", as_="polar", root=root)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "duckdb", None)  # as if it were not installed
    with pytest.raises(SettingsError, match=r"pip install 'batch-assets\[duckdb\]'"):
        frames.converter("duckdb")


def test_duckdb_gets_no_columns_that_it_does_not_tell_apart(world: World) -> None:
    dataset = {"path": "rows.jsonl", "key": "id", "columns": {"text": "COST_USD"}}
    world.run(world.pipeline(texts(2), dataset=dataset))
    root = world.root.settings.root
    read = partial(read_results, "asked", root=root, as_="duckdb")
    with pytest.raises(
        SettingsError, match="the columns 'COST_USD' and 'cost_usd' apart: name those that you need"
    ):
        read(columns="all")
    assert list(read_results("asked", root=root, columns="all")["cost_usd"].map(float).gt(0)) == [True, True]
    ((paid,),) = read(columns=["id", "cost_usd"]).aggregate("sum(cost_usd)").fetchall()
    assert paid > 0
    assert read().columns == ["id", "COST_USD", "is_ok", "response_text"]


def test_only_the_columns_that_are_wanted_are_read(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(root, "asked", "results", "results.parquet")
    read = 0

    class Counting:
        def __init__(self, file: BinaryIO) -> None:
            self._file = file

        def read(self, *size: int) -> bytes:
            nonlocal read
            content = self._file.read(*size)
            read += len(content)
            return content

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    opened = Storage.open
    monkeypatch.setattr(Storage, "open", lambda self, *parts: Counting(opened(self, *parts)))
    read_results("asked", columns=["id", "mood"], root=root)
    of_two, read = read, 0
    read_results("asked", columns="all", root=root)
    metadata = pq.read_metadata(path)
    footer = metadata.serialized_size + 8
    stored = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    wanted = sum(chunk.total_compressed_size for chunk in stored if chunk.path_in_schema in ("id", "mood"))
    assert wanted <= of_two <= wanted + 2 * max(footer, 64 << 10)  # Arrow reads the end of a file at once
    assert read - of_two >= sum(chunk.total_compressed_size for chunk in stored) - wanted - footer


def test_a_table_of_an_earlier_version_and_one_of_another_schema_are_read(root: str, tmp_path: Path) -> None:
    days = {}
    for day in ("2026-01-01", "2026-01-02"):
        days[day] = tmp_path / "daily" / "results" / f"partition={day}" / "results.parquet"
        days[day].parent.mkdir(parents=True)
        stored = pq.read_table(Path(root, *days[day].relative_to(tmp_path).parts))
        pq.write_table(stored.drop_columns(["is_ok", "topics"]) if day.endswith("1") else stored, days[day])
    table = read_results("daily", root=tmp_path)
    assert list(table.columns) == ["id", "text", "is_ok", "mood", "stars", "is_urgent", "partition", "topics"]
    assert table["is_ok"].all() and table["topics"].isna().tolist() == [True] * 3 + [False] * 3
    every = read_results("daily", "2026-01-01", columns="all", root=tmp_path)
    assert list(every.columns).index("is_ok") == list(every.columns).index("result_type") + 1

    own = stored.set_column(stored.column_names.index("text"), "Is_OK", stored["text"]).drop_columns(["is_ok"])
    pq.write_table(own, days["2026-01-02"])
    assert list(read_results("daily", "2026-01-02", root=tmp_path).columns) == ["id", "Is_OK", *TYPED, "partition"]

    other = stored.set_column(stored.column_names.index("stars"), "stars", pa.array([["a"]] * 3))
    pq.write_table(other, days["2026-01-02"])
    with pytest.raises(
        NoResultsError, match="'stars' of daily has different types: int64 in the partition '2026-0"
    ):
        read_results("daily", root=tmp_path)
    days["2026-01-02"].write_bytes(b"spoiled")
    with pytest.raises(DamagedFileError, match=str(days["2026-01-02"])):
        read_results("daily", root=tmp_path)
    days["2026-01-02"].unlink()
    assert len(read_results("daily", root=tmp_path)) == 3
    with pytest.raises(NoResultsError, match="no table of the partition '2026-01-02' yet"):
        read_results("daily", "2026-01-02", root=tmp_path)


def test_the_root_is_that_of_the_commands(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "emulated").symlink_to(root)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(read_results("asked")) == 40, "the only root of the project"
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "other"))
    with pytest.raises(NoResultsError, match=f"under {tmp_path}/other, nor of another pipeline"):
        read_results("asked")
    assert len(read_results("asked", root="../data/emulated")) == 40, "from the current folder"


def test_a_root_on_an_object_store_needs_no_ledger(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{root}/daily/results", "/read/root/daily/results", recursive=True)
    monkeypatch.setenv("BATCH_ASSETS_ROOT", "memory://read/root")
    assert read_results("daily").equals(read_results("daily", root=root))
    assert len(read_results("daily", "2026-01-01", root="memory://read/root")) == 3


def test_neither_dagster_nor_pandas_is_imported(root: str) -> None:
    code = (
        "import sys, batch_assets\n"
        "assert 'pyarrow' not in sys.modules\n"
        f"table = batch_assets.read_results('asked', as_='arrow', root={root!r})\n"
        "assert table.num_rows == 40\n"
        "print(sorted({'dagster', 'pandas', 'anthropic', 'sqlalchemy', 'duckdb', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_example_of_the_docs_counts_an_answer_of_several_partitions_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three partitions have equal rows, and one of them asks again: these two tables have different answers."""
    before_all = world.emulator.bill()["picodollars"]  # other tests use the same emulator
    rows = texts(2) | {"again": "the text of row 0"}
    for day, more in (("2026-01-01", {"a": "a"}), ("2026-01-02", {"b": "b"}), ("2026-01-03", {})):
        pipeline = world.pipeline(rows | more, name="daily_reviews")
        world.send(pipeline, day)
        world.finish(pipeline, day)
    world.build(pipeline, day, refresh=True)
    world.submit(pipeline, day)
    world.finish(pipeline, day)
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(world.folder / "output"))
    (block,) = [block for block in page("docs/partitions.md").blocks() if "drop_duplicates" in block.text]
    names: dict[str, Any] = {"batch_assets": batch_assets}
    before, _, last = block.text.strip().rpartition("\n")
    exec(compile(before, block.location, "exec"), names)
    paid = (world.emulator.bill()["picodollars"] - before_all) / 1e12
    assert eval(last, names) == pytest.approx(paid)
    assert names["costs"]["cost_usd"].sum() > paid * 1.2


def test_a_table_without_typed_columns_has_its_tool_calls(world: World) -> None:
    tool = {"name": "look_up", "input_schema": {"type": "object", "properties": {"id": {"type": "string"}}}}
    world.run(world.pipeline(texts(2), params=params(tools=[tool])))
    lean = read_results("asked", root=world.root.settings.root)
    assert list(lean.columns) == ["id", "text", "is_ok", "response_text", "tool_calls"]


def test_values_in_lists_and_structs_are_exact_beside_nulls(root: str, tmp_path: Path) -> None:
    large = 2**53 + 1
    nested = {
        "struct": pa.array(
            [{"account": large, "inner": {"count": 2**63 - 1}}, {"account": None, "inner": None}, None]
        ),
        "list": pa.array([[large, None], [], None]),
        "unsigned": pa.array([[2**64 - 1, None], [], None], pa.list_(pa.uint64())),
        "lists": pa.array([[[large, None], None], [], None]),
        "structs": pa.array([[{"account": large}, {"account": None}, None], [], None]),
        "pairs": pa.array([[large, None], [1, 2], None], pa.list_(pa.int64(), 2)),
        "map": pa.array([[("a", large), ("b", None)], [], None], pa.map_(pa.string(), pa.int64())),
        "numbers": pa.array([[0.5, None], [], None]),
        "booleans": pa.array([[True, None], [], None]),
        "times": pa.array([[datetime(2026, 1, 2, 3, 4), None], [], None]),
        "amounts": pa.array([[Decimal("0.10"), None], [], None]),
    }
    stored = pq.read_table(Path(root, "plain", "results", "results.parquet"))
    path = tmp_path / "plain" / "results" / "results.parquet"
    path.parent.mkdir(parents=True)
    table = pa.concat_tables([stored, stored]).slice(0, 3)
    for name, column in nested.items():
        table = table.append_column(name, column)
    pq.write_table(table, path)
    frame = read_results("plain", columns=["id", *nested], root=tmp_path)
    assert list(frame.columns) == ["id", *nested]
    for name, column in nested.items():
        assert repr(list(frame[name])) == repr(column.to_pylist()), name
    assert repr(list(read_results("plain", columns=["list"], root=tmp_path)["list"])) == repr(
        nested["list"].to_pylist()
    )
    as_mappings = {"map": [{"a": large, "b": None}, {}, None]}
    polars = read_results("plain", columns=[*nested], as_="polars", root=tmp_path)
    assert all(polars[name].to_list() == as_mappings.get(name, nested[name].to_pylist()) for name in nested)
    relation = read_results("plain", columns=[*nested], as_="duckdb", root=tmp_path)
    values = dict(zip(relation.columns, map(list, zip(*relation.fetchall(), strict=True)), strict=True))
    as_mappings["pairs"] = [(large, None), (1, 2), None]
    assert all(values[name] == as_mappings.get(name, nested[name].to_pylist()) for name in nested)


def test_no_rows_have_nested_columns(root: str, tmp_path: Path) -> None:
    stored = pq.read_table(Path(root, "asked", "results", "results.parquet"))
    path = tmp_path / "asked" / "results" / "results.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(stored.slice(0, 0), path)
    frame = read_results("asked", root=tmp_path)
    assert list(frame.columns) == LEAN and len(frame) == 0 and frame["topics"].dtype == object
