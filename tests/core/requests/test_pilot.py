"""A pilot: some random requests of a new prompt go first, and the rest waits until their answers are judged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from batch_assets.cli.headless import run_pipeline
from batch_assets.cli.progress import Lines
from batch_assets.core.batches.approve import approve
from batch_assets.core.batches.pilot import PilotReport, judge_pilots
from batch_assets.core.batches.pilot_answers import PilotAnswers
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.ledger import pilots, submissions
from batch_assets.core.ledger.states import PilotVerdict
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import (
    ApproveFiles,
    Join,
    MaterializeRequests,
    NeedsUser,
    Send,
    SendReason,
    Step,
    Wait,
    Waiting,
)
from batch_assets.core.rename import rename
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.settings import Settings
from batch_assets.core.store.request_files import StoredRequestFile
from tests.forked import ForkServer, die_at_boundary
from tests.receivers import Receiver

from ..batches.test_follow_ups import scripted
from ..batches.test_tool_results import calling
from ..lost_ledger import LOST, lose_ledger
from ..noticing import WEBHOOK, now_due, tick
from ..support import CREATE, World, environment, params, texts

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


def piloted(world: World, rows: int | None = 12, pilot: Any = 3, **more: Any) -> Pipeline:
    return world.pipeline(texts(rows) if rows is not None else None, pilot=pilot, **more)


def step_of(world: World, pipeline: Pipeline, partition: str = "") -> Step:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
        assert newest is not None
        return next_step(Snapshot.of(tx, newest), put_off=(Join,))


def sent(world: World) -> list[int]:
    return [batch["requests"] for batch in world.accepted()]


def held(world: World) -> dict[str, int]:
    rows = world.query("select hold, sum(requests) as n from request_file where state = 'held' group by hold")
    return {row.hold: row.n for row in rows}


def why_held(world: World) -> str:
    ((why,),) = world.query("select distinct error from request_file where state = 'held'")
    return str(why)


def fail(world: World, times: int | None = None, **shares: float) -> None:
    match = {**CREATE} | ({"times": times} if times else {})
    world.emulator.faults([{"match": match, "action": {"error_mix": shares}}])


def collect_pilot(world: World, pipeline: Pipeline) -> None:
    """Send the pilot and store its answers."""
    world.send(pipeline)
    world.emulator.end_batches()
    world.collect(pipeline)


def test_the_pilot_goes_first_and_the_rest_by_itself(world: World) -> None:
    pipeline = piloted(world)
    report = world.send(pipeline)
    assert sent(world) == [3]
    assert held(world) == {"pilot": 9}
    assert [*report.waiting.values()] == [
        "held: it waits for the pilot of its prompt, 3 random requests that go first"
    ]
    assert report.remedies == []
    world.submit(pipeline, unattended=True)
    assert sent(world) == [3]
    world.emulator.end_batches()
    world.collect(pipeline)
    assert step_of(world, pipeline) == Send(SendReason.PILOT, 1)
    judged = world.submit(pipeline, unattended=True)
    (pilot,) = judged.pilots
    assert pilot.verdict is PilotVerdict.GO
    assert pilot.lines[0].startswith("The pilot is as expected: 3 answers for ")
    assert pilot.lines[0].endswith("9 requests may be sent now")
    assert pilot.lines[1].startswith("Estimated cost of the rest: $")
    assert len(pilot.sample) == 3
    assert sorted(sent(world)) == [3, 9]
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 12
    assert len(set(world.accepted_custom_ids())) == 12


def next_round(world: World, pipeline: Pipeline) -> list[PilotReport]:
    """Collect what was sent, and send what is due: what the judged pilots brought."""
    world.emulator.end_batches()
    world.collect(pipeline)
    return world.submit(pipeline, unattended=True).pilots


def test_a_pilot_is_judged_by_the_last_answers_of_its_chains(world: World) -> None:
    """Three requests are cut off with 10 tokens and with 20, and whole with 40."""
    retry = {"truncated": {"times": 2}}
    pipeline = piloted(world, params=params() | {"max_tokens": 10}, retry=retry)
    world.send(pipeline)
    assert [next_round(world, pipeline) for _ in range(2)] == [[], []]
    assert (sent(world), held(world)) == ([3, 3, 3], {"pilot": 9}), "chains go on while the rest is held"
    (pilot,) = next_round(world, pipeline)
    assert pilot.verdict is PilotVerdict.GO and sent(world)[3:] == [9]
    assert "follow-ups" not in pilot.rest, "they are in it"
    with world.root.ledger.read() as tx:
        state = pilots.of_prompt(tx, pipeline.name, pipeline.prompt_digest)
    assert state is not None
    found = PilotAnswers.read(world.root, state, None)
    bills = {entry["id"]: entry["picodollars"] for entry in world.emulator.bill()["batches"]}
    by_batch = [bills[batch["id"]] for batch in world.accepted()[:3]]
    assert found.cost == sum(by_batch)
    assert found.first_costs == [by_batch[0] // 3] * 3, "which the estimate is of"


def test_a_pilot_whose_chains_end_without_a_valid_answer_is_not_as_expected(world: World) -> None:
    """The first answers only call tools, and the last ones do not match the output schema."""
    pipeline = calling(world, texts(12), pilot=3, paused=1, output_schema=SCHEMA)
    scripted(world, "tool_use", "malformed")
    world.send(pipeline)
    assert next_round(world, pipeline) == [] and held(world) == {"pilot": 9}
    (pilot,) = next_round(world, pipeline)
    assert "3 of 3 answers are invalid" in pilot.why and held(world) == {"confirm": 9}
    assert any("not valid JSON" in text for _, text in pilot.sample), "the sample has the last answers"


def test_calls_of_tools_without_a_result_are_not_as_expected(world: World) -> None:
    """The last follow-up that `retry` allows brings another call."""
    pipeline = calling(world, texts(12), pilot=3, paused=1)
    scripted(world, "tool_use", "tool_use")
    world.send(pipeline)
    assert next_round(world, pipeline) == []
    (pilot,) = next_round(world, pipeline)
    assert "3 of 3 answers are invalid" in pilot.why and held(world) == {"confirm": 9}


def test_a_pilot_whose_follow_ups_fail_is_judged_without_them(world: World) -> None:
    scripted(world, None, "permission_error")
    pipeline = piloted(world, params=params() | {"max_tokens": 10}, retry={"truncated": {"times": 2}})
    world.send(pipeline)
    assert next_round(world, pipeline) == []
    (pilot,) = next_round(world, pipeline)
    assert "3 of 3 answers are invalid" in pilot.why and sent(world) == [3, 3]


def test_a_pilot_is_judged_by_the_rules_of_the_submission_in_force(world: World) -> None:
    """The user who builds again without `retry` does not wait for follow-ups that nothing sends."""
    short = params() | {"max_tokens": 10}
    world.send(piloted(world, params=short, retry={"truncated": {"times": 2}}))
    world.emulator.end_batches()
    world.collect(piloted(world, params=short, retry={"truncated": {"times": 2}}))
    pipeline = piloted(world, params=short)
    assert judge_pilots(world.root, world.files(pipeline), None) == []
    assert step_of(world, pipeline) != Send(SendReason.PILOT, 1)
    world.build(pipeline)
    (pilot,) = world.submit(pipeline).pilots
    assert "3 of 3 answers are invalid" in pilot.why and held(world) == {"confirm": 9}


def test_other_partitions_wait_for_the_chains_of_a_pilot(world: World) -> None:
    pipeline = partitioned(world, params=params() | {"max_tokens": 10}, retry={"truncated": {"times": 2}})
    for key in "ab":
        world.send(pipeline, key)
    for _ in range(2):
        world.emulator.end_batches()
        world.collect(pipeline, "a")
        assert world.submit(pipeline, "b", unattended=True).pilots == []
        assert step_of(world, pipeline, "b") == Wait(None, Waiting.PILOT)
        world.submit(pipeline, "a", unattended=True)
    world.emulator.end_batches()
    world.collect(pipeline, "a")
    (pilot,) = world.submit(pipeline, "b", unattended=True).pilots
    assert pilot.verdict is PilotVerdict.GO and held(world) == {}


def test_the_next_run_of_the_prompt_has_no_pilot_and_another_prompt_has_one(world: World) -> None:
    pipeline = piloted(world)
    world.run(pipeline)
    more = piloted(world, 30)
    world.build(more)
    assert held(world) == {}
    edited = piloted(world, 30, params=params("Please: {{ text }}"))
    world.build(edited)
    assert held(world) == {"pilot": 27}
    assert any(
        "pilot of 3 random requests" in text for text in planned(world, piloted(world, 9, output_schema=SCHEMA))
    )


def planned(world: World, pipeline: Pipeline) -> list[str]:
    return plan_requests(world.root, pipeline, "", AskAgain()).warnings


def test_enough_answers_or_few_requests_need_no_pilot(world: World) -> None:
    world.build(piloted(world, 3))
    assert held(world) == {}
    world.run(piloted(world, 3))
    world.build(piloted(world, 20))
    assert held(world) == {}, "3 answers to the prompt are known"
    world.build(piloted(world, 20, pilot=4))
    assert held(world) == {"pilot": 13}


def test_a_rebuilt_submission_takes_the_same_requests(world: World) -> None:
    pipeline = piloted(world, 200, pilot=5, batching={"max_requests": 50})
    chosen = []
    for _ in range(2):
        report = world.build(pipeline)
        folder = world.submission_folder(pipeline, report)
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        (name,) = [entry["name"] for entry in manifest["files"] if "hold" not in entry]
        chosen.append((folder / name).read_bytes())
    assert chosen[0] == chosen[1]
    keys = [int(orjson.loads(line)["custom_id"].split("-")[1][:3].strip("_.")) for line in chosen[0].splitlines()]
    assert max(keys) > 20, "not the first rows"
    assert held(world) == {"pilot": 195}


def test_a_limit_counts_the_pilot(world: World) -> None:
    pipeline = piloted(world)
    report = world.build(pipeline, limit=5)
    assert (report.written, report.left_out) == (5, 7)
    assert held(world) == {"pilot": 2}


def test_a_failing_pilot_leaves_the_rest_to_a_user(world: World, hook: Receiver) -> None:
    fail(world, times=1, permission_error=1.0)
    pipeline = piloted(world, notify=[WEBHOOK])
    tick(world, pipeline)
    collect_pilot(world, pipeline)
    assert tick(world, pipeline) == []
    assert hook.received == []
    (pilot,) = world.submit(pipeline, unattended=True).pilots
    assert pilot.verdict is PilotVerdict.ASK
    assert pilot.why.startswith("The pilot is not as expected: 3 of 3 requests failed, and max_failed is 1% (row-")
    assert held(world) == {"confirm": 9}
    world.collect(pipeline)
    step = step_of(world, pipeline)
    assert isinstance(step, NeedsUser)
    assert isinstance(step.remedy, ApproveFiles)
    tick(world, pipeline)
    now_due(world)
    tick(world, pipeline)
    (message,) = hook.received
    assert "The pilot is not as expected" in message.json["message"]
    world.build(pipeline)
    assert held(world) == {"confirm": 9}, "another run does not forget the verdict"
    assert "not as expected" in why_held(world)
    assert len(approve(world.root, "asked")) == 1
    world.submit(pipeline, unattended=True)
    assert sent(world) == [3, 9]
    world.finish(pipeline)
    world.build(piloted(world, 30))
    assert held(world) == {}, "the prompt is approved"


def test_a_pilot_is_judged_after_its_retries(world: World) -> None:
    fail(world, times=1, overloaded_error=1.0)
    pipeline = piloted(world)
    collect_pilot(world, pipeline)
    assert world.submit(pipeline, unattended=True).pilots == []
    assert held(world) == {"pilot": 9}
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 3, 9]


def test_invalid_answers_leave_the_rest_to_a_user(world: World) -> None:
    fail(world, times=1, refusal=1.0)
    pipeline = piloted(world, output_schema=SCHEMA)
    collect_pilot(world, pipeline)
    (pilot,) = world.submit(pipeline, unattended=True).pilots
    assert "3 of 3 answers are invalid, and max_invalid is 1%" in pilot.why
    assert held(world) == {"confirm": 9}


def test_a_cost_outside_the_range_leaves_the_rest_to_a_user(world: World) -> None:
    pipeline = piloted(world)
    collect_pilot(world, pipeline)
    ((terms,),) = world.query("select terms from pilot")
    known = orjson.loads(terms)
    assert 0 < known["low"] < known["high"]
    low = orjson.dumps(known | {"low": known["high"], "high": 2 * known["high"]}).decode()
    world.query("update pilot set terms = :terms", terms=low)
    (pilot,) = world.submit(pipeline, unattended=True).pilots
    assert "was estimated" in pilot.why
    assert held(world) == {"confirm": 9}


def test_a_user_is_asked_in_any_case_if_the_pipeline_says_so(world: World) -> None:
    pipeline = piloted(world, pilot={"rows": 3, "then": "ask"})
    collect_pilot(world, pipeline)
    world.submit(pipeline, unattended=True)
    assert held(world) == {"confirm": 9}
    approve(world.root, "asked")
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 9]


def test_approving_the_cost_lets_only_the_pilot_go(world: World) -> None:
    pipeline = piloted(world, confirm_above=0)
    world.send(pipeline)
    assert (sent(world), held(world)) == ([], {"confirm": 12})
    assert [file.requests for file in approve(world.root, "asked")] == [3]
    world.send(pipeline)
    assert (sent(world), held(world)) == ([3], {"pilot": 9})
    assert approve(world.root, "asked") == []
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 9]


@pytest.mark.parametrize("is_judged", [False, True])
def test_a_lost_ledger_judges_the_pilot_again(world: World, is_judged: bool) -> None:
    pipeline = piloted(world)
    if is_judged:
        fail(world, times=1, permission_error=1.0)
    collect_pilot(world, pipeline)
    if is_judged:
        world.submit(pipeline)
        approve(world.root, "asked")
    lose_ledger(world)
    world.submit(pipeline)
    assert held(world) == {"pilot": 9}, "its answers are stored, and what was approved is lost"
    world.submit(pipeline, unattended=True)
    assert held(world) == ({"confirm": 9} if is_judged else {})
    approve(world.root, "asked")
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 9]


def test_a_pilot_whose_reply_was_lost_is_found(world: World) -> None:
    world.emulator.faults([LOST])
    pipeline = piloted(world)
    world.send(pipeline)
    world.submit(pipeline)
    assert sent(world) == [3]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 9]


def test_a_rebuild_keeps_the_pilot_that_is_under_way(world: World) -> None:
    pipeline = piloted(world)
    world.send(pipeline)
    more = piloted(world, 15)
    world.send(more)
    assert (sent(world), held(world)) == ([3], {"pilot": 12})
    world.emulator.end_batches()
    world.finish(more)
    assert sorted(sent(world)) == [3, 12]


@pytest.mark.parametrize("what", ["plain", "confirmed", "ledger lost"])
def test_failed_requests_of_a_pilot_that_are_built_again_go_on(world: World, what: str) -> None:
    """A schedule may run before the sensor sends them again."""
    fail(world, times=1, expired=1.0)
    more = {"confirm_above": 0} if what == "confirmed" else {}
    collect_pilot(world, piloted(world))
    pipeline = piloted(world, 15, **more)
    world.build(pipeline)
    if what == "confirmed":
        assert held(world) == {"confirm": 15}
        assert sorted(file.requests for file in approve(world.root, "asked")) == [3]
    assert held(world) == {"pilot": 12}, "the pilot has its three requests, and no others"
    if what == "ledger lost":
        lose_ledger(world)
    world.submit(pipeline)
    world.submit(pipeline)
    assert (sent(world), held(world)) == ([3, 3], {"pilot": 12})
    world.send(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sent(world) == [3, 3, 12] and set(world.table(pipeline)["result_type"]) == {"succeeded"}


@pytest.mark.parametrize("is_refresh", [False, True])
def test_a_pilot_whose_chains_are_built_again_is_judged(world: World, is_refresh: bool) -> None:
    pipeline = piloted(world, params=params() | {"max_tokens": 10}, retry={"truncated": {"times": 2}})
    collect_pilot(world, pipeline)
    world.build(pipeline, refresh=is_refresh)
    world.submit(pipeline)
    assert [next_round(world, pipeline) for _ in range(2)] == [[], []]
    (pilot,) = next_round(world, pipeline)
    assert pilot.verdict is PilotVerdict.GO and held(world) == {}
    assert sent(world) == [3] * (3 + is_refresh) + [9]


@pytest.mark.parametrize("is_erased", [False, True])
@pytest.mark.parametrize("gone", [2, 3])
def test_rows_that_are_gone_are_left_out_of_the_judgment(world: World, gone: int, is_erased: bool) -> None:
    """No one sends their failed requests again. Without any other the next build takes a pilot."""
    fail(world, times=1, expired=1.0)
    collect_pilot(world, piloted(world))
    rows = texts(12)
    keys = [next(key for key in rows if id_.startswith(f"{key}-")) for id_ in world.accepted_custom_ids()]
    if is_erased:
        erase(world.root, "asked", keys[:gone])
    pipeline = world.pipeline({key: rows[key] for key in rows if key not in keys[:gone]}, pilot=3)
    world.build(pipeline)
    reports = [*world.submit(pipeline).pilots, *next_round(world, pipeline)]
    if gone == 2:
        assert reports[0].why.startswith("The pilot is as expected: 1 answer for ")
        assert sent(world) == [3, 1, 9]
        return
    assert (reports, step_of(world, pipeline)) == ([], NeedsUser(MaterializeRequests()))
    world.build(pipeline)
    assert held(world) == {"pilot": 6}
    world.submit(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sent(world) == [3, 3, 6]


def partitioned(world: World, rows: int = 6, **more: Any) -> Pipeline:
    folder: Path = world.folder
    for key in "abc":
        lines = "".join(f"{number},{key} {number}\n" for number in range(rows))
        (folder / f"{key}.csv").write_text(f"id,text\n{lines}")
    dataset = {"path": "{partition}.csv", "key": "id"}
    return world.pipeline(dataset=dataset, partitions={"static": [*"abc"]}, pilot=4, **more)


def test_partitions_of_a_prompt_wait_for_one_pilot(world: World) -> None:
    pipeline = partitioned(world)
    for key in "abc":
        world.send(pipeline, key)
    assert (sent(world), held(world)) == ([4], {"pilot": 14})
    assert step_of(world, pipeline, "b") == Wait(None, Waiting.PILOT)
    world.emulator.end_batches()
    world.collect(pipeline, "a")
    assert step_of(world, pipeline, "b") == Send(SendReason.PILOT, 1)
    for key in "bac":
        world.submit(pipeline, key, unattended=True)
    assert held(world) == {}
    assert sorted(sent(world)) == [2, 4, 6, 6]


def test_gathered_partitions_have_one_pilot(world: World) -> None:
    """Each has fewer requests than the pilot has rows."""
    pipeline = partitioned(world, 3, batching={"across_partitions": True})
    built = build_partitions(world.root, pipeline, [*"abc"], AskAgain())
    assert all(isinstance(report, RequestsReport) for report in built.values())
    assert held(world) == {"pilot": 5}
    for key in "abc":
        world.submit(pipeline, key)
    assert sent(world) == [4]
    world.emulator.end_batches()
    for key in "abc":
        world.finish(pipeline, key)
    assert sorted(sent(world)) == [4, 5]


def test_a_canceled_pilot_has_a_successor(world: World) -> None:
    """Until another build takes it, the partitions that waited for it need a user."""
    pipeline = partitioned(world)
    for key in "ab":
        world.build(pipeline, key)
    cancel(world.root, "asked", "a")
    world.submit(pipeline, "b")
    assert step_of(world, pipeline, "b") == NeedsUser(MaterializeRequests())
    world.send(pipeline, "c")
    assert step_of(world, pipeline, "b") == Wait(None, Waiting.PILOT)
    world.emulator.end_batches()
    world.finish(pipeline, "c")
    world.finish(pipeline, "b")
    assert sorted(sent(world)) == [2, 4, 6]


def cancel_sent(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Cancel what is sent of a pipeline; the API ends its batches with canceled requests."""
    cancel(world.root, pipeline.name, partition or None)
    world.emulator.settings(latency=0)
    world.emulator.end_batches()


