"""Why a failed check blocks what depends on a table, in the run itself: Dagster would only name the check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import dagster as dg

from batch_assets.core.answers.result_types import ResultType, failed_rows
from batch_assets.core.quoting import printable
from batch_assets.core.remedies import Stage
from batch_assets.core.results.examine import Examination
from batch_assets.core.text import count
from batch_assets.dagster.remedies import materialize

# Causes of failed rows that are shown, and the most characters of each.
_CAUSES, _CAUSE_LENGTH = 5, 300


def why_blocked(pipeline: str, result: dg.AssetCheckResult, tables: Collection[Examination]) -> str:
    """Return how many rows failed, why, and what a user can do.

    Args:
        pipeline: The name of the pipeline.
        result: The failed result of a blocking check.
        tables: What was found in the tables.
    """
    failures: Counter[str] = Counter()
    example: dict[str, str] = {}
    for table in tables:
        failures.update(table.failures)
        example = table.failure_example | example
    reason = result.description or ""
    separator = "\n" if "\n" in reason else " "  # of several partitions, it is a list
    lines = [f"The blocking asset check {result.check_name} failed:{separator}{reason}"]
    for name, rows in failures.most_common(_CAUSES):
        text = printable(example.get(name, ""))[:_CAUSE_LENGTH]
        lines.append(f"{count(rows, 'row')}: {name or 'no error type'}{f', such as: {text}' if text else ''}")
    lines.append("Assets that depend on the table do not run.")
    rejected = sum(table.counts[ResultType.REJECTED] for table in tables)
    if rejected < sum(failed_rows(table.counts) for table in tables):
        lines.append(f"To send failed requests again: launch the job {pipeline}_retry_failed.")
    if rejected:
        build = materialize(Stage.REQUESTS, pipeline)
        lines.append(f"Rejected rows were never sent: fix the dataset, then {build} and the assets after it.")
    lines.append("If that many failed rows are acceptable: raise max_failed.")
    return "\n".join(lines)
