"""The next step, for each line of the table of steps and for any state of a ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import event

from batch_assets.cli import what_next
from batch_assets.core.ledger import Ledger, submissions
from batch_assets.core.ledger.budgets import Fit, Prospect
from batch_assets.core.ledger.pilots import Pilot, PilotState, PilotTerms
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.standstills import Standstill
from batch_assets.core.ledger.states import BatchState, FileState, HoldReason
from batch_assets.core.ledger.stubs import Stub
from batch_assets.core.planning.next_step import next_step, remedies, round_of
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.planning.steps import (
    Announce,
    ApproveFiles,
    AskTheRest,
    Collect,
    Done,
    Join,
    Joining,
    MaterializeBatches,
    MaterializeRequests,
    MaterializeResults,
    NeedsUser,
    RaiseBudget,
    RestoreFile,
    Send,
    SendReason,
    SendStopped,
    Step,
    Wait,
    Waiting,
)
from batch_assets.core.planning.texts import reason
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers
from batch_assets.dagster.sensors.situation import situation
from batch_assets.dagster.sensors.situation import what_next as what_next_in_dagster

from .generated import fill

EXAMPLES = int(os.environ.get("BATCH_ASSETS_SNAPSHOTS") or 60)
NOW = 1000.0
FULL: dict[str, Any] = {"began_at": 10.0, "joined_seq": 5}
FINAL: dict[str, Any] = {**FULL, "final_at": 900.0}
LOST = Standstill(since=NOW - 10, last=NOW - 10, why="part-00000.jsonl is gone")
OLD = Standstill(since=NOW - 100, last=NOW - 61, why="part-00000.jsonl is gone")


def file(state: str, **values: Any) -> RequestFile:
    empty = dict.fromkeys(("error", "batch_id", "collected_seq", "headers", "hold", "worst_case"))
    fields = {"id": "s/part-0", "name": "part-0", "not_before": 0.0, **empty, **values}
    return RequestFile(
        submission_id="s",
        pipeline="asked",
        partition="",
        requests=2,
        bytes=10,
        attempt=1,
        checksum=None,
        state=FileState(state),
        **fields,
    )


def batch(state: str, **values: Any) -> Batch:
    empty = dict.fromkeys(
        ("created_at", "expires_at", "ended_at", "submitted_at", "missing_since", "failing_since", "canceled_at")
    )
    fields = {"id": "b", "file_id": "s/part-0", "provisional": False, "next_poll_at": NOW + 60, **empty, **values}
    fields.setdefault("next_download_at", NOW + 60)
    fields.setdefault("results_refused", False)
    fields.setdefault("processing_status", "in_progress")
    return Batch(
        pipeline="asked",
        state=BatchState(state),
        paid_twice=False,
        replied=True,
        requests=2,
        counts="{}",
        downloads=0,
        next_delete_at=0.0,
        **fields,
    )


def snapshot(*, submission: dict[str, Any], **values: Any) -> Snapshot:
    empty = dict.fromkeys(
        (
            "began_at",
            "joined_seq",
            "joined_at",
            "counts",
            "final_at",
            "announced_at",
            "fresh_after",
            "canceled_at",
            "estimate",
        )
    )
    fields = {"ask_again": 0, "left_out": 0, "max_attempts": 3, **empty, **submission}
    made = Submission(
        seq=1, id="s", pipeline="asked", partition="", created_at=0.0, rows=4, rejected=0, requests=4, written=4,
        headers="{}", max_requests=2, max_bytes=100, **fields,
    )  # fmt: skip
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Snapshot(submission=made, now=NOW, **values)


RUNNING = {"files": [file("submitted", batch_id="b")], "batches": [batch("open")]}
ENDED = {"files": [file("submitted", batch_id="b")], "batches": [batch("ended", next_download_at=NOW)]}
LATE = {"is_watched": True}
CANCELED: dict[str, Any] = {**FULL, "canceled_at": 20.0}
HELD = file("held", hold=HoldReason.CONFIRM)
DEAR = file("held", hold=HoldReason.BUDGET, error="the budget of $5.00 per month has $0.1000 left")
CROWDED = file("held", hold=HoldReason.QUEUE, error="the account's limit is reached")
FEW = file("held", hold=HoldReason.MORE, not_before=NOW + 60, error="3 requests are there")
CACHED = file("held", id="s/part-1", hold=HoldReason.CACHE, stub="s/part-0")
STOPPED, REFUSED, READY = file("stopped"), file("refused"), file("ready")
LIMITED = file("ready", id="s/part-1", not_before=NOW + 30)


def with_stub(stub: RequestFile, its_batch: Batch | None = None) -> Snapshot:
    """A submission with a file that waits for a stub."""
    batches = [its_batch] if its_batch is not None else []
    stubs = {"s/part-0": Stub(stub, its_batch)}
    return snapshot(submission=FULL, files=[stub, CACHED], batches=batches, stubs=stubs)


WAITING = file("held", id="s/part-1", hold=HoldReason.PILOT)


def for_pilot(pilot_file: RequestFile, *files: RequestFile, looked: int | None = None) -> Snapshot:
    """A submission with a file that waits for a pilot."""
    terms = PilotTerms(asks=False, max_failed=0.01, max_invalid=0.01)
    pilot = Pilot("asked", "prompt", "s", (pilot_file.id,), terms, looked_seq=looked)
    states = {WAITING.id: PilotState(pilot, (pilot_file,), collected=7)}
    return snapshot(submission=FULL | {"joined_seq": 7}, files=[*files, WAITING], pilots=states)


PILOT_DONE, PILOT_STOPPED = file("collected", collected_seq=7), file("stopped")
PILOT_OF_OTHER = file("submitted", id="other/part-0", batch_id="b")

CASES: dict[str, tuple[Step, Snapshot]] = {
    "a pilot that can be judged": (Send(SendReason.PILOT, 1), for_pilot(PILOT_DONE, PILOT_DONE)),
    "the pilot of another partition": (Wait(None, Waiting.PILOT), for_pilot(PILOT_OF_OTHER)),
    "a pilot that is stopped": (
        NeedsUser(SendStopped((PILOT_STOPPED,))),
        for_pilot(PILOT_STOPPED, PILOT_STOPPED),
    ),
    "a pilot of another partition that was canceled": (
        NeedsUser(MaterializeRequests()),
        for_pilot(file("canceled", id="other/part-0")),
    ),
    # Sending
    "canceled, and a batch runs": (Send(SendReason.CANCEL, 1), snapshot(submission=CANCELED, **RUNNING)),
    "failed requests": (Send(SendReason.ASK_AGAIN, 3), snapshot(submission=FULL | {"ask_again": 3}, **ENDED)),
    "failed requests, and the lost file is due": (
        Send(SendReason.ASK_AGAIN, 3),
        snapshot(submission=FULL | {"ask_again": 3}, standstill=OLD),
    ),
    "ready files": (Send(SendReason.UNSENT, 1), snapshot(submission=FULL, files=[READY, LIMITED])),
    "a file to split": (Send(SendReason.UNSENT, 1), snapshot(submission=FULL, files=[file("too_large")])),
    "a file in doubt": (
        Send(SendReason.IN_DOUBT, 1),
        snapshot(submission=FULL, files=[file("unresolved")], to_reconcile=frozenset({"s/part-0"})),
    ),
    "canceled, and its unsent files are left": (
        Send(SendReason.CANCEL, 3),
        snapshot(submission=CANCELED | {"began_at": None}, files=[READY, HELD, STOPPED]),
    ),
    # Collecting
    "an ended batch": (Collect(1, others_run=False), snapshot(submission=FULL, **ENDED)),
    "an ended batch that no row waits on": (
        Collect(1, others_run=False),
        snapshot(submission=FULL, left_behind=[batch("ended", next_download_at=NOW)]),
    ),
    "an ended batch beside a running one": (
        Collect(1, others_run=True),
        snapshot(submission=FULL, files=[*ENDED["files"], LIMITED], batches=ENDED["batches"]),
    ),
    "an ended batch beside a stopped file": (
        Collect(1, others_run=False),
        snapshot(submission=FULL, files=[*ENDED["files"], STOPPED], batches=ENDED["batches"]),
    ),
    "a stub that has ended": (
        Send(SendReason.UNSENT, 1),
        with_stub(file("submitted", batch_id="b"), batch("ended", created_at=NOW - 30)),
    ),
    "a stub that took too long": (
        Send(SendReason.UNSENT, 1),
        with_stub(file("submitted", batch_id="b"), batch("open", created_at=NOW - 2_700)),
    ),
    "a stub that is refused": (Send(SendReason.UNSENT, 1), with_stub(REFUSED)),
    "a stub whose batch is collected": (
        Send(SendReason.UNSENT, 1),
        with_stub(file("collected", batch_id="b"), batch("collected", created_at=NOW - 30)),
    ),
    "no table yet": (Join(Joining.FIRST, others_run=True), snapshot(submission={"began_at": 1.0}, **RUNNING)),
    "no table since the cancel": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission=CANCELED | {"joined_seq": None}),
    ),
    "no table since the cancel of what was only built": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission={"canceled_at": 20.0}, files=[file("canceled")]),
    ),
    "canceled, and another partition has not sent their file": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission={"canceled_at": 20.0}, files=[READY], shared=frozenset({"s/part-0"})),
    ),
    "canceled, and another partition's file came back unsent after the join": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission=CANCELED, files=[LIMITED], shared=frozenset({"s/part-1"})),
    ),
    "canceled, and the file that its rows waited on was refused": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission=CANCELED, files=[REFUSED]),
    ),
    "new answers": (
        Join(Joining.NEW_ANSWERS, others_run=False),
        snapshot(submission=FULL, files=[file("collected", collected_seq=6)]),
    ),
    "not announced": (Announce(), snapshot(submission=FINAL)),
    "another process collects": (
        Wait(None, Waiting.COLLECTING),
        snapshot(submission=FULL, is_collecting=True, **LATE, **ENDED),
    ),
    # Done
    "complete": (Done(), snapshot(submission=FINAL | {"announced_at": 950.0})),
    "complete, and a batch may turn up": (
        Done(watch=True),
        snapshot(submission=FINAL | {"announced_at": 950.0}, **LATE),
    ),
    "complete, and answers are lost": (
        NeedsUser(GiveUpAnswers("b", "asked")),
        snapshot(
            submission=FINAL | {"announced_at": 950.0},
            files=[file("submitted", batch_id="b", error="the answers of b are lost")],
            batches=[batch("ended")],
        ),
    ),
    # The user's consent, before any wait
    "no one agreed to send": (
        NeedsUser(MaterializeBatches((READY,))),
        snapshot(submission={}, files=[READY, *RUNNING["files"]], batches=RUNNING["batches"]),
    ),
    "no one agreed to send again": (
        NeedsUser(MaterializeBatches()),
        snapshot(submission={"joined_seq": 5, "ask_again": 1}),
    ),
    "no one agreed to look for an upload": (
        NeedsUser(MaterializeBatches()),
        snapshot(submission={}, files=[file("unresolved")], to_reconcile=frozenset({"s/part-0"})),
    ),
    # Waiting
    "the API": (Wait(NOW + 60, Waiting.BATCHES), snapshot(submission=FULL, **RUNNING)),
    "the API, and a batch may turn up": (
        Wait(NOW + 60, Waiting.BATCHES, watch=True),
        snapshot(submission=FULL, **LATE, **RUNNING),
    ),
    "the batch of an earlier upload of a refused file": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(submission=FULL, files=[REFUSED], batches=[batch("open")]),
    ),
    "a canceled batch's end": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(
            submission=CANCELED,
            files=RUNNING["files"],
            batches=[batch("open", processing_status="canceling")],
        ),
    ),
    "a batch that another partition wants": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(submission=CANCELED, shared=frozenset({"s/part-0"}), **RUNNING),
    ),
    "a batch that may be someone else's": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(submission=CANCELED, files=RUNNING["files"], batches=[batch("open", provisional=True)]),
    ),
    "a stub": (
        Wait(NOW + 60, Waiting.CACHE),
        with_stub(file("submitted", batch_id="b"), batch("open", created_at=NOW - 30)),
    ),
    "a stub until it takes too long": (
        Wait(NOW + 30, Waiting.CACHE),
        with_stub(file("submitted", batch_id="b"), batch("open", created_at=NOW - 2_670)),
    ),
    "a stub that is being sent": (Wait(None, Waiting.UPLOAD), with_stub(file("sending"))),
    "a stub that waits for the rate limit": (Wait(NOW + 30, Waiting.RATE_LIMIT), with_stub(LIMITED)),
    "the rate limit": (Wait(NOW + 30, Waiting.RATE_LIMIT), snapshot(submission=FULL, files=[LIMITED])),
    "an upload": (Wait(None, Waiting.UPLOAD), snapshot(submission=FULL, files=[file("sending")])),
    "another run": (
        Wait(None, Waiting.UPLOAD),
        snapshot(submission=FULL | {"ask_again": 1}, is_sending=True),
    ),
    "a download": (
        Wait(NOW + 60, Waiting.DOWNLOAD),
        snapshot(submission=FULL, files=RUNNING["files"], batches=[batch("ended")]),
    ),
    "room in the queue": (
        Wait(None, Waiting.QUEUE),
        snapshot(submission=FULL, files=[CROWDED], places={"s/part-0": Prospect(Fit.NOT_NOW, "full")}),
    ),
    "more requests": (Wait(NOW + 60, Waiting.MORE), snapshot(submission=FULL, files=[FEW])),
    "few that waited long enough": (
        Send(SendReason.ENOUGH, 1),
        snapshot(submission=FULL, files=[replace(FEW, not_before=NOW)]),
    ),
    "few that no user has sent": (
        NeedsUser(MaterializeBatches((FEW,))),
        snapshot(submission=FULL | {"began_at": None}, files=[FEW]),
    ),
    "another's turn": (
        Wait(NOW + 90, Waiting.QUEUE),
        snapshot(submission=FULL, files=[CROWDED], places={"s/part-0": Prospect(Fit.NOT_NOW, "turn", NOW + 90)}),
    ),
    "room that is there": (
        Send(SendReason.ROOM, 1),
        snapshot(submission=FULL, files=[CROWDED], places={"s/part-0": Prospect(Fit.WHOLE)}),
    ),
    "another partition's run": (
        Wait(None, Waiting.NEXT_ROUND),
        snapshot(submission={"joined_seq": 5}, files=[file("too_large")]),
    ),
    # The user
    "a stub that is held": (NeedsUser(ApproveFiles((HELD,))), with_stub(HELD)),
    "a stub that is stopped": (NeedsUser(SendStopped((STOPPED,))), with_stub(STOPPED)),
    "held": (NeedsUser(ApproveFiles((HELD,))), snapshot(submission=FULL, files=[HELD])),
    "held, and others run": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(submission=FULL, files=[HELD, *RUNNING["files"]], batches=RUNNING["batches"]),
    ),
    "a budget has too little left, and answers may free money": (
        Wait(None, Waiting.BUDGET),
        snapshot(submission=FULL, files=[DEAR], prospects={"s/part-0": Prospect(Fit.NOT_NOW, comes_free=True)}),
    ),
    "a budget has too little left until the next month": (
        Wait(NOW + 500, Waiting.BUDGET),
        snapshot(submission=FULL, files=[DEAR], prospects={"s/part-0": Prospect(Fit.NOT_NOW, until=NOW + 500)}),
    ),
    "a budget has money again": (
        Send(SendReason.AFFORDABLE, 1),
        snapshot(submission=FULL, files=[DEAR], prospects={"s/part-0": Prospect(Fit.IN_PART)}),
    ),
    "a budget has too little left, and others run": (
        Wait(NOW + 60, Waiting.BATCHES),
        snapshot(
            submission=FULL,
            files=[replace(DEAR, id="s/part-1"), *RUNNING["files"]],
            batches=RUNNING["batches"],
            prospects={"s/part-1": Prospect(Fit.NOT_NOW, comes_free=True)},
        ),
    ),
    "no money comes free for it": (
        NeedsUser(RaiseBudget((DEAR,))),
        snapshot(submission=FULL, files=[DEAR], prospects={"s/part-0": Prospect(Fit.NEVER)}),
    ),
    "stopped": (NeedsUser(SendStopped((STOPPED,))), snapshot(submission=FULL, files=[STOPPED, REFUSED])),
    "refused": (NeedsUser(MaterializeRequests((REFUSED,))), snapshot(submission=FULL, files=[REFUSED])),
    "refused, and a batch may turn up": (
        NeedsUser(MaterializeRequests((REFUSED,)), watch=True),
        snapshot(submission=FULL, files=[REFUSED], **LATE),
    ),
    "unreachable": (
        NeedsUser(CancelBatch("b", "asked")),
        snapshot(submission=FULL, files=RUNNING["files"], batches=[batch("unreachable")]),
    ),
    "a lost file": (
        NeedsUser(RestoreFile(LOST.why, LOST.last, NOW + 50)),
        snapshot(submission=FULL | {"ask_again": 1}, standstill=LOST),
    ),
    "a limit": (NeedsUser(AskTheRest(3, False)), snapshot(submission=FULL | {"left_out": 3})),
    "a limited refresh": (
        NeedsUser(AskTheRest(3, True)),
        snapshot(submission=FULL | {"left_out": 3}, needs_refresh=True),
    ),
    "a limit of a canceled one": (
        Join(Joining.CANCELED, others_run=False),
        snapshot(submission=CANCELED | {"left_out": 3}),
    ),
    "nothing holds what rows wait for": (
        NeedsUser(MaterializeRequests()),
        snapshot(submission=FULL, files=[file("canceled")], left_behind=[batch("unreachable")]),
    ),
    "all was answered before": (NeedsUser(MaterializeResults()), snapshot(submission={})),
}


@pytest.mark.parametrize("name", CASES)
def test_the_next_step_of_every_case(name: str) -> None:
    expected, case = CASES[name]
    assert next_step(case) == expected


def test_what_follows_a_step_that_is_put_off() -> None:
    ready = snapshot(submission=FULL, files=[READY, *ENDED["files"]], batches=ENDED["batches"])
    assert next_step(ready) == Send(SendReason.UNSENT, 1)
    assert next_step(ready, put_off=(Send,)) == Collect(1, others_run=False)
    alone = snapshot(submission=FULL, files=[READY])
    assert next_step(alone, put_off=(Send,)) == Wait(None, Waiting.NEXT_ROUND)
    first = snapshot(submission={"began_at": 1.0}, **RUNNING)
    assert next_step(first, put_off=(Join,)) == Wait(NOW + 60, Waiting.BATCHES)


def test_a_late_batch_is_looked_for_during_any_wait() -> None:
    for step in (Wait(None, Waiting.BATCHES), NeedsUser(CancelBatch("b", "asked")), Done()):
        assert round_of(step) is None
        next_round = round_of(replace(step, watch=True))
        assert next_round == Send(SendReason.LATE_BATCH)
        assert next_round.pause == 3600.0
    assert round_of(Announce()) == Announce()


def test_remedies_are_listed_with_those_that_rows_wait_for_first() -> None:
    blocked = snapshot(
        submission=FULL | {"ask_again": 1, "left_out": 3},
        files=[STOPPED, REFUSED, *RUNNING["files"]],
        batches=[batch("unreachable")],
        left_behind=[batch("unreachable", id="old")],
        standstill=LOST,
    )
    assert remedies(blocked) == [
        SendStopped((STOPPED,)),
        MaterializeRequests((REFUSED,)),
        CancelBatch("b", "asked"),
        RestoreFile(LOST.why, LOST.last, NOW + 50),
        AskTheRest(3, False),
        CancelBatch("old", "asked"),
    ]
    assert remedies(snapshot(submission=FINAL, files=[REFUSED])) == []


def test_a_batch_whose_results_the_api_refuses_may_have_been_deleted() -> None:
    failing = snapshot(submission=FULL, files=RUNNING["files"], batches=[batch("ended", failing_since=NOW - 5)])
    assert CancelBatch("b", "asked") not in remedies(failing)
    refused = replace(failing, batches=(replace(failing.batches[0], results_refused=True),))
    assert CancelBatch("b", "asked") in remedies(refused)
    assert next_step(refused) == next_step(failing) == Wait(NOW + 60, Waiting.DOWNLOAD)
    problem, remedy, wait = situation([refused], {})
    assert problem.startswith("b: the API refuses its results. Does the API key belong to the workspace")
    assert remedy.startswith("If b was deleted at the API")
    assert wait.startswith(WAITS[Waiting.DOWNLOAD])


WAITS: dict[Waiting, str] = {
    Waiting.BATCHES: "1 of ",
    Waiting.CACHE: "asked waits for its first request to be answered: the others read what they share from the ",
    Waiting.RATE_LIMIT: "asked waits for the API, which asked to send no more for now, the next try is in 30 s",
    Waiting.DOWNLOAD: "asked waits for results that could not be downloaded, the next try is in ",
    Waiting.UPLOAD: "asked waits for an upload that is under way",
    Waiting.COLLECTING: "asked waits for a run that is collecting its results",
    Waiting.BUDGET: "asked waits for money of its budget to come free",
    Waiting.PILOT: "asked waits for the pilot of its prompt, which another partition sends",
    Waiting.MORE: "asked waits for more requests, to send them together, the next try is in ",
    Waiting.QUEUE: "asked waits for room in the queue of the API",
    Waiting.NEXT_ROUND: "asked waits for request files that are under way",
}


@pytest.mark.parametrize("why", list(Waiting))
def test_the_sensor_says_what_a_submission_waits_for(why: Waiting) -> None:
    waiting = [case for step, case in CASES.values() if isinstance(step, Wait) and step.why is why]
    assert waiting
    for case in waiting:
        sentences = situation([case], {})
        uploading = why is Waiting.UPLOAD and case.in_state(FileState.SENDING)
        expected = "1 request file is being sent or unresolved" if uploading else WAITS[why]
        assert any(sentence.startswith(expected) for sentence in sentences), sentences
        assert sum("waits for" in sentence for sentence in sentences) == expected.count("waits for")


def test_the_sensor_names_the_budget_that_holds_files() -> None:
    sentences = situation([CASES["a budget has too little left, and others run"][1]], {})
    assert "1 request file is held: the budget of $5.00 per month has $0.1000 left" in sentences


def test_the_sensor_gives_some_reasons_why_files_of_many_partitions_are_held() -> None:
    one = snapshot(submission=FULL, files=[HELD])
    held = [
        replace(
            one,
            submission=replace(one.submission, id=f"s{number}", partition=f"p{number}"),
            files=(replace(HELD, id=f"f{number}", error=f"it may cost ${number}"),),
        )
        for number in range(1_000)
    ]
    (sentence,) = situation(held, {})
    reasons = "it may cost $0; it may cost $1; it may cost $2; and 997 more"
    assert f" are held: {reasons}. To let them go, launch the job asked_approve" in sentence
    assert len(sentence) < 300


NEXT: dict[str, str] = {
    "canceled, and a batch runs": (
        "The sensor continues: it was canceled, and some of its batches or request files are not canceled yet."
    ),
    "failed requests": "The sensor continues: 3 requests are to be sent again.",
    "ready files": "The sensor continues: 1 request file is left to send.",
    "an ended batch": "The sensor continues: 1 batch has ended.",
    "the rate limit": ("It waits for the API, which asked to send no more for now. The sensor continues in 30 s."),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_results_says_what_comes_next(name: str) -> None:
    step, case = CASES[name]
    text = what_next_in_dagster(case)
    assert text == NEXT.get(name, text)
    match step:
        case NeedsUser():
            assert text.startswith("It does not continue without a user")
        case Wait():
            assert text.startswith("It waits for ")
            is_timed = step.why.ends_at_a_time and step.until is not None
            assert (". The sensor continues in " in text) == is_timed, text
            assert text.endswith(". The sensor continues after that.") or is_timed
        case Done():
            assert text == "Nothing is left to do."
        case _:
            assert text == f"The sensor continues: {reason(step)}."


def test_partitions_that_wait_for_the_same_share_a_sentence() -> None:
    _, case = CASES["the rate limit"]
    later = replace(LIMITED, not_before=NOW + 90)
    first, second = (
        replace(case, submission=replace(case.submission, id=key, partition=key), files=(limited,))
        for key, limited in (("a", LIMITED), ("b", later))
    )
    assert situation([second], {}) == [
        "asked [b] waits for the API, which asked to send no more for now, the next try is in 2 min"
    ]
    assert situation([second, first], {}) == [
        "2 partitions of asked wait for the API, which asked to send no more for now, the next try is in 30 s"
    ]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    yield made
    made.close()


def assert_sends_nothing(canceled: Snapshot) -> None:
    """Nothing is proposed that sends requests of a canceled submission, and it ends once nothing is in flight."""
    step = next_step(canceled)
    assert not isinstance(step, Send) or step.why in (
        SendReason.CANCEL,
        SendReason.IN_DOUBT,
        SendReason.LATE_BATCH,
    )
    assert "batch-assets run" not in what_next.waits_for(canceled)
    given_up = (CancelBatch, GiveUpAnswers, MaterializeResults)
    assert all(isinstance(remedy, given_up) for remedy in remedies(canceled))
    if canceled.nothing_comes and not canceled.is_sending:
        assert not isinstance(step, NeedsUser)
        assert not isinstance(step, Wait) or step.why is Waiting.COLLECTING


@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_state_has_a_step_and_a_text_in_the_cli_and_in_dagster(ledger: Ledger, data: st.DataObject) -> None:
    with ledger.write() as tx, tx.connection.begin_nested() as undone:
        try:
            fill(tx, data)
            snapshots = read_snapshots(tx, submissions.all_newest(tx))
            assert snapshots == {each.id: Snapshot.of(tx, each) for each in submissions.all_newest(tx)}
            for each in snapshots.values():
                step = next_step(each)
                next_round = round_of(step)
                assert next_round is None or reason(next_round)
                assert what_next.waits_for(each)
                assert not isinstance(step, Done) or each.submission.final_at is not None
                if each.submission.is_canceled:
                    assert_sends_nothing(each)
            situation(snapshots.values(), submissions.paid_twice(tx))
        finally:
            undone.rollback()


def test_the_number_of_statements_does_not_depend_on_the_number_of_submissions(ledger: Ledger) -> None:
    statements: list[str] = []
    with ledger.write() as tx, tx.connection.begin_nested() as undone:
        event.listen(tx.connection, "before_cursor_execute", lambda *call: statements.append(call[2]))
        _, lost = CASES["a lost file"]
        values = lost.submission.__dict__ | {"left_out": 3, "fresh_after": 7.0, "canceled_at": 20.0}
        counts = []
        for number in (1, 30):
            submissions_ = [replace(lost.submission, **values | {"id": f"s-{at}"}) for at in range(number)]
            statements.clear()
            read_snapshots(tx, submissions_)
            counts.append(len(statements))
        assert counts[0] == counts[1] <= 10
        statements.clear()
        assert read_snapshots(tx, []) == {}
        assert statements == []
        undone.rollback()