def test_a_pilot_that_was_canceled_on_its_way_is_no_verdict(world: World) -> None:
    """The next build takes the same requests, which were not paid for."""
    world.emulator.settings(latency=86_400)
    pipeline = piloted(world)
    world.send(pipeline)
    cancel_sent(world, pipeline)
    world.collect(pipeline)
    assert any("pilot of 3 random requests" in text for text in planned(world, pipeline))
    assert world.query("select verdict from pilot") == [(None,)], "a plan changes nothing"
    world.send(pipeline)
    assert (sent(world), held(world)) == ([3, 3], {"pilot": 9})
    first, second = (batch["custom_ids"] for batch in world.accepted(custom_ids=True))
    assert sorted(first) == sorted(second)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sent(world) == [3, 3, 9] and set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_a_pilot_that_is_built_again_while_it_is_canceled_is_retried(world: World) -> None:
    world.emulator.settings(latency=86_400)
    pipeline = piloted(world)
    world.send(pipeline)
    cancel_sent(world, pipeline)
    world.send(pipeline)
    assert (sent(world), held(world)) == ([3], {"pilot": 9})
    assert next_round(world, pipeline) == [] and sent(world) == [3, 3]
    (pilot,) = next_round(world, pipeline)
    assert pilot.verdict is PilotVerdict.GO and sent(world) == [3, 3, 9]


