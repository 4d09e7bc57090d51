"""When a deadline has passed, rows without an answer are asked by live calls, once each, within the budget."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import ConfigError
from batch_assets.core.ledger import batches, joins, overview, submissions
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.progress import requests_answered
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import PARTIAL_SECONDS, Announce, Join, Joining, Send, SendReason
from batch_assets.core.planning.texts import waits_for_batches
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prune import prune
from batch_assets.core.results.collect import downloaded
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.core.spend.build import build_spend
from batch_assets.core.spend.spend_table import SpendRow

from ..erase.support import every_text
from ..lost_ledger import lose_ledger
from ..recovery.test_restored_ledger import forgotten
from ..requests.gathering import NAME, Gathering
from ..support import CREATE, World, params, round_for, texts

MESSAGES = {"method": "POST", "path": "/v1/messages"}
RESCUED = {"deadline": "6h", "rescue": "live"}
# A live call with these texts can cost at most about $0.000075: 100 tokens of output are most of it.
ONE = 0.000075


def rescued(world: World, rows: int = 4, **more: Any) -> Pipeline:
    """A pipeline whose batch still runs when its deadline has passed."""
    pipeline = world.pipeline(texts(rows), **(RESCUED | more))
    world.send_late(pipeline)
    return pipeline


def rescue(world: World, pipeline: Pipeline) -> CollectedResults:
    """Do what the sensor's run does."""
    world.submit(pipeline, unattended=True)
    return collect_results(world.root, pipeline.name)


def next_round(world: World, pipeline: Pipeline) -> Any:
    with world.root.ledger.read() as tx:
        return round_for(tx, submissions.newest(tx, pipeline.name, ""))


def asked_live(world: World) -> list[str]:
    """The texts of the live calls, sorted."""
    return sorted(orjson.loads(call["params"])["messages"][0]["content"] for call in world.live_calls())


def billed_live(world: World) -> int:
    return sum(call["picodollars"] for call in world.live_calls())


def spend_of(world: World) -> dict[tuple[str, str], SpendRow]:
    """The rows of the table of what was spent by (service tier, kind)."""
    return {(row.tier, row.kind): row for row in build_spend(world.root).rows}


def fault(**action: Any) -> dict[str, Any]:
    match = {name: action.pop(name) for name in ("times", "after", "nth") if name in action}
    return {"match": MESSAGES | match, "action": action}


def test_rows_without_an_answer_are_asked_live_when_the_deadline_has_passed(world: World) -> None:
    world.emulator.settings(latency=24 * 3600)
    pipeline = world.pipeline(texts(4), **RESCUED)
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    collect_results(world.root, pipeline.name)
    assert next_round(world, pipeline) is None
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None and newest.began_at is not None
        snapshot = Snapshot.of(tx, newest)
    assert snapshot.rescue.times == [newest.began_at + 6 * 3600], "the sensor and a run know when to look again"
    assert "or its deadline in " in waits_for_batches(snapshot)
    world.submit(pipeline, unattended=True)
    assert world.live_calls() == []

    world.pass_deadline()
    assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
    report = world.submit(pipeline, unattended=True)
    assert str(report.live_calls) == "4 live calls: 4 answered"
    assert next_round(world, pipeline) is not None
    done = collect_results(world.root, pipeline.name).results
    assert done is not None and done.final
    assert (done.rescued, done.rescue_cost_usd) == (4, done.cost_usd)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 4
    assert all(row.text in row.response_text for row in table.itertuples())
    assert table["batch_id"].str.startswith("live.").all()
    assert round(sum(table["cost_usd"]) * PICODOLLARS) == billed_live(world)
    assert asked_live(world) == sorted(texts(4).values())
    assert not list(world.path(pipeline.name, "calls").iterdir()), "the journal is gone"
    world.submit(pipeline, unattended=True)
    assert len(world.live_calls()) == 4, "no row is asked twice"


