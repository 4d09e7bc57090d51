"""`batch-assets run`: the whole chain of one pipeline, without Dagster's UI or daemon."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from batch_assets.core.config import Pipeline
    from batch_assets.core.results import ResultsReport
    from batch_assets.core.root import Root

_FAILED_ROWS = 3
_INTERRUPTED = 128 + signal.SIGINT


class UnknownPipelineError(BatchAssetsError):
    """The project has no pipeline of that name."""


class DefinitionsError(BatchAssetsError):
    """The project's Dagster definitions do not load."""


@click.command()
@click.argument("name")
@click.option("--partition", metavar="KEY", default="", help="Partition to run; none by default.")
@click.option(
    "--retry-failed", is_flag=True, help="Ask again, once more, what failed for good or used up its attempts."
)
def run(name: str, partition: str, retry_failed: bool) -> None:
    """Runs the pipeline NAME from its dataset to its results.

    It works on the same ledger and files as the UI. What was answered before is not asked again, and a run
    that was stopped goes on where it stood when it is started again.

    \b
    Examples:
      batch-assets run review_triage
      batch-assets run review_triage --partition 2026-11-20
      batch-assets run review_triage --retry-failed

    \b
    Exit code:
      0    every row has its result, and no more than max_failed of them without an answer
      3    every row has its result, but more rows than max_failed are without an answer
      1    the run itself failed; why stands on standard error
      130  Ctrl-C; the batches go on
    """
    from batch_assets.cli.progress import make_console
    from batch_assets.core.root import Root

    console = make_console()
    settings = Settings.from_env()
    settings.require_endpoint()
    pipeline = find_pipeline(name)
    try:
        with Root(settings) as root:
            results = _run(root, pipeline, partition, retry_failed, console)
    except KeyboardInterrupt:
        click.echo(_how_to_go_on(settings, pipeline.name, partition, retry_failed), err=True)
        sys.exit(_INTERRUPTED)
    if failed_share(results) > pipeline.config.max_failed:
        sys.exit(_FAILED_ROWS)


def find_pipeline(name: str) -> Pipeline:
    """The project's pipeline of that name.

    Errors:
        UnknownPipelineError: naming those that there are.
        DefinitionsError: one of the project's files is wrong.
    """
    from batch_assets.dagster.pipelines import load_pipelines

    try:
        pipelines = load_pipelines()
    except Exception as error:  # whatever a project's own Python files raise when they are loaded
        raise DefinitionsError(_why_not_loaded(error)) from error
    if name not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        raise UnknownPipelineError(f"there is no pipeline {name!r} in this project; its pipelines: {known}")
    return pipelines[name]


def _why_not_loaded(error: BaseException) -> str:
    """Dagster wraps what went wrong in layers of its own: the innermost is for the reader."""
    innermost = error
    while not isinstance(innermost, BatchAssetsError):
        inner = innermost.__cause__ or innermost.__context__
        if inner is None:
            where = "`dg check defs` shows where"
            return f"the project's definitions do not load: {type(innermost).__name__}: {innermost}\n{where}"
        innermost = inner
    return str(innermost)


def failed_share(results: ResultsReport) -> float:
    """Rows without an answer, the rejected ones among them, as a share of all rows."""
    return (results.rows - results.counts["succeeded"]) / results.rows if results.rows else 0.0


def _run(root: Root, pipeline: Pipeline, partition: str, retry_failed: bool, console: Console) -> ResultsReport:
    from batch_assets.cli.headless import run_pipeline
    from batch_assets.cli.progress import watching
    from batch_assets.cli.summary import summary
    from batch_assets.core.sink import write_sink
    from batch_assets.dagster.pipelines import load_dataset_table

    root.check_endpoint()
    table = load_dataset_table(pipeline, partition)
    with watching(console) as watcher:
        results = run_pipeline(root, pipeline, partition, watcher, retry_failed=retry_failed, table=table)
    for line in summary(root, pipeline.name, partition, results):
        console.print(line, markup=False)
    if (written := write_sink(root, pipeline, partition, results.submission_id)) is not None:
        console.print(f"  table {written.table}: {written.rows:,} rows inserted or updated", markup=False)
    elif pipeline.config.sink is not None:
        console.print("  the sink was left alone: a newer submission is in force, and its run writes it")
    return results


def _how_to_go_on(settings: Settings, name: str, partition: str, retry_failed: bool) -> str:
    from batch_assets.core.ledger import batches, submissions
    from batch_assets.core.root import Root

    with Root(settings) as root, root.ledger.read() as tx:
        running = len(batches.in_state(tx, "open", pipeline=name))
        newest = submissions.newest(tx, name, partition)
        waited = submissions.waited_on(tx, newest.id) if newest is not None else []
    option = f" --partition {partition}" if partition else ""
    # Requests on their way go on without it; only unsent ones would be left out.
    if retry_failed and (not waited or any(file.state == "ready" for file in waited)):
        option += " --retry-failed"
    state = f"{running} of its batches {'goes' if running == 1 else 'go'} on at the API. " if running else ""
    return f"\nStopped. {state}To go on, without sending anything twice: batch-assets run {name}{option}"