@pytest.mark.parametrize("is_followed", [False, True])
def test_partitions_need_a_build_if_the_pilot_was_canceled_on_its_way(world: World, is_followed: bool) -> None:
    """Before its first answers, or before those that follow them."""
    pipeline = partitioned(world, params=params() | {"max_tokens": 10}, retry={"truncated": {"times": 2}})
    world.emulator.settings(latency=0 if is_followed else 86_400)
    for key in "ba":
        world.send(pipeline, key)
    if is_followed:
        world.emulator.end_batches()
        world.collect(pipeline, "b")
        assert world.submit(pipeline, "a", unattended=True).pilots == []
        cancel(world.root, "asked", "b")
    else:
        cancel_sent(world, pipeline, "b")
        world.collect(pipeline, "b")
    assert step_of(world, pipeline, "a") == Send(SendReason.PILOT, 1)
    assert world.submit(pipeline, "a", unattended=True).pilots == []
    assert step_of(world, pipeline, "a") == NeedsUser(MaterializeRequests())
    approve(world.root, "asked")
    assert held(world) == {"pilot": 6}
    world.send(pipeline, "c")
    assert step_of(world, pipeline, "a") == Wait(None, Waiting.PILOT)
    assert sent(world) == [4, 4]


def rows_not_in_pilot(world: World, pipeline: Pipeline, partition: str) -> str:
    """Return the lines of a partition's dataset whose requests wait for its pilot."""
    (waiting,) = (file for file in world.files(pipeline, partition) if file.is_held_for_pilot)
    requests = b"".join(StoredRequestFile.of(world.root.storage, waiting).lines()).decode()
    header, *lines = (world.folder / f"{partition}.csv").read_text().splitlines(keepends=True)
    return "".join([header, *(line for line in lines if line.strip().partition(",")[2] in requests)])


