"""`batch-assets status` shows the state of every pipeline, without a call to the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.quoting import printable
from batch_assets.core.text import count, counts, duration

if TYPE_CHECKING:
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.ledger.records import Batch, RequestFile
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.root import Root

# Number of batches that are listed; the others are counted.
_LISTED = 20
# Number of partitions up to which each is shown with its cost. With more, only `status NAME` shows the cost.
_WITH_COST = 50
# Number of partitions of a pipeline up to which each is shown. More are summed up.
_EACH = 50
# Lines of the history that are shown, unless the user asks for all.
_NEWEST = 1000


@click.command()
@click.argument("name", required=False)
@click.option("--partition", metavar="KEY", help="Show only this partition of the pipeline NAME.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Show each partition also of pipelines with more than 50, and the whole history.",
)
@click.option(
    "--history", is_flag=True, help="Show the newest 1,000 changes of state of the pipeline NAME, in order."
)
@resource_option
def status(name: str | None, partition: str | None, everything: bool, history: bool, resource: str | None) -> None:
    """Show the state of all pipelines, or of NAME.

    For the newest submission of each partition, the command shows its rows, request files and batches, and what
    it waits for. A pipeline with more than 50 partitions is summed up: how many are in each state, which waits
    longest, and what you have to do. A terminal also shows bars. The command reads the ledger and the files under
    the root. It does not call the API and needs no key.

    The history has all submissions, request files, batches, and runs that the sensor requested. Its lines are
    cut to the width of the terminal, and complete in a pipe. If there are more than 1,000, the older ones are
    shown with --all.

    \b
    Examples:
      batch-assets status
      batch-assets status review_triage
      batch-assets status daily_reviews --partition 2026-01-31
      batch-assets status review_triage --history | less
    """
    if history and name is None:
        raise click.UsageError("--history needs a pipeline: batch-assets status NAME --history")
    if partition is not None and name is None:
        raise click.UsageError("--partition needs a pipeline: batch-assets status NAME --partition KEY")
    from batch_assets.cli.ledger_view import locations, no_ledger
    from batch_assets.cli.permissions import permission_problems
    from batch_assets.core.ledger import budgets, submissions
    from batch_assets.core.ledger.near_caps import near_caps
    from batch_assets.core.open_root import open_root
    from batch_assets.core.planning.snapshot import read_snapshots
    from batch_assets.core.recovery.rebuild import has_ledger

    settings = settings_of(resource, looks_only=True)
    if not has_ledger(settings):
        click.echo(no_ledger(settings))
        return
    with open_root(settings) as root, root.ledger.read() as tx:
        if history and name is not None:
            _show_history(tx, name, everything=everything)
            return
        click.echo(locations(settings))
        for problem in permission_problems(settings):
            click.echo(f"permissions: {problem}")
        recorded = budgets.recorded(tx) | {budgets.ROOT: settings.budget}
        of_name = {each: recorded.get(each) for each in (budgets.ROOT, name)} if name is not None else recorded
        for near in near_caps(tx, of_name):
            click.echo(printable(f"budget: {near}"))
        if name is not None and partition is not None:
            newest = submissions.newest(tx, name, partition)
            snapshots = read_snapshots(tx, [newest] if newest is not None else [])
        else:
            snapshots = read_snapshots(tx, submissions.all_newest(tx, name))
        _show(tx, list(snapshots.values()), root, everything=everything, is_named=name is not None)
    if not snapshots:
        hint = text.resource_hint(resource)
        of = text.partition_name(name, partition or "") if name else ""
        click.echo(f"No run of {of} is recorded{hint}." if name else "No run is recorded.")


def _show(tx: Transaction, snapshots: list[Snapshot], root: Root, *, everything: bool, is_named: bool) -> None:
    """Print pipelines with many partitions as a summary, then each partition of the others.

    Args:
        tx: A transaction of the ledger.
        snapshots: The submissions.
        root: The root.
        everything: Print each partition of all pipelines.
        is_named: The user named the pipeline.
    """
    from batch_assets.cli.status_summary import heading, summary_lines

    by_pipeline: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_pipeline.setdefault(snapshot.submission.pipeline, []).append(snapshot)
    for of_pipeline in by_pipeline.values():
        if len(of_pipeline) > _EACH and not everything:
            lines = [_line(label, value) for label, value in summary_lines(of_pipeline)]
            click.echo("\n" + "\n".join([heading(of_pipeline), *lines]))
    for snapshot in snapshots:
        if everything or len(by_pipeline[snapshot.submission.pipeline]) <= _EACH:
            with_cost = is_named or len(snapshots) <= _WITH_COST
            click.echo("\n" + "\n".join(_lines(tx, snapshot, root if with_cost else None)))


def _show_history(tx: Transaction, name: str, *, everything: bool) -> None:
    import shutil
    import sys

    from batch_assets.cli.history import history_lines
    from batch_assets.core.ledger.transitions import newest_of_pipeline, of_pipeline
    from batch_assets.core.quoting import shell_quoted

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    transitions = of_pipeline(tx, name) if everything else newest_of_pipeline(tx, name, _NEWEST + 1)
    is_cut = not everything and len(transitions) > _NEWEST
    for line in history_lines(transitions[-_NEWEST:] if is_cut else transitions, width):
        click.echo(line)
    if is_cut:
        more = f"batch-assets status {shell_quoted(name)} --history --all"
        click.echo(f"These are the newest {_NEWEST:,} lines. For all of them: {more}", err=True)
    if not transitions:
        click.echo(f"No run of {name} is recorded.")


def _lines(tx: Transaction, snapshot: Snapshot, root: Root | None) -> Iterator[str]:
    """Yield the lines about a submission.

    Args:
        tx: A transaction of the ledger.
        snapshot: The submission.
        root: The root, to read the cost from the table. None to leave the cost out.
    """
    from batch_assets.cli.progress_lines import batches_as_text, cost_as_text, progress_lines
    from batch_assets.cli.what_next import waits_for

    submission, files, batches = snapshot.submission, snapshot.files, snapshot.batches
    yield text.partition_name(submission.pipeline, submission.partition)
    yield _line("submission", f"{submission.id}, {text.ago(tx.now, submission.created_at)}")
    rejected = f", {submission.rejected:,} rejected" if submission.rejected else ""
    rows = count(submission.rows, "row") + rejected
    yield _line("rows", f"{rows}; {count(submission.requests, 'distinct request')}")
    for label, value in progress_lines(snapshot):
        yield _line(label, value)
    yield _line("files", counts(Counter(file.state for file in files), nothing="none: no request had to be sent"))
    states = counts(Counter(batch.state for batch in batches))
    yield _line("batches", batches_as_text(batches, states, tx.now))
    yield from _running(snapshot)
    if submission.count_map:
        waits = "; they wait in results_next, and the complete table stays" if submission.held_back else ""
        yield _line("results", f"{counts(submission.count_map)}, {text.ago(tx.now, submission.joined_at)}{waits}")
    if root is not None and (cost := cost_as_text(root, submission)) is not None:
        yield _line("cost", cost)
    yield _line("waits for", waits_for(snapshot))
    for error in [*_errors(tx, snapshot), *_deadlines(tx, batches)]:
        yield _line("error", printable(error))


def _line(label: str, value: str) -> str:
    return f"  {label:<11} {value}"


def _running(snapshot: Snapshot) -> Iterator[str]:
    from batch_assets.cli.describe import describe_batch

    uncollected = snapshot.uncollected
    for batch in uncollected[:_LISTED]:
        yield _line("", f"{batch.id}  {count(batch.requests, 'request')}, {describe_batch(batch, snapshot.now)}")
    if len(uncollected) > _LISTED:
        yield _line("", f"… and {len(uncollected) - _LISTED:,} more")


def _deadlines(tx: Transaction, batches: Sequence[Batch]) -> Iterator[str]:
    """Yield the batches whose results the API soon deletes, or has deleted, before they are collected."""
    from batch_assets.core.ledger.deadlines import SOON_SECONDS, results_end

    for batch in batches:
        end = results_end(batch)
        if not batch.state.uncollected or end is None or end - tx.now >= SOON_SECONDS:
            continue
        deletion = f"will be deleted in {duration(end - tx.now)}" if end > tx.now else "are deleted"
        yield f"{batch.id}: its results {deletion}, and they are not collected"


def _errors(tx: Transaction, snapshot: Snapshot) -> Iterator[str]:
    """Yield the problems of the request files and the batches, and what the user can do about them."""
    from batch_assets.cli.remedies import with_remedy
    from batch_assets.core.ledger import downloads
    from batch_assets.core.ledger.batches import NEVER, NOT_CERTAIN
    from batch_assets.core.ledger.states import BatchState
    from batch_assets.core.planning.next_step import remedies
    from batch_assets.core.planning.steps import RestoreFile
    from batch_assets.core.planning.texts import lost_answers, maybe_deleted
    from batch_assets.core.remedies import CancelBatch, GiveUpAnswers, RunStage, Stage

    yield from _refusals(snapshot.files)
    needed = remedies(snapshot)
    cancels = {remedy.batch_id: remedy for remedy in needed if isinstance(remedy, CancelBatch | GiveUpAnswers)}
    for batch in snapshot.failing:
        failing = duration(tx.now - (batch.failing_since or tx.now))
        next_try = duration(max(0.0, batch.next_download_at - tx.now))
        tries = f"It has failed for {failing}, the next try is in {next_try}"
        yield with_remedy(f"{downloads.why_failed(tx, batch.id)}. {tries}", cancels.pop(batch.id, None))
    for batch_id, cancel in cancels.items():
        problem = maybe_deleted if isinstance(cancel, CancelBatch) else lost_answers
        yield with_remedy(problem(snapshot, batch_id), cancel)
    for batch in snapshot.batches:
        if batch.state is BatchState.COLLECTED and batch.next_delete_at >= NEVER:
            why = "its answers here are incomplete" if batch.replied else NOT_CERTAIN
            yield f"{batch.id} is kept at the API: {why}"
        if batch.paid_twice:
            yield f"{batch.id} of {batch.file_id} is paid twice: the API listed it after the file was sent again"
    for file_id, why in snapshot.rescue.held.items():
        yield f"requests of {file_id} are not asked by live calls: {why}"
    for remedy in needed:
        if isinstance(remedy, RestoreFile):
            last = text.ago(snapshot.now, remedy.last_try)
            tries = f"The last try was {last}, the next is in {duration(remedy.next_try - snapshot.now)}"
            build = RunStage(Stage.REQUESTS, snapshot.submission.pipeline, snapshot.submission.partition)
            yield with_remedy(f"{remedy.why}. {tries}", build)


def _refusals(files: Sequence[RequestFile]) -> Iterator[str]:
    """Yield the errors of request files that the API does not have."""
    from batch_assets.core.ledger.states import FileState

    shown = (FileState.UNRESOLVED, FileState.REFUSED)
    errors = Counter(
        (file.state, file.error) for file in files if file.error and (file.state.unsent or file.state in shown)
    )
    for (state, error), times in errors.items():
        name = next(file.name for file in files if (file.state, file.error) == (state, error))
        yield f"{name}{f' and {times - 1} more are' if times > 1 else ' is'} {state}: {error}"
