"""The answers by value, as tables with bars and as numbers that Dagster plots over the partitions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from batch_assets.core.answers.output_schema import Classes, OutputSchema
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.value_counts import ValueCount, add_values, no_values
from batch_assets.dagster.metadata.values import values_metadata


def report(listed: dict[str, ValueCount] | None = None, /, **values: dict[str, int]) -> ResultsReport:
    counts = Counter({"succeeded": 200, "errored": 5})
    columns = {name: ValueCount(by_value, sum(by_value.values())) for name, by_value in values.items()}
    columns |= listed or {}
    return ResultsReport("any", "any", rows=205, counts=counts, invalid_outputs=10, values=columns)


def lines(metadata: dict[str, Any], column: str) -> list[list[str]]:
    text = metadata[f"batch_assets/values:{column}"].value.partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_each_column_is_a_table_with_bars() -> None:
    metadata = values_metadata(
        report(mood={"glad": 100, "a|b": 1, "sad": 0}, is_new={"true": 190, "false": 0}), ""
    )
    assert list(metadata) == ["batch_assets/values:mood", "batch_assets/values:is_new"]
    assert metadata["batch_assets/values:mood"].value.splitlines()[0] == "| value | rows | share |  |"
    assert [entry[:3] for entry in lines(metadata, "is_new")] == [
        ["true", "190", "95%"],
        ["false", "0", "0%"],
        ["(invalid answer)", "10", "5%"],
    ]
    text = metadata["batch_assets/values:mood"].value
    assert text.endswith("\n\n5 rows without an answer.")
    assert "| glad | 100 | 50% | ██████ |" in text and "| sad | 0 | 0% |  |" in text
    assert "| a\\|b | 1 | 0.5% | ▏ |" in text
    assert "| (no value) | 89 | 44.5% | █████▍ |" in text


def test_small_classes_are_grouped() -> None:
    many = {f"topic {number}": number for number in range(1, 20)}
    shown = lines(values_metadata(report(topic=many), ""), "topic")
    assert [entry[0] for entry in shown[:2]] == ["topic 19", "topic 18"]
    assert shown[11][:3] == ["(8 other values)", "36", "18%"]
    assert [entry[0] for entry in shown[12:]] == ["(invalid answer)"]


def test_of_a_partition_shares_are_numbers() -> None:
    many = {f"topic {number}": 1 for number in range(10)}
    values = {"mood": {"glad": 1, "sad": 0, "odd": 199}, "is_new": {"true": 30, "false": 160}, "topic": many}
    plotted = {
        name: value
        for name, value in values_metadata(report(**values), "2026-01-01").items()
        if "values:" not in name
    }
    assert plotted == {
        "batch_assets/mood:glad": 0.5,
        "batch_assets/mood:odd": 99.5,
        "batch_assets/is_new:true": 15.0,
    }
    columns = {f"column {number}": {"true": 1, "false": 1} for number in range(20)}
    assert sum("values:" not in name for name in values_metadata(report(**columns), "2026-01-01")) == 8


def test_an_answer_with_several_values_counts_for_each() -> None:
    """In the table, in the chart and in the numbers that are plotted. Null and an empty list are no value."""
    enum = pa.dictionary(pa.int32(), pa.string())
    rows = pa.table(
        {
            "topics": pa.array(
                [["price", "taste", "price"], ["taste"], [], None, [None, "price"]], pa.list_(pa.string())
            ).cast(pa.list_(enum)),
            "flags": pa.array([[True, False], [True], None, None, [None]]),
            "mood": pa.array(["glad", None, "sad", "glad", "glad"]).cast(enum),
        }
    )
    classes = {
        "topics": Classes(["taste", "price", "size"], is_list=True),
        "flags": Classes([True, False], is_list=True),
        "mood": Classes(["glad", "sad"]),
    }
    counted = no_values(classes)
    add_values(counted, rows.slice(0, 2))
    add_values(counted, rows.slice(2))
    assert counted == {
        "topics": ValueCount({"taste": 2, "price": 2, "size": 0}, 3, is_list=True),
        "flags": ValueCount({"true": 2, "false": 1}, 2, is_list=True),
        "mood": ValueCount({"glad": 3, "sad": 1}, 4),
    }
    topics = ValueCount({"taste": 150, "price": 100, "size": 0}, 160, is_list=True)
    flags = ValueCount({"true": 190, "false": 30}, 190, is_list=True)
    metadata = values_metadata(report({"topics": topics, "flags": flags}), "2026-01-01")
    assert [entry[:3] for entry in lines(metadata, "topics")] == [
        ["taste", "150", "75%"],
        ["price", "100", "50%"],
        ["size", "0", "0%"],
        ["(no value)", "30", "15%"],
        ["(invalid answer)", "10", "5%"],
    ]
    note = "An answer counts for each of its values: the shares may add up to more than 100%."
    text = metadata["batch_assets/values:topics"].value
    assert text.endswith(f"\n\n{note} 5 rows without an answer.")
    assert {name: value for name, value in metadata.items() if "values:" not in name} == {
        "batch_assets/topics:taste": 75.0,
        "batch_assets/topics:price": 50.0,
        "batch_assets/flags:true": 95.0,
        "batch_assets/flags:false": 15.0,
    }
    many = ValueCount({f"topic {number}": number for number in range(1, 20)}, 190, is_list=True)
    metadata = values_metadata(report({"topics": many}), "")
    assert len(lines(metadata, "topics")) == 13 and "7 more values, each with" in str(
        metadata["batch_assets/values:topics"].value
    )


def test_which_columns_are_counted() -> None:
    enum = {"enum": ["a", "b"]}
    properties = {
        "plain": enum,
        "nullable": {"anyOf": [enum, {"type": "null"}]},
        "with_null": {"enum": ["a", "b", None]},
        "maybe": {"type": ["boolean", "null"]},
        "list": {"type": "array", "items": enum},
        "nullable_list": {"anyOf": [{"type": "array", "items": {"enum": ["a"]}}, {"type": "null"}]},
        "numbers": {"type": "array", "items": {"enum": [1, 2]}},
        "one": {"enum": ["a"]},
        "free": {"type": "array", "items": {"type": "string"}},
        "nested": {"type": "array", "items": {"type": "array", "items": enum}},
    }
    assert OutputSchema({"type": "object", "properties": properties}).classes == {
        "plain": (["a", "b"], False),
        "nullable": (["a", "b"], False),
        "with_null": (["a", "b"], False),
        "maybe": ([True, False], False),
        "list": (["a", "b"], True),
        "nullable_list": (["a"], True),
        "numbers": ([1, 2], True),
    }


def test_without_answers_there_is_nothing() -> None:
    empty = {"mood": ValueCount({"glad": 0})}
    assert values_metadata(ResultsReport("any", "any", rows=3, values=empty), "x") == {}
