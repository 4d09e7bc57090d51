"""What the sensor reports when it starts no run: the text on the Automation page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import assert_never

from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.planning.next_step import next_step, remedies
from batch_assets.core.planning.progress import requests_answered
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import (
    ApproveFiles,
    AskTheRest,
    Done,
    MaterializeBatches,
    MaterializeRequests,
    NeedsUser,
    RaiseBudget,
    RestoreFile,
    SendStopped,
    SubmissionRemedy,
    Wait,
    Waiting,
)
from batch_assets.core.planning.texts import lost_answers, maybe_deleted, reason, waits_for, waits_for_batches
from batch_assets.core.quoting import printable, shell_quoted
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers, RunStage, Stage
from batch_assets.core.text import count, duration
from batch_assets.dagster.remedies import as_text, launch_approve, materialize, with_remedy

# A sentence gives this many reasons why files are held. Each partition may have its own, with its amounts.
_REASONS = 3


def situation(snapshots: Collection[Snapshot], paid_twice: Mapping[str, list[str]]) -> list[str]:
    """Describe the situation as text: "4 of 12 batches in progress, oldest 3 h 12 min, next look in 2 min".

    Args:
        snapshots: Snapshots of submissions in force, read at one moment.
        paid_twice: Map of submission id to the ids of batches that are paid twice.
    """
    sentences: list[str] = []
    by_pipeline: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_pipeline.setdefault(snapshot.submission.pipeline, []).append(snapshot)
    remedies_by_id = {snapshot.submission.id: remedies(snapshot) for snapshot in snapshots}
    for snapshot in snapshots:
        submission = snapshot.submission
        for remedy in remedies_by_id[submission.id]:
            if isinstance(remedy, CancelBatch):
                sentences += [maybe_deleted(snapshot, remedy.batch_id), as_text(remedy)]
            if isinstance(remedy, GiveUpAnswers):
                sentences.append(with_remedy(lost_answers(snapshot, remedy.batch_id), remedy))
            if isinstance(remedy, RestoreFile):
                # Partitions that need the same file share one sentence, so it names none of them.
                build = RunStage(Stage.REQUESTS, submission.pipeline)
                sentences.append(with_remedy(f"{submission.pipeline}: {remedy.why}", build))
        sentences += _paid_twice(submission, paid_twice.get(submission.id, []))
    for pipeline, of_pipeline in by_pipeline.items():
        needed = [
            (snapshot, remedy) for snapshot in of_pipeline for remedy in remedies_by_id[snapshot.submission.id]
        ]
        sentences += _remedies(pipeline, needed)
        in_doubt = _Files()
        for snapshot in of_pipeline:
            in_doubt.add(snapshot, snapshot.in_state(FileState.SENDING, FileState.UNRESOLVED))
        if in_doubt:
            sentences.append(f"{in_doubt} being sent or unresolved")
        sentences += _over_budget(of_pipeline)
        sentences += _waits(pipeline, of_pipeline)
        sentences += _not_shown(of_pipeline)
    return [*_running(snapshots), *dict.fromkeys(sentences)]


def what_next(snapshot: Snapshot) -> str:
    """Return the next step of a submission as sentences: what it waits for, and whether the sensor continues."""
    step = next_step(snapshot)
    match step:
        case NeedsUser():
            remedy = "; ".join(situation([snapshot], {}))
            return f"It does not continue without a user{': ' + remedy if remedy else ''}."
        case Wait():
            is_timed = step.until is not None and step.why.ends_at_a_time
            when = (
                f"in {duration(max(1.0, step.until - snapshot.now))}" if is_timed and step.until else "after that"
            )
            for_what = waits_for_batches(snapshot) if step.why is Waiting.BATCHES else waits_for(step.why)
            return f"It waits for {for_what}. The sensor continues {when}."
        case Done():
            return "Nothing is left to do."
        case _:
            return f"The sensor continues: {reason(step)}."


def _running(snapshots: Collection[Snapshot]) -> list[str]:
    """Report the progress of submissions that have a running batch that the API shows; an empty list otherwise."""
    batches_by_id = {
        batch.id: batch for snapshot in snapshots for batch in (*snapshot.batches, *snapshot.left_behind)
    }
    batches = batches_by_id.values()
    not_shown = {batch.id for snapshot in snapshots for batch in snapshot.not_shown}
    shown = (batch for batch in batches if batch.state is BatchState.OPEN and batch.id not in not_shown)
    running = list({batch.file_id: batch for batch in shown}.values())
    if not running:
        return []
    open_files = {batch.file_id for batch in running}
    moving = [snapshot for snapshot in snapshots if any(file.id in open_files for file in snapshot.files)]
    now = max(snapshot.now for snapshot in snapshots)
    return [_in_progress(running, moving, now)]


class _Files:
    """Request files of several partitions, which may share them."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._partitions: set[str] = set()
        self._errors: dict[str, None] = {}

    @property
    def why(self) -> str:
        """Why they are held: the first of their errors."""
        errors = [*self._errors]
        more = f"; and {len(errors) - _REASONS:,} more" if len(errors) > _REASONS else ""
        return "; ".join(errors[:_REASONS]) + more

    def add(self, snapshot: Snapshot, files: Iterable[RequestFile]) -> None:
        for file in files:
            self._ids.add(file.id)
            self._partitions.add(snapshot.submission.partition)
            self._errors[file.error or ""] = None

    def __bool__(self) -> bool:
        return bool(self._ids)

    def __str__(self) -> str:
        suffix = _of(self._partitions)
        return count(len(self._ids), f"request file{suffix} is", f"request files{suffix} are")


