"""A cancel ends running batches and keeps unsent files unsent. The next run sends only what the cancel left."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.batches.targets import UnknownTargetError
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import SettingsError, UnreachableError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import joins, submissions, transitions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.status import PartitionState, state_of
from batch_assets.core.planning.steps import Announce, Join, Joining, Round, Send
from batch_assets.core.planning.texts import reason
from batch_assets.core.remedies import ListBatches
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.report import NOTHING_AGAIN, RequestsReport
from batch_assets.core.results.run import collect_results

from ..support import BATCHES, CREATE, LIST, World, make_pipeline, round_for, texts, wait_for, write_rows

CANCEL = {"method": "POST", "path": f"{BATCHES}/*/cancel"}


def newest(world: World, pipeline: Pipeline, partition: str = "") -> Submission:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, partition)
    assert submission is not None
    return submission


def work(world: World, pipeline: Pipeline, partition: str = "") -> Round | None:
    """Return the work that the sensor would find."""
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, partition)
        assert submission is not None
        return round_for(tx, submission)


def let_the_sensor_work(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Do what ticks and runs of the sensor do until nothing is left, without any step of a user."""
    for _ in range(20):
        poll(world.root, now=True)
        next_round = work(world, pipeline, partition)
        if next_round is None or "not announced" in reason(next_round):
            return
        if isinstance(next_round, Send):
            submit_batches(world.root, pipeline.name, partition, unattended=True)
        collect_results(world.root, pipeline.name, partition)
    raise AssertionError(f"the sensor does not come to an end: {next_round}")


def state(world: World, partition: str = "") -> PartitionState:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, "asked", partition)
        assert submission is not None
        return state_of(Snapshot.of(tx, submission))


def announce(world: World, submission: Submission) -> None:
    with world.root.ledger.write(submission.pipeline) as tx:
        joins.announced(tx, submission.id)


def types(world: World, pipeline: Pipeline) -> list[str]:
    return list(world.table(pipeline)["result_type"])


