"""How tables are written: dictionaries, statistics and row groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.parquet import TableWriter, open_parquet, reading_parquet


def test_only_columns_whose_values_repeat_have_a_dictionary(tmp_path: Path) -> None:
    columns = {"own": [f"text {row}" for row in range(10)], "same": ["a", "b"] * 5, "a.b": [b"x"] * 10}
    table = pa.table(columns | {"number": list(range(10))})
    with TableWriter(tmp_path / "table.parquet", table.schema) as writer:
        writer.write(table)
        writer.write(table)

    group = pq.ParquetFile(tmp_path / "table.parquet", pre_buffer=False).metadata.row_group(1)

    has_dictionary = {group.column(at).path_in_schema: group.column(at).has_dictionary_page for at in range(4)}
    assert has_dictionary == {"own": False, "same": True, "a.b": True, "number": True}
    assert pq.read_table(tmp_path / "table.parquet") == pa.concat_tables([table, table])


def test_long_texts_have_no_statistics(tmp_path: Path) -> None:
    columns = {"key": ["a", "b"], "long": ["x" * 100, "y" * 100], "bytes": [bytes(100)] * 2, "null": [None, None]}
    binary = pa.array([bytes(16)] * 2, pa.binary(16))
    table = pa.table(columns | {"number": [1, 2], "digest": binary}).cast(
        pa.schema(
            [
                ("key", pa.string()),
                ("long", pa.large_string()),
                ("bytes", pa.binary()),
                ("null", pa.string()),
                ("number", pa.int64()),
                ("digest", pa.binary(16)),
            ]
        )
    )
    with TableWriter(tmp_path / "table.parquet", table.schema) as writer:
        writer.write(table)

    group = pq.ParquetFile(tmp_path / "table.parquet", pre_buffer=False).metadata.row_group(0)

    has_statistics = {group.column(at).path_in_schema: group.column(at).is_stats_set for at in range(6)}
    short = {"key": True, "null": True, "number": True, "digest": True}
    assert has_statistics == short | {"long": False, "bytes": False}


def test_small_tables_are_gathered_to_row_groups(tmp_path: Path) -> None:
    small = pa.table({"text": pa.array(["a"] * 3000)})
    long = pa.table({"text": pa.array(["a" * 6000] * 2000)})
    with TableWriter(tmp_path / "table.parquet", small.schema, gather=True) as writer:
        for table in (small, small, small, long, long, small):
            writer.write(table)

    file = pq.ParquetFile(tmp_path / "table.parquet", pre_buffer=False)

    rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    # The third table would be too many rows, and the fifth too many bytes.
    assert rows == [6000, 5000, 5000]
    assert file.read() == pa.concat_tables([small, small, small, long, long, small])


def test_a_damaged_file_is_named_wherever_its_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a_name": ["a"], "another_name": [1]}), path)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    intact = 0
    for place in range(footer, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xF0]) + content[place + 1 :])
        try:
            with reading_parquet(str(path), "Restore it"), open_parquet(path) as file:
                file.read()
            intact += 1
        except DamagedFileError as error:
            assert str(error).startswith(f"{path} is damaged: ")

    assert 0 < intact < len(content) - footer


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("nested", pa.list_(pa.string()))])
    with TableWriter(tmp_path / "table.parquet", schema):
        pass

    assert pq.read_table(tmp_path / "table.parquet") == schema.empty_table()