def _remedies(pipeline: str, needed: list[tuple[Snapshot, SubmissionRemedy]]) -> list[str]:
    """Report what the user can do for a pipeline, for all its partitions together."""
    ready, refused, held, over_budget = _Files(), _Files(), _Files(), _Files()
    left_out_by_partition: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for snapshot, remedy in needed:
        match remedy:
            case MaterializeBatches(files):
                ready.add(snapshot, files)
            case MaterializeRequests(files) | SendStopped(files):
                refused.add(snapshot, files)
            case ApproveFiles(files):
                held.add(snapshot, files)
            case RaiseBudget(files):
                over_budget.add(snapshot, files)
            case AskTheRest():
                left_out_by_partition[remedy.by_refresh][snapshot.submission.partition] = remedy.requests
    sentences = []
    if ready:
        sentences.append(f"{ready} ready: {materialize(Stage.BATCHES, pipeline)} to send them")
    if refused:
        sentences.append(f"{refused} refused: see the last run of {pipeline}/batches")
    if held:
        sentences.append(f"{held} held: {held.why}. To let them go, {launch_approve(pipeline)}")
    if over_budget:
        sentences.append(f"{over_budget} held: {over_budget.why}. Raise the budget to send them")
    for by_refresh, way in ((True, "with `refresh` and `confirm`"), (False, "without a limit")):
        if left_out := left_out_by_partition[by_refresh]:
            suffix = _of(set(left_out))
            requests = count(sum(left_out.values()), f"request{suffix}", f"requests{suffix}")
            send_them = f"{materialize(Stage.REQUESTS, pipeline)} {way}"
            sentences.append(f"A limit left out {requests} of {pipeline}. To send them, {send_them}")
    return sentences


def _waits(pipeline: str, snapshots: list[Snapshot]) -> list[str]:
    """Report what the submissions of a pipeline wait for, apart from what other sentences report."""
    partitions: dict[Waiting, set[str]] = {}
    seconds: dict[Waiting, float] = {}
    for snapshot in snapshots:
        step = next_step(snapshot)
        if not isinstance(step, Wait) or not _is_unreported(step.why, snapshot):
            continue
        partitions.setdefault(step.why, set()).add(snapshot.submission.partition)
        if step.until is not None and step.why is not Waiting.CACHE:
            left = step.until - snapshot.now
            seconds[step.why] = min(left, seconds.get(step.why, left))
    return [
        f"{_who_waits(pipeline, keys)} for {waits_for(why)}"
        + (f", the next try is in {duration(max(1.0, seconds[why]))}" if why in seconds else "")
        for why, keys in partitions.items()
    ]


def _over_budget(snapshots: list[Snapshot]) -> list[str]:
    """Report files that a budget holds back for now."""
    held = _Files()
    for snapshot in snapshots:
        held.add(snapshot, (file for file in snapshot.files if file.id in snapshot.until_budget))
    return [f"{held} held: {held.why}"] if held else []


def _not_shown(snapshots: list[Snapshot]) -> list[str]:
    """Report submissions with running batches that the API does not show."""
    return [
        f"{_who_waits(snapshot.submission.pipeline, {snapshot.submission.partition})} for "
        f"{waits_for_batches(snapshot)}"
        for snapshot in snapshots
        if snapshot.not_shown
    ]


def _who_waits(pipeline: str, partitions: set[str]) -> str:
    if len(partitions) > 1:
        return f"{len(partitions)} partitions of {pipeline} wait"
    partition = min(partitions)
    return f"{pipeline} [{printable(partition)}] waits" if partition else f"{pipeline} waits"


def _is_unreported(why: Waiting, snapshot: Snapshot) -> bool:
    """Whether no other sentence reports the wait."""
    match why:
        case Waiting.BATCHES:
            return False  # the progress of open batches
        case Waiting.UPLOAD:
            return not snapshot.in_state(FileState.SENDING, FileState.UNRESOLVED)
        case (
            Waiting.CACHE
            | Waiting.RATE_LIMIT
            | Waiting.BUDGET
            | Waiting.PILOT
            | Waiting.MORE
            | Waiting.QUEUE
            | Waiting.DOWNLOAD
            | Waiting.COLLECTING
            | Waiting.NEXT_ROUND
        ):
            return True
        case _:
            assert_never(why)


def _in_progress(running: list[Batch], moving: list[Snapshot], now: float) -> str:
    """Report the progress of submissions that have an open batch.

    Args:
        running: The open batches, also those of submissions that newer ones have replaced.
        moving: The submissions in force whose rows wait for these batches.
        now: The ledger's clock, seconds since 1970.
    """
    files = {file.id: file for snapshot in moving for file in snapshot.files}
    total = sum(file.batch_id is not None for file in files.values())
    total += sum(batch.file_id not in files for batch in running)
    oldest = now - min((batch.submitted_at for batch in running if batch.submitted_at is not None), default=now)
    sentences = [
        f"{len(running):,} of {count(total, 'batch', 'batches')} in progress",
        f"oldest {duration(oldest)}",
    ]
    answered, wanted = requests_answered(moving)
    if answered:
        sentences.append(f"{100 * answered // wanted} % of requests answered")
    next_look = min(batch.next_poll_at for batch in running) - now
    return ", ".join([*sentences, f"next look in {duration(max(1.0, next_look))}"])


def _of(partitions: set[str]) -> str:
    """Return " of" and the partition or the number of partitions; "" without partitions."""
    if partitions == {""}:
        return ""
    return f" of {len(partitions)} partitions" if len(partitions) > 1 else f" of {printable(min(partitions))}"


def _paid_twice(submission: Submission, ids: list[str]) -> list[str]:
    if not ids:
        return []
    paid = count(len(ids), "batch is", "batches are")
    return [f"{paid} paid twice, see batch-assets status {shell_quoted(submission.pipeline)}: {', '.join(ids)}"]
