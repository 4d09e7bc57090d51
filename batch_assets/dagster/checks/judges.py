"""What each check of a results table looks at, and when it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import ResultType, failed_rows, failed_share
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.causes import Causes
from batch_assets.core.results.examine import Examination
from batch_assets.core.text import count, counts, percent
from batch_assets.dagster.metadata.numbers import without_zeros

_SHOWN = 10
_DIGITS = 4


@dataclass(frozen=True)
class Verdict:
    """What a check found in a table.

    Attributes:
        passed: Whether the table is as it should be.
        reason: What is wrong, as a sentence without its period; "" if nothing is. A check may allow some of it.
        figures: The numbers, by name.
        causes: Why rows are not as they should be, as far as that is known.
    """

    passed: bool
    reason: str
    figures: dict[str, Any]
    causes: Causes = field(default_factory=Causes)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: The name of the check.
        description: The description that Dagster shows.
        judge: Returns what it found in a table.
        severity: The severity of a failure.
        blocking: Whether a failure stops what depends on the table.
        typed: Whether the check is only for pipelines whose answers become typed columns.
        partitioned: Whether the check is only for pipelines that have partitions.
    """

    name: str
    description: str
    judge: Callable[[Pipeline, Examination], Verdict]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    blocking: bool = False
    typed: bool = False
    partitioned: bool = False


def checks_of(pipeline: Pipeline) -> list[Check]:
    """Return the checks of a pipeline's results."""
    return [
        check
        for check in _CHECKS
        if (pipeline.output is not None or not check.typed)
        and (pipeline.partitions is not None or not check.partitioned)
    ]


def _every_row_once(pipeline: Pipeline, table: Examination) -> Verdict:
    good = not table.misplaced and table.rows == table.expected_rows
    figures = {"rows": table.rows, "expected_rows": table.expected_rows}
    rows = f"{count(table.rows, 'row')} of {table.expected_rows:,} in the dataset"
    return Verdict(good, "" if good else "; ".join([rows, *table.misplaced]), figures)


def _few_failed(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_failed
    failed, share = failed_rows(table.counts), failed_share(table.counts)
    rows, pending = count(sum(table.counts.values()), "row"), table.counts[ResultType.PENDING]
    if pending:
        summary = f"{failed:,} of {rows} failed, and {pending:,} {'is' if pending == 1 else 'are'} pending"
        summary += f" ({percent(share)} fail if these go like the others; max_failed is {percent(most)})"
    else:
        summary = f"{failed:,} of {rows} failed ({percent(share)}; max_failed is {percent(most)})"
    kinds = {kind: rows for kind, rows in table.counts.items() if ResultType(kind).failed}
    reason = f"{summary}{_listed(kinds)}" if failed else ""
    return Verdict(share <= most, reason, _figures("failed", failed, share, max_failed=most), table.failures)


def _few_stopped(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    stopped, answers = table.stopped.total(), table.counts[ResultType.SUCCEEDED]
    share = _share(stopped, answers)
    summary = f"{stopped:,} of {count(answers, 'answer')} {'was' if stopped == 1 else 'were'} refused or cut off"
    reason = f"{summary} ({percent(share)}; max_invalid is {percent(most)}){_listed(table.stopped)}"
    figures = _figures("stopped", stopped, share, max_invalid=most) | dict(table.stopped)
    return Verdict(share <= most, reason if stopped else "", figures)


def _few_invalid(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    invalid, answers = table.invalid.total(), table.counts[ResultType.SUCCEEDED]
    share = _share(invalid, answers)
    summary = (
        f"{invalid:,} of {count(answers, 'answer')} {'does' if invalid == 1 else 'do'} not match the output schema"
    )
    reason = f"{summary} ({percent(share)}; max_invalid is {percent(most)})" if invalid else ""
    return Verdict(share <= most, reason, _figures("invalid", invalid, share, max_invalid=most), table.invalid)


def _none_pending(pipeline: Pipeline, table: Examination) -> Verdict:
    pending = table.counts[ResultType.PENDING]
    files = count(table.in_flight, "request file")
    reason = f"{count(pending, 'row is', 'rows are')} pending, and {files} will bring answers"
    if table.retried:
        reason += f"; {count(table.retried, 'request')} will be sent again"
    good = not pending or table.in_flight + table.retried > 0
    return Verdict(good, reason if pending else "", without_zeros({ResultType.PENDING.value: pending}))


def _columns_match(pipeline: Pipeline, table: Examination) -> Verdict:
    if table.waiting_rows:
        remedy = f"A newer table replaces this one when {count(table.waiting_rows, 'row')} of it are answered"
    else:
        remedy = (
            f"Materialize {pipeline.name}/requests and the assets after it: answered requests are not sent again"
        )
    reason = f"{'; '.join(table.columns)}. {remedy}" if table.columns else ""
    return Verdict(not table.columns, reason, without_zeros({"differences": len(table.columns)}))


def _values_expected(pipeline: Pipeline, table: Examination) -> Verdict:
    unexpected = table.unexpected.total()
    answers = count(unexpected, "answer has", "answers have")
    reason = f"{answers} a value that is missing from its enum" if unexpected else ""
    return Verdict(not unexpected, reason, without_zeros({"unexpected": unexpected}), table.unexpected)


def _model_stays(pipeline: Pipeline, table: Examination) -> Verdict:
    return Verdict(table.retiring is None, table.retiring or "", {})


def _figures(name: str, number: int, share: float, **limit: float) -> dict[str, Any]:
    """Return the numbers, and the limit as text: Dagster plots numbers, and the limit is always the same."""
    limits = {key: percent(value) for key, value in limit.items()}
    return without_zeros({name: number, "share": round(share, _DIGITS)}) | limits


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _listed(numbers: Counter[str] | dict[str, int]) -> str:
    """Return the largest numbers with their names, as the end of a sentence."""
    return f": {counts(dict(Counter(numbers).most_common(_SHOWN)))}" if numbers else ""


_WARN = dg.AssetCheckSeverity.WARN
_CHECKS = (
    Check(
        "every_row_once",
        "Every row of the dataset is in the table exactly once, in the order of the dataset.",
        _every_row_once,
    ),
    Check("failed_rows_are_few", "No more rows failed than max_failed allows.", _few_failed, blocking=True),
    Check(
        "failed_rows_are_few_in_all_partitions",
        "In no partition did more rows fail than max_failed allows. The blocking check is about one partition.",
        _few_failed,
        _WARN,
        partitioned=True,
    ),
    Check(
        "no_row_is_left_pending", "No row is pending without a request that can bring its answer.", _none_pending
    ),
    Check(
        "answers_are_whole",
        "No more answers were refused or cut off than max_invalid allows.",
        _few_stopped,
        _WARN,
    ),
    Check(
        "model_does_not_retire_soon",
        "The model of the pipeline can be asked for at least 60 more days, as far as was announced.",
        _model_stays,
        _WARN,
    ),
    Check("columns_match", "The table has the columns that the pipeline declares.", _columns_match, _WARN),
    Check(
        "invalid_outputs_are_few",
        "No more answers fail to match the output schema than max_invalid allows.",
        _few_invalid,
        _WARN,
        typed=True,
    ),
    Check(
        "enum_values_are_expected",
        "No answer has a value that is missing from its enum.",
        _values_expected,
        _WARN,
        typed=True,
    ),
)
