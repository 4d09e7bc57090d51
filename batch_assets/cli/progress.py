"""Displays for the progress of a run: bars in a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn

from batch_assets.cli.describe import describe_batch, describe_file
from batch_assets.cli.headless import Watcher
from batch_assets.cli.remedies import as_text
from batch_assets.core.answers.result_types import final_rows
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.quoting import printable
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.text import count, counts, size

# Number of batches with their own bar: more would fill the screen. The stage's bar counts all batches.
_BATCH_BARS = 10
_NAME = "{task.description:<12}"


def make_console() -> Console:
    """Return a console for standard output, which writes control codes only to a terminal."""
    console = Console(soft_wrap=True, highlight=False)
    if not console.file.isatty() or console.is_dumb_terminal:
        return Console(soft_wrap=True, highlight=False, force_terminal=False, no_color=True)
    return console


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """Yield the watcher that fits the console."""
    if not console.is_terminal:
        yield Lines(console)
        return
    progress = Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn(_NAME),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
    with progress:
        yield Bars(progress)


class Lines:
    """A watcher that prints one line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}
        self._waiting: dict[str, str] = {}

    def _print(self, line: str) -> None:
        self._console.print(escape(line))

    def rows_read(self, rows: int) -> None:
        """Print nothing: it happens too often."""

    def built(self, report: RequestsReport) -> None:
        self._print(f"requests: {describe_requests(report)}")
        for line in describe_cost(report):
            self._print(line)

    def sending(self, file: RequestFile) -> None:
        self._print(f"batches: sending {describe_file(file)}")

    def submitted(self, report: SubmitReport) -> None:
        for line in describe_pilots(report):
            self._print(f"batches: {line}")
        if report.live_calls:
            self._print(f"batches: {report.live_calls}")
        for problem in new_problems(report, self._waiting):
            self._print(f"batches: {printable(problem)}")

    def polled(self, snapshot: Snapshot) -> None:
        for batch in snapshot.uncollected:
            state = describe_batch(batch, snapshot.now)
            if self._states.get(batch.id) != batch.state:
                self._print(f"batches: {batch.id} {state}")
            self._states[batch.id] = batch.state

    def downloaded(self, batch_id: str, byte_count: int) -> None:
        """Print nothing: it happens too often."""

    def joined(self, results: ResultsReport) -> None:
        self._print(f"results: {counts(results.counts)}")

    def problem(self, text: str) -> None:
        self._print(f"problem: {printable(text)}")


class Bars:
    """A watcher with a bar for each stage, and one for each of the first batches in flight."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._requests = progress.add_task("requests", total=None, note="")
        self._batches = progress.add_task("batches", total=None, note="")
        self._results = progress.add_task("results", total=None, note="")
        self._bars: dict[str, TaskID] = {}
        self._downloads: dict[str, int] = {}
        self._waiting: dict[str, str] = {}

    def rows_read(self, rows: int) -> None:
        self._progress.update(self._requests, completed=rows, note="rows")

    def built(self, report: RequestsReport) -> None:
        self._finish(self._requests, report.rows, describe_requests(report))
        for line in describe_cost(report):
            self._progress.console.print(escape(line))

    def sending(self, file: RequestFile) -> None:
        self._progress.update(self._batches, note=f"sending {describe_file(file)}")

    def submitted(self, report: SubmitReport) -> None:
        self._progress.update(self._batches, note="")
        for line in describe_pilots(report):
            self._progress.console.print(escape(line))
        if report.live_calls:
            self._progress.console.print(str(report.live_calls))
        for problem in new_problems(report, self._waiting):
            self.problem(problem)

    def polled(self, snapshot: Snapshot) -> None:
        files, uncollected = snapshot.files, {batch.id: batch for batch in snapshot.uncollected}
        collected = sum(file.state is FileState.COLLECTED for file in files)
        running = sum(batch.state is BatchState.OPEN for batch in uncollected.values())
        note = f"{count(running, 'batch', 'batches')} in progress" if running else ""
        self._progress.update(self._batches, total=len(files), completed=collected, note=note)
        for batch_id in set(self._bars) - set(uncollected):
            self._progress.remove_task(self._bars.pop(batch_id))
        for batch in uncollected.values():
            self._show_batch(batch, snapshot.now)

    def _show_batch(self, batch: Batch, now: float) -> None:
        if batch.id not in self._bars:
            if len(self._bars) >= _BATCH_BARS:
                return
            name = f"  …{batch.id[-8:]}"
            self._bars[batch.id] = self._progress.add_task(name, total=batch.requests, note="")
        completed = batch.requests - batch.count_map.get("processing", 0)
        self._progress.update(self._bars[batch.id], completed=completed, note=describe_batch(batch, now))

    def downloaded(self, batch_id: str, byte_count: int) -> None:
        self._downloads[batch_id] = byte_count
        total = sum(self._downloads.values())
        self._progress.update(self._results, note=f"{size(total)} downloaded")

    def joined(self, results: ResultsReport) -> None:
        self._downloads.clear()
        completed = final_rows(results.counts)
        note = counts(results.counts)
        self._progress.update(self._results, total=results.rows, completed=completed, note=note)

    def problem(self, text: str) -> None:
        self._progress.console.print(f"[yellow]problem:[/] {escape(printable(text))}")

    def _finish(self, task: TaskID, total: int, note: str) -> None:
        self._progress.update(task, total=total, completed=total, note=note)


def new_problems(report: SubmitReport, shown: dict[str, str]) -> Iterator[str]:
    """Yield why files are not sent, and what the user can do, each once.

    Args:
        report: Report of the batches stage.
        shown: Map of file id, or of the text of a remedy, to the text that is shown; it is updated.
    """
    refused = {**report.refused, **report.given_up}
    lines = {file_id: f"waiting: {file_id}: {reason}" for file_id, reason in report.waiting.items()}
    lines |= {file_id: f"the API refused {file_id}: {reason}" for file_id, reason in refused.items()}
    lines |= {words: words for words in map(as_text, report.remedies)}
    yield from [line for name, line in lines.items() if name not in shown]
    shown.clear()
    shown.update(lines)


def describe_pilots(report: SubmitReport) -> Iterator[str]:
    """Yield what became of pilots that were judged, and some of their answers."""
    for pilot in report.pilots:
        yield from map(printable, pilot.lines)
        yield from (printable(f"  {custom_id}: {text}") for custom_id, text in pilot.sample)


def describe_cost(report: RequestsReport) -> Iterator[str]:
    """Yield what the requests that are to be sent would cost, and those that a limit left out."""
    if report.estimate is not None:
        yield f"estimated cost: {report.estimate.as_text}"
    if report.rest is not None:
        yield f"estimated cost of the rest: {report.rest.as_text}"


def describe_requests(report: RequestsReport) -> str:
    """Return the counts of a requests report as one line."""
    parts = [
        count(report.rows, "row"),
        count(report.requests, "distinct request"),
        f"{report.written:,} to send",
    ]
    if report.reused:
        parts.append(f"{report.reused:,} reused")
    if report.in_flight:
        parts.append(f"{report.in_flight:,} in flight")
    if report.left_out:
        parts.append(f"{report.left_out:,} left out by the limit")
    if report.rejected:
        parts.append(count(report.rejected, "row") + " rejected")
    if report.is_refresh:
        parts.append("part of a refresh")
    if report.is_unchanged:
        parts.append("nothing has changed")
    return ", ".join(parts)
