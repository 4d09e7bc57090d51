"""Submissions: register one, find the newest, record what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.files import hold, in_place_of
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.moves import Moving, move, move_all
from batch_assets.core.ledger.records import (
    RequestFile,
    RequestFileEntry,
    Submission,
    SubmissionEntry,
    to_record,
    to_records,
)
from batch_assets.core.ledger.states import (
    FILES_IN_FLIGHT,
    FILES_REPLACEABLE,
    EntityKind,
    FileMove,
    FileState,
    SubmissionMove,
    SubmissionState,
)
from batch_assets.core.ledger.tables import batch, history, intent, request_file, submission, wait

# What the history calls a request file that was removed from the root. Its state does not change.
REMOVED = "removed"


def newest(tx: Transaction, pipeline: str, partition: str) -> Submission | None:
    """Return the submission in force for a partition; `None` if nothing was ever registered."""
    statement = (
        sa.select(submission)
        .where(submission.c.pipeline == pipeline, submission.c.partition == partition)
        .order_by(submission.c.seq.desc())
        .limit(1)
    )
    row = tx.execute(statement).first()
    return to_record(Submission, row) if row is not None else None


def last(tx: Transaction, pipeline: str) -> Submission | None:
    """Return the last submission of a pipeline, of whatever partition; `None` if nothing was ever registered."""
    statement = sa.select(submission).where(submission.c.pipeline == pipeline)
    row = tx.execute(statement.order_by(submission.c.seq.desc()).limit(1)).first()
    return to_record(Submission, row) if row is not None else None


def by_id(tx: Transaction, submission_id: str) -> Submission:
    return to_record(Submission, tx.execute(sa.select(submission).where(submission.c.id == submission_id)).one())


def by_ids(tx: Transaction, ids: Sequence[str]) -> list[Submission]:
    """Return some submissions, in order of creation."""
    statements = (sa.select(submission).where(submission.c.id.in_(chunk)) for chunk in id_chunks(ids))
    known = [record for statement in statements for record in to_records(Submission, tx.execute(statement))]
    return sorted(known, key=lambda record: record.seq)


def all_newest(tx: Transaction, pipeline: str | None = None) -> list[Submission]:
    """Return the submissions in force, one for each partition, of one pipeline or of all."""
    return to_records(Submission, tx.execute(_newest(pipeline)))


def each_newest(tx: Transaction, pipeline: str | None = None) -> Iterator[Submission]:
    """Yield the submissions in force as they are asked for, see `all_newest`."""
    return (to_record(Submission, row) for row in tx.execute(_newest(pipeline)))


def _newest(pipeline: str | None) -> sa.Select[Any]:
    return sa.select(submission).where(submission.c.seq.in_(newest_seqs(pipeline))).order_by(submission.c.seq)


def newest_among(tx: Transaction, pipeline: str, ids: Sequence[str]) -> list[Submission]:
    """Return those of some submissions of a pipeline that are in force, in order of creation."""
    statements = (_newest(pipeline).where(submission.c.id.in_(chunk)) for chunk in id_chunks(ids))
    known = [record for statement in statements for record in to_records(Submission, tx.execute(statement))]
    return sorted(known, key=lambda record: record.seq)


def newest_seqs(pipeline: str | None = None) -> sa.Select[tuple[int]]:
    """Select the `seq` of the submissions in force, for use in other statements.

    There may be more submissions than the number of values that a statement can take. Those that are recorded as
    superseded, which are nearly all, are not read.
    """
    registered = submission.alias()
    last = (
        sa.select(sa.func.max(registered.c.seq))
        .where(registered.c.superseded_at.is_(None))
        .group_by(registered.c.pipeline, registered.c.partition)
    )
    return last if pipeline is None else last.where(registered.c.pipeline == pipeline)


def _wanted(pipeline: str, *conditions: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
    """Select the ids of the files that a pipeline's submissions in force wait on, if they meet the conditions."""
    return _waited_by(submission.c.seq.in_(newest_seqs(pipeline)), *conditions)


