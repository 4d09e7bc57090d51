"""`cache: auto`: a stub is answered first, the others read what it has written, and no digest changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from sqlalchemy import event

from batch_assets.cli.headless import run_pipeline
from batch_assets.core.batches.approve import approve
from batch_assets.core.batches.ask_again import plan_again
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches, submit_partitions
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import files, stubs, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.ledger.stubs import WHY_HELD
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Send, SendReason, Step, Wait, Waiting
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.estimate import Estimate
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import NOTHING_AGAIN
from batch_assets.core.template.cache_control import has_cache_control

from ..lost_ledger import LOST, end_grace_period, lose_ledger
from ..support import CREATE, MODEL, World, params, texts

SHARED = "Shared by all. " * 400  # 6,000 characters, 2,000 tokens at the emulator, whose model caches 512
HOUR = {"type": "ephemeral", "ttl": "1h"}


def cached(world: World, rows: int = 10, **attributes: Any) -> Pipeline:
    return world.pipeline(texts(rows), **same_prompt(world) | attributes)


def same_prompt(world: World) -> dict[str, Any]:
    return {"params": params(system=world.folder.name + SHARED), "cache": "auto"}


def step_of(world: World, pipeline: Pipeline, partition: str = "") -> Step:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, partition)
        assert submission is not None
        return next_step(Snapshot.of(tx, submission))


def sent(world: World) -> list[tuple[int, bool]]:
    """The number of requests of each accepted batch, and whether all of them or none have a breakpoint."""
    found = []
    for batch in world.accepted():
        requests = orjson.loads(world.sent_body(batch["id"]))["requests"]
        (is_marked,) = {b'"cache_control"' in orjson.dumps(request) for request in requests}
        found.append((len(requests), is_marked))
    return found


def end_stub(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Let the batch of the stub end, and find that out."""
    world.emulator.end_batches()
    poll(world.root, now=True)


def age(world: World, minutes: float) -> None:
    """Let time pass since the batches were created."""
    world.query("update batch set created_at = created_at - :s, submitted_at = submitted_at - :s", s=minutes * 60)


def finish(world: World, pipeline: Pipeline, partition: str = "") -> None:
    world.submit(pipeline, partition, unattended=True)
    world.emulator.end_batches()
    world.finish(pipeline, partition)


def test_a_stub_is_answered_before_the_others_are_sent_and_they_read(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url)
    world.emulator.settings(latency=1000.0)
    pipeline = cached(world)
    report = world.send(pipeline)
    assert [file.requests for file in world.files(pipeline)] == [1, 9]
    assert [*report.waiting.values()] == [f"held: {WHY_HELD}"] and report.remedies == []
    assert sent(world) == [(1, True)]
    assert sorted(world.states(pipeline)) == ["held", "submitted"]
    world.collect(pipeline)  # a first table, in which all rows are pending
    step = step_of(world, pipeline)
    assert isinstance(step, Wait) and step.why is Waiting.CACHE and step.until is not None
    world.submit(pipeline)
    assert sent(world) == [(1, True)]
    end_stub(world, pipeline)
    assert step_of(world, pipeline) == Send(SendReason.UNSENT, 1)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (9, True)]
    table = world.table(pipeline)
    assert set(table["result_type"]) == {"succeeded"}
    written, read = table["cache_creation_input_tokens"].sum(), table["cache_read_input_tokens"].sum()
    assert written > 2_000 and read == 9 * written
    assert (table["cache_read_input_tokens"] > 0).sum() == 9
    assert world.query("select with_breakpoint from intent order by id") == [(True,), (True,)]


def statements_for(world: World, waiting: list[RequestFile]) -> int:
    """Hold files whose stub is awaited, and let the others go. Returns the number of statements."""
    statements: list[str] = []
    with world.root.ledger.write() as tx:
        event.listen(tx.connection, "before_cursor_execute", lambda *call: statements.append(call[2]))
        assert stubs.hold_or_release(tx, waiting)
    return len(statements)


def test_many_files_are_held_and_let_go_with_as_many_statements_as_one(world: World) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = cached(world, rows=40, batching={"max_mb": 0.0625})
    world.build(pipeline)
    one, *others = [file for file in world.files(pipeline) if stubs.waits_for_stub(file)]
    assert len(others) == 4
    assert statements_for(world, [one]) == statements_for(world, others)
    world.submit(pipeline)
    assert sorted(world.states(pipeline)) == ["held"] * 5 + ["submitted"]
    age(world, 45)
    assert statements_for(world, [one]) == statements_for(world, others)
    assert sorted(world.states(pipeline)) == ["ready"] * 5 + ["submitted"]


