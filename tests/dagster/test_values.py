"""The answers by value, as tables with bars and as numbers that Dagster plots over the partitions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from batch_assets.core.results.report import ResultsReport
from batch_assets.dagster.metadata.values import values_metadata


def report(**values: dict[str, int]) -> ResultsReport:
    counts = Counter({"succeeded": 200, "errored": 5})
    return ResultsReport("any", "any", rows=205, counts=counts, invalid_outputs=10, values=values)


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


def test_without_answers_there_is_nothing() -> None:
    assert values_metadata(ResultsReport("any", "any", rows=3, values={"mood": {"glad": 0}}), "x") == {}
