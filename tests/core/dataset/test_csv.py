"""CSV and TSV: types are decided over the whole file, nothing is lost, and errors name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from batch_assets.core.dataset import csv_types
from batch_assets.core.dataset.readers import BLOCK_BYTES
from batch_assets.core.errors import ConfigError, DatasetError

from ..support import World, make_pipeline, params, read

UTC = pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", "20", "-3"], pa.int64()),
        (["00123", "12345"], pa.string()),  # a leading zero would be lost
        (["+1", "2"], pa.string()),
        (["1e3", "2"], pa.string()),
        (["9223372036854775807", "-9223372036854775808"], pa.int64()),
        (["9223372036854775808"], pa.string()),  # more than 64 bits
        (["10", "2.5"], pa.string()),  # 10 would come back as 10.0
        (["10.0", "2.5"], pa.float64()),
        (["10.0", "10"], pa.string()),
        (["1.50", "2.25"], pa.string()),
        (["1234567890123456789", "2.5"], pa.string()),  # more digits than a double holds
        (["0.1", "123456789012345.6"], pa.float64()),
        (["0.30000000000000004", "-0.0", "0.0001", "1e-05", "1.5e+16"], pa.float64()),
        (["0.3000000000000001", "0.30000000000000001"], pa.string()),
        (["0.5", "0.00001"], pa.string()),  # Python prints 1e-05
        (["0.5", "1e5"], pa.string()),
        (["0.5", "1e-04"], pa.string()),
        (["0.5", "1e+999"], pa.string()),
        (["nan", "1.5"], pa.string()),
        (["true", "false"], pa.string()),  # Python prints True
        (["True", "False"], pa.bool_()),
        (["true", "False"], pa.string()),
        (["true", "1"], pa.string()),
        (["2024-02-29", "1999-12-31"], pa.date32()),
        (["2023-02-29"], pa.string()),
        (["0000-01-01"], pa.string()),  # Python's years start at 1
        (["0001-01-01", "9999-12-31"], pa.date32()),
        (["9999-12-31T23:00:00-02:00"], pa.string()),
        (["2024-02-29", "29.02.2024"], pa.string()),
        (["2024-01-02T03:04:05", "2024-01-02T03:04:05.25"], pa.timestamp("us")),
        (["2024-01-02 03:04", "2024-01-02 03:04:05"], pa.timestamp("us")),
        (["2024-01-02T03:04:05Z", "2024-01-02T03:04:05+02:00"], UTC),
        (["2024-01-02T03:04:05Z", "2024-01-02T03:04:05"], pa.string()),
        (["2024-01-02T03:04:05.123456789"], pa.string()),
        (["", ""], pa.string()),
        (["1", ""], pa.int64()),
        (["1", '""'], pa.string()),  # a quoted empty text is text
        ([" 1", "2"], pa.string()),
    ],
)
def test_a_column_has_a_type_only_if_every_value_prints_unchanged(
    tmp_path: Path, values: list[str], type_: pa.DataType
) -> None:
    (tmp_path / "a.csv").write_text("key,value\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    column = read(tmp_path, "a.csv")["value"]
    assert column.type == type_
    if type_ == pa.string():
        assert column.to_pylist() == [{"": None, '""': ""}.get(value, value) for value in values]


def test_a_prompt_shows_what_the_file_shows(tmp_path: Path) -> None:
    columns = {
        "a": ["10", "2.5"], "b": ["0.00001", "0.5"], "c": ["true", "false"], "d": ["1.50", "2.25"],
        "e": ["7", "8"], "f": ["7.0", "0.1"], "g": ["True", "False"], "h": ["2024-02-29", "1999-12-31"],
    }  # fmt: skip
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    content = ",".join(f"{{{{ {name} }}}}" for name in columns)
    template = make_pipeline(tmp_path, "a.csv", params=params(content)).template
    rendered = [orjson.loads(template.render(row)) for row in read(tmp_path, "a.csv").to_pylist()]
    assert [body["messages"][0]["content"] for body in rendered] == lines[1:]


def test_timestamps_in_a_prompt_look_as_documented(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,in\n2024-01-02T03:04:05,2024-01-02T03:04:05Z\n")
    (row,) = read(tmp_path, "a.csv").to_pylist()
    for value, text in ((row["at"], "2024-01-02 03:04:05"), (row["in"], "2024-01-02 03:04:05+00:00")):
        assert str(value) == text
        assert text in (csv_types.__doc__ or "")


def test_a_single_late_text_makes_the_whole_column_text(tmp_path: Path) -> None:
    numbers = [str(number) for number in range(1_000_000, 1_900_000)]
    assert sum(map(len, numbers)) > BLOCK_BYTES
    (tmp_path / "a.csv").write_text("value\n" + "\n".join([*numbers, "x"]) + "\n")
    column = read(tmp_path, "a.csv", ["value"])["value"]
    assert column.type == pa.string()
    assert (column[0].as_py(), column[-1].as_py(), len(column)) == ("1000000", "x", 900_001)


def test_timestamps_in_different_zones_are_equal_if_they_are_the_same_instant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at\n2024-01-02T03:04:05+02:00\n2024-01-02T01:04:05Z\n")
    first, second = read(tmp_path, "a.csv")["at"].to_pylist()
    assert first == second


def test_types_set_in_the_pipeline_win(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("zip,price,flag,at\n1,1.50,yes,2024-01-01\n2,2.25,no,2024-01-02\n")
    types = {"zip": "string", "price": "decimal(10, 2)", "at": "timestamp[us]"}
    table = read(tmp_path, {"path": "a.csv", "types": types})
    assert table["zip"].to_pylist() == ["1", "2"]
    assert [str(value) for value in table["price"].to_pylist()] == ["1.50", "2.25"]
    assert table["at"].type == pa.timestamp("us")


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ({"flag": "int64"}, "'flag' is not int64 throughout"),
        ({"flag": "bool"}, "'flag' is not bool throughout"),  # a text that is not "true" does not count as false
        ({"flag": "number"}, "dataset.types.flag: 'number' is not an Arrow type"),
        ({"flag": "decimal(10)"}, r"dataset.types.flag: 'decimal\(10\)' is not an Arrow type; .*decimal\(10, 2\)"),
        ({"flag": "decimal(99, 2)"}, "dataset.types.flag: "),
        ({"flag": "timestamp[xx, UTC]"}, "dataset.types.flag: "),
        ({"flog": "string"}, r"no column 'flog' \(did you mean 'flag'\?\); its columns: flag"),
    ],
)
def test_a_type_that_does_not_fit_is_an_error(tmp_path: Path, types: dict[str, str], problem: str) -> None:
    (tmp_path / "a.csv").write_text("flag\nyes\nmaybe\n")
    with pytest.raises(DatasetError, match=problem):
        read(tmp_path, {"path": "a.csv", "types": types})


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1"])
def test_booleans_by_explicit_type_are_read_in_every_common_spelling(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"key,flag\n1,{text}\n2,false\n3,\n")
    table = read(tmp_path, {"path": "a.csv", "types": {"flag": "bool"}})
    assert table["flag"].to_pylist() == [True, False, None]


def test_an_empty_field_is_null_and_a_quoted_empty_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n,x\n"",y\n"NA",z\n')
    assert read(tmp_path, "a.csv")["a"].to_pylist() == [None, "", "NA"]


def test_quoted_newlines_commas_and_quotes_belong_to_their_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"one\ntwo, ""three""\r\nfour",1\n')
    assert read(tmp_path, "a.csv").to_pylist() == [{"row_number": 0, "a": 'one\ntwo, "three"\r\nfour', "b": 1}]


def test_tsv_is_split_at_tabs_and_line_ends_and_byte_order_marks_are_not_content(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes("\ufeffname\tnote\r\nÄ\tb, c\r\n".encode())
    assert read(tmp_path, "a.tsv").to_pylist() == [{"row_number": 0, "name": "Ä", "note": "b, c"}]


def test_a_row_longer_than_a_block_is_read(tmp_path: Path) -> None:
    long = "x" * (BLOCK_BYTES * 3)
    (tmp_path / "a.csv").write_text(f"key,text\n1,short\n2,{long}\n3,short\n")
    table = read(tmp_path, "a.csv")
    assert table["text"].to_pylist() == ["short", long, "short"]
    assert table["key"].type == pa.int64()


@pytest.mark.parametrize("content", ["a,b\n", "a,b", "\ufeffa,b\r\n"])
def test_a_file_with_only_a_header_is_a_dataset_without_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    table = read(tmp_path, "a.csv")
    assert (table.num_rows, table.schema.names) == (0, ["a", "b"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"n\xe4me,b\n1,2\n", "asked/defs.yaml: dataset.path: .*a.csv: the header is not valid UTF-8"),
        (b"n\xe4me,b\n", "a.csv: the header is not valid UTF-8"),
        (b"a,a", "a.csv: the header names 'a' twice"),
        (b"a,a\n1,2\n", "a.csv: the header names 'a' twice"),
        (b"a,a\n", "a.csv: the header names 'a' twice"),
        (b"a,b\n1\n", "asked/defs.yaml: dataset.path: .*a.csv, line 2: 1 fields where the header has 2: '1'"),
    ],
)
def test_an_error_names_the_file_that_is_not_a_table(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=problem):
        read(tmp_path, "a.csv")


def test_a_header_that_is_no_text_is_no_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,gr\xf6\n1,a\n")
    with pytest.raises(DatasetError, match=r"the header is not valid UTF-8: .*\{encoding: latin-1\}$"):
        read(tmp_path, {"path": "a.csv", "bad_rows": "reject"})


def test_invalid_text_rejects_only_its_row_if_the_pipeline_says_so(world: World) -> None:
    content = b"id,text,note\na,fine,\nb,bro\xffken,\nc,fine too,\nd,fine,\xff\n"
    (world.folder / "rows.csv").write_bytes(content)
    dataset: dict[str, Any] = {"path": "rows.csv", "key": "id", "columns": ["text"], "bad_rows": "reject"}
    table = world.run(world.pipeline(dataset=dataset))
    assert list(table["id"]) == ["a", "b", "c", "d"]
    assert list(table["result_type"]) == ["succeeded", "rejected", "succeeded", "rejected"]
    assert table["error_type"][1] == "invalid_unicode"
    assert "rows.csv, line 3: not UTF-8: the bytes ff after 'b,bro'" in table["error_message"][1]
    assert "bad_rows" not in table["error_message"][1]
    assert table["text"][1] == "bro\ufffdken"
    assert len(world.accepted_custom_ids()) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"id,text\na,fine\nb,bro\xffken\n",
            r"line 3: not UTF-8: the bytes ff after 'b,bro'; .*\{encoding: latin-1\}",
        ),
        (b'id,text\na,"x\ny"\n\nb,\x93hi\x94\n', r"line 5: not UTF-8: the bytes 93 .*\{encoding: cp1252\}"),
        (b"id,text\r\na,x\r\nb,gr\xfcn\r\n", r"line 3: .*\{encoding: latin-1\}, or set dataset.bad_rows: reject"),
        (b"id,text\n" + b"a,x\n" * 800_000 + b"b,\xe9\n", r"line 800002: not UTF-8"),
    ],
)
def test_the_first_undecodable_byte_refuses_the_dataset_before_anything_is_sent(
    world: World, content: bytes, problem: str
) -> None:
    (world.folder / "rows.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"asked/defs.yaml: dataset.path: .*rows\.csv, " + problem):
        world.build(world.pipeline(dataset={"path": "rows.csv"}))
    assert not world.accepted()


def test_the_delimiter_to_add_is_named_where_a_column_is_missing(world: World) -> None:
    (world.folder / "rows.csv").write_text("id;text\n1;one\n")
    add = r"; if ';' is between its fields, add `csv: \{delimiter: \";\"\}`$"
    with pytest.raises(
        DatasetError, match=rf"dataset.key: rows.csv has no column 'id'; its columns: id;text{add}"
    ):
        world.build(world.pipeline("rows.csv"))
    plain = world.pipeline(dataset={"path": "rows.csv"})
    with pytest.raises(
        ConfigError, match=rf"reads 'text', which is not a column of rows.csv; its columns: .*{add}"
    ):
        world.build(plain)
    divided = {"path": "rows.csv", "key": "id", "csv": {"delimiter": ";"}}
    world.build(world.pipeline(dataset=divided))
    with pytest.raises(DatasetError, match=r"has no column 'no'; its columns: id, text$"):
        world.build(world.pipeline(dataset={**divided, "key": "no"}))