def test_a_stub_that_is_answered_at_once_needs_no_second_user(world: World) -> None:
    """What `batch-assets run` and the sensor do, with the real clock."""
    pipeline = cached(world)
    world.run(pipeline)
    assert sent(world) == [(1, True), (9, True)]


def test_a_plan_counts_the_batch_of_the_stub(world: World) -> None:
    pipeline = cached(world, rows=40, batching={"max_mb": 0.0625})
    planned = plan_requests(world.root, pipeline, "", NOTHING_AGAIN)
    assert planned.batches == len(world.build(pipeline).files) == 6


def spent(world: World, pipeline: Pipeline) -> tuple[Estimate, Range, int]:
    """What a plan says of a run, the range of it, and what the emulator billed for the run."""
    planned = plan_requests(world.root, pipeline, "", NOTHING_AGAIN).estimate
    assert planned is not None and planned.batch is not None
    before = len(world.accepted())
    world.run(pipeline)
    ours = {batch["id"] for batch in world.accepted()[before:]}
    billed = sum(batch["picodollars"] for batch in world.emulator.bill()["batches"] if batch["id"] in ours)
    return planned, planned.batch, billed


def test_a_plan_has_the_cost_with_the_cache(world: World) -> None:
    """And the write of the stub once, if there is a stub."""
    first, range_, billed = spent(world, cached(world, rows=30))
    assert range_.low < billed < range_.high, "without answers"
    assert "the lower end is with the shared prompt read from the cache" in first.as_text
    of_reads, range_, billed = spent(world, cached(world, rows=50))  # they read what the first stub has written
    assert of_reads.basis == "from 30 answers to this prompt"
    assert range_.low <= billed <= range_.high <= 1.5 * range_.low
    assert range_.expected == pytest.approx(billed, rel=0.02)
    age(world, 31)
    of_stub, range_, billed = spent(world, cached(world, rows=70))
    written = int(world.table(cached(world))["cache_creation_input_tokens"].max())
    tokens = {"ephemeral_1h_input_tokens": written}
    write, read = (
        default_prices().cost(MODEL, {"input_tokens": 0} | usage)
        for usage in (
            {"cache_creation_input_tokens": written, "cache_creation": tokens},
            {"cache_read_input_tokens": written},
        )
    )
    assert write is not None and read is not None
    billed += write.batch - read.batch  # the emulator's cache is still warm: its clock is right
    assert range_.low <= billed <= range_.high <= 1.5 * range_.low
    assert range_.expected == pytest.approx(billed, rel=0.02)
    assert {each.cached for each in (first, of_reads, of_stub)} == {None}, "the cost is that"


@pytest.mark.parametrize("first", [None, "auto"])
def test_a_plan_after_a_switch_counts_earlier_answers_as_if_they_had_been_switched(
    world: World, first: str | None
) -> None:
    """Whether requests read the cache is not known before some did."""
    world.run(cached(world, rows=30, cache=first))
    planned, range_, billed = spent(world, cached(world, rows=50, cache="auto" if first is None else None))
    assert range_.low <= billed <= range_.high
    assert range_.expected == pytest.approx(billed, rel=0.1)
    assert (range_.high > 2 * range_.low) == (first is None) == (planned.cached is None)


def test_after_a_stub_that_failed_a_plan_goes_up_to_the_cost_without_the_cache(world: World) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    world.run(cached(world, rows=30))
    for rows in (50, 70):  # of 50 rows, 20 then read the cache
        planned = plan_requests(world.root, cached(world, rows=rows), "", NOTHING_AGAIN).estimate
        plain = plan_requests(world.root, cached(world, rows=rows, cache=None), "", NOTHING_AGAIN).estimate
        assert planned is not None and planned.batch is not None and plain is not None and plain.batch is not None
        assert planned.batch.low < 0.5 * plain.batch.low < plain.batch.high <= planned.batch.high
        assert "the upper end without the cache" in planned.as_text
        world.run(cached(world, rows=rows))
    table = world.table(cached(world))
    assert (table["cache_read_input_tokens"] > 0).sum() >= 30