def sharing_what_waits(world: World) -> Pipeline:
    """Build `a` with a pilot, and `b` and `c` with the rows of `a` that wait for it."""
    pipeline = partitioned(world)
    world.build(pipeline, "a")
    shared = rows_not_in_pilot(world, pipeline, "a")
    for key in "bc":
        (world.folder / f"{key}.csv").write_text(shared)
        world.build(pipeline, key)
    return pipeline


@pytest.mark.parametrize("is_sent", [False, True], ids=["before it was sent", "on its way"])
def test_a_user_lets_go_what_partitions_share_if_the_pilot_was_canceled(world: World, is_sent: bool) -> None:
    """No build replaces a file that another partition needs, so none takes a pilot of its requests."""
    world.emulator.settings(latency=86_400)
    pipeline = sharing_what_waits(world)
    world.submit(pipeline, "a" if is_sent else "b")
    cancel_sent(world, pipeline, "a")
    world.collect(pipeline, "a")
    world.submit(pipeline, "b", unattended=True)
    assert (sent(world), held(world)) == ([4] * is_sent, {"pilot": 2})
    for key in "bc":
        assert step_of(world, pipeline, key) == NeedsUser(MaterializeRequests())
    world.build(pipeline, "b")
    assert held(world) == {"confirm": 2}
    assert "several partitions need these requests" in why_held(world)
    for key in "bc":
        step = step_of(world, pipeline, key)
        assert isinstance(step, NeedsUser) and isinstance(step.remedy, ApproveFiles)
    assert [file.requests for file in approve(world.root, "asked")] == [2]
    world.submit(pipeline, "c")
    world.emulator.end_batches()
    for key in "bc":
        world.finish(pipeline, key)
        assert world.states(pipeline, key) == ["collected"]
    assert sent(world) == [4] * is_sent + [2]


