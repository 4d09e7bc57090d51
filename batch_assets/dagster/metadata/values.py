"""What the answers are: how many have which value, of each column of enums or booleans, or of lists of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.value_counts import ValueCount
from batch_assets.core.text import count, percent
from batch_assets.dagster import keys
from batch_assets.dagster.metadata import markdown

# A column with more values shows the most frequent ones, and the others together.
_SHOWN = 12
_BAR, _EIGHTHS = 12, ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_COLUMNS = ["value", "rows", "share", ""]
# Columns and values whose share is a number of its own, so that Dagster plots it over the partitions. Each is a
# plot and a row of the table: more would hide the other numbers.
_PLOTTED_COLUMNS, _PLOTTED_VALUES = 8, 6


def values_metadata(report: ResultsReport, partition: str) -> dict[str, Any]:
    """Return a table with a bar chart for each of these columns; with partitions, shares as numbers, too.

    Args:
        report: What the table contains.
        partition: The partition key; "" without partitions.
    """
    answers = report.counts[ResultType.SUCCEEDED]
    if not answers:
        return {}
    metadata: dict[str, Any] = {keys.values_key(name): _chart(report, answers, name) for name in report.values}
    if partition:
        for name in list(report.values)[:_PLOTTED_COLUMNS]:
            metadata |= _shares(report.values[name], answers, name)
    return metadata


def _chart(report: ResultsReport, answers: int, name: str) -> dg.MarkdownMetadataValue:
    """Return a column's values with the answers that have them. Shares are those of all answers."""
    column = report.values[name]
    entries = list(_shown(column))
    without = answers - report.invalid_outputs - column.rows
    others = {"(no value)": without, "(invalid answer)": report.invalid_outputs}
    entries += [(text, rows) for text, rows in others.items() if rows > 0]
    lines = [
        {"value": text, "rows": f"{rows:,}", "share": percent(rows / answers), "": _bar(rows / answers)}
        for text, rows in entries
    ]
    unanswered = report.rows - answers
    notes = ["An answer counts for each of its values: the shares may add up to more than 100%."] * column.is_list
    if column.is_list and (more := len(column.by_value) - _SHOWN) > 0:
        notes.append(f"{count(more, 'more value')}, each with no more answers than these.")
    notes += [f"{count(unanswered, 'row')} without an answer."] * bool(unanswered)
    return markdown.table(_COLUMNS, lines, note=" ".join(notes))


def _shown(column: ValueCount) -> Iterator[tuple[str, int]]:
    """Yield values in the schema's order or, if there are many, the most frequent ones and the others together.

    The others of a column of lists are not added up: a row may have several of them.
    """
    by_value = column.by_value
    if len(by_value) <= _SHOWN:
        yield from by_value.items()
        return
    common = sorted(by_value.items(), key=lambda entry: -entry[1])
    if column.is_list:
        yield from common[:_SHOWN]
        return
    yield from common[: _SHOWN - 1]
    small = common[_SHOWN - 1 :]
    yield f"({count(len(small), 'other value')})", sum(rows for _, rows in small)


def _shares(column: ValueCount, answers: int, name: str) -> dict[str, float]:
    """Return the percentages of the answers that have a value. Of a boolean, the other one says no more."""
    is_boolean = column.by_value.keys() == {"true", "false"} and not column.is_list
    texts = ["true"] if is_boolean else list(column.by_value)
    if len(texts) > _PLOTTED_VALUES:
        return {}
    shares = {keys.share_key(name, text): round(100 * column.by_value[text] / answers, 2) for text in texts}
    return {key: share for key, share in shares.items() if share}  # a plot of zeros says nothing


def _bar(share: float) -> str:
    """Return a bar of eighths of blocks, so that small shares differ, too."""
    eighths = max(round(share * _BAR * 8), 1 if share else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
