"""How tables are written: which columns get a dictionary."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.io.parquet import TableWriter


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


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("nested", pa.list_(pa.string()))])
    with TableWriter(tmp_path / "table.parquet", schema):
        pass

    assert pq.read_table(tmp_path / "table.parquet") == schema.empty_table()
