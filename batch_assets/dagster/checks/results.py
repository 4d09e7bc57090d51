"""The checks of a results table: the table is complete, and its answers are usable."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import ResultType, failed_rows, failed_share, final_rows
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.remedies import Stage
from batch_assets.core.results.examine import Examination, examine
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, counts
from batch_assets.dagster.checks.blocked import why_blocked
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.checks.other_partitions import UNNAMED, note, others
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.partitions import partitions_of, partitions_with_results
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.resource import required_keys, settings_for

_SHOWN = 10
Verdict = tuple[bool, str, dict[str, Any]]
Judge = Callable[[Pipeline, Examination], Verdict]


@dataclass(frozen=True)
class _Check:
    """One check.

    Attributes:
        name: The name of the check.
        description: The description that Dagster shows.
        judge: Returns whether the check passed, the reason, and the figures.
        severity: The severity of a failure.
        blocking: Whether a failure stops what depends on the table.
        typed: Whether the check is only for pipelines whose answers become typed columns.
    """

    name: str
    description: str
    judge: Judge
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    blocking: bool = False
    typed: bool = False


def _every_row_once(pipeline: Pipeline, table: Examination) -> Verdict:
    good = not table.misplaced and table.rows == table.expected_rows
    reason = f"{count(table.rows, 'row')} of {table.expected_rows:,} in the dataset"
    return good, "; ".join([reason, *table.misplaced]), {"rows": table.rows, "expected_rows": table.expected_rows}


def _few_failed(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_failed
    failed, share = failed_rows(table.counts), failed_share(table.counts)
    others = (ResultType.SUCCEEDED, ResultType.PENDING)
    kinds = {kind: rows for kind, rows in table.counts.items() if kind not in others}
    final = count(final_rows(table.counts), "row")
    if table.counts[ResultType.PENDING]:
        final += " with a final type"
    summary = f"{failed:,} of {final} failed"
    reason = f"{summary} ({share:.2%}; max_failed is {most:.2%}){_listed(kinds)}"
    return share <= most, reason, {"failed": failed, "share": share, "max_failed": most}


def _few_stopped(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    stopped, answers = table.stopped.total(), table.counts[ResultType.SUCCEEDED]
    share = _share(stopped, answers)
    summary = f"{stopped:,} of {count(answers, 'answer')} {'was' if stopped == 1 else 'were'} refused or cut off"
    reason = f"{summary} ({share:.2%}; max_invalid is {most:.2%}){_listed(table.stopped)}"
    return share <= most, reason, {"stopped": stopped, "share": share, "max_invalid": most} | dict(table.stopped)


def _few_invalid(pipeline: Pipeline, table: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    invalid, answers = table.invalid.total(), table.counts[ResultType.SUCCEEDED]
    share = _share(invalid, answers)
    summary = (
        f"{invalid:,} of {count(answers, 'answer')} {'does' if invalid == 1 else 'do'} not match the output schema"
    )
    reason = f"{summary} ({share:.2%}; max_invalid is {most:.2%}){_listed(table.invalid)}"
    return share <= most, reason, {"invalid": invalid, "share": share, "max_invalid": most}


def _none_pending(pipeline: Pipeline, table: Examination) -> Verdict:
    pending = table.counts[ResultType.PENDING]
    files = count(table.in_flight, "request file")
    reason = f"{count(pending, 'row is', 'rows are')} pending, and {files} will bring answers"
    if table.retried:
        reason += f"; {count(table.retried, 'request')} will be sent again"
    return not pending or table.in_flight + table.retried > 0, reason, {"pending": pending}


def _columns_match(pipeline: Pipeline, table: Examination) -> Verdict:
    reason = "; ".join(table.columns) or "every column has its name and type"
    if table.waiting_rows:
        remedy = f". A newer table replaces this one when {count(table.waiting_rows, 'row')} of it are answered"
    else:
        remedy = (
            f". Materialize {pipeline.name}/requests and the assets after it: answered requests are not sent again"
        )
    return not table.columns, reason + (remedy if table.columns else ""), {"differences": len(table.columns)}


def _values_expected(pipeline: Pipeline, table: Examination) -> Verdict:
    unexpected = table.unexpected.total()
    answers = count(unexpected, "answer has", "answers have")
    reason = f"{answers} a value that is missing from its enum{_listed(table.unexpected)}"
    return not unexpected, reason, {"unexpected": unexpected}


def _model_stays(pipeline: Pipeline, table: Examination) -> Verdict:
    return table.retiring is None, table.retiring or "the price list has no end of the model within 60 days", {}


_WARN = dg.AssetCheckSeverity.WARN
_CHECKS = (
    _Check(
        "every_row_once",
        "Every row of the dataset is in the table exactly once, in the order of the dataset.",
        _every_row_once,
    ),
    _Check("failed_rows_are_few", "No more rows failed than max_failed allows.", _few_failed, blocking=True),
    _Check(
        "no_row_is_left_pending", "No row is pending without a request that can bring its answer.", _none_pending
    ),
    _Check(
        "answers_are_whole",
        "No more answers were refused or cut off than max_invalid allows.",
        _few_stopped,
        _WARN,
    ),
    _Check(
        "model_does_not_retire_soon",
        "The model of the pipeline can be asked for at least 60 more days, as far as was announced.",
        _model_stays,
        _WARN,
    ),
    _Check("columns_match", "The table has the columns that the pipeline declares.", _columns_match, _WARN),
    _Check(
        "invalid_outputs_are_few",
        "No more answers fail to match the output schema than max_invalid allows.",
        _few_invalid,
        _WARN,
        typed=True,
    ),
    _Check(
        "enum_values_are_expected",
        "No answer has a value that is missing from its enum.",
        _values_expected,
        _WARN,
        typed=True,
    ),
)


def results_checks(assets: PipelineAssets) -> dg.AssetChecksDefinition:
    """Build the checks of one pipeline's results, as one step that reads the table once."""
    results = assets.stages[Stage.RESULTS]
    specs = [
        dg.AssetCheckSpec(check.name, asset=results, description=check.description, blocking=check.blocking)
        for check in _checks_of(assets.pipeline)
    ]

    @dg.multi_asset_check(
        name="__".join([*results.path, "checks"]),
        specs=specs,
        can_subset=True,
        required_resource_keys=required_keys(assets.pipeline),
    )
    def examine_results(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        with explained():
            run_partitions = partitions_of(context)
            settings = settings_for(assets.pipeline.config.resource_key, context.resources)
            examined = _examine(settings, assets.pipeline, run_partitions)
            judged = [
                (check, result)
                for check, result in _results(assets.pipeline, results, run_partitions, examined)
                if check.name in wanted
            ]
        yield from (result for _, result in judged)
        for check, result in judged:
            if check.blocking and not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
                tables = [table for table in examined.values() if isinstance(table, Examination)]
                raise dg.Failure(why_blocked(assets.pipeline.name, result, tables), allow_retries=False)

    return LastingCheck.like(examine_results)


def results_evaluations(
    settings: Settings, pipeline: Pipeline, results: dg.AssetKey, run_partitions: list[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the checks on the tables as they are, so that another step can log the events.

    Args:
        settings: The settings of the root that the tables are under.
        pipeline: The pipeline.
        results: The asset of the tables.
        run_partitions: The partitions of the run.

    Yields:
        One evaluation for each check; none if there is no table.
    """
    if examined := _examine(settings, pipeline, run_partitions):
        for check, result in _results(pipeline, results, run_partitions, examined):
            yield evaluation(result, blocking=check.blocking)


def results_check_names(pipeline: Pipeline) -> set[str]:
    """Return the names of the checks of a pipeline's results."""
    return {check.name for check in _checks_of(pipeline)}


def _checks_of(pipeline: Pipeline) -> list[_Check]:
    return [check for check in _CHECKS if pipeline.output is not None or not check.typed]


def _results(
    pipeline: Pipeline,
    results: dg.AssetKey,
    run_partitions: list[str],
    examined: dict[str, Examination | BatchAssetsError],
) -> Iterator[tuple[_Check, dg.AssetCheckResult]]:
    for check in _checks_of(pipeline):
        judged = {
            name: (False, error_as_text(table), {})
            if isinstance(table, BatchAssetsError)
            else check.judge(pipeline, table)
            for name, table in examined.items()
        }
        yield check, _result(check, results, run_partitions, judged)


def _examine(
    settings: Settings, pipeline: Pipeline, run_partitions: list[str]
) -> dict[str, Examination | BatchAssetsError]:
    """Examine the tables of the run's own partitions, and read what the ledger records about the others.

    Dagster keeps one status of a check for all partitions. If a run judged its own partition alone, it would hide
    that another partition failed. A run without a partition examines every table.

    Returns:
        Map of partition key ("" without partitions) to the examined table, or to the error.
    """
    if not has_ledger(settings):
        return {}
    examined: dict[str, Examination | BatchAssetsError] = {}
    with open_root(settings) as root:
        present = partitions_with_results(root, pipeline.name)
        own = run_partitions if run_partitions != [""] else present
        for name in own:
            try:
                table = examine(root, pipeline, name)
            except BatchAssetsError as error:
                if [name] == run_partitions:
                    raise
                examined[name] = error
            else:
                if table is not None:
                    examined[name] = table
        with root.ledger.write(pipeline.name) as tx:
            for name, table_or_error in examined.items():
                if isinstance(table_or_error, Examination):
                    note(tx, pipeline.name, name, table_or_error)
            return examined | others(tx, pipeline.name, set(present) - set(own))


def _result(
    check: _Check, results: dg.AssetKey, run_partitions: list[str], judged: dict[str, Verdict]
) -> dg.AssetCheckResult:
    failed = {name: reason for name, (good, reason, _) in judged.items() if not good}
    shown = failed or {name: reason for name, (_, reason, _) in judged.items()}
    lines = [f"{name}: {reason}" if name else reason for name, reason in list(shown.items())[:_SHOWN]]
    if len(shown) > _SHOWN:
        lines.append(f"and {count(len(shown) - _SHOWN, 'more partition')}")
    # Another partition's failure must not stop this run, so it is a warning, which also makes the status `failed`.
    others_only = run_partitions != [""] and failed.keys().isdisjoint(run_partitions)
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=results,
        passed=not failed,
        severity=_WARN if others_only else check.severity,
        description=markdown.bullets(lines) if len(lines) > 1 else "".join(lines) or "There is no table yet.",
        metadata=judged[run_partitions[0]][2] if len(run_partitions) == 1 and run_partitions[0] in judged else {},
    )


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def _listed(reasons: Counter[str] | dict[str, int]) -> str:
    """Return the most frequent reasons with their counts, as text."""
    named = {reason: number for reason, number in Counter(reasons).most_common(_SHOWN) if reason != UNNAMED}
    commonest = counts(named, nothing="")
    return f": {commonest}" if commonest else ""
