"""The checks of a results table: the table is complete, and its answers are usable."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import ResultType, failed_rows, failed_share, settled_rows
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.results.examine import Examination, examine
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, counts
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.failures import explained
from batch_assets.dagster.partitions import partitions_of, partitions_with_results
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.remedies import error_in_words
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
        judge: Returns whether the check passed, why, and the figures.
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


def _every_row_once(pipeline: Pipeline, found: Examination) -> Verdict:
    good = not found.misplaced and found.rows == found.expected_rows
    why = f"{count(found.rows, 'row')} of {found.expected_rows:,} in the dataset"
    return good, "; ".join([why, *found.misplaced]), {"rows": found.rows, "expected_rows": found.expected_rows}


def _few_failed(pipeline: Pipeline, found: Examination) -> Verdict:
    most = pipeline.config.max_failed
    failed, share = failed_rows(found.counts), failed_share(found.counts)
    others = (ResultType.SUCCEEDED, ResultType.PENDING)
    kinds = {kind: rows for kind, rows in found.counts.items() if kind not in others}
    settled = count(settled_rows(found.counts), "row")
    if found.counts[ResultType.PENDING]:
        settled += " with a final type"
    summary = f"{failed:,} of {settled} failed"
    why = f"{summary} ({share:.2%}; max_failed is {most:.2%}){_listed(kinds)}"
    return share <= most, why, {"failed": failed, "share": share, "max_failed": most}


def _whole(pipeline: Pipeline, found: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    stopped, answers = found.stopped.total(), found.counts[ResultType.SUCCEEDED]
    share = _share(stopped, answers)
    summary = f"{stopped:,} of {count(answers, 'answer')} {'was' if stopped == 1 else 'were'} refused or cut off"
    why = f"{summary} ({share:.2%}; max_invalid is {most:.2%}){_listed(found.stopped)}"
    return share <= most, why, {"stopped": stopped, "share": share, "max_invalid": most} | dict(found.stopped)


def _few_invalid(pipeline: Pipeline, found: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    invalid, answers = found.invalid.total(), found.counts[ResultType.SUCCEEDED]
    share = _share(invalid, answers)
    summary = (
        f"{invalid:,} of {count(answers, 'answer')} {'does' if invalid == 1 else 'do'} not match the output schema"
    )
    why = f"{summary} ({share:.2%}; max_invalid is {most:.2%}){_listed(found.invalid)}"
    return share <= most, why, {"invalid": invalid, "share": share, "max_invalid": most}


def _none_pending(pipeline: Pipeline, found: Examination) -> Verdict:
    pending = found.counts[ResultType.PENDING]
    files = count(found.on_their_way, "request file")
    why = f"{count(pending, 'row is', 'rows are')} pending, and {files} will bring answers"
    if found.asked_again:
        why += f"; {count(found.asked_again, 'failed request is', 'failed requests are')} asked again"
    return not pending or found.on_their_way + found.asked_again > 0, why, {"pending": pending}


def _columns_match(pipeline: Pipeline, found: Examination) -> Verdict:
    why = "; ".join(found.columns) or "every column has its name and type"
    remedy = (
        f". Materialize {pipeline.name}/requests and the assets after it: answered requests are not sent again"
    )
    return not found.columns, why + (remedy if found.columns else ""), {"differences": len(found.columns)}


def _values_expected(pipeline: Pipeline, found: Examination) -> Verdict:
    unexpected = found.unexpected.total()
    answers = count(unexpected, "answer has", "answers have")
    why = f"{answers} a value that is missing from its enum{_listed(found.unexpected)}"
    return not unexpected, why, {"unexpected": unexpected}


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
        _whole,
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


def results_checks(of: PipelineAssets) -> dg.AssetChecksDefinition:
    """Build the checks of one pipeline's results, as one step that reads the table once."""
    results = of.stages["results"]
    specs = [
        dg.AssetCheckSpec(check.name, asset=results, description=check.description, blocking=check.blocking)
        for check in _checks_of(of.pipeline)
    ]

    @dg.multi_asset_check(
        name="__".join([*results.path, "checks"]),
        specs=specs,
        can_subset=True,
        required_resource_keys=required_keys(of.pipeline),
    )
    def examine_results(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        with explained():
            own = partitions_of(context)
            settings = settings_for(of.pipeline.config.resource_key, context.resources)
            judged = list(_results(of.pipeline, results, own, _examine(settings, of.pipeline, own)))
        yield from (result for check, result in judged if check.name in wanted)

    return LastingCheck.like(examine_results)


def results_evaluations(
    settings: Settings, pipeline: Pipeline, results: dg.AssetKey, own: list[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the checks on the tables as they are, so that another step can log the events.

    Args:
        settings: The settings of the root that the tables are under.
        pipeline: The pipeline.
        results: The asset of the tables.
        own: The partitions of the run.

    Yields:
        One evaluation for each check; none if there is no table.
    """
    if examined := _examine(settings, pipeline, own):
        for check, result in _results(pipeline, results, own, examined):
            yield evaluation(result, blocking=check.blocking)


def results_check_names(pipeline: Pipeline) -> set[str]:
    """Return the names of the checks of a pipeline's results."""
    return {check.name for check in _checks_of(pipeline)}


def _checks_of(pipeline: Pipeline) -> list[_Check]:
    return [check for check in _CHECKS if pipeline.output is not None or not check.typed]


def _results(
    pipeline: Pipeline, results: dg.AssetKey, own: list[str], examined: dict[str, Examination | BatchAssetsError]
) -> Iterator[tuple[_Check, dg.AssetCheckResult]]:
    for check in _checks_of(pipeline):
        judged = {
            name: (False, error_in_words(table), {})
            if isinstance(table, BatchAssetsError)
            else check.judge(pipeline, table)
            for name, table in examined.items()
        }
        yield check, _result(check, results, own, judged)


def _examine(settings: Settings, pipeline: Pipeline, own: list[str]) -> dict[str, Examination | BatchAssetsError]:
    """Examine the table of every partition that has one, the run's own partitions first.

    Dagster keeps one status of a check for all partitions. If a run judged its own partition alone, it would hide
    that another partition failed.

    Returns:
        Map of partition key ("" without partitions) to what was found, or to the error.
    """
    if not has_ledger(settings):
        return {}
    examined: dict[str, Examination | BatchAssetsError | None] = {}
    with open_root(settings) as root:
        for name in dict.fromkeys([*own, *partitions_with_results(root, pipeline.name)]):
            try:
                examined[name] = examine(root, pipeline, name)
            except BatchAssetsError as error:
                if [name] == own:
                    raise
                examined[name] = error
    return {name: table for name, table in examined.items() if table is not None}


def _result(
    check: _Check, results: dg.AssetKey, own: list[str], judged: dict[str, Verdict]
) -> dg.AssetCheckResult:
    failed = {name: why for name, (good, why, _) in judged.items() if not good}
    shown = failed or {name: why for name, (_, why, _) in judged.items()}
    lines = [f"{name}: {why}" if name else why for name, why in list(shown.items())[:_SHOWN]]
    if len(shown) > _SHOWN:
        lines.append(f"and {count(len(shown) - _SHOWN, 'more partition')}")
    # Another partition's failure must not stop this run, so it is a warning, which also makes the status `failed`.
    others_only = own != [""] and failed.keys().isdisjoint(own)
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=results,
        passed=not failed,
        severity=_WARN if others_only else check.severity,
        description="\n".join(lines) or "There is no table yet.",
        metadata=judged[own[0]][2] if len(own) == 1 and own[0] in judged else {},
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _listed(reasons: Counter[str] | dict[str, int]) -> str:
    """Return the most frequent reasons with their counts, as text."""
    commonest = counts(dict(Counter(reasons).most_common(_SHOWN)), nothing="")
    return f": {commonest}" if commonest else ""
