"""A pipeline with many partitions, as `status` shows it: their number in each state, and what needs a user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from batch_assets.cli import text
from batch_assets.cli.progress_lines import batches_as_text, progress_of
from batch_assets.cli.what_next import waits_for
from batch_assets.core.answers.result_types import final_rows, results_as_text
from batch_assets.core.ledger.states import FileState
from batch_assets.core.planning import texts
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.progress import requests_answered
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.status import PartitionState, PartitionStatus, StatusTotal, state_of
from batch_assets.core.planning.steps import NeedsUser, Wait
from batch_assets.core.quoting import printable, shell_quoted
from batch_assets.core.text import count, counts, duration, listed, moment

# Partitions that are named for each problem.
_NAMED = 5


def summary_lines(snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, str]]:
    """Yield (label, value) for all partitions of a pipeline together. It reads nothing more.

    Args:
        snapshots: The newest submission of each partition of the pipeline, in order of creation.
    """
    submissions = [snapshot.submission for snapshot in snapshots]
    rows = sum(submission.rows for submission in submissions)
    requests = sum(submission.requests for submission in submissions)
    rejected = sum(submission.rejected for submission in submissions)
    more = f", {rejected:,} rejected" if rejected else ""
    yield "partitions", counts(Counter(_state(snapshot) for snapshot in snapshots))
    yield "rows", f"{count(rows, 'row')}{more}; {count(requests, 'distinct request')}"
    done = sum(
        final_rows(submission.count_map) if submission.count_map else submission.rejected
        for submission in submissions
    )
    yield "done", progress_of(done, rows, "row")
    files = {file.id: file for snapshot in snapshots for file in snapshot.files}
    batches = {batch.id: batch for snapshot in snapshots for batch in snapshot.batches}
    answered, total = requests_answered(snapshots)
    if total and any(submission.final_at is None for submission in submissions):
        yield "answered", progress_of(answered, total, "request")
    yield "files", counts(Counter(file.state for file in files.values()))
    states = counts(Counter(batch.state for batch in batches.values()))
    yield "batches", batches_as_text(list(batches.values()), states, snapshots[0].now)
    results: Counter[str] = Counter()
    for submission in submissions:
        results.update(submission.count_map)
    if results:
        unusable = sum(submission.unusable or 0 for submission in submissions)
        yield "results", results_as_text(results, unusable)
    if (oldest := _oldest(snapshots)) is not None:
        yield "oldest", oldest
    yield from _needed(snapshots)
    yield from _failing(snapshots)
    yield "more", f"{_details(snapshots[0])}, or --all"


def total_line(snapshots: Sequence[Snapshot]) -> str:
    """Return how far all are: "2 pipelines, 3 partitions: 1 complete, 2 waiting; 40 of 60 rows, 66 %"."""
    total = StatusTotal.of([PartitionStatus.of(snapshot) for snapshot in snapshots])
    pipelines = {snapshot.submission.pipeline for snapshot in snapshots}
    states = {str(state).replace("_", " "): number for state, number in total.states.items()}
    parts = [
        f"{count(len(pipelines), 'pipeline')}, {count(total.partitions, 'partition')}: {counts(states)}",
        progress_of(total.done, total.rows, "row"),
    ]
    if total.unusable:
        parts.append(f"{count(total.unusable, 'answer')} cannot be used")
    if total.running:
        ends = f", which will end by {moment(total.ends_by)}" if total.ends_by is not None else ""
        parts.append(f"{count(total.running, 'batch', 'batches')} not collected{ends}")
    return "; ".join(parts)


def _state(snapshot: Snapshot) -> str:
    """Return the state of a partition in words that many of them share."""
    state, step = state_of(snapshot), next_step(snapshot)
    if state is PartitionState.NEEDS_USER:
        return "need you"
    if state in (PartitionState.CANCELED, PartitionState.COMPLETE):
        return str(state)
    if isinstance(step, Wait):
        return f"waiting for {texts.waits_for(step.why)}"
    return "waiting for the sensor"


def _oldest(snapshots: Sequence[Snapshot]) -> str | None:
    """Return the incomplete partition that was sent or built first, with what it waits for."""
    incomplete = [snapshot for snapshot in snapshots if snapshot.submission.final_at is None]
    if not incomplete:
        return None
    oldest = min(incomplete, key=lambda snapshot: snapshot.submission.began_at or snapshot.submission.created_at)
    since = oldest.submission.began_at or oldest.submission.created_at
    name = printable(oldest.submission.partition)
    return f"{name}, for {duration(oldest.now - since)}; it waits for {waits_for(oldest)}"


def _needed(snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, str]]:
    """Yield what the user has to do, for one of the partitions that need the same kind of remedy."""
    needing: dict[type, list[Snapshot]] = {}
    for snapshot in snapshots:
        step = next_step(snapshot)
        if isinstance(step, NeedsUser):
            needing.setdefault(type(step.remedy), []).append(snapshot)
    for alike in needing.values():
        yield "waits for", f"{waits_for(alike[0])}{_and_others(alike)}"


def _failing(snapshots: Sequence[Snapshot]) -> Iterator[tuple[str, str]]:
    """Yield the problems of partitions, once for all that have the same."""
    refused = [snapshot for snapshot in snapshots if snapshot.in_state(FileState.REFUSED, FileState.STOPPED)]
    problems = {
        "request files were refused": refused,
        "results could not be downloaded": [snapshot for snapshot in snapshots if snapshot.failing],
        "the API does not know a batch": [snapshot for snapshot in snapshots if snapshot.unreachable],
        "stored answers are lost": [snapshot for snapshot in snapshots if snapshot.lost_answers],
        "requests cannot be sent again": [snapshot for snapshot in snapshots if snapshot.standstill is not None],
        "a batch is paid twice": [
            snapshot for snapshot in snapshots if any(batch.paid_twice for batch in snapshot.batches)
        ],
    }
    for problem, having in problems.items():
        if having:
            yield "error", f"{problem}: {listed(_names(having), _NAMED)}"


def _and_others(alike: Sequence[Snapshot]) -> str:
    if len(alike) == 1:
        return ""
    return f"; likewise for {listed(_names(alike[1:]), _NAMED - 1)}. Details: {_details(alike[0])}"


def _names(snapshots: Sequence[Snapshot]) -> list[str]:
    return [printable(snapshot.submission.partition) for snapshot in snapshots]


def _details(snapshot: Snapshot) -> str:
    """Return the command that shows one partition of the pipeline."""
    return f"batch-assets status {shell_quoted(snapshot.submission.pipeline)} --partition KEY"


def heading(snapshots: Sequence[Snapshot]) -> str:
    """Return the first line about a pipeline with many partitions."""
    newest = max(snapshot.submission.created_at for snapshot in snapshots)
    name = text.partition_name(snapshots[0].submission.pipeline, "")
    return f"{name}: {count(len(snapshots), 'partition')}, the newest from {text.ago(snapshots[0].now, newest)}"