def test_what_a_user_may_let_go_waits_for_a_pilot_that_a_later_build_takes(world: World) -> None:
    world.emulator.settings(latency=0)
    pipeline = sharing_what_waits(world)
    cancel(world.root, "asked", "a")
    world.build(pipeline, "b")
    assert held(world) == {"confirm": 2}
    (world.folder / "a.csv").write_text("id,text\n" + "".join(f"{number},new {number}\n" for number in range(6)))
    world.send(pipeline, "a")
    assert (sent(world), held(world)) == ([4], {"confirm": 2, "pilot": 2})
    assert approve(world.root, "asked") == []
    assert held(world) == {"pilot": 4}
    world.emulator.end_batches()
    world.finish(pipeline, "a")
    world.finish(pipeline, "b")
    assert sorted(sent(world)) == [2, 2, 4]


def test_requests_of_a_pilot_that_expired_for_good_are_named_with_that(world: World) -> None:
    fail(world, expired=1.0)
    pipeline = piloted(world, retry={"max_attempts": 1})
    collect_pilot(world, pipeline)
    (pilot,) = world.submit(pipeline, unattended=True).pilots
    assert "3 of 3 requests failed" in pilot.why and pilot.why.count(": expired") == 3
    assert {text for _, text in pilot.sample} == {"expired"}


