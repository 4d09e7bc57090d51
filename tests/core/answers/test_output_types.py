"""Each schema becomes a column of the right type, which the usual tools can read."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.result_columns import TIMESTAMP

from ..support import World, params, texts

TEXT = pa.string()
LABELS = pa.dictionary(pa.int32(), TEXT)
DATE = {"type": "string", "format": "date"}
TIME = {"type": "string", "format": "date-time"}
POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
CLOSED = {"additionalProperties": False}


def schema_of(**properties: Any) -> dict[str, Any]:
    """A schema that requires all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties), **CLOSED}


@pytest.mark.parametrize(
    ("definition", "type_"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "string", "format": "email"}, TEXT),
        (DATE, pa.date32()),
        (TIME, TIMESTAMP),
        ({"type": ["string", "null"], "format": "date"}, pa.date32()),
        ({"type": "integer"}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": "boolean"}, pa.bool_()),
        ({"type": "null"}, pa.null()),
        ({"enum": ["a", "b"]}, LABELS),
        ({"enum": ["a", None]}, LABELS),
        ({"const": "a"}, LABELS),
        ({"anyOf": [{"const": "a"}, {"const": "b"}, {"type": "null"}]}, LABELS),
        ({"enum": [1, 2]}, pa.int64()),
        ({"const": 2.5}, pa.float64()),
        ({"type": "number", "enum": [1, 2]}, pa.float64()),
        ({"enum": [True]}, pa.bool_()),
        ({"enum": ["a", 1]}, TEXT),
        ({"type": ["integer", "null"]}, pa.int64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, pa.float64()),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, pa.int64()),
        ({"oneOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]}, pa.struct([("x", pa.float64())])),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, pa.list_(LABELS)),
        ({"type": "array", "items": {"$ref": "#/$defs/point"}}, pa.list_(pa.struct([("x", pa.float64())]))),
        ({"$ref": "#/$defs/line"}, pa.struct([("ends", pa.list_(pa.struct([("x", pa.float64())])))])),
        ({"allOf": [{"$ref": "#/$defs/point"}], "description": "where"}, pa.struct([("x", pa.float64())])),
        ({"allOf": [{"type": "integer"}, {"type": "number"}]}, TEXT),
        ({"type": ["string", "integer"]}, TEXT),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, TEXT),
        ({"type": "array"}, TEXT),
        ({"type": "object"}, TEXT),
        ({"$ref": "#/$defs/tree"}, TEXT),
        ({"$ref": "#/$defs/nowhere"}, TEXT),
        (True, TEXT),
        ({}, TEXT),
    ],
)
def test_the_type_of_a_property(definition: Any, type_: pa.DataType) -> None:
    definitions = {
        "point": POINT,
        "line": {"type": "object", "properties": {"ends": {"type": "array", "items": {"$ref": "#/$defs/point"}}}},
        "tree": {"type": "object", "properties": {"inner": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
    }
    output = OutputSchema({**schema_of(found=definition), "$defs": definitions})
    assert output.types == {"found": type_}


@pytest.mark.parametrize(
    ("definition", "answer", "value"),
    [
        (DATE, "2024-02-29", "2024-02-29"),
        (TIME, "2024-02-29T10:00:00+02:00", "2024-02-29 08:00:00+00:00"),
        (
            TIME,
            "1999-12-31t23:59:59.1234567z",
            "1999-12-31 23:59:59.123456+00:00",
        ),
        ({"enum": [1, 2]}, 2.0, "2"),
        ({"enum": ["a", 1]}, 1, "1"),
        ({"type": ["string", "integer"]}, "a", '"a"'),
        ({"type": "object"}, {"any": [1, None]}, '{"any":[1,null]}'),
        ({"$ref": "#/$defs/tree"}, {"inner": [{"inner": []}]}, '{"inner":[{"inner":[]}]}'),
    ],
)
def test_the_value_of_a_property(definition: Any, answer: Any, value: str) -> None:
    tree = {"type": "object", "properties": {"inner": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    output = OutputSchema({**schema_of(found=definition), "$defs": {"tree": tree}})
    arrays, problems = output.columns(pa.array([orjson.dumps({"found": answer}).decode()]))
    assert problems == [None]
    assert str(arrays[0][0].as_py()) == value


@pytest.mark.parametrize(
    ("definition", "answer", "problem"),
    [
        (DATE, "2023-02-29", "the property 'found' is '2023-02-29', not a date"),
        (DATE, "29.2.2024", "not a date such as 2026-01-31"),
        (TIME, "2024-02-29T10:00:00", "not a time with its offset such as"),
        (TIME, "0001-01-01T00:00:00+01:00", "not a time with its offset"),
        (
            {"type": "array", "items": schema_of(x={"enum": [1]})},
            [{"x": 2}],
            "value 2 of the property 'found[0].x'",
        ),
        ({"const": True}, 1, "unexpected value 1 of the property 'found'; expected one of true"),
        ({"enum": ["a", 1]}, "b", "unexpected value 'b'"),
        ({"type": "null"}, 1, "not null"),
        ({"enum": [str(n) for n in range(30)]}, "x" * 200, "and 18 more"),
    ],
)
def test_a_value_that_does_not_match(definition: Any, answer: Any, problem: str) -> None:
    output = OutputSchema(schema_of(found=definition))
    arrays, problems = output.columns(pa.array([orjson.dumps({"found": answer}).decode()]))
    assert problem in (problems[0] or "")
    assert len(problems[0] or "") < 400
    assert arrays[0].null_count == 1


RICH = schema_of(
    label={"type": "string", "enum": ["zebra", "ant", "never"]},
    day=DATE,
    at={"anyOf": [TIME, {"type": "null"}]},
    tags={"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
    place=schema_of(city={"type": "string"}, size={"enum": ["big", "small"]}),
    **{"größe in m²": {"type": "number"}, "": {"type": "integer"}, 'a"b\\c': {"type": "boolean"}},
)
AS_IN_JSON = ["label", "tags", "place", "größe in m²", "", 'a"b\\c']


def test_rich_columns_are_read_back_by_other_tools(world: World) -> None:
    """Unusual names, nested types and dictionaries pass through all stages and Parquet unchanged."""
    rows = 9000  # more than one slice of the table and one row group
    pipeline = world.pipeline(texts(rows), params=params(max_tokens=2000), output_schema=RICH)
    frame = world.run(pipeline)
    assert frame["error_type"].isna().all()
    assert list(frame["label"].cat.categories) == ["zebra", "ant", "never"]
    assert isinstance(frame["at"].dtype, pd.DatetimeTZDtype)
    answers = [orjson.loads(text) for text in frame["response_text"]]
    folder = world.path("asked", "results")
    table = pa_dataset.dataset(folder).to_table()
    assert table.equals(pq.read_table(folder))
    assert pq.ParquetFile(folder / "results.parquet").num_row_groups > 1
    assert {tuple(chunk.dictionary.to_pylist()) for chunk in table["label"].chunks} == {("zebra", "ant", "never")}
    file = str(folder / "results.parquet")
    in_polars, in_duckdb = pl.read_parquet(file), duckdb.sql(f"from '{file}'")
    rows_in_duckdb = in_duckdb.fetchall()
    for name in AS_IN_JSON:
        expected = [answer[name] for answer in answers]
        assert table[name].to_pylist() == expected
        assert in_polars[name].to_list() == expected
        at = table.column_names.index(name)
        assert in_duckdb.columns[at] == name or not name  # DuckDB gives a name to a column without one
        assert [row[at] for row in rows_in_duckdb] == expected
    assert isinstance(in_polars["label"].dtype, pl.Categorical | pl.Enum)
    assert in_polars.schema["at"] == pl.Datetime("us", "UTC")
    assert [day.isoformat() for day in table["day"].to_pylist()] == [answer["day"] for answer in answers]
    assert table["at"].null_count == sum(answer["at"] is None for answer in answers)