def test_late_answers_of_the_batch_are_kept_and_reported_as_paid_twice(world: World) -> None:
    pipeline = rescued(world)
    rescue(world, pipeline)
    before = world.table(pipeline)
    world.emulator.end_batches()
    poll(world.root, now=True)
    done = collect_results(world.root, pipeline.name)
    assert len(done.collected) == 1
    assert world.table(pipeline).equals(before), "a complete table does not change"
    rows = spend_of(world)
    assert rows["live", "known"].cost == billed_live(world)
    assert rows["live", "known"].amounts["paid_twice_usd"] == 0
    batch = rows["batch", "known"]
    assert batch.amounts["paid_twice_usd"] == batch.cost > 0
    assert sum(row.cost for row in rows.values()) == sum(
        entry["picodollars"] for entry in world.emulator.bill()["batches"][-1:]
    ) + billed_live(world)
    assert rows["live", "known"].rows == 4
    high = {tier: row.amounts["estimated_high_usd"] for (tier, _), row in rows.items()}
    assert (high["batch"] > batch.cost, high["live"]) == (True, 0), "the estimate is that of the batch"
    assert pq.read_table(world.path("spend.parquet"))["service_tier"].to_pylist() == ["batch", "live"]


def test_the_first_stored_answer_stays_the_result_if_the_batch_ends_during_the_calls(world: World) -> None:
    pipeline = rescued(world)
    world.submit(pipeline, unattended=True)
    world.emulator.end_batches()
    collect_results(world.root, pipeline.name)  # the batch has ended, and no one has looked
    before = world.table(pipeline)
    assert before["batch_id"].str.startswith("live.").all()
    world.finish(pipeline)
    assert world.table(pipeline).equals(before)


def test_answers_of_the_batch_that_were_stored_first_stay_the_result(world: World) -> None:
    pipeline = rescued(world)
    world.submit(pipeline, unattended=True)
    world.query("insert into lease (name, owner, until) values ('live:asked', 'frozen', 9e9)")
    world.emulator.end_batches()
    done = world.collect(pipeline).results
    assert done is not None and done.final
    before = world.table(pipeline)
    assert before["batch_id"].str.startswith("msgbatch_").all()
    world.query("delete from lease where name = 'live:asked'")
    collect_results(world.root, pipeline.name)
    assert world.table(pipeline).equals(before)
    rows = spend_of(world)
    assert rows["live", "known"].amounts["paid_twice_usd"] == billed_live(world) > 0
    assert rows["batch", "known"].amounts["paid_twice_usd"] == 0


def test_a_row_that_the_batch_answered_before_is_not_asked(world: World) -> None:
    world.emulator.settings(latency=0.0)
    pipeline = world.pipeline(texts(2), batching={"max_requests": 1}, **RESCUED)
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    world.pass_deadline()
    rescue(world, pipeline)
    assert world.live_calls() == [], "both batches have ended, which the run finds out first"


def test_a_call_whose_reply_is_lost_is_not_repeated_and_counts_as_perhaps_paid(world: World) -> None:
    pipeline = rescued(world, rescue={"live": {"max_in_flight": 1}})
    world.emulator.faults([fault(nth=2, drop="after_commit")])
    report = world.submit(pipeline, unattended=True)
    assert str(report.live_calls) == "4 live calls: 3 answered, 1 lost, and perhaps paid for"
    done = collect_results(world.root, pipeline.name).results
    assert done is not None and not done.final
    assert sorted(world.table(pipeline)["result_type"]) == ["pending", *["succeeded"] * 3]
    served = sum(call["picodollars"] for call in world.live_calls() if call["served"])
    rows = spend_of(world)
    assert rows["live", "known"].cost == served
    unknown = rows["live", "unknown"]
    assert unknown.amounts["requests"] == 1
    assert unknown.high is not None and billed_live(world) - served <= unknown.high <= ONE * PICODOLLARS
    for _ in range(2):
        rescue(world, pipeline)
    assert len(world.live_calls()) == 4, "it is not repeated"
    world.emulator.end_batches()
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 4
    assert table["batch_id"].str.startswith("msgbatch_").sum() == 1, "the answer of the batch is the result"