def test_an_erased_row_stays_out_of_the_pilot(world: World) -> None:
    pipeline = piloted(world, 4, pilot=3)
    world.build(pipeline)
    erase(world.root, "asked", [f"row-{number}" for number in range(3)])
    world.submit(pipeline)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sum(sent(world)) == 1


def test_a_refresh_has_no_pilot_once_its_prompt_had_one(world: World) -> None:
    pipeline = piloted(world)
    world.run(pipeline)
    world.build(pipeline, refresh=True)
    assert held(world) == {}


def test_a_pilot_may_be_split(world: World) -> None:
    world.emulator.settings(max_body_bytes=600)
    pipeline = piloted(world)
    world.run(pipeline)
    assert sum(sent(world)) == 12
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}


def test_a_stub_of_the_prompt_cache_goes_before_the_pilot(world: World) -> None:
    long = params(system="You label texts. " * 1200)
    pipeline = piloted(world, 40, params=long, cache="auto")
    world.build(pipeline)
    assert held(world) == {"pilot": 36}
    world.submit(pipeline)
    assert sent(world) == [1]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [1, 3, 36]


@pytest.mark.parametrize("is_lost", [False, True], ids=["the ledger is kept", "the ledger is lost"])
def test_approving_the_cost_lets_the_stub_go_that_the_pilot_waits_for(world: World, is_lost: bool) -> None:
    long = params(system="You label texts. " * 1200)
    pipeline = piloted(world, 40, params=long, cache="auto", confirm_above=0)
    world.send(pipeline)
    assert (sent(world), held(world)) == ([], {"confirm": 40})
    if is_lost:
        lose_ledger(world)
        world.submit(pipeline)
        assert (sent(world), held(world)) == ([], {"confirm": 40}), "whether it was allowed is lost"
    assert sorted(file.requests for file in approve(world.root, "asked")) == [1, 3]
    world.send(pipeline)
    assert (sent(world), held(world)) == ([1], {"cache": 3, "pilot": 36})
    world.emulator.end_batches()
    world.finish(pipeline)
    assert sorted(sent(world)) == [1, 3, 36]


