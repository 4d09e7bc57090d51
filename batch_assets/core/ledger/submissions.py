"""Submissions: registering one, finding the newest, what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.files import in_place_of
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import RequestFile, Submission, to_record, to_records
from batch_assets.core.ledger.states import FILES_IN_FLIGHT, FileMove, FileState, SubmissionMove, SubmissionState
from batch_assets.core.ledger.tables import batch, history, intent, request_file, submission, wait

# What the history says of a request file that was removed from the root. Its state stays what it was.
REMOVED = "removed"
# Ids in one statement: SQLite takes so many values and no more, an old one 999.
_AT_ONCE = 500


_REOPENING = (SubmissionMove.REOPEN_UNSENT, SubmissionMove.REOPEN, SubmissionMove.REOPEN_CANCELED)


def newest(tx: Transaction, pipeline: str, partition: str) -> Submission | None:
    """The submission in force for a partition."""
    statement = (
        sa.select(submission)
        .where(submission.c.pipeline == pipeline, submission.c.partition == partition)
        .order_by(submission.c.seq.desc())
        .limit(1)
    )
    row = tx.execute(statement).first()
    return to_record(Submission, row) if row is not None else None


def by_id(tx: Transaction, submission_id: str) -> Submission:
    return to_record(Submission, tx.execute(sa.select(submission).where(submission.c.id == submission_id)).one())


def all_newest(tx: Transaction, pipeline: str | None = None) -> list[Submission]:
    """The submissions in force, one a partition, of one pipeline or of all."""
    statement = sa.select(submission).where(submission.c.seq.in_(newest_seqs(pipeline))).order_by(submission.c.seq)
    return to_records(Submission, tx.execute(statement))


def newest_seqs(pipeline: str | None = None) -> sa.Select[tuple[int]]:
    """Selects the `seq` of the submissions in force, for other statements: there may be more of them than a
    statement takes values.
    """
    made = submission.alias()
    last = sa.select(sa.func.max(made.c.seq)).group_by(made.c.pipeline, made.c.partition)
    return last if pipeline is None else last.where(made.c.pipeline == pipeline)


def _wanted(pipeline: str, *which: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
    """Selects the ids of the files that those submissions in force of a pipeline wait on."""
    return _waited_by(submission.c.seq.in_(newest_seqs(pipeline)), *which)


def _waited_by(*which: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
    """The same of any submissions."""
    waiting = wait.join(submission, submission.c.id == wait.c.submission_id)
    return sa.select(wait.c.file_id).select_from(waiting).where(*which).correlate(None)


def known_ids(tx: Transaction, pipeline: str) -> set[str]:
    """Ids of every submission of a pipeline that was registered."""
    return set(tx.execute(sa.select(submission.c.id).where(submission.c.pipeline == pipeline)).scalars())


def register(
    tx: Transaction,
    values: dict[str, Any],
    files: list[dict[str, Any]],
    waits: list[str],
    set_aside: list[RequestFile],
) -> bool:
    """Makes a submission and its files known, in one transaction with setting older unsent files aside.

    Args:
        values: columns of `submission`.
        files: one entry a file the submission wrote, as for `add_files`.
        waits: ids of other request files that the submission's rows wait on.
        set_aside: files that the submission was built without, because they had not been sent.

    Returns:
        False, and nothing is registered, when one of these files has been sent meanwhile, or one that is
        waited on holds nothing any more: the submission would ask twice, or wait for ever.
    """
    pipeline, partition, submission_id = values["pipeline"], values["partition"], values["id"]
    unsent_now = {file.id for file in unsent(tx, pipeline, partition)}
    if any(file.id not in unsent_now for file in set_aside):
        return False
    if let_go(tx, waits):
        return False
    for file in set_aside:
        move(tx, FileMove.SET_ASIDE, file.id, f"submission {submission_id} takes its place")
    why = f"{values['rows']} rows, {len(files)} new files"
    move(tx, SubmissionMove.REGISTER, submission_id, why, ask_again=0, **_without_id(values))
    add_files(tx, submission_id, files)
    add_waits(tx, submission_id, waits)
    return True


def _without_id(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "id"}


def _state(tx: Transaction, file_id: str) -> FileState:
    state: FileState = tx.execute(sa.select(request_file.c.state).where(request_file.c.id == file_id)).scalar_one()
    return state


def let_go(tx: Transaction, file_ids: Iterable[str]) -> list[str]:
    """Those of some files, or of the parts in their place, that hold nothing any more and brought no answer:
    set aside, canceled or refused. Who waits on them waits for ever.
    """
    found = [part for file_id in file_ids for part in in_place_of(tx, file_id)]
    return [file_id for file_id in found if _state(tx, file_id).let_go]


def add_waits(tx: Transaction, submission_id: str, file_ids: Iterable[str]) -> None:
    """Notes further request files that the submission's rows wait on."""
    known = set(tx.execute(sa.select(wait.c.file_id).where(wait.c.submission_id == submission_id)).scalars())
    wanted = {found for file_id in file_ids for found in in_place_of(tx, file_id)}
    for file_id in sorted(wanted - known):
        tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file_id))