class Quiet:
    """A display for the progress of a run that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_a_run_of_the_command_line_goes_on_by_itself(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.emulator.settings(latency=0.2)
    results = run_pipeline(world.root, cached(world), "", Quiet())
    assert results.final and sent(world) == [(1, True), (9, True)]


def test_a_row_of_a_held_file_can_be_erased(world: World) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = cached(world)
    world.send(pipeline)
    erase(world.root, "asked", ["row-5"])
    assert sorted(world.states(pipeline)) == ["held", "submitted", "superseded"]
    end_stub(world, pipeline)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (8, True)]


@pytest.mark.parametrize("first", [True, False])
def test_switching_it_on_or_off_asks_nothing_again(world: World, first: bool) -> None:
    settings: list[dict[str, Any]] = [{"cache": "auto"}, {"cache": None}]
    before, after = settings if first else settings[::-1]
    pipeline = cached(world, **before)
    table = world.run(pipeline)
    accepted = world.accepted_custom_ids()
    assert len(accepted) == 10
    digests = Counter(custom_id[-22:] for custom_id in accepted)
    assert world.build(cached(world, **after)).written == 0
    again = world.run(cached(world, rows=11, **after))
    assert len(world.accepted_custom_ids()) == 11
    assert Counter(c[-22:] for c in world.accepted_custom_ids()) & digests == digests
    assert list(again["custom_id"][:10]) == list(table["custom_id"])


def test_the_files_on_disk_and_their_digests_are_the_same_with_and_without(
    new_world: Callable[..., World],
) -> None:
    lines: list[dict[str, Any]] = []
    for name, cache in (("with", "auto"), ("without", None)):
        world = new_world(name=name)
        report = world.build(pipeline := cached(world, cache=cache))
        folder = world.submission_folder(pipeline, report)
        requests = [
            orjson.loads(line) for part in folder.glob("*.jsonl") for line in part.read_bytes().splitlines()
        ]
        lines.append({request["custom_id"][-22:]: request["params"] for request in requests})
    assert lines[0] == lines[1] and len(lines[0]) == 10


def cost(world: World) -> int:
    bill = world.emulator.bill()
    ids = {batch["id"] for batch in world.accepted()}
    return sum(batch["picodollars"] for batch in bill["batches"] if batch["id"] in ids)


@pytest.mark.parametrize("rows", [2, 3, 10])
def test_it_saves_from_three_requests_on(new_world: Callable[..., World], rows: int) -> None:
    """The prompt costs 2 + 0.1 (N - 1) in place of N: its tokens are nearly the whole cost here."""
    bills = []
    for cache in ("auto", None):
        world = new_world(name=f"cache-{cache}")
        system = f"{cache} {rows} {SHARED * 5}"
        world.run(cached(world, rows, cache=cache, params=params(system=system, max_tokens=1)))
        bills.append(cost(world))
    ratio = bills[0] / bills[1]
    if rows == 2:
        assert ratio == 1
    else:
        assert ratio == pytest.approx((2 + 0.1 * (rows - 1)) / rows, rel=0.02)
        assert ratio < 1


@pytest.mark.parametrize("mix", ["overloaded_error", "expired", "canceled"])
def test_if_the_stub_failed_the_others_are_sent_without_a_breakpoint(world: World, mix: str) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {mix: 1.0}}}])
    pipeline = cached(world)
    world.run(pipeline)
    assert sent(world)[:2] == [(1, True), (9, False)]
    if mix != "canceled":
        assert sent(world)[2:] == [(1, False)]  # the retry of the stub


def test_if_the_stub_is_refused_the_others_are_sent_without_a_breakpoint(world: World) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 400}}])
    pipeline = cached(world)
    world.send(pipeline)
    assert sorted(world.states(pipeline)) == ["held", "refused"]
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(9, False)]


def test_45_minutes_after_the_stub_was_sent_no_breakpoint_is_sent(world: World) -> None:
    pipeline = cached(world)
    world.send(pipeline)
    end_stub(world, pipeline)
    age(world, 44)
    assert isinstance(step_of(world, pipeline), Send)
    age(world, 1)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (9, False)]


def test_a_stub_that_takes_too_long_is_not_waited_for(world: World) -> None:
    world.emulator.settings(latency=100_000.0)
    pipeline = cached(world)
    world.send(pipeline)
    world.collect(pipeline)
    age(world, 44)
    assert isinstance(step_of(world, pipeline), Wait)
    age(world, 1)
    assert step_of(world, pipeline) == Send(SendReason.UNSENT, 1)
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True), (9, False)]


def test_a_stub_whose_reply_was_lost_is_found_and_not_sent_twice(world: World) -> None:
    world.emulator.faults([LOST])
    pipeline = cached(world)
    world.send(pipeline)
    world.submit(pipeline)
    poll(world.root, now=True)
    world.collect(pipeline)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (9, True)]


@pytest.mark.parametrize("ended", [True, False])
def test_a_lost_ledger_continues_from_the_manifest_and_the_receipt(world: World, ended: bool) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = cached(world)
    world.send(pipeline)
    if ended:
        end_stub(world, pipeline)
        world.collect(pipeline)
    lose_ledger(world)
    world.submit(pipeline)
    end_grace_period(world)
    world.submit(pipeline)
    if not ended:
        assert sorted(world.states(pipeline)) == ["held", "submitted"]
        end_stub(world, pipeline)
        world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True), (9, True)]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_other_holds_come_first(world: World) -> None:
    """A file may need several permissions, one after the other."""
    pipeline = cached(world)
    world.build(pipeline)
    with world.root.ledger.write() as tx:
        for file in world.files(pipeline):
            files.hold(tx, file.id, HoldReason.CONFIRM, "it is dear")
    world.submit(pipeline)
    assert world.states(pipeline) == ["held", "held"] and sent(world) == []
    approve(world.root, "asked")
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True)] and sorted(world.states(pipeline)) == ["held", "submitted"]
    end_stub(world, pipeline)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (9, True)]


def test_a_canceled_submission_sends_nothing_more(world: World) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = cached(world)
    world.send(pipeline)
    cancel(world.root, "asked")
    world.emulator.end_batches()
    submit_batches(world.root, "asked", unattended=True)
    assert sent(world) == [(1, True)]


@pytest.mark.parametrize("lost", [False, True])
def test_a_new_submission_waits_for_the_stub_in_flight(world: World, lost: bool) -> None:
    """It takes the held requests over, and none of them is another stub."""
    world.emulator.settings(latency=1000.0)
    world.send(cached(world))
    pipeline = cached(world, rows=12)
    assert plan_requests(world.root, pipeline, "", NOTHING_AGAIN).batches == 1
    assert world.build(pipeline).written == 11
    if lost:
        lose_ledger(world)
        world.submit(pipeline)
        end_grace_period(world)
    world.submit(pipeline)
    assert sorted(world.states(pipeline)) == ["held", "submitted"]
    world.collect(pipeline)
    step = step_of(world, pipeline)
    assert isinstance(step, Wait) and step.why is Waiting.CACHE and step.until is not None
    end_stub(world, pipeline)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (11, True)]
    assert len(set(world.accepted_custom_ids())) == 12
    assert (world.table(pipeline)["cache_read_input_tokens"] > 0).sum() == 11


def test_rows_that_are_added_read_what_an_answered_stub_has_written(world: World) -> None:
    world.run(cached(world, rows=4))
    world.run(cached(world, rows=5))
    age(world, 31)  # what is built now may be sent after 45 minutes
    world.run(cached(world, rows=9))
    assert sent(world) == [(1, True), (3, True), (1, True), (1, True), (3, True)]


def test_a_row_that_is_no_longer_there_is_waited_for_as_the_stub(world: World) -> None:
    """The stub's row was removed: no row of the new submission wants its answer."""
    world.emulator.settings(latency=1000.0)
    world.send(cached(world, rows=4))
    rows = texts(9)
    (stub,) = world.accepted_custom_ids()
    pipeline = world.pipeline(
        {key: text for key, text in rows.items() if not stub.startswith(key)}, **same_prompt(world)
    )
    world.build(pipeline)
    world.submit(pipeline)
    world.collect(pipeline)
    step = step_of(world, pipeline)
    assert isinstance(step, Wait) and step.why is Waiting.CACHE and step.until is not None
    end_stub(world, pipeline)
    finish(world, pipeline)
    assert sent(world) == [(1, True), (8, True)]


