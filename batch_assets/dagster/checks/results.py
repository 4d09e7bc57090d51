"""The checks of a results table: the table is complete, and its answers are usable."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import dagster as dg

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.remedies import Stage
from batch_assets.core.results.causes import Causes
from batch_assets.core.results.examine import Examination, examine
from batch_assets.core.root import Root
from batch_assets.core.text import count
from batch_assets.dagster.checks import by_partition
from batch_assets.dagster.checks.blocked import why_blocked
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.judges import Check, Verdict, checks_of
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.checks.other_partitions import note, others
from batch_assets.dagster.failures import explained
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.partitions import partitions_of, partitions_with_results
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.resource import required_keys, settings_for
from batch_assets.dagster.run_roots import root_of_run

_SHOWN, _CAUSE_LENGTH = 10, 300


class _Judged(NamedTuple):
    """What a check found.

    Attributes:
        check: The check.
        result: Its result for all partitions that it has looked at.
        lines: What is wrong in which partition.
        of_partitions: Its result for each partition, if Dagster keeps a status of each.
    """

    check: Check
    result: dg.AssetCheckResult
    lines: list[str]
    of_partitions: dict[str, dg.AssetCheckResult]


def results_checks(assets: PipelineAssets) -> dg.AssetChecksDefinition:
    """Build the checks of one pipeline's results, as one step that reads the table once."""
    results = assets.stages[Stage.RESULTS]
    specs = {check.name: by_partition.spec_of(check, results, assets) for check in checks_of(assets.pipeline)}

    @dg.multi_asset_check(
        name="__".join([*results.path, "checks"]),
        specs=list(specs.values()),
        can_subset=True,
        required_resource_keys=required_keys(assets.pipeline),
    )
    def examine_results(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        with explained():
            run_partitions = partitions_of(context)
            settings = settings_for(assets.pipeline.config.resource_key, context.resources)
            examined: dict[str, Examination | BatchAssetsError] = {}
            if has_ledger(settings):
                with root_of_run(context.run.run_id, settings, sends=False) as root:
                    examined = _examine(root, assets.pipeline, run_partitions)
            judged = [
                one
                for one in _results(assets.pipeline, results, run_partitions, examined)
                if one.check.name in wanted
            ]
        # Dagster's own conversion of a result knows neither a check of several partitions nor, in a step that has
        # one with partitions, a run without a partition.
        is_native = assets.partitions is None or run_partitions != [""]
        for check, result, _, of_partitions in judged:
            if is_native and not of_partitions:
                yield result
                continue
            yield dg.Output(None, specs[check.name].get_python_identifier())
            if of_partitions:
                found = of_partitions
                yield from by_partition.evaluations(context.instance, results, found, blocking=check.blocking)
            else:
                yield evaluation(result, blocking=check.blocking)
        for check, result, lines, _ in judged:
            if check.blocking and not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
                tables = [table for table in examined.values() if isinstance(table, Examination)]
                raise dg.Failure(why_blocked(assets.pipeline.name, check.name, lines, tables), allow_retries=False)

    return LastingCheck.like(examine_results)


def results_evaluations(
    instance: dg.DagsterInstance,
    root: Root,
    pipeline: Pipeline,
    results: dg.AssetKey,
    run_partitions: list[str],
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the checks on the tables as they are, so that another step can log the events.

    Args:
        instance: The instance that knows the materializations.
        root: The root that the tables are under.
        pipeline: The pipeline.
        results: The asset of the tables.
        run_partitions: The partitions of the run.

    Yields:
        One evaluation for each check, or for each partition that has a table; none if there is no table.
    """
    if examined := _examine(root, pipeline, run_partitions):
        for check, result, _, of_partitions in _results(pipeline, results, run_partitions, examined):
            if of_partitions:
                present = {key: one for key, one in of_partitions.items() if key in examined}
                yield from by_partition.evaluations(instance, results, present, blocking=check.blocking)
            else:
                yield evaluation(result, blocking=check.blocking)


def results_check_names(pipeline: Pipeline) -> set[str]:
    """Return the names of the checks of a pipeline's results."""
    return {check.name for check in checks_of(pipeline)}


def _results(
    pipeline: Pipeline,
    results: dg.AssetKey,
    run_partitions: list[str],
    examined: dict[str, Examination | BatchAssetsError],
) -> Iterator[_Judged]:
    for check in checks_of(pipeline):
        judged = {
            name: Verdict(False, error_as_text(table), {})
            if isinstance(table, BatchAssetsError)
            else check.judge(pipeline, table)
            for name, table in examined.items()
        }
        if pipeline.partitions is None or not check.blocking:
            yield _judged(check, results, run_partitions, judged)
            continue
        own = list(judged) if run_partitions == [""] else run_partitions
        judged = {name: judged[name] for name in own if name in judged}
        of_partitions = {
            name: _judged(check, results, [name], {name: judged[name]} if name in judged else {}).result
            for name in own
        }
        yield _judged(check, results, own, judged)._replace(of_partitions=of_partitions)


def _examine(
    root: Root, pipeline: Pipeline, run_partitions: list[str]
) -> dict[str, Examination | BatchAssetsError]:
    """Examine the tables of the run's own partitions, and read what the ledger records about the others.

    Of most checks, Dagster keeps one status for all partitions. If a run judged its own partition alone, it would
    hide that another partition failed. A run without a partition examines every table.

    Returns:
        Map of partition key ("" without partitions) to the examined table, or to the error.
    """
    list_present = partial(partitions_with_results, root, pipeline.name)
    if run_partitions == [""]:
        own = present = list_present()
        examined = _examined(root, pipeline, own, run_partitions)
    else:
        own = run_partitions
        present, examined = root.storage.both(
            list_present, partial(_examined, root, pipeline, own, run_partitions)
        )
    with root.ledger.write(pipeline.name) as tx:
        for name, table_or_error in examined.items():
            if isinstance(table_or_error, Examination):
                note(tx, pipeline.name, name, table_or_error)
        return examined | others(tx, pipeline.name, set(present) - set(own))


def _examined(
    root: Root, pipeline: Pipeline, partitions: list[str], run_partitions: list[str]
) -> dict[str, Examination | BatchAssetsError]:
    """Examine the tables of some partitions. The error of the run's only one is raised."""
    examined: dict[str, Examination | BatchAssetsError] = {}
    for name in partitions:
        try:
            table = examine(root, pipeline, name)
        except BatchAssetsError as error:
            if [name] == run_partitions:
                raise
            examined[name] = error
        else:
            if table is not None:
                examined[name] = table
    return examined


def _judged(
    check: Check, results: dg.AssetKey, run_partitions: list[str], verdicts: dict[str, Verdict]
) -> _Judged:
    failed = {name: verdict for name, verdict in verdicts.items() if not verdict.passed}
    shown = failed
    if not failed and len(verdicts) == 1:  # of what passed, only what a check allows in the only table
        shown = {name: verdict for name, verdict in verdicts.items() if verdict.reason}
    lines = [f"{name}: {verdict.reason}" if name else verdict.reason for name, verdict in shown.items()]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {count(len(lines) - _SHOWN, 'more partition')}"]
    # Another partition's failure must not stop this run, so it is a warning, which also makes the status `failed`.
    others_only = run_partitions != [""] and failed.keys().isdisjoint(run_partitions)
    own = run_partitions[0] if len(run_partitions) == 1 else None
    result = dg.AssetCheckResult(
        check_name=check.name,
        asset_key=results,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN if others_only else check.severity,
        description=_description(lines, shown.values()) if verdicts else "There is no table yet.",
        metadata=verdicts[own].figures if own in verdicts else {},
    )
    return _Judged(check, result, lines, {})


def _description(lines: list[str], verdicts: Iterable[Verdict]) -> str | None:
    """Return what is wrong as Markdown, then the causes, the most frequent first; None if nothing is."""
    causes = Causes()
    for verdict in verdicts:
        causes.update(verdict.causes)
    common = list(causes)[:_SHOWN]
    listed = [f"{count(cause.rows, 'row')}: {markdown.plain(cause.as_text(_CAUSE_LENGTH))}" for cause in common]
    hidden = causes.total() - sum(cause.rows for cause in common)
    if listed and hidden:
        listed.append(f"{count(hidden, 'row')} with other causes")
    if len(lines) > 1:
        lines = [markdown.bullets(lines), *(["Why, as far as it is known:"] if listed else [])]
    return "\n\n".join(filter(None, [*lines, markdown.bullets(listed)])) or None
