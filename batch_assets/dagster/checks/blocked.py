"""Why a failed check blocks what depends on a table, in the run itself: Dagster would only name the check."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from batch_assets.core.answers.result_types import ResultType, failed_rows
from batch_assets.core.quoting import printable
from batch_assets.core.remedies import Stage
from batch_assets.core.results.causes import Causes
from batch_assets.core.results.examine import Examination
from batch_assets.core.text import count
from batch_assets.dagster.remedies import materialize

# Causes of failed rows that are shown, and the most characters of each.
_CAUSES, _CAUSE_LENGTH = 5, 300


def why_blocked(pipeline: str, check: str, found: Sequence[str], tables: Collection[Examination]) -> str:
    """Return how many rows failed, why, and what a user can do.

    Args:
        pipeline: The name of the pipeline.
        check: The name of the blocking check that failed.
        found: What it found, as lines, one for each partition.
        tables: What was found in the tables.
    """
    causes = Causes()
    for table in tables:
        causes.update(table.failures)
    separator = "\n" if len(found) > 1 else " "
    lines = [f"The blocking asset check {check} failed:{separator}" + "\n".join(found)]
    for cause in list(causes)[:_CAUSES]:
        lines.append(f"{count(cause.rows, 'row')}: {printable(cause.as_text(_CAUSE_LENGTH))}")
    lines.append("Assets that depend on the table do not run.")
    rejected = sum(table.counts[ResultType.REJECTED] for table in tables)
    if rejected < sum(failed_rows(table.counts) for table in tables):
        lines.append(f"To send failed requests again: launch the job {pipeline}_retry_failed.")
    if rejected:
        build = materialize(Stage.REQUESTS, pipeline)
        lines.append(f"Rejected rows were never sent: fix the dataset, then {build} and the assets after it.")
    lines.append("If that many failed rows are acceptable: raise max_failed.")
    return "\n".join(lines)