@pytest.mark.parametrize("edit", ["prompt", "model", "geo", "some"])
def test_another_prompt_does_not_wait_for_the_stub_in_flight(world: World, edit: str) -> None:
    world.emulator.settings(latency=1000.0)
    shared = world.folder.name + SHARED * 3
    world.send(cached(world, params=params(system=shared)))
    edited: dict[str, dict[str, Any]] = {
        "prompt": params(system="Edited. " + shared),
        "model": params(system=shared, model="claude-opus-5-5"),
        "geo": params(system=shared, inference_geo="us"),
        "some": params(system="{{ 'Edited. ' if 'row 1' in text else '' }}" + shared),
    }
    pipeline = cached(world, rows=30, params=edited[edit])
    world.build(pipeline)
    ready = [file for file in world.files(pipeline) if file.state == "ready"]
    stubs = {file.stub for file in ready}
    assert (
        stubs == ({None} if edit == "some" else {ready[0].id}) and ready[0].requests == (30 - 1, 1)[edit != "some"]
    )


def test_retried_requests_read_as_long_as_it_is_warm(world: World) -> None:
    pipeline = cached(world)
    world.send(pipeline)
    end_stub(world, pipeline)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    world.submit(pipeline, unattended=True)
    world.collect(pipeline)
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, "asked", "")
        assert newest is not None
    plan_again(world.root, newest)
    if_warm = [file for file in world.files(pipeline) if file.attempt == 2]
    assert [file.stub is not None for file in if_warm] == [True]
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True), (9, True), (9, True)]