def judge_in_a_process(variables: dict[str, str], pipeline: str, boundary: int) -> None:
    """Judge the pilot of a pipeline, and be killed at a boundary after the root is open."""
    root = open_root(Settings.from_env(variables))
    with root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline, "")
        assert newest is not None
        waiting = submissions.waited_on(tx, newest.id)
    die_at_boundary(boundary)
    judge_pilots(root, waiting, None)


@pytest.mark.parametrize("fails", [False, True])
def test_killed_anywhere_in_the_judgment_nothing_is_decided_in_part(
    world: World, python: ForkServer, fails: bool
) -> None:
    """Before and after it has read the answers, and when it was about to commit verdict and release."""
    if fails:
        fail(world, times=1, permission_error=1.0)
    pipeline = piloted(world, 5, 2)
    collect_pilot(world, pipeline)
    variables = environment(world.emulator.url, world.root.settings.root)
    for boundary in range(random.randint(1, 3), 100, 3):  # other positions in every run
        arguments = {"variables": variables, "pipeline": pipeline.name, "boundary": boundary}
        (outcome,) = python.run((f"{__name__}:judge_in_a_process", arguments))
        assert outcome.killed or not outcome.error, outcome
        ((verdict,),) = world.query("select verdict from pilot")
        if not outcome.killed:
            break
        assert (verdict, held(world)) == (None, {"pilot": 3}), boundary
    assert boundary > 6 and (verdict, held(world)) == (("ask", {"confirm": 3}) if fails else ("go", {}))
    assert world.submit(pipeline, unattended=True).pilots == []
    assert sorted(sent(world)) == ([2] if fails else [2, 3])