@pytest.mark.parametrize("is_stored_first", [True, False])
def test_a_lost_live_call_does_not_end_the_retries_of_its_row(world: World, is_stored_first: bool) -> None:
    world.emulator.faults(
        [
            {"match": CREATE | {"times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}},
            fault(drop="after_commit"),
        ]
    )
    pipeline = rescued(world, rows=3, retry={"max_attempts": 3})
    assert world.submit(pipeline, unattended=True).live_calls.lost == 3
    if is_stored_first:
        collect_results(world.root, pipeline.name)
    else:
        world.query("insert into lease (name, owner, until) values ('live:asked', 'frozen', 9e9)")
    world.emulator.end_batches()
    done = world.collect(pipeline).results
    assert done is not None and done.ask_again == 3
    world.query("delete from lease where name = 'live:asked'")
    done = collect_results(world.root, pipeline.name).results
    assert done is not None and done.ask_again == 3 and not done.final


def test_a_batch_that_is_sent_after_the_deadline_has_its_own(world: World) -> None:
    world.emulator.faults([{"match": CREATE | {"times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    pipeline = world.pipeline(texts(4), **RESCUED, retry={"max_attempts": 3})
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    world.collect(pipeline)
    world.pass_deadline()
    world.emulator.settings(latency=24 * 3600)
    report = world.submit(pipeline, unattended=True)
    assert len(report.submitted) == 1
    assert world.live_calls() == [], "the retry is not asked twice at once"
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        snapshot = Snapshot.of(tx, newest)
    ((sent_at,),) = world.query("select max(submitted_at) from batch")
    assert snapshot.rescue.times == [sent_at + 6 * 3600]
    world.pass_deadline()
    assert world.submit(pipeline, unattended=True).live_calls.answered == 4


def test_a_call_that_the_api_refuses_stays_with_the_batch(world: World) -> None:
    pipeline = rescued(world)
    world.emulator.faults([fault(times=1, status=400)])
    report = world.submit(pipeline, unattended=True)
    assert str(report.live_calls) == "4 live calls: 3 answered, 1 refused"
    rescue(world, pipeline)
    assert len(world.live_calls()) == 3
    assert spend_of(world)["live", "known"].cost == billed_live(world)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4


@pytest.mark.parametrize("status", [429, 529])
def test_what_the_api_did_not_process_is_asked_again(world: World, status: int) -> None:
    pipeline = rescued(world)
    world.emulator.faults([fault(times=3, status=status, headers={"retry-after": "0"})])
    report = world.submit(pipeline, unattended=True)
    assert str(report.live_calls) == "4 live calls: 4 answered"
    done = collect_results(world.root, pipeline.name).results
    assert done is not None and done.final


def test_a_long_wait_that_the_api_asks_for_is_left_to_a_later_run(world: World) -> None:
    pipeline = rescued(world)
    world.emulator.faults([fault(after=2, status=429, headers={"retry-after": "600"})])
    report = world.submit(pipeline, unattended=True)
    ((name, why),) = report.waiting.items()
    assert name.startswith("rescue of ") and "429" in why
    collect_results(world.root, pipeline.name)
    assert len(world.live_calls()) == 2
    assert next_round(world, pipeline) is None
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        assert requests_answered([Snapshot.of(tx, newest)]) == (2, 4)
    world.emulator.reset_faults()
    world.query("update rescue set not_before = 0")
    assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
    done = rescue(world, pipeline).results
    assert done is not None and done.final
    assert asked_live(world) == sorted(texts(4).values())


def test_lost_replies_in_a_row_end_the_calls_for_a_while(world: World) -> None:
    pipeline = rescued(world, rows=9, rescue={"live": {"max_in_flight": 1}})
    world.emulator.faults([fault(drop="before_commit")])
    report = world.submit(pipeline, unattended=True)
    assert report.live_calls.lost == 3
    collect_results(world.root, pipeline.name)
    world.query("update rescue set not_before = 0")
    world.emulator.reset_faults()
    rescue(world, pipeline)
    assert len(world.live_calls()) == 6


@pytest.mark.parametrize(
    ("action", "calls"),
    [
        ({"status": 429, "headers": {"retry-after": "600"}}, 1),
        (
            {
                "status": 400,
                "body": {
                    "type": "error",
                    "error": {"type": "billing_error", "message": "Your balance is too low."},
                },
            },
            1,
        ),
        ({"drop": "before_commit"}, 3),
    ],
)
def test_what_ends_the_calls_holds_for_every_file(world: World, action: dict[str, Any], calls: int) -> None:
    live = {"live": {"max_in_flight": 1}}
    pipeline = rescued(world, rows=10, batching={"max_requests": 2}, rescue=live)
    world.emulator.faults([fault(**action)])
    world.forget_calls()
    report = world.submit(pipeline, unattended=True)
    assert world.calls()["POST /v1/messages"] == calls
    assert len(report.waiting) == (5 if calls == 1 else 4), "the first file of the lost replies is done"
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)
    world.emulator.reset_faults()
    world.query("update rescue set not_before = 0")
    rescue(world, pipeline)
    assert len(world.live_calls()) == 10 - (3 if calls == 3 else 0)


def test_above_the_cap_nothing_is_called_until_money_comes_free(world: World) -> None:
    # The batch reserves half of what live calls would.
    pipeline = rescued(world, rows=4, budget={"max_usd": 4 * ONE / 2 + 2.5 * ONE, "per": "month"})
    report = world.submit(pipeline, unattended=True)
    assert report.live_calls.answered >= 2, "as many as fit"
    held = [why for name, why in report.waiting.items() if name.startswith("rescue of ")]
    assert len(held) == 1 and "left, and the next live call may cost up to" in held[0]
    done = collect_results(world.root, pipeline.name).results
    for _ in range(6):  # what calls cost less than reserved lets others go
        if done is not None and done.final:
            break
        ((reserved,),) = world.query("select sum(worst) from reservation")
        assert reserved <= (4 * ONE / 2 + 2.5 * ONE) * PICODOLLARS
        done = rescue(world, pipeline).results
    ((reserved,),) = world.query("select sum(worst) from reservation where batch_id like 'live.%'")
    assert reserved == billed_live(world)


def test_a_run_that_is_asked_for_under_a_budget_makes_a_call(world: World) -> None:
    """Little is left of a large cap: too little to cut a batch for, and enough for a live call."""
    pipeline = rescued(world, rows=60, budget={"max_usd": 60 * ONE / 2 + 1.2 * ONE, "per": "month"})
    for number in range(1, 4):
        assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
        rescue(world, pipeline)
        assert len(world.live_calls()) >= number


def test_a_budget_of_what_is_expected_lets_more_calls_go(world: World) -> None:
    world.emulator.settings(latency=0.0)
    world.run(world.pipeline(texts(4, "before")))
    budget = {"max_usd": 12 * ONE, "per": "month", "hold": "expected"}
    pipeline = rescued(world, rows=20, budget=budget)
    rescue(world, pipeline)
    assert len(world.live_calls()) == 20
    ((expected, worst),) = world.query(
        "select sum(expected), sum(worst) from reservation where batch_id like 'live.%'"
    )
    assert expected == worst == billed_live(world), "both are settled"


def test_a_budget_of_what_is_expected_counts_live_prices(world: World) -> None:
    world.emulator.settings(latency=0.0)
    world.run(world.pipeline(texts(20, "before")))
    wide: dict[str, Any] = {"max_usd": 100.0, "per": "month", "hold": "expected"}
    pipeline = rescued(world, rows=20, budget=wide)
    ((counted, mean),) = world.query("select sum(expected), min(expected) / 20 from reservation")
    cap = counted + 9 * mean  # a live call is expected to cost twice the mean
    pipeline = world.pipeline(**RESCUED, budget=wide | {"max_usd": cap / PICODOLLARS})
    record_caps(world.root, [pipeline])
    report = world.submit(pipeline, unattended=True)
    assert report.live_calls.answered == 4
    ((reserved,),) = world.query("select sum(expected) from reservation")
    assert reserved <= cap
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)


def test_a_dear_call_after_a_cheap_one_is_held_without_a_run_in_vain(world: World) -> None:
    rows = {"row-0": "a cheap one", "row-1": "a dear one " * 5000}
    world.emulator.settings(latency=24 * 3600)
    wide: dict[str, Any] = {"max_usd": 100.0, "per": "month"}
    pipeline = world.pipeline(rows, **RESCUED, budget=wide)
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    world.pass_deadline()
    ((reserved,),) = world.query("select sum(worst) from reservation")
    raised = wide | {"max_usd": round(reserved / PICODOLLARS + 1.5 * ONE, 7)}
    record_caps(world.root, [world.pipeline(**RESCUED, budget=raised)])
    assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
    rescue(world, pipeline)
    assert asked_live(world) == ["a cheap one"]
    assert next_round(world, pipeline) is None, "no run begins in vain"


def test_no_call_is_made_under_a_cap_that_is_used_up(world: World) -> None:
    pipeline = rescued(world, rows=4, budget={"max_usd": 4 * ONE / 2, "per": "month"})
    rescue(world, pipeline)
    assert world.live_calls() == []
    assert next_round(world, pipeline) is None, "no run begins in vain"
    raised = world.pipeline(**RESCUED, budget={"max_usd": 1.0, "per": "month"})
    record_caps(world.root, [raised])
    assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
    done = rescue(world, pipeline).results
    assert done is not None and done.final


def test_live_answers_that_are_left_do_not_hold_back_a_complete_table(world: World) -> None:
    pipeline = rescued(world)
    world.submit(pipeline, unattended=True)
    (header,) = world.path(pipeline.name, "calls").rglob("group.json")
    content = header.read_bytes()
    header.write_text("{")
    world.emulator.end_batches()
    done = world.collect(pipeline)
    assert done.results is not None and done.results.final
    assert any("group.json" in problem for problem in done.problems)
    assert next_round(world, pipeline) == Announce()
    with world.root.ledger.write(pipeline.name) as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        joins.announced(tx, newest.id)
    later = next_round(world, pipeline)
    assert isinstance(later, Join) and later.pause == PARTIAL_SECONDS, "not with every look"
    with world.root.ledger.read() as tx:
        assert [each.id for each in overview.in_motion(tx, tx.now + 60)] == [newest.id], "it is not forgotten"
    header.write_bytes(content)
    collect_results(world.root, pipeline.name)
    assert next_round(world, pipeline) is None
    with world.root.ledger.read() as tx:
        assert overview.in_motion(tx, tx.now + 60) == []


@pytest.mark.parametrize("name", ["index.parquet", "part-00000.jsonl"])
def test_a_file_that_is_gone_is_looked_for_again_later(world: World, name: str) -> None:
    pipeline = rescued(world)
    (path,) = world.path(pipeline.name, "requests").rglob(name)
    content = path.read_bytes()
    path.unlink()
    report = world.submit(pipeline, unattended=True)
    ((_, why),) = report.waiting.items()
    assert name in why and "is gone. Restore it from a backup" in why and "Errno" not in why
    assert next_round(world, pipeline) == Join(Joining.FIRST, True), "no run begins in vain"
    path.write_bytes(content)
    world.query("update rescue set not_before = 0")
    rescue(world, pipeline)
    assert len(world.live_calls()) == 4


def test_a_lost_ledger_repeats_no_call(world: World) -> None:
    pipeline = rescued(world, rescue={"live": {"max_in_flight": 1}})
    world.emulator.faults(
        [fault(nth=1, drop="after_commit"), fault(after=2, status=429, headers={"retry-after": "600"})]
    )
    world.submit(pipeline, unattended=True)
    assert len(world.live_calls()) == 2
    lose_ledger(world)  # the answers are not stored yet
    record_caps(world.root, [pipeline])
    world.emulator.reset_faults()
    build_spend(world.root)
    world.submit(pipeline)
    world.pass_deadline()
    rescue(world, pipeline)
    assert asked_live(world) == sorted(texts(4).values())
    served = sum(call["picodollars"] for call in world.live_calls() if call["served"])
    rows = spend_of(world)
    assert rows["live", "known"].cost == served
    assert rows["live", "unknown"].amounts["requests"] == 1

    lose_ledger(world)  # all answers are stored
    record_caps(world.root, [pipeline])
    world.submit(pipeline)
    world.pass_deadline()
    rescue(world, pipeline)
    assert len(world.live_calls()) == 4
    rows = spend_of(world)
    assert rows["live", "known"].cost == served
    assert rows["live", "unknown"].amounts["requests"] == 1
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 4


def test_a_rebuilt_ledger_counts_lost_live_calls_at_live_prices(world: World) -> None:
    pipeline = rescued(world)
    world.emulator.faults([fault(nth=1, drop="after_commit")])
    rescue(world, pipeline)
    lose_ledger(world)
    capped = world.pipeline(texts(5), **RESCUED, budget={"max_usd": 1.0, "per": "month"})
    record_caps(world.root, [capped])
    world.send(capped)
    of_file = "select worst from reservation where file_id in (select live_of from batch) order by batch_id"
    live, batch = (row.worst for row in world.query(of_file))
    assert live == 2 * batch


def test_live_calls_that_a_restored_ledger_has_open_count_once(world: World) -> None:
    pipeline = rescued(world)
    world.submit(pipeline, unattended=True)
    with forgotten(world):
        collect_results(world.root, pipeline.name)
        world.send(world.pipeline(texts(5), **RESCUED))
    world.submit(pipeline)  # the ledger lacks the second submission, and catches up with all files
    collect_results(world.root, pipeline.name)
    counted = world.query("select worst from reservation where batch_id like 'live.%'")
    assert [row.worst for row in counted] == [billed_live(world)]
    assert spend_of(world)["live", "known"].cost == billed_live(world)


def test_only_rows_that_still_ask_are_asked_live(world: World) -> None:
    pipeline = rescued(world, rows=4)
    fewer = world.pipeline({key: text for key, text in texts(4).items() if key != "row-1"}, **RESCUED)
    world.send(fewer)
    world.pass_deadline()
    done = rescue(world, pipeline).results
    assert done is not None and done.final
    assert len(world.live_calls()) == 3


def test_rows_of_every_partition_that_was_gathered_are_asked_live(world: World) -> None:
    world.emulator.settings(latency=24 * 3600)
    gathering = Gathering.of(world, {"a": 3, "b": 2}, **RESCUED)
    record_caps(world.root, [gathering.pipeline()])
    gathering.build()
    gathering.submit()
    world.pass_deadline()
    gathering.submit(unattended=True)
    assert len(world.live_calls()) == 5
    for key in "ab":
        done = collect_results(world.root, NAME, key).results
        assert done is not None and done.final


def test_rows_that_come_back_after_a_rescue_are_asked_live(world: World) -> None:
    pipeline = rescued(world, rows=4)
    fewer = world.pipeline(texts(2), **RESCUED)
    world.send(fewer)
    for rows in (2, 4):
        world.send(world.pipeline(texts(rows), **RESCUED))
        world.pass_deadline()
        assert next_round(world, pipeline) == Send(SendReason.RESCUE, 1)
        done = rescue(world, pipeline).results
        assert done is not None and done.final
        assert asked_live(world) == sorted(texts(rows).values()), "each once"


def test_answers_of_a_refresh_that_is_rescued_belong_to_it(world: World) -> None:
    pipeline = world.pipeline(texts(2), **RESCUED)
    record_caps(world.root, [pipeline])
    world.run(pipeline)
    world.emulator.settings(latency=24 * 3600)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.pass_deadline()
    done = rescue(world, pipeline).results
    assert done is not None and done.final
    assert world.table(pipeline)["batch_id"].str.startswith("live.").all()


def test_betas_are_sent_and_requests_for_batches_only_stay_there(world: World) -> None:
    pipeline = rescued(world, rows=1, betas=["output-300k-2026-03-24"], params=params())
    report = world.submit(pipeline, unattended=True)
    assert world.live_calls() == []
    assert any("only batches take its betas" in why for why in report.waiting.values())
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)


@pytest.mark.parametrize(("max_tokens", "calls"), [(21_333, 1), (21_334, 0)])
def test_requests_whose_answers_may_take_too_long_stay_with_their_batch(
    world: World, max_tokens: int, calls: int
) -> None:
    pipeline = rescued(world, rows=1, params=params() | {"max_tokens": max_tokens})
    report = world.submit(pipeline, unattended=True)
    assert len(world.live_calls()) == calls
    whys = ["left to the batch: 1 request with max_tokens above 21,333"]
    assert list(report.waiting.values()) == (whys if not calls else [])
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)


def test_a_canceled_submission_is_not_rescued(world: World) -> None:
    pipeline = rescued(world)
    world.query("update submission set canceled_at = began_at")
    world.submit(pipeline, unattended=True)
    assert world.live_calls() == []


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"deadline": "6h"}, "deadline", "add `rescue: live`"),
        ({"rescue": "live"}, "rescue", "add `deadline`, such as 6h"),
        ({"deadline": "soon", "rescue": "live"}, "deadline", "such as 90m, 6h or 1d, not soon"),
        ({"deadline": "0h", "rescue": "live"}, "deadline", "such as 90m, 6h or 1d, not 0h"),
        ({"deadline": "6h", "rescue": "dead"}, "rescue", "give live, not dead"),
        (
            {"deadline": "6h", "rescue": {"live": {"max_in_flight": 0}}},
            "rescue.live.max_in_flight",
            "give at least 1, not 0",
        ),
    ],
)
def test_mistakes_in_the_fields_say_what_to_add(
    world: World, fields: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as error:
        world.pipeline(texts(1), **fields)
    assert error.value.field == field
    assert problem in str(error.value)


def test_no_process_calls_while_another_one_does(world: World) -> None:
    pipeline = rescued(world)
    world.query("insert into lease (name, owner, until) values ('live:asked', 'another', 9e9)")
    assert next_round(world, pipeline) is None or not isinstance(next_round(world, pipeline), Send)
    report = world.submit(pipeline, unattended=True)
    assert report.waiting == {"rescue": "another process makes the live calls of the pipeline"}
    assert world.live_calls() == []
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        assert not isinstance(next_step(Snapshot.of(tx, newest), put_off=(Join,)), Send)
    assert CREATE["path"] == "/v1/messages/batches"


def test_an_erased_row_leaves_the_answers_of_live_calls_and_their_cost(world: World) -> None:
    pipeline = rescued(world)
    world.submit(pipeline, unattended=True)  # the answers are in the journal
    world.emulator.end_batches()
    poll(world.root, now=True)
    with world.root.ledger.read() as tx:
        (ended,) = batches.in_state(tx, BatchState.ENDED)
    with downloaded(world.root, ended) as answers:
        assert answers is not None
        answers.store()
    before = {tier: row.cost for (tier, _), row in spend_of(world).items()}
    report = erase(world.root, pipeline.name, ["row-2"], pipeline)
    assert not (report.waiting or report.left or report.problems)
    assert texts(4)["row-2"] not in every_text(world.path(pipeline.name))
    rows = spend_of(world)
    assert rows["live", "known"].cost == billed_live(world)
    assert rows["batch", "known"].cost == before["batch"]


def test_pruned_answers_of_live_calls_keep_their_cost(world: World) -> None:
    pipeline = rescued(world)
    rescue(world, pipeline)
    report = prune(world.root, pipeline.name, -60.0, in_force=True, is_dry=False)
    assert report.answers == 4
    assert spend_of(world)["live", "known"].cost == billed_live(world)