def test_retried_requests_have_no_breakpoint_when_it_is_cold(world: World) -> None:
    pipeline = cached(world)
    world.send(pipeline)
    end_stub(world, pipeline)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    world.submit(pipeline, unattended=True)
    world.collect(pipeline)
    age(world, 45)
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True), (9, True), (9, False)]


def test_a_file_that_is_split_keeps_its_breakpoint(world: World) -> None:
    pipeline = cached(world)
    world.send(pipeline)
    end_stub(world, pipeline)
    world.emulator.settings(max_body_bytes=40_000)
    finish(world, pipeline)
    assert {is_marked for _, is_marked in sent(world)} == {True}
    assert sum(requests for requests, _ in sent(world)) == 10 and len(sent(world)) > 2


def test_batches_with_breakpoints_stay_within_the_limits(world: World) -> None:
    pipeline = cached(world, rows=40, batching={"max_mb": 0.0625})
    world.run(pipeline)
    bodies = [len(world.sent_body(batch["id"])) for batch in world.accepted()]
    assert len(bodies) == 6 and max(bodies) <= 62_500


def test_a_request_that_does_not_share_the_prompt_is_never_sent_with_a_breakpoint(world: World) -> None:
    """Whoever changes the ledger by hand gets no request that no row asked for."""
    pipeline = cached(world)
    world.send(pipeline)
    end_stub(world, pipeline)
    world.query('update request_file set breakpoint = replace(breakpoint, \'"checksum":"\', \'"checksum":"0\')')
    world.submit(pipeline, unattended=True)
    assert sent(world) == [(1, True)]
    assert sorted(world.states(pipeline)) == ["refused", "submitted"]


def gathered(world: World, each: int = 2) -> Pipeline:
    """Build partitions of so many rows whose requests are in the same files."""
    rows = [{"id": f"{day}-{n}", "text": f"text {day} {n}", "day": day} for day in "abc" for n in range(each)]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline = world.pipeline(
        params=params(system=SHARED),
        cache="auto",
        partitions={"column": "day", "static": ["a", "b", "c"]},
        batching={"across_partitions": True},
    )
    build_partitions(world.root, pipeline, ["a", "b", "c"], NOTHING_AGAIN)
    return pipeline


def test_partitions_that_are_gathered_share_one_stub(world: World) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = gathered(world)
    world.submit(pipeline, "c")  # whichever partition begins
    assert sent(world) == [(1, True)]
    for partition in "abc":
        assert "held" in world.states(pipeline, partition)
    world.collect(pipeline, "c")
    assert isinstance(step_of(world, pipeline, "c"), Wait)
    end_stub(world, pipeline)
    assert step_of(world, pipeline, "c") == Send(SendReason.UNSENT, 1)
    world.submit(pipeline, "c", unattended=True)
    assert sent(world) == [(1, True), (5, True)]


def test_gathered_partitions_read_the_stub_in_flight_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.emulator.settings(latency=1000.0)
    world.submit(gathered(world), "a")
    opened: list[tuple[str, ...]] = []
    open_file = Storage.open
    monkeypatch.setattr(Storage, "open", lambda self, *parts: (opened.append(parts), open_file(self, *parts))[1])
    pipeline = gathered(world, each=4)
    (stub,) = {file.stub for file in world.files(pipeline, "a") if file.stub is not None}
    assert [parts[-2:] for parts in opened].count(tuple(stub.split("/"))) == 1