def _waited_by(*conditions: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
    """Select the ids of the files that submissions wait on, if they meet the conditions."""
    waiting = wait.join(submission, submission.c.id == wait.c.submission_id)
    return sa.select(wait.c.file_id).select_from(waiting).where(*conditions).correlate(None)


def known_ids(tx: Transaction, pipeline: str) -> set[str]:
    """Return the ids of all registered submissions of a pipeline."""
    return set(tx.execute(sa.select(submission.c.id).where(submission.c.pipeline == pipeline)).scalars())


def seq_before_all(tx: Transaction) -> int:
    """Return a `seq` for a submission that is older than all others, so that it does not come into force."""
    first = tx.execute(sa.select(sa.func.min(submission.c.seq))).scalar()
    return (first if first is not None else 1) - 1


def of_pipeline(tx: Transaction, pipeline: str) -> list[Submission]:
    """Return all submissions of a pipeline, also those that are no longer in force, in order of creation."""
    statement = sa.select(submission).where(submission.c.pipeline == pipeline).order_by(submission.c.seq)
    return to_records(Submission, tx.execute(statement))


@dataclass(frozen=True)
class Registration:
    """A submission that is to be registered.

    Attributes:
        entry: The submission.
        files: One entry for each file that it wrote.
        waits: Ids of other request files that its rows wait on. They may be registered with it.
    """

    entry: SubmissionEntry
    files: Sequence[RequestFileEntry]
    waits: Sequence[str]


def register(tx: Transaction, new: Sequence[Registration], set_aside: Collection[RequestFile]) -> bool:
    """Register submissions of one pipeline and their files, and set aside older unsent files at the same time.

    Args:
        tx: The transaction.
        new: The submissions, of a partition each.
        set_aside: Unsent files that the builds did not count as in flight.

    Returns:
        False if nothing was registered. Either a file to set aside was sent or is needed by now, so that requests
        would be sent twice, or a file to wait on was refused, replaced or canceled, so that a submission would
        wait without end.
    """
    pipeline, partitions = new[0].entry.pipeline, [each.entry.partition for each in new]
    unsent_now = {file.id for file in unsent(tx, pipeline, partitions)} if set_aside else set()
    if any(file.id not in unsent_now for file in set_aside):
        return False
    own = {file.id for each in new for file in each.files}
    if any(let_go(tx, [file_id for file_id in each.waits if file_id not in own]) for each in new):
        return False
    for file in set_aside:
        move(tx, FileMove.SET_ASIDE, file.id, f"replaced by submission {new[0].entry.id}")
    for each in new:
        reason = f"{each.entry.rows} rows, {len(each.files)} new files"
        move(tx, SubmissionMove.REGISTER, each.entry.id, reason, **each.entry.columns)
        supersede(tx, pipeline, each.entry.partition)
        add_files(tx, each.entry.id, each.files)
    for each in new:
        add_waits(tx, each.entry.id, each.waits)
    return True


def supersede(tx: Transaction, pipeline: str, partition: str) -> None:
    """Record of all submissions of a partition but the newest that they are no longer in force."""
    of_partition = sa.and_(submission.c.pipeline == pipeline, submission.c.partition == partition)
    last_seq = sa.select(sa.func.max(submission.c.seq)).where(of_partition).scalar_subquery()
    older = sa.update(submission).where(
        of_partition, submission.c.seq < last_seq, submission.c.superseded_at.is_(None)
    )
    tx.execute(older.values(superseded_at=tx.now))


def _state(tx: Transaction, file_id: str) -> FileState:
    state: FileState = tx.execute(sa.select(request_file.c.state).where(request_file.c.id == file_id)).scalar_one()
    return state


def let_go(tx: Transaction, file_ids: Iterable[str]) -> list[str]:
    """Return which of some files, or of the parts that replaced them, are replaced, canceled or refused.

    Their requests are not in flight and they brought no answer, so waiting on them would never end.
    """
    current_ids = [part for file_id in file_ids for part in in_place_of(tx, file_id)]
    return [file_id for file_id in current_ids if _state(tx, file_id).let_go]


def add_waits(tx: Transaction, submission_id: str, file_ids: Iterable[str]) -> None:
    """Record more request files that the submission's rows wait on."""
    recorded = set(tx.execute(sa.select(wait.c.file_id).where(wait.c.submission_id == submission_id)).scalars())
    wanted = {part for file_id in file_ids for part in in_place_of(tx, file_id)}
    for file_id in sorted(wanted - recorded):
        tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file_id))