def add_files(tx: Transaction, submission_id: str, files: list[dict[str, Any]]) -> None:
    """Adds request files, ready to be sent, that the submission waits on.

    Args:
        files: columns of `request_file`; `headers` as a dictionary, and only where they are not the submission's.
    """
    for file in files:
        own = {"headers": json.dumps(file["headers"])} if "headers" in file else {}
        values = {"submission_id": submission_id, "not_before": 0.0, **_without_id(file), **own}
        why = f"{file['requests']} requests, attempt {file['attempt']}"
        move(tx, FileMove.WRITE, file["id"], why, **values)
        tx.execute(sa.insert(wait).values(submission_id=submission_id, file_id=file["id"]))


def unsent(tx: Transaction, pipeline: str, partition: str) -> list[RequestFile]:
    """Files of a partition that a new submission sets aside: never sent, and nobody else waits on them."""
    sent = sa.select(intent.c.file_id)
    wanted = _wanted(pipeline, submission.c.partition != partition)
    statement = sa.select(request_file).where(
        request_file.c.pipeline == pipeline,
        request_file.c.partition == partition,
        request_file.c.state == FileState.READY,
        request_file.c.id.not_in(sent),
        request_file.c.id.not_in(wanted),
    )
    return to_records(RequestFile, tx.execute(statement))


def is_wanted(tx: Transaction, file: RequestFile) -> bool:
    """Whether a submission in force waits on a request file."""
    return tx.execute(_wanted(file.pipeline, wait.c.file_id == file.id)).first() is not None


def holding(tx: Transaction, pipeline: str) -> list[RequestFile]:
    """Files of a pipeline whose requests are in flight."""
    statement = sa.select(request_file).where(
        request_file.c.pipeline == pipeline, request_file.c.state.in_(FILES_IN_FLIGHT)
    )
    return to_records(RequestFile, tx.execute(statement))