def test_a_run_over_gathered_partitions_holds_what_all_of_them_wait_on(world: World) -> None:
    world.emulator.settings(latency=1000.0)
    pipeline = gathered(world)
    outcomes = submit_partitions(world.root, pipeline.name, ["a", "b", "c"])
    for outcome in outcomes.values():
        assert isinstance(outcome, SubmitReport) and [*outcome.waiting.values()] == [f"held: {WHY_HELD}"]
    assert sent(world) == [(1, True)]
    end_stub(world, pipeline)
    outcomes = submit_partitions(world.root, pipeline.name, ["a", "b", "c"], unattended=True)
    for outcome in outcomes.values():
        assert isinstance(outcome, SubmitReport) and len(outcome.submitted) == 1 and outcome.waiting == {}
    assert sent(world) == [(1, True), (5, True)]


def test_the_report_has_what_the_cache_saved(world: World) -> None:
    pipeline = cached(world, params=params(system=world.folder.name + SHARED, max_tokens=1))
    world.send(pipeline)
    results = world.finish(pipeline).results
    assert results is not None
    tally = results.tally
    assert tally.cache_hit_rate == pytest.approx(0.9)
    tokens, base = tally.cache_creation_input_tokens, 50_000  # picodollars for a token in a batch
    assert tally.saved_cache == (9 * 9 * tokens * base) // 10 - tokens * base
    assert results.cache_problem(has_cache_control=False) is None


def test_marks_that_are_never_read_are_reported(world: World) -> None:
    system = [{"type": "text", "text": f"never {SHARED}", "cache_control": HOUR}]
    pipeline = cached(world, cache=None, params=params(system=system))
    world.send(pipeline)
    results = world.finish(pipeline).results
    assert results is not None and results.tally.cache_hit_rate == 0.0
    assert results.tally.saved_cache == -results.tally.cache_creation_input_tokens * 50_000
    problem = results.cache_problem(has_cache_control=True)
    assert problem is not None and "no request has read what another one has written" in problem


def test_marks_that_are_too_short_are_reported(world: World) -> None:
    system = [{"type": "text", "text": "short", "cache_control": HOUR}]
    pipeline = cached(world, cache=None, params=params(system=system))
    world.send(pipeline)
    results = world.finish(pipeline).results
    assert results is not None and results.saved_cache_usd is None
    assert results.cache_problem(has_cache_control=False) is None
    problem = results.cache_problem(has_cache_control=has_cache_control(pipeline.config.params))
    assert problem is not None and "shorter than the model caches" in problem


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (params(cache_control=HOUR), "params.cache_control: "),
        (
            params([{"type": "text", "text": "{{ text }}", "cache_control": HOUR}]),
            "params.messages[0].content[0].cache_control: ",
        ),
        (params([{"type": "text", "text": "constant", "cache_control": HOUR}, "{{ text }}"]), None),
        (params("constant", cache_control=HOUR), None),
    ],
)
def test_marks_on_the_rows_own_text_are_warned_of_when_a_pipeline_is_loaded(
    world: World, asked: dict[str, Any], field: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    world.pipeline(texts(1), params=asked)
    warnings = [text for text in caplog.messages if "cache" in text]
    assert len(warnings) == (field is not None)
    assert field is None or field in warnings[0]


def test_a_prompt_that_cannot_be_cached_is_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = cached(world, params=params(system="short"))
    world.build(pipeline)
    (warning,) = [text for text in caplog.messages if "cache: auto" in text]
    assert warning.startswith("asked: cache: auto does nothing for 10 requests: the blocks that they share have")
    assert [file.requests for file in world.files(pipeline)] == [10]


def test_the_authors_own_breakpoint_stays_in_the_digest(world: World) -> None:
    own = [{"type": "text", "text": SHARED}, {"type": "text", "text": "More. " * 300, "cache_control": HOUR}]
    pipeline = cached(world, params=params(system=own), cache=None)
    plain = [{key: block[key] for key in ("type", "text")} for block in own]
    world.run(pipeline)
    assert world.build(cached(world, params=params(system=plain), cache="auto")).written == 10