def test_answers_are_kept_and_the_next_run_sends_the_rest(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    """Of three batches one has ended, one runs, and one was never sent."""
    world = new_world(ledger=ledger_url)
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    world.build(pipeline)
    world.emulator.faults(
        [{"match": {**CREATE, "nth": 3}, "action": {"status": 429, "headers": {"retry-after": "0"}}}]
    )
    first, second = world.submit(pipeline).submitted
    world.emulator.end_batches(first)

    report = cancel(world.root, pipeline.name)
    unsent = world.files(pipeline)[2]
    assert report == CancelReport([second], [first], [unsent.id], submissions=[unsent.submission_id])
    assert world.states(pipeline) == ["submitted", "submitted", "canceled"]
    let_the_sensor_work(world, pipeline)
    assert len(world.accepted()) == 2, "nothing was sent unattended"
    assert newest(world, pipeline).final_at is not None
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 2 + ["canceled"] * 4
    assert list(table["attempts"].fillna(0)) == [1, 1, 1, 1, 0, 0]
    assert list(table["error_message"][4:]) == ["it was canceled before it was sent"] * 2
    assert submit_batches(world.root, pipeline.name).submitted == []  # type: ignore[union-attr]

    assert world.build(pipeline).written == 4
    world.submit(pipeline)
    assert not collect_results(world.root, pipeline.name).results.final  # type: ignore[union-attr]
    assert types(world, pipeline) == ["succeeded"] * 2 + ["pending"] * 4
    world.emulator.end_batches()
    world.finish(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 6
    assert list(world.table(pipeline)["attempts"]) == [1, 1, 2, 2, 1, 1]
    assert len(world.accepted_custom_ids()) == 8


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_run_right_after_a_cancel_sends_what_the_cancel_leaves(world: World, max_attempts: int) -> None:
    """The batches have not ended, so their requests are in flight when the run begins."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2}, retry={"max_attempts": max_attempts})
    answered, canceled = world.send(pipeline).submitted
    cancel(world.root, canceled)
    report = world.build(pipeline)
    assert (report.written, report.in_flight) == (0, 4)
    assert world.submit(pipeline).submitted == []
    world.emulator.end_batches(answered)
    poll(world.root, now=True)
    assert not collect_results(world.root, pipeline.name).results.final  # type: ignore[union-attr]
    assert types(world, pipeline) == ["succeeded"] * 2 + ["pending"] * 2
    next_round = work(world, pipeline)
    assert next_round is not None and reason(next_round) == "2 requests are to be sent again"
    world.submit(pipeline, unattended=True)
    (_, _, again) = world.accepted()
    world.emulator.end_batches(again["id"])
    world.finish(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 4
    assert list(world.table(pipeline)["attempts"]) == [1, 1, *[min(2, max_attempts)] * 2]
    assert len(world.accepted_custom_ids()) == 6


def test_a_batch_that_a_cancel_did_not_reach_is_canceled_after_it_was_replaced(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3), batching={"max_requests": 1})
    batches = world.send(pipeline).submitted
    world.emulator.faults([{"match": CANCEL, "action": {"status": 500}}])
    assert cancel(world.root, pipeline.name).canceled == []
    pipeline = world.pipeline({**texts(1), "new": "another text"})
    world.build(pipeline)
    waiting = world.submit(pipeline).waiting
    assert batches[1] in waiting["cancel of what was replaced"]
    assert batches[0] not in waiting["cancel of what was replaced"], "the new one waits on it"
    world.emulator.reset_faults()
    world.forget_calls()
    assert world.submit(pipeline).waiting == {}
    world.emulator.end_batches()
    world.finish(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 2
    assert world.submit(pipeline).waiting == {}
    assert world.calls()["POST /v1/messages/batches/{id}/cancel"] == 2


def test_failures_with_attempts_left_are_final_once_canceled(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.expire_batches(first)
    world.collect(pipeline)
    assert types(world, pipeline) == ["pending"] * 4
    cancel(world.root, pipeline.name)
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["expired"] * 2 + ["canceled"] * 2
    assert len(world.accepted()) == 2
    assert world.build(pipeline).written == 4


def test_a_table_that_waited_for_a_retry_is_joined_again_without_a_running_batch(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.expire_batches()
    world.collect(pipeline)
    (file,) = world.files(pipeline)
    assert cancel(world.root, pipeline.name) == CancelReport(submissions=[file.submission_id])
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["expired"] * 2
    assert len(world.accepted()) == 1


def test_a_repeated_cancel_finds_nothing_new(world: World) -> None:
    world.emulator.settings(latency=3600, cancel_delay=3600)
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    for _ in range(2):
        assert cancel(world.root, pipeline.name).canceled == [batch_id]
    assert not isinstance(work(world, pipeline), Send)
    world.emulator.end_batches()
    let_the_sensor_work(world, pipeline)
    report = cancel(world.root, pipeline.name)
    assert report == CancelReport()


def test_one_batch_is_canceled_by_its_id(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, second = world.send(pipeline).submitted
    assert cancel(world.root, first).canceled == [first]
    world.collect(pipeline)
    assert types(world, pipeline) == ["canceled"] * 2 + ["pending"] * 2
    assert not newest(world, pipeline).is_canceled
    world.emulator.end_batches(second)
    world.collect(pipeline)
    assert cancel(world.root, first).ended == [first]
    assert types(world, pipeline) == ["canceled"] * 2 + ["succeeded"] * 2


def test_canceling_a_batch_that_ended_before_a_poll_is_no_error(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    assert cancel(world.root, batch_id).ended == [batch_id]
    world.finish(pipeline)
    assert types(world, pipeline) == ["succeeded"] * 2


def test_an_unknown_target_is_refused_with_a_remedy(world: World) -> None:
    world.send(world.pipeline(texts(1)), "A")
    with pytest.raises(UnknownTargetError, match="has no batch msgbatch_elsewhere") as caught:
        cancel(world.root, "msgbatch_elsewhere")
    assert caught.value.remedy == ListBatches()
    with pytest.raises(UnknownTargetError, match=r"did you mean .asked.*; pipelines there: asked"):
        cancel(world.root, "askd")
    with pytest.raises(UnknownTargetError, match="partitions submitted: A"):
        cancel(world.root, "asked", "B")
    (batch,) = world.accepted()
    with pytest.raises(UnknownTargetError, match="leave the partition out"):
        cancel(world.root, batch["id"], "A")


def test_without_an_api_nothing_is_changed(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(1))
    world.send(pipeline)
    world.reopened(BATCH_ASSETS_EMULATOR="")
    with pytest.raises(SettingsError):
        cancel(world.root, pipeline.name)
    assert not newest(world, pipeline).is_canceled


def test_one_partition_is_canceled_without_what_another_waits_on(world: World) -> None:
    world.emulator.settings(latency=3600)
    rows = texts(4)
    world.send(world.pipeline(dict(list(rows.items())[:2])), "A")
    world.send(world.pipeline(rows), "B")
    shared, own = (batch["id"] for batch in world.accepted())
    report = cancel(world.root, "asked", "B")
    assert (report.canceled, report.shared) == ([own], [shared])
    report = cancel(world.root, "asked", "A")
    assert report.canceled == [shared], "no other partition waits on it any more"


@pytest.mark.parametrize("is_gathered", [False, True])
def test_a_canceled_partition_ends_though_its_request_is_in_an_unsent_file_of_another(
    world: World, is_gathered: bool
) -> None:
    """The two partitions have an equal row, and were only built. Then the other one is sent after all."""
    for partition in ("A", "B"):
        write_rows(world.folder / f"{partition}.jsonl", texts(1))
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    pipeline = make_pipeline(world.folder, dataset, partitions={"static": ["A", "B"]})
    if is_gathered:
        built = build_partitions(world.root, pipeline, ["A", "B"], NOTHING_AGAIN)
        assert all(isinstance(each, RequestsReport) for each in built.values())
    else:
        world.build(pipeline, "A")
        world.build(pipeline, "B")
    canceled, other = ("B", "A")
    report = cancel(world.root, "asked", canceled)
    assert (report.unsent, len(report.shared)) == ([], 1)
    assert state(world, canceled) is PartitionState.CANCELED, "before the sensor has written its table, too"
    let_the_sensor_work(world, pipeline, canceled)
    submission = newest(world, pipeline, canceled)
    assert (submission.count_map, submission.final_at is not None) == ({"canceled": 1}, True)
    assert state(world, canceled) is PartitionState.CANCELED
    announce(world, submission)
    assert work(world, pipeline, canceled) is None
    assert world.accepted() == []

    world.submit(pipeline, other)
    world.finish(pipeline, other)
    assert work(world, pipeline, canceled) == Join(Joining.NEW_ANSWERS, others_run=False)
    let_the_sensor_work(world, pipeline, canceled)
    assert newest(world, pipeline, canceled).count_map == {"succeeded": 1}
    assert work(world, pipeline, canceled) == Announce(), "the table is complete only now"
    assert len(world.accepted()) == 1


def test_the_sensor_ends_a_canceled_submission_that_was_never_sent(world: World) -> None:
    """The cancel was killed before it reached the request file."""
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    with world.root.ledger.write(pipeline.name) as tx:
        submissions.cancel(tx, newest(world, pipeline).id, "canceled by a user")
    let_the_sensor_work(world, pipeline)
    assert world.states(pipeline) == ["canceled"]
    assert types(world, pipeline) == ["canceled"] * 2
    assert state(world) is PartitionState.CANCELED
    assert world.accepted() == []


def test_an_older_submissions_batches_are_canceled_too(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(2)))
    pipeline = world.pipeline(texts(2, "other"))
    world.send(pipeline)
    assert cancel(world.root, pipeline.name).canceled == [batch["id"] for batch in world.accepted()]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_file_in_doubt_is_not_sent_again_and_its_possible_batch_is_not_canceled(
    world: World, accepted: bool
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    world.emulator.faults(
        [
            {"match": CREATE, "action": {"drop": "after_commit" if accepted else "before_commit"}},
            {"match": {**LIST, "after": 1}, "action": {"status": 500}},
        ]
    )
    world.submit(pipeline)
    (file,) = world.files(pipeline)
    assert file.state == "unresolved"
    report = cancel(world.root, pipeline.name)
    assert "in doubt" in report.in_doubt[file.id]
    world.emulator.reset_faults()
    let_the_sensor_work(world, pipeline)
    assert world.calls()["POST /v1/messages/batches/{id}/cancel"] == 0
    world.emulator.end_batches()
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["succeeded" if accepted else "canceled"] * 2
    assert len(world.accepted()) == (1 if accepted else 0)
    assert world.states(pipeline) == ["collected" if accepted else "canceled"]


def test_a_file_that_is_being_sent_is_canceled_when_it_has_become_a_batch(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    (file,) = world.files(pipeline)
    world.emulator.faults([{"match": CREATE, "action": {"delay": 1.0}}])
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(world.submit, pipeline)
        wait_for(lambda: world.states(pipeline) == ["sending"], "the upload")
        assert "at this moment" in cancel(world.root, pipeline.name).in_doubt[file.id]
        assert len(sending.result().submitted) == 1
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["canceled"] * 2


def test_the_sensor_cancels_what_a_cancel_could_not_reach(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    world.emulator.faults([{"match": CANCEL, "action": {"status": 500}}])
    report = cancel(world.root, pipeline.name)
    assert report.canceled == []
    assert batch_id in report.problems[0]
    next_round = work(world, pipeline)
    assert next_round is not None
    assert isinstance(next_round, Send)
    world.emulator.reset_faults()
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["canceled"] * 2


def test_a_run_that_is_sending_stops_before_the_next_file(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.build(pipeline)
    sent: list[str] = []

    def cancel_during_the_first(file: RequestFile) -> None:
        """Only the mark on the submission: the next file is not reached yet."""
        with world.root.ledger.write() as tx:
            submissions.cancel(tx, file.submission_id, "canceled by a person")
        sent.append(file.id)

    submit_batches(world.root, pipeline.name, on_file=cancel_during_the_first)
    assert len(world.accepted()) == len(sent) == 1
    assert world.states(pipeline) == ["submitted", "ready"]
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["canceled"] * 4


def test_retries_planned_during_a_cancel_are_not_sent(world: World) -> None:
    """Failed requests came into a new request file just after the cancel."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.expire_batches()
    world.collect(pipeline)
    world.emulator.faults([{"match": LIST, "action": {"status": 500}}])
    with pytest.raises(UnreachableError):
        world.submit(pipeline, unattended=True)
    world.emulator.reset_faults()
    with world.root.ledger.write() as tx:
        submissions.cancel(tx, newest(world, pipeline).id, "canceled by a person")
    assert world.states(pipeline) == ["collected", "ready"]
    let_the_sensor_work(world, pipeline)
    assert len(world.accepted()) == 1
    assert types(world, pipeline) == ["expired"] * 2


def test_a_table_that_is_joined_during_a_cancel_is_joined_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.expire_batches()
    publish = Storage.publish

    def then_cancel(storage: Storage, scratch: Path, target: str) -> None:
        publish(storage, scratch, target)
        if target.endswith("results.parquet"):
            cancel(world.root, pipeline.name)

    monkeypatch.setattr(Storage, "publish", then_cancel)
    world.collect(pipeline)
    monkeypatch.undo()
    assert newest(world, pipeline).joined_seq is None
    let_the_sensor_work(world, pipeline)
    assert types(world, pipeline) == ["expired"] * 2


def test_the_history_records_the_cancel(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    cancel(world.root, pipeline.name)
    let_the_sensor_work(world, pipeline)
    with world.root.ledger.read() as tx:
        entries = transitions.of_pipeline(tx, pipeline.name)
    submission = newest(world, pipeline).id
    assert [(e.before, e.after) for e in entries if e.entity == submission] == [
        (None, "registered"), ("registered", "began"), ("began", "canceled"), ("canceled", "final")
    ]  # fmt: skip
    assert [(e.before, e.after) for e in entries if e.entity == batch_id] == [
        (None, "open"), ("open", "canceling"), ("canceling", "ended"), ("ended", "collected")
    ]  # fmt: skip
    assert {e.reason for e in entries if e.after in ("canceled", "canceling")} == {"canceled by a person"}