def test_what_a_killed_process_has_judged_is_sent_by_the_next_one(world: World) -> None:
    pipeline = piloted(world)
    collect_pilot(world, pipeline)
    assert len(judge_pilots(world.root, world.files(pipeline), None)) == 1
    assert judge_pilots(world.root, world.files(pipeline), None) == []
    assert held(world) == {}
    world.finish(pipeline)
    assert sorted(sent(world)) == [3, 9]


def test_files_that_are_registered_after_the_judgment_do_not_wait(world: World) -> None:
    """The process that built them has read the ledger before."""
    pipeline = piloted(world)
    collect_pilot(world, pipeline)
    world.query("update pilot set verdict = 'go', why = 'The pilot is as expected'")
    assert step_of(world, pipeline) == Send(SendReason.PILOT, 1)
    world.submit(pipeline, unattended=True)
    assert sorted(sent(world)) == [3, 9]


def test_a_renamed_pipeline_keeps_its_pilot(world: World) -> None:
    collect_pilot(world, piloted(world))
    rename(world.root, "asked", "renamed")
    world.submit(piloted(world, name="renamed"), unattended=True)
    assert sorted(sent(world)) == [3, 9]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_goes_on_after_its_pilot_or_ends_with_held_requests(world: World, fails: bool) -> None:
    if fails:
        fail(world, times=1, permission_error=1.0)
    pipeline = piloted(world, 8)
    report = run_pipeline(world.root, pipeline, "", Lines(Console(quiet=True)))
    assert report.final is not fails
    assert held(world) == ({"confirm": 5} if fails else {})
