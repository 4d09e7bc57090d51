"""JSON Lines and Parquet: types, invalid text, errors that name the line, memory bounded by a block."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.readers import BLOCK_BYTES
from batch_assets.core.errors import DatasetError

from ..support import World, params, read


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("lines", "type_", "values"),
    [
        (['{"v":1}', '{"v":2}'], pa.int64(), [1, 2]),
        (['{"v":1}', '{"v":2.5}'], pa.float64(), [1.0, 2.5]),
        (['{"v":1}', "", '{"w":2}'], pa.int64(), [1, None]),
        (['{"v":1}', '{"v":"x"}'], pa.string(), ["1", "x"]),
        (['{"v":true}', '{"v":"x"}', '{"v":{"a":[1]}}'], pa.string(), ["true", "x", '{"a":[1]}']),
        (['{"v":1.5}', '{"v":true}'], pa.string(), ["1.5", "true"]),
        (['{"v":[1.5,true]}', '{"v":[2]}'], pa.string(), ["[1.5,true]", "[2]"]),
        (['{"v":{"a":[0.5]}}', '{"v":{"a":[false]}}'], pa.string(), ['{"a":[0.5]}', '{"a":[false]}']),
        (['{"v":[0.5]}', '{"v":["true"]}'], pa.string(), ["[0.5]", '["true"]']),
        (['{"v":[0.5]}', '{"w":[true]}'], pa.list_(pa.float64()), [[0.5], None]),
        (['{"v":["a"]}', '{"v":["b","c"]}'], pa.list_(pa.string()), [["a"], ["b", "c"]]),
        (['{"v":{"a":1}}', '{"v":null}'], pa.struct([("a", pa.int64())]), [{"a": 1}, None]),
        (['{"v":null}', '{"v":null}'], pa.string(), [None, None]),
        (['{"v":9223372036854775807}', '{"v":0.5}'], pa.string(), ["9223372036854775807", "0.5"]),
    ],
)
def test_the_type_of_a_json_column_fits_all_its_values(
    tmp_path: Path, lines: list[str], type_: pa.DataType, values: list[object]
) -> None:
    _write(tmp_path / "a.jsonl", lines)
    column = read(tmp_path, "a.jsonl")["v"]
    assert (column.type, column.to_pylist()) == (type_, values)


def prompts(world: World) -> list[str]:
    bodies = [orjson.loads(world.sent_body(batch["id"])) for batch in world.accepted()]
    return sorted(request["params"]["messages"][0]["content"] for body in bodies for request in body["requests"])


def test_a_new_number_with_a_fraction_does_not_change_the_prompts_of_other_rows(world: World) -> None:
    """It turns the column into floats, but rows that have an answer must not be sent again."""
    lines = ['{"id":1,"text":"a","n":5,"m":{"x":[1]}}', '{"id":2,"text":"b","n":-7.0,"m":{"x":[2.0]}}']
    path = world.folder / "rows.jsonl"
    content = "{{ text }} {{ n }} {{ m.x[0] }}"
    _write(path, lines)
    pipeline = world.pipeline("rows.jsonl", params=params(content))
    assert world.run(pipeline)["n"].tolist() == [5.0, -7.0]
    _write(path, [*lines, '{"id":3,"text":"c","n":2.5,"m":{"x":[0.5]}}'])
    pipeline = world.pipeline("rows.jsonl", params=params(content))
    report = world.build(pipeline)
    assert (report.reused, report.written) == (2, 1)
    frame = world.run(pipeline)
    assert frame["n"].tolist() == [5.0, -7.0, 2.5]
    assert prompts(world) == ["a 5 1", "b -7 2", "c 2.5 0.5"]


def test_a_byte_order_mark_is_not_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"v":1}\n{"v":2}\n')
    assert read(tmp_path, "a.jsonl")["v"].to_pylist() == [1, 2]


def test_a_json_list_instead_of_lines_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n  {"v": 1}\n]\n')
    with pytest.raises(
        DatasetError, match=r"a\.json, line 1: a list begins here; one object per line is expected"
    ):
        read(tmp_path, "a.json")


def test_uuids_are_text(world: World) -> None:
    ids = [uuid.UUID(int=number) for number in range(3)]
    keys = pa.array([id_.bytes for id_ in ids], pa.binary(16)).cast(pa.uuid())
    table = pa.table(
        {
            "id": keys,
            "all": pa.ListArray.from_arrays(range(4), keys),
            "json": pa.array(["1", "{}", None]).cast(pa.json_(pa.string())),
            "text": ["a", "b", "c"],
        }
    )
    pq.write_table(table, world.folder / "rows.parquet")
    frame = world.run(world.pipeline("rows.parquet", params=params("{{ id }} {{ all[0] }} {{ json }}")))
    assert frame["id"].tolist() == [str(id_) for id_ in ids]
    assert [list(values) for values in frame["all"]] == [[str(id_)] for id_ in ids]
    assert prompts(world) == [f"{id_} {id_} {json}" for id_, json in zip(ids, ("1", "{}", ""), strict=True)]


def test_a_timestamp_that_python_cannot_represent_rejects_its_row(world: World) -> None:
    moments = pa.array([0, 253_402_300_800], pa.timestamp("s"))
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "at": moments}), world.folder / "rows.parquet")
    frame = world.run(world.pipeline("rows.parquet", params=params("{{ text }} {{ at }}")))
    assert frame["result_type"].tolist() == ["succeeded", "rejected"]
    assert frame["error_message"][1].startswith("column 'at' has a value that Python cannot represent: ")


def test_a_single_late_text_makes_a_json_column_text(tmp_path: Path) -> None:
    lines = [f'{{"v":{number}}}' for number in range(450_000)]
    assert sum(map(len, lines)) > BLOCK_BYTES
    _write(tmp_path / "a.jsonl", [*lines, '{"v":"x"}'])
    column = read(tmp_path, "a.jsonl")["v"]
    assert (column.type, column[0].as_py(), column[-1].as_py()) == (pa.string(), "0", "x")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ('{"v": }', "asked/defs.yaml: dataset.path: .*a.jsonl, line 4: not valid JSON"),
        ("[1]", "a.jsonl, line 4: not a JSON object"),
        ('"text"', "a.jsonl, line 4: not a JSON object"),
    ],
)
def test_an_error_names_the_number_of_the_bad_line(tmp_path: Path, bad: str, problem: str) -> None:
    _write(tmp_path / "a.jsonl", ['{"v":1}', "", '{"v":2}', bad, '{"v":3}'])
    with pytest.raises(DatasetError, match=problem):
        read(tmp_path, "a.jsonl")


def test_an_error_names_the_number_of_a_bad_line_far_into_the_file(tmp_path: Path) -> None:
    lines = ['{"v":"' + "x" * 100 + '"}'] * 60_000
    _write(tmp_path / "a.jsonl", [*lines, "oops"])
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 60001: "):
        read(tmp_path, "a.jsonl")


def test_a_line_longer_than_a_block_and_a_last_line_without_a_line_break_are_read(tmp_path: Path) -> None:
    long = "x" * (BLOCK_BYTES * 2 + 17)
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps({"v": long}) + b'\n{"v":"end"}')
    assert read(tmp_path, "a.jsonl")["v"].to_pylist() == [long, "end"]


def test_a_lone_surrogate_rejects_only_its_row_and_so_does_invalid_utf8_if_the_pipeline_says_so(
    world: World,
) -> None:
    lines = [b'{"id":"a","text":"fine"}', b'{"id":"b","text":"\\ud83d"}', b'{"id":"c","text":"\xff"}']
    lines.append('{"id":"d","text":"line\u2028separator \\ud83d\\ude00"}'.encode())
    (world.folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(
        DatasetError, match=r"rows\.jsonl, line 3: not UTF-8: the bytes ff after '.*\"text\":\"'; conv"
    ):
        world.build(world.pipeline())
    dataset = {"path": "rows.jsonl", "key": "id", "bad_rows": "reject"}
    table = world.run(world.pipeline(dataset=dataset))
    assert list(table["result_type"]) == ["succeeded", "rejected", "rejected", "succeeded"]
    assert "rows.jsonl, line 2: the line contains text that is not valid Unicode" in table["error_message"][1]
    assert "rows.jsonl, line 3: not UTF-8: the bytes ff" in table["error_message"][2]
    assert list(table["error_type"][1:3]) == ["invalid_unicode"] * 2
    assert table["text"][1] == "\ufffd"
    assert table["text"][3] == "line\u2028separator 😀"
    assert "line\u2028separator 😀" in table["response_text"][3]


def test_a_parquet_file_from_pandas_is_read_with_its_types(world: World) -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "text": ["one", "two", None],
            "kind": pd.Categorical(["x", "y", "x"]),
            "at": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True),
            "vector": [[1.0, 2.0], [], None],
        }
    )
    frame.to_parquet(world.folder / "rows.parquet")
    table = world.run(world.pipeline("rows.parquet"))
    assert list(table["result_type"]) == ["succeeded", "succeeded", "rejected"]
    pd.testing.assert_frame_equal(table[["id", "text", "at"]], frame[["id", "text", "at"]], check_dtype=False)
    assert list(table["kind"]) == ["x", "y", "x"]
    assert list(table["vector"][0]) == [1.0, 2.0]


def test_invalid_text_in_parquet_rejects_its_row(world: World) -> None:
    text = pa.array([b"fine", b"bro\xffken"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b"], "text": text}), world.folder / "rows.parquet")
    table = world.run(world.pipeline("rows.parquet"))
    assert list(table["result_type"]) == ["succeeded", "rejected"]
    assert table["error_type"][1] == "invalid_unicode"


def test_two_parquet_columns_with_the_same_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(
        DatasetError, match=r"asked/defs.yaml: dataset.path: .*a\.parquet: the schema names 'a' twice"
    ):
        read(tmp_path, "a.parquet")


def test_an_error_names_a_parquet_file_that_is_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["text"] * 50}), path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"asked/defs.yaml: dataset.path: .*a\.parquet: not a readable Parquet"):
        read(tmp_path, "a.parquet")


def test_view_types_in_parquet_are_read_as_plain_types(world: World) -> None:
    columns = {
        "id": pa.array(["a", "b"], pa.string_view()),
        "text": pa.array(["one", "two"], pa.string_view()),
        "raw": pa.array([b"1", None], pa.binary_view()),
        "list": pa.array([[1], None], pa.list_view(pa.int64())),
        "long": pa.array([["x"], []], pa.large_list_view(pa.string())),
        "deep": pa.array([{"v": "x"}, None], pa.struct([("v", pa.string_view())])),
    }
    pq.write_table(pa.table(columns), world.folder / "rows.parquet")
    rows = read(world.folder, {"path": "rows.parquet", "key": "id"})
    assert rows.schema.types == [
        pa.string(), pa.string(), pa.binary(), pa.list_(pa.int64()), pa.large_list(pa.string()),
        pa.struct([("v", pa.string())]),
    ]  # fmt: skip
    assert rows.to_pylist() == pa.table(columns).to_pylist()
    table = world.run(world.pipeline("rows.parquet"))
    assert list(table["result_type"]) == ["succeeded"] * 2
    assert list(table["id"]) == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1"])
def test_an_error_names_a_file_that_is_not_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.parquet: not a readable Parquet file"):
        read(tmp_path, "a.parquet")


_READING = """
import re, sys
from pathlib import Path
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.dataset.dataset import Dataset
import pyarrow as pa
params = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
attributes = {"name": "p", "dataset": {"path": sys.argv[2]}, "params": params}
pipeline = load_pipeline(attributes, folder=Path(sys.argv[1]))
def peak() -> int:
    # Not getrusage: its peak is inherited from the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
