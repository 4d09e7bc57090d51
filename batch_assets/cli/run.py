"""`batch-assets run` runs all stages of a pipeline, without Dagster's UI or daemon."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.find_pipeline import find_pipeline
from batch_assets.cli.resource_option import settings_of
from batch_assets.core.text import count

if TYPE_CHECKING:
    from rich.console import Console

    from batch_assets.core.pipeline.pipeline import Pipeline
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.requests.report import AskAgain
    from batch_assets.core.results.report import ResultsReport
    from batch_assets.core.root import Root
    from batch_assets.core.settings import Settings
    from batch_assets.dagster.pipelines import PipelineAssets

_FAILED_ROWS, _HELD = 3, 4
_INTERRUPTED = 128 + signal.SIGINT


@click.command()
@click.argument("name")
@click.option("--partition", metavar="KEY", default="", help="The partition, for a pipeline with partitions.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Send again the requests that failed permanently or used up their attempts.",
)
@click.option(
    "--refresh",
    is_flag=True,
    help="Send answered requests again too. Shows the cost and asks for confirmation.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Refresh without confirmation, and send also what may cost more than confirm_above.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Send only the first N of the requests that are to be sent, in the partition that is run.",
)
@click.option(
    "--accept-rendering",
    is_flag=True,
    help="After an upgrade: send answered rows again that render differently since then.",
)
@click.option(
    "--same-workspace",
    is_flag=True,
    help="Confirm that the API key is of the same workspace as the key that it replaced, and look for uploads in "
    "doubt with it.",
)
def run(
    name: str,
    partition: str,
    retry_failed: bool,
    refresh: bool,
    yes: bool,
    limit: int | None,
    accept_rendering: bool,
    same_workspace: bool,
) -> None:
    """Run the pipeline NAME from its dataset to its results.

    The command works on the same ledger and files as the UI. Requests that were answered are not sent again. If
    a run was stopped, the same command continues it.

    With --limit the other rows are pending until a run without it sends their requests. Rows that failed
    permanently stay as they are.

    With --refresh the table stays as it was until every row has its new answer. A row whose new request fails
    permanently keeps its old answer. The next --refresh continues a refresh with --limit; a run without it
    keeps the answers that arrived, and ends the refresh.

    After an upgrade that prints values of the dataset in another way, a run that would send answered rows again
    sends nothing and says how many and the estimated cost. With --accept-rendering it sends them.

    \b
    Examples:
      batch-assets run review_triage
      batch-assets run review_triage --partition 2026-11-20
      batch-assets run review_triage --retry-failed
      batch-assets run review_triage --limit 10
      batch-assets run review_triage --refresh --yes

    \b
    Exit code:
      0    the run is complete; at most max_failed of the rows have no answer
      3    the run is complete; more than max_failed of the rows have no answer
      4    requests are held, and nothing else is under way
      1    the run itself failed; the reason is on standard error
      130  Ctrl-C; the batches continue at the API
    """
    from batch_assets.cli.emulated_root import with_api
    from batch_assets.core.pipeline.client import settings_for_pipeline
    from batch_assets.core.requests.report import AskAgain
    from batch_assets.dagster.partitions import check_partition

    assets, again = find_pipeline(name), AskAgain(retry_failed, refresh, limit, accept_rendering)
    with with_api(settings_of(assets.pipeline.config.resource_key)) as found:
        settings = settings_for_pipeline(found, assets.pipeline)
        check_partition(name, assets.partitions, partition)
        code = _run(settings, assets, partition, again, yes=yes, same_workspace=same_workspace)
    sys.exit(code)


def _run(
    settings: Settings,
    assets: PipelineAssets,
    partition: str,
    again: AskAgain,
    *,
    yes: bool,
    same_workspace: bool,
) -> int:
    """Run a pipeline until its end or Ctrl-C, and return the exit code."""
    from batch_assets.cli.progress import make_console
    from batch_assets.core.batches.workspace import accept_key
    from batch_assets.core.ledger import submissions
    from batch_assets.core.open_root import open_root
    from batch_assets.dagster.notifications import notify

    console, pipeline = make_console(), assets.pipeline
    before: set[str] | None = None
    try:
        with open_root(settings) as root:
            with root.ledger.read() as tx:
                before = submissions.known_ids(tx, pipeline.name)
            if same_workspace:
                accept_key(root)
            results = _run_stages(root, pipeline, partition, again, yes, console)
            code = _exit_code(root, pipeline, results)
            for problem in notify(root, {pipeline.name: assets}, announced_only=False):
                console.print(f"  {problem}", markup=False)
    except KeyboardInterrupt:
        click.echo(how_to_go_on(settings, pipeline.name, partition, again, before), err=True)
        return _INTERRUPTED
    return code


def _exit_code(root: Root, pipeline: Pipeline, results: ResultsReport) -> int:
    from batch_assets.core.answers.result_types import failed_share
    from batch_assets.core.ledger.states import FileState

    if not results.final and _snapshot(root, results).in_state(FileState.HELD):
        return _HELD
    return _FAILED_ROWS if failed_share(results.counts) > pipeline.config.max_failed else 0


def _run_stages(
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
        is_approved = yes or again.refresh  # a user has seen and confirmed the cost of a refresh
        results = run_pipeline(
            root, pipeline, partition, watcher, again=again, is_approved=is_approved, table=table
        )
    for line in summary(root, pipeline, partition, results):
        console.print(line, markup=False)
    if not results.final:
        console.print(f"  {_what_is_left(root, results)}", markup=False)
    elif not results.is_complete:
        console.print("  canceled: run it again to send the requests that are left", markup=False)
    elif (report := write_sink(root, pipeline, partition, results.submission_id)) is not None:
        console.print(f"  table {report.table}: {count(report.rows, 'row')} inserted or updated", markup=False)
    elif pipeline.config.sink is not None:
        console.print("  the sink was not written: there is a newer submission, and its run writes the sink")
    return results


def _snapshot(root: Root, results: ResultsReport) -> Snapshot:
    from batch_assets.core.ledger import submissions
    from batch_assets.core.planning.snapshot import Snapshot

    with root.ledger.read() as tx:
        return Snapshot.of(tx, submissions.by_id(tx, results.submission_id))


def _what_is_left(root: Root, results: ResultsReport) -> str:
    """Return why the run ends before every row has its final result: files are held, or there was a limit."""
    from batch_assets.cli.what_next import rest_of_limit, waits_for
    from batch_assets.core.ledger.states import FileState

    snapshot = _snapshot(root, results)
    if snapshot.in_state(FileState.HELD):
        return waits_for(snapshot)
    submission = snapshot.submission
    progress = f"{submission.written:,} of {count(submission.written + results.left_out, 'request')} sent"
    by_refresh = snapshot.needs_refresh
    return f"{progress}; {rest_of_limit(by_refresh=by_refresh)}"


def how_to_go_on(settings: Settings, name: str, partition: str, again: AskAgain, before: set[str] | None) -> str:
    """Return the command that continues an interrupted run.

    Args:
        settings: Settings of the root.
        name: Name of the pipeline.
        partition: The partition key, "" if the pipeline has no partitions.
        again: The options of the interrupted run.
        before: Ids of the submissions that existed when it started. None if it was interrupted earlier.
    """
    from batch_assets.core.ledger import submissions
    from batch_assets.core.open_root import open_root
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.store.refreshes import goes_on

    with open_root(settings) as root, root.ledger.read() as tx:
        newest = submissions.newest(tx, name, partition)
        running = len(Snapshot.of(tx, newest).running) if newest is not None else 0
        built = newest if newest is not None and before is not None and newest.id not in before else None
        # The next submission sets these requests aside.
        unsent = sum(file.requests for file in submissions.unsent(tx, name, [partition]))
        is_refresh = built is not None and goes_on(tx, built)
    options, beyond = text.partition_option(partition), ""
    # Requests in flight continue without the option; those set aside would be left out.
    if again.retry_failed and (built is None or unsent):
        options += " --retry-failed"
    # A refresh that a limit cut short continues only with --refresh.
    if again.refresh and not is_refresh:
        options += " --refresh"
    if again.accept_rendering and built is None:
        options += " --accept-rendering"
    if again.limit is not None and built is None:
        options += f" --limit {again.limit}"
    elif built is not None and built.left_out:
        # The limit counts requests that are to be sent, so those in flight by now no longer count.
        options += f" --limit {unsent}" if unsent else ""
        beyond = "" if unsent else f"\nIt also sends the {count(built.left_out, 'request')} beyond the limit."
    state = (
        f"{running} of its batches {'continues' if running == 1 else 'continue'} at the API. " if running else ""
    )
    return (
        f"\nStopped. {state}To continue, without sending anything twice: batch-assets run {name}{options}{beyond}"
    )
