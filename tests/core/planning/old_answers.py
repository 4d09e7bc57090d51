"""The five answers of before to "what happens next?", each held against the one that takes their place.

Where they contradicted each other, the case is named here, with what is right.
"""

from __future__ import annotations

from batch_assets.cli import what_next
from batch_assets.cli.standing import LONGEST_NAP, Standing
from batch_assets.cli.status import _waits_for
from batch_assets.core.ledger import Transaction, batches, standstills, submissions
from batch_assets.core.ledger.records import HOLDING, UNCOLLECTED, Submission
from batch_assets.core.planning.in_words import reason
from batch_assets.core.planning.new_step import next_step, round_of
from batch_assets.core.planning.next_step import Work, work_for
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.planning.steps import (
    AskTheRest,
    Collect,
    Join,
    Joining,
    MaterializeBatches,
    MaterializeRequests,
    MaterializeResults,
    Person,
    Send,
    Sending,
    Step,
    Wait,
    Waiting,
)
from batch_assets.dagster.sensors.situation import situation, situation_of

SEEN: dict[str, int] = {}


def agree(tx: Transaction) -> None:
    """Raises AssertionError where the new answer is another, for a reason that is not named here."""
    in_force = submissions.all_newest(tx)
    snapshots = read_snapshots(tx, in_force)
    for submission in in_force:
        snapshot = snapshots[submission.id]
        assert snapshot == Snapshot.of(tx, submission)
        work = work_for(tx, submission)
        _sensor(snapshot, work)
        _run_loop(tx, snapshot)
        _status(tx, snapshot, work)
    _situation(tx, in_force, snapshots)


def _seen(case: str) -> bool:
    SEEN[case] = SEEN.get(case, 0) + 1
    return True


def _sensor(snapshot: Snapshot, work: Work | None) -> None:
    """The run that it asks for, why, and how long after the last one."""
    step = next_step(snapshot)
    found = round_of(step)
    assert (work is None) == (found is None), (work, step)
    if work is None or found is None:
        return
    assert (work.send, work.reason) == (isinstance(found, Send), reason(found))
    if work.pause != found.pause:
        # What is stopped or out of reach does not run, and an ended batch that no row waits on takes nothing from
        # what does: both had the table wait, or not wait, for a quarter of an hour.
        holding = {file.id for file in snapshot.files if file.state in HOLDING}
        is_still = snapshot.in_state("stopped") or snapshot.unreachable
        assert is_still or any(batch.file_id not in holding for batch in snapshot.ended), (work, step)
        assert _seen("pause")


def _run_loop(tx: Transaction, snapshot: Snapshot) -> None:
    """Whether it gives up, and when it looks again."""
    wanted = {file.batch_id for file in snapshot.files}
    alive = batches.in_state(tx, *UNCOLLECTED, pipeline=snapshot.submission.pipeline)
    mine = [batch for batch in alive if batch.id in wanted]
    submission = snapshot.submission
    standstill = standstills.current(tx, submission.id) if submission.ask_again else None
    old = Standing(submission, list(snapshot.files), mine, tx.now, standstill)
    assert old.pending_files == snapshot.moving
    assert {one.id for one in old.batches} <= {one.id for one in snapshot.uncollected}
    if len(old.batches) == len(snapshot.uncollected) and not snapshot.left_behind:
        assert {one.id for one in old.ended} == {one.id for one in snapshot.ended}
        assert old.next_look() == (snapshot.next_change() or tx.now + LONGEST_NAP)
    step = next_step(snapshot)
    is_stuck = isinstance(step, Person) and not isinstance(step.remedy, MaterializeBatches)
    if old.is_stuck != is_stuck:
        assert old.is_stuck and _is_not_stuck(snapshot, old, step), step


def _is_not_stuck(snapshot: Snapshot, old: Standing, step: Step) -> bool:
    """The run loop gave up although something was under way or could be done. None of this is a reason to."""
    moving = {file.id for file in old.pending_files}
    late = any(batch.file_id not in moving for batch in (*snapshot.uncollected, *snapshot.left_behind))
    match step:
        case Collect() | Wait(why=Waiting.BATCHES | Waiting.DOWNLOAD):
            return late and _seen("stuck: the batch of an earlier upload may bring the answers")
        case Join(why=Joining.FIRST | Joining.CANCELED):
            return _seen("stuck: the table is not written yet")
        case Send(why=Sending.ASK_AGAIN):
            return old.standstill is not None and _seen("stuck: the lost file is due to be looked for again")
        case Send(why=Sending.CANCEL):
            return _seen("stuck: canceled, and batches are to be ended")
        case Wait(why=Waiting.UPLOAD):
            return snapshot.is_sending and _seen("stuck: another run is sending")
        case Wait(why=Waiting.COLLECTING):
            return snapshot.is_collecting and _seen("stuck: another run is collecting")
        case Person(remedy=MaterializeBatches()):
            return _seen("stuck: another run's submission, which is its own to send")
    return False