def add_files(tx: Transaction, submission_id: str, entries: Iterable[RequestFileEntry]) -> None:
    """Add request files, ready to be sent or held, that the submission waits on.

    Args:
        tx: The transaction.
        submission_id: The id of the submission.
        entries: The files.
    """
    for file in entries:
        reason = f"{file.requests} requests, attempt {file.attempt}"
        move(tx, FileMove.WRITE, file.id, reason, **file.columns_in(submission_id))
        if file.hold is not None:
            hold(tx, file.id, file.hold, file.why_held)
        tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file.id))


def unsent(tx: Transaction, pipeline: str, partitions: Collection[str]) -> list[RequestFile]:
    """Return files that new submissions of some partitions set aside: never sent, not needed by other partitions.

    They were written for one of the partitions, or one of them waits on them: files of partitions that were
    gathered are set aside with the last of these.
    """
    in_force = submission.c.seq.in_(newest_seqs(pipeline))
    own = submission.c.partition.in_(partitions)
    statement = sa.select(request_file).where(
        request_file.c.pipeline == pipeline,
        request_file.c.state.in_(FILES_REPLACEABLE),
        sa.or_(
            request_file.c.partition.in_(partitions),
            request_file.c.id.in_(_waited_by(submission.c.pipeline == pipeline, in_force, own)),
        ),
        request_file.c.id.not_in(sa.select(intent.c.file_id)),
        request_file.c.id.not_in(_wanted(pipeline, submission.c.partition.not_in(partitions))),
    )
    return to_records(RequestFile, tx.execute(statement))


def sharing_unsent(tx: Transaction, pipeline: str, partitions: Collection[str]) -> list[set[str]]:
    """Return which of some partitions need the same request file that was never sent, for each such file."""
    needed: dict[str, set[str]] = {}
    of_newest = submission.c.seq.in_(newest_seqs(pipeline))
    statement = (
        sa.select(wait.c.file_id, submission.c.partition)
        .join(submission, submission.c.id == wait.c.submission_id)
        .join(request_file, request_file.c.id == wait.c.file_id)
        .where(of_newest, submission.c.partition.in_(partitions), request_file.c.state.in_(FILES_REPLACEABLE))
        .where(request_file.c.id.not_in(sa.select(intent.c.file_id)))
    )
    for row in tx.execute(statement):
        needed.setdefault(row.file_id, set()).add(row.partition)
    return [some for some in needed.values() if len(some) > 1]


def that_need(tx: Transaction, file_ids: Sequence[str]) -> list[Submission]:
    """Return the submissions whose rows wait, or once waited, on one of some request files."""
    needing: set[str] = set()
    for some in id_chunks(file_ids):
        needing.update(tx.execute(sa.select(wait.c.submission_id).where(wait.c.file_id.in_(some))).scalars())
    return by_ids(tx, sorted(needing))


def is_wanted(tx: Transaction, file: RequestFile) -> bool:
    """Whether a submission in force waits on a request file."""
    return tx.execute(_wanted(file.pipeline, wait.c.file_id == file.id)).first() is not None


def is_shared(tx: Transaction, file: RequestFile) -> bool:
    """Whether submissions wait or waited on a request file that did not write it."""
    others = sa.select(wait.c.file_id).where(wait.c.file_id == file.id, wait.c.submission_id != file.submission_id)
    return tx.execute(others.limit(1)).first() is not None


def files_in_flight(tx: Transaction, pipeline: str, partition: str | None = None) -> list[RequestFile]:
    """Return the files of a pipeline, or of one partition of it, that are in flight."""
    statement = sa.select(request_file).where(
        request_file.c.pipeline == pipeline, request_file.c.state.in_(FILES_IN_FLIGHT)
    )
    if partition is not None:
        statement = statement.where(request_file.c.partition == partition)
    return to_records(RequestFile, tx.execute(statement))


def old_files(tx: Transaction, pipeline: str, before: float) -> list[RequestFile]:
    """Return request files of submissions from before a time that can be removed and are not removed yet.

    These are not in flight, and no submission in force that is not final waits on them.
    """
    unfinished = submission.c.final_at.is_(None)
    removed = sa.and_(
        history.c.kind == EntityKind.FILE, history.c.entity == request_file.c.id, history.c.to_state == REMOVED
    )
    statement = (
        sa.select(request_file)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(
            request_file.c.pipeline == pipeline,
            submission.c.created_at <= before,
            request_file.c.state.not_in(FILES_IN_FLIGHT),
            request_file.c.id.not_in(_wanted(pipeline, unfinished)),
            ~sa.exists().where(removed),
        )
        .order_by(request_file.c.id)
    )
    return to_records(RequestFile, tx.execute(statement))