def old_files(tx: Transaction, pipeline: str, before: float) -> list[RequestFile]:
    """Request files of submissions from before a time that nothing in force waits on and nobody removed yet.

    A submission in force waits on its files until it is final.
    """
    unfinished = submission.c.final_at.is_(None)
    removed = sa.and_(
        history.c.kind == "file", history.c.entity == request_file.c.id, history.c.to_state == REMOVED
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


def waited_on(tx: Transaction, submission_id: str) -> list[RequestFile]:
    """The request files a submission's rows wait on, in a fixed order."""
    statement = (
        sa.select(request_file)
        .join(wait, wait.c.file_id == request_file.c.id)
        .where(wait.c.submission_id == submission_id)
        .order_by(request_file.c.submission_id, request_file.c.name)
    )
    return to_records(RequestFile, tx.execute(statement))


def refreshed_files(tx: Transaction, pipeline: str) -> list[tuple[str, str | None, float]]:
    """(file id, batch id, `fresh_after`) of the request files that refreshes wrote or wait on.

    A file comes once for each refresh and each batch that it became.
    """
    of_refresh = sa.and_(submission.c.pipeline == pipeline, submission.c.fresh_after.is_not(None))
    own = (
        sa.select(request_file.c.id.label("file_id"), submission.c.fresh_after)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(of_refresh)
    )
    others = (
        sa.select(wait.c.file_id, submission.c.fresh_after)
        .join(submission, submission.c.id == wait.c.submission_id)
        .where(of_refresh)
    )
    files = sa.union(own, others).subquery()
    statement = sa.select(files, batch.c.id.label("batch_id")).outerjoin(batch, batch.c.file_id == files.c.file_id)
    return [(row.file_id, row.batch_id, row.fresh_after) for row in tx.execute(statement)]


def last_refresh(tx: Transaction, pipeline: str) -> float | None:
    """The newest `fresh_after` of a pipeline, None before any refresh."""
    statement = sa.select(sa.func.max(submission.c.fresh_after)).where(submission.c.pipeline == pipeline)
    found = tx.execute(statement).scalar_one()
    return float(found) if found is not None else None


def of_refresh(tx: Transaction, pipeline: str, partition: str, fresh_after: float) -> tuple[bool, bool]:
    """(whether a run has begun to send any of a refresh, whether a submission of it had no requests left out)."""
    statement = sa.select(sa.func.max(submission.c.began_at), sa.func.min(submission.c.left_out)).where(
        submission.c.pipeline == pipeline,
        submission.c.partition == partition,
        submission.c.fresh_after == fresh_after,
    )
    found: Any = tx.execute(statement).one()
    return found[0] is not None, found[1] == 0


def of_refreshes(tx: Transaction, ids: Sequence[str]) -> dict[str, tuple[bool, bool]]:
    """What `of_refresh` says of the refreshes that some submissions are part of, by submission."""
    found: dict[str, tuple[bool, bool]] = {}
    one = submission.alias()
    same = sa.and_(
        submission.c.pipeline == one.c.pipeline,
        submission.c.partition == one.c.partition,
        submission.c.fresh_after == one.c.fresh_after,
    )
    last_began, least_left = sa.func.max(submission.c.began_at), sa.func.min(submission.c.left_out)
    for start in range(0, len(ids), _AT_ONCE):
        statement = (
            sa.select(one.c.id, last_began.label("began_at"), least_left.label("left_out"))
            .select_from(one)
            .join(submission, same)
            .where(one.c.id.in_(ids[start : start + _AT_ONCE]))
            .group_by(one.c.id)
        )
        for row in tx.execute(statement):
            found[row.id] = row.began_at is not None, row.left_out == 0
    return found


def paid_twice(tx: Transaction) -> dict[str, list[str]]:
    """By submission, ids of the batches of its files that turned up after the file had been sent again."""
    statement = (
        sa.select(wait.c.submission_id, batch.c.id)
        .join(wait, wait.c.file_id == batch.c.file_id)
        .where(batch.c.paid_twice.is_(True))
        .order_by(batch.c.created_at, batch.c.id)
    )
    found: dict[str, list[str]] = {}
    for row in tx.execute(statement):
        found.setdefault(row.submission_id, []).append(row.id)
    return found


def sending_name(submission_id: str) -> str:
    """The lease that says that a run of `batches` is at work on a submission."""
    return f"sending:{submission_id}"


def began(tx: Transaction, submission_id: str) -> None:
    """Notes that a run of `batches` has begun: what it leaves unsent may be sent unattended."""
    if by_id(tx, submission_id).state is SubmissionState.REGISTERED:
        move(tx, SubmissionMove.BEGIN, submission_id, "a run of batches has begun")
        return
    unset = submission.c.began_at.is_(None)  # complete or canceled before that
    tx.execute(sa.update(submission).where(submission.c.id == submission_id, unset).values(began_at=tx.now))


def joined(
    tx: Transaction, submission_id: str, seq: int, counts: dict[str, int], ask_again: int, waits: list[str]
) -> bool:
    """Records a join of results.

    Args:
        seq: how far the history had come when the join began.
        ask_again: requests that failed for a passing reason and that no request file holds yet.
        waits: request files that hold others of them, whoever wrote these.

    Returns:
        Whether every row has its final type.
    """
    final = counts.get("pending", 0) == 0
    values: dict[str, Any] = {
        "joined_seq": seq,
        "joined_at": tx.now,
        "counts": json.dumps(counts),
        "ask_again": ask_again,
    }
    if gone := let_go(tx, waits):  # since the join began: what they held is looked for anew
        values["ask_again"] = ask_again + len(gone)
    add_waits(tx, submission_id, waits)
    before = by_id(tx, submission_id)
    if not final:  # requests of complete results may be asked again: what comes of it is to be announced
        values["announced_at"] = None
    if final and before.final_at is None:
        move(tx, SubmissionMove.FINISH, submission_id, values["counts"], **values)
    elif not final and before.final_at is not None:
        _reopen(tx, before, values["counts"], **values)
    else:
        _update(tx, submission_id, **values)
    return final


def _reopen(tx: Transaction, final: Submission, reason: str, **values: Any) -> None:
    """Rows of a complete table wait again: the submission is what it was before it became final."""
    earlier = replace(final, final_at=None).state
    step = next(step for step in _REOPENING if step.after is earlier)
    move(tx, step, final.id, reason, **values)


def _update(tx: Transaction, submission_id: str, **values: Any) -> None:
    tx.execute(sa.update(submission).where(submission.c.id == submission_id).values(values))


def join_anew(tx: Transaction, submission_id: str) -> None:
    """Has the table joined once more, whatever is recorded of earlier joins."""
    before = by_id(tx, submission_id)
    if before.final_at is not None:
        _reopen(tx, before, "its table is written once more", joined_seq=None)
    else:
        _update(tx, submission_id, joined_seq=None)


def cancel(tx: Transaction, submission_id: str, reason: str) -> None:
    """From here on nothing of a submission is sent or asked again, and its table is to be joined anew."""
    if by_id(tx, submission_id).is_canceled:
        return
    move(tx, SubmissionMove.CANCEL, submission_id, reason, ask_again=0, joined_seq=None)


def wanted_by_others(tx: Transaction, pipeline: str, partition: str) -> set[str]:
    """Ids of the request files that other partitions wait on: those of canceled submissions do not count."""
    others = submission.c.partition != partition, submission.c.canceled_at.is_(None)
    return set(tx.execute(_wanted(pipeline, *others)).scalars())


def waited_on_in_vain(tx: Transaction, newer: Submission) -> set[str]:
    """Ids of the request files that canceled submissions of the same partition waited on which it has replaced."""
    place = submission.c.pipeline == newer.pipeline, submission.c.partition == newer.partition
    replaced = _waited_by(*place, submission.c.canceled_at.is_not(None), submission.c.id != newer.id)
    return set(tx.execute(replaced).scalars())


def planned_again(tx: Transaction, submission_id: str) -> None:
    """Notes that the failed requests of the last join lie in request files again."""
    _update(tx, submission_id, ask_again=0)


def announced(tx: Transaction, submission_id: str) -> None:
    """Notes that the materialization of complete results was logged."""
    unset = submission.c.announced_at.is_(None)
    tx.execute(sa.update(submission).where(submission.c.id == submission_id, unset).values(announced_at=tx.now))


def announce_again(tx: Transaction, submission_id: str) -> None:
    """Has complete results be materialized once more, in a run of their own."""
    _update(tx, submission_id, announced_at=None)
