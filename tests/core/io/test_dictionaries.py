"""Dictionaries of rows that are written have only the values of these rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.dictionaries import with_used_values

TEXTS = ["SECRET", "o", "p"]
ENCODED = pa.array(TEXTS).dictionary_encode()
FORMS = {
    "column": ENCODED,
    "long texts": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "bytes": pa.array([text.encode() for text in TEXTS]).dictionary_encode(),
    "small indices": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), pa.array(TEXTS)),
    "struct": pa.StructArray.from_arrays([ENCODED], ["name"]),
    "list": pa.ListArray.from_arrays([0, 1, 2, 3], ENCODED),
    "long list": pa.LargeListArray.from_arrays([0, 1, 2, 3], ENCODED),
    "list of one": pa.FixedSizeListArray.from_arrays(ENCODED, 1),
    "values of a map": pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "c"]), ENCODED),
    "keys of a map": pa.MapArray.from_arrays([0, 1, 2, 3], ENCODED, pa.array(["a", "b", "c"])),
    "list of structs": pa.ListArray.from_arrays([0, 1, 2, 3], pa.StructArray.from_arrays([ENCODED], ["name"])),
}
SELECTIONS = {
    "slice": lambda column: column.slice(1),
    "null in its place": lambda column: column.take(pa.array([None, 2, 1])),
    "filter": lambda column: column.filter(pa.array([False, True, True])),
    "no row": lambda column: column.slice(0, 0),
}


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("column", FORMS.values(), ids=FORMS)
def test_values_of_other_rows_are_not_written(column: pa.Array, select: object) -> None:
    assert callable(select)
    rows = pa.table({"a": select(column)})
    used = with_used_values(rows)
    used.validate(full=True)
    assert used.schema == rows.schema
    assert used.to_pylist() == rows.to_pylist()
    file = pa.BufferOutputStream()
    pq.write_table(used, file, compression="none")
    assert b"SECRET" not in file.getvalue().to_pybytes()


def test_the_order_of_values_stays() -> None:
    labels = pa.DictionaryArray.from_arrays([3, 1, None], ["never", "low", "mid", "high"], ordered=True)
    used = with_used_values(pa.record_batch({"a": labels, "b": pa.array([1, 2, 3])}))
    assert used.column(0).dictionary.to_pylist() == ["low", "high"]
    assert used.column(0).type.ordered
    assert used.column(0).to_pylist() == ["high", "low", None]


@pytest.mark.parametrize("values", [[1, 2, 3], [1.5, 2.5, 3.5]])
def test_other_dictionaries_stay(values: list[float]) -> None:
    rows = pa.table({"a": pa.array(values).dictionary_encode()}).slice(1)
    assert with_used_values(rows) is rows
