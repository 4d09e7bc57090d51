"""The checks of a table of results: it is whole, and its answers are of use."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

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
from batch_assets.dagster.resource import required_keys, settings_for

_SHOWN = 10
Verdict = tuple[bool, str, dict[str, Any]]
Judge = Callable[[Pipeline, Examination], Verdict]


@dataclass(frozen=True)
class _Check:
    """One check.

    Attributes:
        judge: says whether it passed, why, and the figures.
        typed: only for pipelines whose answers become typed columns.
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
    share = _share(found.failed, found.rows)
    kinds = {kind: rows for kind, rows in found.counts.items() if kind not in ("succeeded", "pending")}
    said = f"{found.failed:,} of {count(found.rows, 'row')} failed"
    why = f"{said} ({share:.2%}; max_failed is {most:.2%}){_listed(kinds)}"
    return share <= most, why, {"failed": found.failed, "share": share, "max_failed": most}


def _whole(pipeline: Pipeline, found: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    stopped, answers = found.stopped.total(), found.counts["succeeded"]
    share = _share(stopped, answers)
    said = f"{stopped:,} of {count(answers, 'answer')} {'was' if stopped == 1 else 'were'} refused or cut off"
    why = f"{said} ({share:.2%}; max_invalid is {most:.2%}){_listed(found.stopped)}"
    return share <= most, why, {"stopped": stopped, "share": share, "max_invalid": most} | dict(found.stopped)


def _few_invalid(pipeline: Pipeline, found: Examination) -> Verdict:
    most = pipeline.config.max_invalid
    invalid, answers = found.invalid.total(), found.counts["succeeded"]
    share = _share(invalid, answers)
    said = (
        f"{invalid:,} of {count(answers, 'answer')} {'does' if invalid == 1 else 'do'} not match the output schema"
    )
    why = f"{said} ({share:.2%}; max_invalid is {most:.2%}){_listed(found.invalid)}"
    return share <= most, why, {"invalid": invalid, "share": share, "max_invalid": most}


def _none_pending(pipeline: Pipeline, found: Examination) -> Verdict:
    pending = found.counts["pending"]
    files = count(found.on_their_way, "request file")
    why = f"{count(pending, 'row is', 'rows are')} pending, and {files} will bring answers"
    if found.asked_again:
        why += f"; {count(found.asked_again, 'failed request is', 'failed requests are')} asked again"
    return not pending or found.on_their_way + found.asked_again > 0, why, {"pending": pending}


def _columns_match(pipeline: Pipeline, found: Examination) -> Verdict:
    why = "; ".join(found.columns) or "every column has its name and type"
    remedy = f". Materialize {pipeline.name}/requests and what follows: answers are not asked again"
    return not found.columns, why + (remedy if found.columns else ""), {"differences": len(found.columns)}


def _values_expected(pipeline: Pipeline, found: Examination) -> Verdict:
    unexpected = found.unexpected.total()
    answers = count(unexpected, "answer holds", "answers hold")
    why = f"{answers} a value that its enum does not have{_listed(found.unexpected)}"
    return not unexpected, why, {"unexpected": unexpected}


_WARN = dg.AssetCheckSeverity.WARN
_CHECKS = (
    _Check(
        "every_row_once", "Every row of the dataset is in the table exactly once, in its order.", _every_row_once
    ),
    _Check("failed_rows_are_few", "Not more rows failed than max_failed allows.", _few_failed, blocking=True),
    _Check("no_row_is_left_pending", "No row waits for an answer that nothing will bring.", _none_pending),
    _Check(
        "answers_are_whole",
        "Not more answers than max_invalid allows were refused or cut off before their end.",
        _whole,
        _WARN,
    ),
    _Check("columns_match", "The columns are those that the pipeline says.", _columns_match, _WARN),
    _Check(
        "invalid_outputs_are_few",
        "Not more answers than max_invalid allows do not match the output schema.",
        _few_invalid,
        _WARN,
        typed=True,
    ),
    _Check(
        "enum_values_are_expected",
        "No answer holds a value that its enum lacks.",
        _values_expected,
        _WARN,
        typed=True,
    ),
)


def results_checks(of: PipelineAssets) -> dg.AssetChecksDefinition:
    """The checks of one pipeline's results: one step that reads the table once."""
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
            found = list(_results(of.pipeline, results, own, _examine(settings, of.pipeline, own)))
        yield from (result for check, result in found if check.name in wanted)

    return LastingCheck.like(examine_results)


def results_evaluations(
    settings: Settings, pipeline: Pipeline, results: dg.AssetKey, own: list[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks say of the tables as they are, for another step than their own to log; nothing while there
    are none.

    Args:
        settings: where the tables are.
        results: the asset that they are of.
        own: the partitions of the run.
    """
    if found := _examine(settings, pipeline, own):
        for check, result in _results(pipeline, results, own, found):
            yield evaluation(result, blocking=check.blocking)


def results_check_names(pipeline: Pipeline) -> set[str]:
    """Of the checks of its results."""
    return {check.name for check in _checks_of(pipeline)}


def _checks_of(pipeline: Pipeline) -> list[_Check]:
    return [check for check in _CHECKS if pipeline.output is not None or not check.typed]


def _results(
    pipeline: Pipeline, results: dg.AssetKey, own: list[str], found: dict[str, Examination | BatchAssetsError]
) -> Iterator[tuple[_Check, dg.AssetCheckResult]]:
    for check in _checks_of(pipeline):
        judged = {
            name: (False, str(one), {}) if isinstance(one, BatchAssetsError) else check.judge(pipeline, one)
            for name, one in found.items()
        }
        yield check, _result(check, results, own, judged)


def _examine(settings: Settings, pipeline: Pipeline, own: list[str]) -> dict[str, Examination | BatchAssetsError]:
    """Every partition that has a table, the step's own ones first; "" where there are none.

    Dagster keeps one status of a check for all partitions: judged by its own partition alone, a run would hide
    that another partition failed.
    """
    if not has_ledger(settings):
        return {}
    found: dict[str, Examination | BatchAssetsError | None] = {}
    with open_root(settings) as root:
        for name in dict.fromkeys([*own, *partitions_with_results(root, pipeline.name)]):
            try:
                found[name] = examine(root, pipeline, name)
            except BatchAssetsError as error:
                if [name] == own:
                    raise
                found[name] = error
    return {name: one for name, one in found.items() if one is not None}


def _result(
    check: _Check, results: dg.AssetKey, own: list[str], judged: dict[str, Verdict]
) -> dg.AssetCheckResult:
    failed = {name: why for name, (good, why, _) in judged.items() if not good}
    shown = failed or {name: why for name, (_, why, _) in judged.items()}
    lines = [f"{name}: {why}" if name else why for name, why in list(shown.items())[:_SHOWN]]
    if len(shown) > _SHOWN:
        lines.append(f"and {count(len(shown) - _SHOWN, 'more partition')}")
    # The run of a partition is not stopped by what another one lacks: a warning makes the status `failed` too.
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
    """The commonest reasons, with how often."""
    commonest = counts(dict(Counter(reasons).most_common(_SHOWN)), nothing="")
    return f": {commonest}" if commonest else ""
