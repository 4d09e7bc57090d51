"""`batch-assets run`: the whole chain of one pipeline, without Dagster's UI or daemon."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.definitions_error import loading
from batch_assets.cli.resource_option import settings_of
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.text import count

if TYPE_CHECKING:
    from rich.console import Console

    from batch_assets.core.pipeline.pipeline import Pipeline
    from batch_assets.core.requests.report import AskAgain
    from batch_assets.core.results.report import ResultsReport
    from batch_assets.core.root import Root
    from batch_assets.core.settings import Settings
    from batch_assets.dagster.pipelines import PipelineAssets

_FAILED_ROWS = 3
_INTERRUPTED = 128 + signal.SIGINT


class UnknownPipelineError(BatchAssetsError):
    """The project has no pipeline of that name."""


@click.command()
@click.argument("name")
@click.option("--partition", metavar="KEY", default="", help="Partition to run, for a pipeline with partitions.")
@click.option(
    "--retry-failed", is_flag=True, help="Ask again, once more, what failed for good or used up its attempts."
)
@click.option("--refresh", is_flag=True, help="Ask again what is answered, too; it says the cost and asks first.")
@click.option("--yes", is_flag=True, help="Refresh without being asked.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Ask only the first N requests of those still to ask, of the partition that is run.",
)
@click.option(
    "--same-workspace",
    is_flag=True,
    help="The key belongs to the workspace of the key that it replaces: look for uploads in doubt with it.",
)
def run(
    name: str,
    partition: str,
    retry_failed: bool,
    refresh: bool,
    yes: bool,
    limit: int | None,
    same_workspace: bool,
) -> None:
    """Runs the pipeline NAME from its dataset to its results.

    It works on the same ledger and files as the UI. What was answered before is not asked again, and a run
    that was stopped goes on where it stood when it is started again.

    With --limit the other rows are pending, and a run without it asks for them; those that failed for good
    stay as they are. With --refresh the table stays as it was until every row has its new answer; a row whose
    request fails for good keeps the old one. A refresh with --limit goes on with the next --refresh; a run
    without keeps the answers that came in, and ends it.

    \b
    Examples:
      batch-assets run review_triage
      batch-assets run review_triage --partition 2026-11-20
      batch-assets run review_triage --retry-failed
      batch-assets run review_triage --limit 10
      batch-assets run review_triage --refresh --yes

    \b
    Exit code:
      0    every row has its result, or those of the limit have, and no more than max_failed of them without
           an answer
      3    every row has its result, but more rows than max_failed are without an answer
      1    the run itself failed; the reason is on standard error
      130  Ctrl-C; the batches go on
    """
    from batch_assets.cli.progress import make_console
    from batch_assets.core.answers.result_types import failed_share
    from batch_assets.core.batches.workspace import accept_key
    from batch_assets.core.ledger import submissions
    from batch_assets.core.open_root import open_root
    from batch_assets.core.requests.report import AskAgain
    from batch_assets.dagster.notifications import notify
    from batch_assets.dagster.partitions import check_partition

    console = make_console()
    found = find_pipeline(name)
    settings = settings_of(found.pipeline.config.resource_key)
    settings.require_endpoint()
    check_partition(name, found.partitions, partition)
    pipeline, again = found.pipeline, AskAgain(retry_failed, refresh, limit)
    before: set[str] | None = None
    try:
        with open_root(settings) as root:
            with root.ledger.read() as tx:
                before = submissions.known_ids(tx, pipeline.name)
            if same_workspace:
                accept_key(root)
            results = _run(root, pipeline, partition, again, yes, console)
            for problem in notify(root, {name: found}, announced_only=False):
                console.print(f"  {problem}", markup=False)
    except KeyboardInterrupt:
        click.echo(how_to_go_on(settings, pipeline.name, partition, again, before), err=True)
        sys.exit(_INTERRUPTED)
    if failed_share(results.counts) > pipeline.config.max_failed:
        sys.exit(_FAILED_ROWS)


def find_pipeline(name: str) -> PipelineAssets:
    """The project's pipeline of that name.

    Errors:
        UnknownPipelineError: naming those that there are.
        DefinitionsError: one of the project's files is wrong.
    """
    from batch_assets.cli.project import load_pipeline_assets

    with loading():
        pipelines = load_pipeline_assets()
    if name not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        raise UnknownPipelineError(f"there is no pipeline {name!r} in this project; its pipelines: {known}")
    return pipelines[name]


def _run(
    root: Root, pipeline: Pipeline, partition: str, again: AskAgain, yes: bool, console: Console
) -> ResultsReport:
    from batch_assets.cli.confirm import confirm_cost
    from batch_assets.cli.headless import run_pipeline
    from batch_assets.cli.progress import watching
    from batch_assets.cli.project import load_dataset_table
    from batch_assets.cli.summary import summary
    from batch_assets.core.sink.write import write_sink

    root.check_endpoint()
    table = load_dataset_table(pipeline, partition)
    if again.refresh:
        confirm_cost(root, pipeline, partition, again, table=table, yes=yes)
    with watching(console) as watcher:
        results = run_pipeline(root, pipeline, partition, watcher, again=again, table=table)
    for line in summary(root, pipeline.name, partition, results):
        console.print(line, markup=False)
    if not results.final:
        console.print(f"  {_beyond_the_limit(root, results)}", markup=False)
    elif (written := write_sink(root, pipeline, partition, results.submission_id)) is not None:
        console.print(f"  table {written.table}: {written.rows:,} rows inserted or updated", markup=False)
    elif pipeline.config.sink is not None:
        console.print("  the sink was left alone: a newer submission is in force, and its run writes it")
    return results


def _beyond_the_limit(root: Root, results: ResultsReport) -> str:
    from batch_assets.core.ledger import submissions
    from batch_assets.core.planning.snapshot import Snapshot

    with root.ledger.read() as tx:
        snapshot = Snapshot.of(tx, submissions.by_id(tx, results.submission_id))
    submission = snapshot.submission
    progress = f"{submission.written:,} of {submission.written + results.left_out:,} asked"
    if not snapshot.needs_refresh:
        return f"{progress}; run without --limit for the rest"
    table = ". Until then the table stays as it was" if results.held_back else ""
    return f"{progress}; --refresh goes on with the rest, a run without it keeps these and ends the refresh{table}"


def how_to_go_on(settings: Settings, name: str, partition: str, again: AskAgain, before: set[str] | None) -> str:
    """The command that does what is left of an interrupted one.

    Args:
        before: ids of the submissions that it found; None when it did not come that far.
    """
    from batch_assets.core.ledger import batches, submissions
    from batch_assets.core.ledger.states import BatchState, FileState
    from batch_assets.core.open_root import open_root
    from batch_assets.core.store.refreshes import goes_on

    with open_root(settings) as root, root.ledger.read() as tx:
        running = len(batches.in_state(tx, BatchState.OPEN, pipeline=name))
        newest = submissions.newest(tx, name, partition)
        built = newest if newest is not None and before is not None and newest.id not in before else None
        waited = submissions.waited_on(tx, built.id) if built is not None else []
        unsent = sum(file.requests for file in submissions.unsent(tx, name, partition))
        is_refresh = built is not None and goes_on(tx, built)
    option, beyond = text.partition_option(partition), ""
    # Requests in flight go on without it; only unsent ones would be left out.
    if again.retry_failed and (built is None or any(file.state is FileState.READY for file in waited)):
        option += " --retry-failed"
    # One that a limit cut short goes on only when a refresh is asked for.
    if again.refresh and not is_refresh:
        option += " --refresh"
    if again.limit is not None and built is None:
        option += f" --limit {again.limit}"
    elif built is not None and built.left_out:
        # The limit is of what is still to ask: what is in flight by now counts no more.
        option += f" --limit {unsent}" if unsent else ""
        beyond = "" if unsent else f"\nIt asks the {count(built.left_out, 'request')} beyond the limit as well."
    state = f"{running} of its batches {'goes' if running == 1 else 'go'} on at the API. " if running else ""
    return f"\nStopped. {state}To go on, without sending anything twice: batch-assets run {name}{option}{beyond}"