rows = sum(len(rows.table) for rows in Dataset(pipeline).rows(["key", "text"]))
print(rows, (peak() - before) // 1024)
"""


@pytest.mark.parametrize(
    ("ending", "rows", "bound"), [("parquet", 100, 150), ("csv", 160, 300), ("jsonl", 80, 150)]
)
def test_memory_depends_on_the_block_not_on_the_file(tmp_path: Path, ending: str, rows: int, bound: int) -> None:
    """Reading adds at most `bound` MB, for a Parquet row group of 250 MB and text files of 400 and 200 MB."""
    rows, size = rows * 1000, 2500
    path = tmp_path / f"big.{ending}"
    source = np.random.default_rng(7).integers(97, 123, rows + size, dtype=np.uint8).tobytes().decode()
    texts = (source[start : start + size] for start in range(rows))
    if ending == "parquet":
        table = pa.table({"key": range(rows), "text": list(texts)})
        pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="none")
        assert pq.ParquetFile(path).num_row_groups == 1
        del table
    else:
        line = '{{"key":{},"text":"{}"}}\n' if ending == "jsonl" else '{},"{}"\n'
        with path.open("w") as file:
            file.write("key,text\n" if ending == "csv" else "")
            file.writelines(line.format(*row) for row in enumerate(texts))
    done = subprocess.run(
        [sys.executable, "-c", _READING, str(tmp_path), path.name], capture_output=True, text=True, check=True
    )
    path.unlink()
    count, growth = map(int, done.stdout.split())
    assert count == rows
    assert growth < bound
