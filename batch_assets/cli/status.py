"""`batch-assets status`: the state of every pipeline, without a call to the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.text import count, counts, duration

if TYPE_CHECKING:
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.ledger.records import Batch, RequestFile
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.root import Root

# This many batches are listed one by one; the others are counted.
_NAMED = 20
# With more partitions than this, what they cost is shown only of the ones that were asked for by name.
_COSTED = 50


@click.command()
@click.argument("name", required=False)
@click.option("--history", is_flag=True, help="Show everything that ever happened to the pipeline NAME, in order.")
@resource_option
def status(name: str | None, history: bool, resource: str | None) -> None:
    """Shows how pipelines stand: rows, request files, batches, what they wait for.

    It reads the ledger and the files under the root: no call to the API, no key needed. NAME limits it to one
    pipeline. What is shown is each partition's newest submission, in a terminal with bars. The history is that
    of all submissions, request files, batches and runs the sensor asked for; its lines are cut to a terminal's
    width, and whole in a pipe.

    \b
    Examples:
      batch-assets status
      batch-assets status review_triage
      batch-assets status review_triage --history | less
    """
    if history and name is None:
        raise click.UsageError("--history is of one pipeline: batch-assets status NAME --history")
    from batch_assets.cli.ledger_view import nothing_here, where
    from batch_assets.core.ledger import submissions
    from batch_assets.core.open_root import open_root
    from batch_assets.core.planning.snapshot import read_snapshots
    from batch_assets.core.recovery.rebuild import has_ledger

    settings = settings_of(resource)
    if not has_ledger(settings):
        click.echo(nothing_here(settings))
        return
    with open_root(settings) as root, root.ledger.read() as tx:
        if history and name is not None:
            _show_history(tx, name)
            return
        click.echo(where(settings))
        found = read_snapshots(tx, submissions.all_newest(tx, name))
        for snapshot in found.values():
            with_cost = name is not None or len(found) <= _COSTED
            click.echo("\n" + "\n".join(_lines(tx, snapshot, root if with_cost else None)))
    if not found:
        click.echo(f"No run of {name} is recorded{text.elsewhere(resource)}." if name else "No run is recorded.")


def _show_history(tx: Transaction, name: str) -> None:
    import shutil
    import sys

    from batch_assets.cli.history import history_lines
    from batch_assets.core.ledger.transitions import of_pipeline

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    found = of_pipeline(tx, name)
    for line in history_lines(found, width):
        click.echo(line)
    if not found:
        click.echo(f"No run of {name} is recorded.")


def _lines(tx: Transaction, snapshot: Snapshot, root: Root | None) -> Iterator[str]:
    """Everything about a submission. Args: root: to read the cost from its table; None to leave it out."""
    from batch_assets.cli.headway import batches_in_words, cost_in_words, headway
    from batch_assets.cli.what_next import waits_for

    submission, files, mine = snapshot.submission, snapshot.files, snapshot.batches
    yield text.partition_name(submission.pipeline, submission.partition)
    yield _line("submission", f"{submission.id}, {text.ago(tx.now, submission.created_at)}")
    rejected = f", {submission.rejected:,} rejected" if submission.rejected else ""
    rows = count(submission.rows, "row") + rejected
    yield _line("rows", f"{rows}; {count(submission.requests, 'distinct request')}")
    for label, value in headway(submission, files, mine):
        yield _line(label, value)
    yield _line("files", counts(Counter(file.state for file in files), nothing="none: nothing had to be asked"))
    yield _line("batches", batches_in_words(mine, counts(Counter(batch.state for batch in mine)), tx.now))
    yield from _running(snapshot)
    if submission.count_map:
        yield _line("results", f"{counts(submission.count_map)}, {text.ago(tx.now, submission.joined_at)}")
    if root is not None and (cost := cost_in_words(root, submission)) is not None:
        yield _line("cost", cost)
    yield _line("waits for", waits_for(snapshot))
    for error in [*_errors(tx, files, mine), *_standstill(snapshot), *_deadlines(tx, mine)]:
        yield _line("error", error)


def _line(label: str, value: str) -> str:
    return f"  {label:<11} {value}"


def _running(snapshot: Snapshot) -> Iterator[str]:
    from batch_assets.cli.describe import describe_batch

    alive = snapshot.uncollected
    for batch in alive[:_NAMED]:
        yield _line("", f"{batch.id}  {count(batch.requests, 'request')}, {describe_batch(batch, snapshot.now)}")
    if len(alive) > _NAMED:
        yield _line("", f"… and {len(alive) - _NAMED:,} more")


def _standstill(snapshot: Snapshot) -> Iterator[str]:
    """What keeps failed requests from being asked again."""
    from batch_assets.cli.remedies import with_remedy
    from batch_assets.core.remedies import RunStage, Stage

    found, again, submission = snapshot.standstill, snapshot.next_try, snapshot.submission
    if found is not None and again is not None:
        last, next_ = text.ago(snapshot.now, found.last), duration(again - snapshot.now)
        remedy = RunStage(Stage.REQUESTS, submission.pipeline, submission.partition)
        yield with_remedy(f"{found.why}. Asking again failed {last}, the next try is in {next_}", remedy)


def _deadlines(tx: Transaction, mine: Sequence[Batch]) -> Iterator[str]:
    """Batches whose answers are soon lost."""
    from batch_assets.core.ledger.deadlines import SOON_SECONDS, results_end

    for batch in mine:
        end = results_end(batch)
        if not batch.state.uncollected or end is None or end - tx.now >= SOON_SECONDS:
            continue
        left = f"in {duration(end - tx.now)}" if end > tx.now else "already"
        yield f"{batch.id}: its results end {left}, and they are not collected"


def _errors(tx: Transaction, files: Sequence[RequestFile], mine: Sequence[Batch]) -> Iterator[str]:
    from batch_assets.cli.remedies import with_remedy
    from batch_assets.core.batches.workspace import asks_whose_key, unreachable
    from batch_assets.core.ledger import downloads
    from batch_assets.core.ledger.states import BatchState, FileState
    from batch_assets.core.remedies import CancelBatch

    shown = (FileState.UNRESOLVED, FileState.REFUSED)
    errors = Counter(
        (file.state, file.error) for file in files if file.error and (file.state.unsent or file.state in shown)
    )
    for (state, error), times in errors.items():
        name = next(file.name for file in files if (file.state, file.error) == (state, error))
        yield f"{name}{f' and {times - 1} more are' if times > 1 else ' is'} {state}: {error}"
    for batch in mine:
        cancel = CancelBatch(batch.id, batch.pipeline or "")
        if batch.state is BatchState.ENDED and batch.failing_since is not None:
            failing, again = tx.now - batch.failing_since, max(0.0, batch.next_download_at - tx.now)
            why = downloads.why_failed(tx, batch.id)
            tries = f"It has failed for {duration(failing)} and is tried again in {duration(again)}"
            yield with_remedy(f"{why}. {tries}", cancel if asks_whose_key(why) else None)
        if batch.state is BatchState.UNREACHABLE:
            yield with_remedy(unreachable(batch.id), cancel)
        if batch.paid_twice:
            yield f"{batch.id} of {batch.file_id} is paid twice: it turned up after the file had been sent again"