def _status(tx: Transaction, snapshot: Snapshot, work: Work | None) -> None:
    """What it says that a submission waits for."""
    submission = snapshot.submission
    mine = list(snapshot.batches)
    said = _waits_for(tx, submission, list(snapshot.files), mine)
    now = what_next.waits_for(snapshot)
    if said != now:
        assert _is_right(snapshot, work, said), (said, now)


def _is_right(snapshot: Snapshot, work: Work | None, said: str) -> bool:
    """Another line than before, and why."""
    step = next_step(snapshot)
    if isinstance(step, Join) and step.others_run:
        step = next_step(snapshot, put_off=(Join,))
    remedy = step.remedy if isinstance(step, Person) else None
    if said.startswith("nothing: complete since"):
        return _seen("status: answers that have ended are to come, as those that are open")
    if said.startswith("somebody to materialize"):
        if isinstance(remedy, MaterializeBatches):
            return _seen("status: other words, consent")
        if isinstance(step, Collect | Join) or step == Wait(None, Waiting.COLLECTING):
            return _seen("status: what the sensor does by itself comes first")
        return snapshot.submission.is_canceled and _seen("status: nothing of a canceled one is sent")
    if said.startswith("a person: see the errors") and remedy is not None:
        return not isinstance(remedy, AskTheRest) and _seen("status: other words, what to do")
    if said == "an upload that is under way" and isinstance(remedy, MaterializeBatches):
        return snapshot.submission.began_at is None and _seen("status: nobody looks for it unasked")
    if isinstance(step, Wait) and step.why in (Waiting.DOWNLOAD, Waiting.UPLOAD, Waiting.COLLECTING):
        return _seen(f"status: {step.why} is under way")
    if work is not None and work.reason in said:
        if work.reason == reason(Send(Sending.LATE_BATCH)):
            return _seen("status: a late batch is looked for beside what it waits for")
        return (
            work.reason == reason(Join(Joining.FIRST, True))
            or work.reason == reason(Join(Joining.CANCELED, True))
            or work.reason == reason(Join(Joining.NEW_ANSWERS, True))
        ) and _seen("status: what it waits for, not a table of rows that wait")
    is_again = said.startswith("the sensor, or: ") and not said.endswith(")")
    if is_again and isinstance(remedy, MaterializeBatches | MaterializeRequests | MaterializeResults):
        return _seen("status: the sensor does nothing here")
    if isinstance(step, Collect) and "the API to end its batches" in said:
        return bool(snapshot.left_behind) and _seen("status: a batch that no row waits on is collected")
    if isinstance(step, Join) and "the API to end its batches" in said:
        return not step.others_run and _seen("status: answers are here, and no row waits on what runs")
    if isinstance(remedy, MaterializeBatches) and "the API to end its batches" in said:
        return _seen("status: consent is missing, whatever else runs")
    if said.startswith("a person: see the errors") and isinstance(step, Wait):
        return _seen("status: files are under way")
    if "left out by a limit" in said and snapshot.submission.is_canceled:
        return _seen("status: nothing of a canceled one is asked")
    if "left out by a limit" in said and isinstance(remedy, MaterializeBatches):
        return bool(snapshot.in_doubt) and _seen("status: nobody looks for it unasked")
    return False


def _situation(tx: Transaction, in_force: list[Submission], snapshots: dict[str, Snapshot]) -> None:
    """The sentences of the sensor, in any order."""
    old = situation(tx, in_force)
    new = situation_of(snapshots.values(), submissions.paid_twice(tx))
    if sorted(set(old)) != sorted(new):
        # Nobody needs to help a submission that is complete, or to send one that is canceled.
        done = [s for s in in_force if s.final_at is not None or s.is_canceled]
        lost, more = set(old) - set(new), set(new) - set(old)
        words = ("ready: materialize", "refused: see", "is gone", "lost it")
        assert done and all(any(word in line for word in words) for line in lost | more), (lost, more)
        assert _seen("situation: nothing to do for what is complete or canceled")