def partitions_waiting_on(tx: Transaction, file_ids: Sequence[str]) -> list[str]:
    """Return the partitions of the submissions whose rows wait on some request files, sorted."""
    partitions: set[str] = set()
    for chunk in id_chunks(file_ids):
        waiting = wait.join(submission, submission.c.id == wait.c.submission_id)
        of_files = sa.select(submission.c.partition).select_from(waiting).where(wait.c.file_id.in_(chunk))
        partitions.update(tx.execute(of_files.distinct()).scalars())
    return sorted(partitions)


def waited_on(tx: Transaction, submission_id: str) -> list[RequestFile]:
    """Return the request files that a submission's rows wait on, in a fixed order."""
    statement = (
        sa.select(request_file)
        .join(wait, wait.c.file_id == request_file.c.id)
        .where(wait.c.submission_id == submission_id)
        .order_by(request_file.c.submission_id, request_file.c.name)
    )
    return to_records(RequestFile, tx.execute(statement))


def paid_twice(tx: Transaction) -> dict[str, list[str]]:
    """Return by submission the ids of its files' batches that turned up after the file had been sent again."""
    statement = (
        sa.select(wait.c.submission_id, batch.c.id)
        .join(wait, wait.c.file_id == batch.c.file_id)
        .where(batch.c.paid_twice.is_(True))
        .order_by(batch.c.created_at, batch.c.id)
    )
    by_submission: dict[str, list[str]] = {}
    for row in tx.execute(statement):
        by_submission.setdefault(row.submission_id, []).append(row.id)
    return by_submission


def sending_name(submission_id: str) -> str:
    """Return the name of the lease that a run of `batches` marks while it works on a submission."""
    return f"sending:{submission_id}"


def began(tx: Transaction, submission_id: str) -> None:
    """Record that a run of `batches` has begun: what it leaves unsent may be sent unattended."""
    if by_id(tx, submission_id).state is SubmissionState.REGISTERED:
        move(tx, SubmissionMove.BEGIN, submission_id, "a run of batches has begun")
        return
    unset = submission.c.began_at.is_(None)  # complete or canceled before that
    tx.execute(sa.update(submission).where(submission.c.id == submission_id, unset).values(began_at=tx.now))


def begin_all(tx: Transaction, pipeline: str, partitions: Collection[str]) -> int:
    """Record that a run of `batches` over some partitions has begun, and return how many had not begun before.

    Submissions without requests are left out: nothing of them is sent.
    """
    chosen = set(partitions)
    registered = [
        newest.id
        for newest in all_newest(tx, pipeline)
        if newest.partition in chosen and newest.requests and newest.state is SubmissionState.REGISTERED
    ]
    move_all(tx, SubmissionMove.BEGIN, [Moving(id_, "a run of batches has begun") for id_ in registered])
    return len(registered)


def cancel(tx: Transaction, submission_id: str, reason: str) -> None:
    """Cancel a submission: nothing more of it is sent or retried, and its table is to be joined again."""
    if by_id(tx, submission_id).is_canceled:
        return
    move(tx, SubmissionMove.CANCEL, submission_id, reason, ask_again=0, joined_seq=None, joined_inputs=None)


def wanted_by_others(tx: Transaction, pipeline: str, partition: str) -> set[str]:
    """Return ids of the request files that other partitions wait on, without canceled submissions."""
    others = submission.c.partition != partition, submission.c.canceled_at.is_(None)
    return set(tx.execute(_wanted(pipeline, *others)).scalars())


def waited_on_in_vain(tx: Transaction, newer: Submission) -> set[str]:
    """Return ids of the request files that other, canceled submissions of the same partition waited on."""
    same = submission.c.pipeline == newer.pipeline, submission.c.partition == newer.partition
    replaced = _waited_by(*same, submission.c.canceled_at.is_not(None), submission.c.id != newer.id)
    return set(tx.execute(replaced).scalars())
