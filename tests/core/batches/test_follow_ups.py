"""Answers that are cut off, do not match or pause are followed by new requests, under the same row."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from batch_assets.core.answers.follow_up_rules import FollowUpRules, TruncatedRule
from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import BusyError, ConfigError
from batch_assets.core.io.layout import SPEND
from batch_assets.core.ledger import joins, submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.status import PartitionStatus
from batch_assets.core.prices.money import PICODOLLARS, picodollars_in
from batch_assets.core.prune import prune
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.run import collect_results
from batch_assets.core.results.write import write_results
from batch_assets.core.settings import Settings
from batch_assets.core.spend.amounts import USELESS
from batch_assets.core.spend.build import build_spend
from batch_assets.core.spend.spend_table import PAID_IN_VAIN
from tests.forked import ForkServer

from ..erase.support import every_text
from ..lost_ledger import LOST, lose_ledger
from ..support import CREATE, LIST, World, environment, make_pipeline, params, texts

SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["word", "number"],
    "additionalProperties": False,
}
# Three requests are cut off with 10 tokens and with 20, and whole with 40.
SHORT = {"max_tokens": 10}
TWICE = {"truncated": {"times": 2}}


@pytest.fixture(scope="module")
def python() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def short(**more: Any) -> dict[str, Any]:
    return params(**more) | SHORT


def scripted(world: World, *kinds: str | None) -> None:
    """Decide what becomes of all requests of the next batches, in order."""
    rules = [
        {"match": CREATE | {"nth": number}, "action": {"error_mix": {kind: 1.0}}}
        for number, kind in enumerate(kinds, 1)
        if kind is not None
    ]
    world.emulator.faults(rules)


def sent(world: World) -> list[list[dict[str, Any]]]:
    """The params of the requests of each accepted batch."""
    bodies = [orjson.loads(world.sent_body(batch["id"])) for batch in world.accepted()]
    return [[request["params"] for request in body["requests"]] for body in bodies]


def responses(world: World, pipeline: Pipeline) -> pd.DataFrame:
    files = sorted(world.path(pipeline.name, "responses").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files])


def nothing_more(world: World, pipeline: Pipeline) -> None:
    before, table = len(world.accepted()), world.table(pipeline)
    world.run(pipeline)
    assert len(world.accepted()) == before
    pd.testing.assert_frame_equal(world.table(pipeline), table)


def test_an_answer_that_was_cut_off_is_asked_again_with_more_tokens(world: World) -> None:
    rows = texts(3) | {"same": "the text of row 0"}
    pipeline = world.pipeline(rows, params=short(), retry=TWICE)
    table = world.run(pipeline).set_index("id")
    assert [[one["max_tokens"] for one in batch] for batch in sent(world)] == [[10] * 3, [20] * 3, [40] * 3]
    assert list(table["stop_reason"]) == ["end_turn"] * 4
    assert table.loc["same", "shared_with"] == "row-0"
    assert list(table["attempts"]) == [3] * 4
    stored = responses(world, pipeline)
    assert len(stored) == 9  # the answers before it stay as they came
    assert set(table["custom_id"]) <= set(stored["custom_id"])
    assert len(set(stored["custom_id"])) == 9
    for name in ("input_tokens", "output_tokens"):
        assert table[name].sum() == stored[name].sum()
    costs = pa.chunked_array([pa.array(table["cost_usd"].dropna())])
    assert picodollars_in(costs) == picodollars_in(pa.chunked_array([pa.array(stored["cost_usd"])]))
    nothing_more(world, pipeline)


def test_follow_ups_count_in_the_budget_of_their_run(world: World) -> None:
    """All of the chain counts, and what does not fit into what is left of the cap is held."""
    settled = "select coalesce(sum(worst), 0), count(*) from reservation where submission_id = :run"
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE, budget={"max_usd": 1, "per": "run"})
    record_caps(world.root, [pipeline])
    table = world.run(pipeline)
    ((run,),) = world.query("select id from submission")
    ((counted, files),) = world.query(settled, run=run)
    assert files == len(world.accepted()) == 3 and list(table["attempts"]) == [3, 3]
    assert counted == picodollars_in(pa.chunked_array([pa.array(table["cost_usd"])])), "all of the chain"
    other = world.pipeline(
        texts(2, "other"), name="other", params=short(), retry=TWICE, budget={"max_usd": 0.00003, "per": "run"}
    )
    record_caps(world.root, [other])
    world.send(other)
    world.collect(other)
    ((run,),) = world.query("select id from submission where pipeline = 'other'")
    world.query("update reservation set worst = 29000000 where submission_id = :run", run=run)
    assert world.submit(other, unattended=True).waiting
    assert len(world.accepted()) == 4 and "held" in world.states(other)
    assert world.query(settled, run=run) == [(29_000_000, 1)]


def test_a_row_waits_for_the_end_of_its_chain(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.send(pipeline)
    done = world.collect(pipeline)
    assert done.results is not None and not done.results.final
    assert (done.results.ask_again, done.results.counts) == (2, {"pending": 2})
    table = world.table(pipeline)
    assert table["response_text"].isna().all() and table["cost_usd"].isna().all()
    assert world.submit(pipeline, unattended=True).planned_again == 2
    with world.root.ledger.write() as tx:
        joins.join_again(tx, done.results.submission_id)
    again = write_results(world.root, pipeline.name)
    assert again is not None and (again.ask_again, again.counts) == (0, {"pending": 2})


def test_the_counts_of_rows_and_requests_add_up_while_answers_are_followed(world: World) -> None:
    """No row counts as two things, and no request as answered whose row still waits for the end of its chain."""
    kinds = ("malformed", "max_tokens", "pause_turn", "expired", "overloaded_error", "permission_error", "refusal")
    mix = {"match": CREATE | {"times": 3}, "action": {"error_mix": dict.fromkeys(kinds, 0.11)}}
    world.emulator.faults([mix])
    rows = texts(40) | {"same": "the text of row 0"}
    rules = {"invalid": 1, "truncated": {"times": 1, "max_tokens": 200}, "paused": 1}
    pipeline = world.pipeline(rows, output_schema=SCHEMA, retry=rules)
    world.send(pipeline)
    seen, was_final = set[str](), False
    while not was_final:
        report = world.collect(pipeline).results
        assert report is not None
        table, status = world.table(pipeline), status_of(world, pipeline)
        seen |= {kind for kind, number in report.counts.items() if number}
        assert report.counts == table["result_type"].value_counts().to_dict() == status.results
        assert status.done == sum(table["result_type"] != "pending")
        answers = table[table["result_type"] == "succeeded"]
        requests = answers["shared_with"].isna().sum()
        assert requests <= status.answered <= len(answers)
        assert report.invalid_outputs == (answers["error_type"] == "invalid_output").sum()
        stopped = answers["stop_reason"].isin(["max_tokens", "pause_turn"])
        assert (report.truncated, report.refused_answers) == (
            sum(stopped),
            sum(answers["stop_reason"] == "refusal"),
        )
        world.submit(pipeline, unattended=True)
        assert status_of(world, pipeline).answered == requests, "what is asked again is no answer"
        was_final = report.final
    assert seen >= {"pending", "succeeded"}
    lose_ledger(world)
    assert status_of(world, pipeline).answered == requests


def status_of(world: World, pipeline: Pipeline) -> PartitionStatus:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        return PartitionStatus.of(Snapshot.of(tx, newest))


def test_a_chain_ends_where_its_limit_or_the_model_ends_it(world: World) -> None:
    once = {"truncated": {"times": 1, "max_tokens": 20}}
    pipeline = world.pipeline(texts(2), params=short(), retry=once)
    table = world.run(pipeline)
    assert list(table["stop_reason"]) == ["max_tokens"] * 2
    done = world.collect(pipeline)
    assert done.results is not None and done.results.truncated == 2  # what max_invalid counts
    again = world.pipeline(params=short(), retry={"truncated": {"times": 9, "max_tokens": 20}})
    nothing_more(world, again)  # 20 tokens were not enough
    assert len(world.accepted()) == 2


def test_more_tokens_than_the_model_can_write_are_not_asked_for() -> None:
    doubled, fixed = TruncatedRule(), TruncatedRule(max_tokens=5000)
    assert [doubled.raised(1000, 1500), doubled.raised(1500, 1500), doubled.raised(7, None)] == [1500, None, 14]
    assert [fixed.raised(4000, 64_000), fixed.raised(5000, 64_000), fixed.raised(100, 2000)] == [5000, None, 2000]
    columns = {
        "stop_reason": pa.array(["max_tokens"] * 3),
        "error_type": pa.nulls(3, pa.string()),
        "output_tokens": pa.array([100, 64_000, None], pa.int64()),
        "response_model": pa.array(["claude-haiku-4-5"] * 3),
        "response_json": pa.nulls(3, pa.string()),
    }
    rules, counts = FollowUpRules(truncated=doubled), pd.DataFrame([[0] * 3] * 3).to_numpy("int8")
    own = np.zeros(3, bool)
    assert rules.kinds(columns, counts, lambda model: 64_000, own).tolist() == [1, -1, 1]


def test_an_answer_that_does_not_match_is_asked_again_with_what_is_wrong(world: World) -> None:
    pipeline = world.pipeline(texts(3), output_schema=SCHEMA, retry={"invalid": 1})
    scripted(world, "malformed")
    table = world.run(pipeline)
    assert table["word"].notna().all() and table["error_type"].isna().all()
    first, second = sent(world)
    answers = {one["custom_id"][-22:]: one for one in responses(world, pipeline).to_dict("records")}
    assert len(answers) == 3
    for before, after in zip(first, second, strict=True):
        question, answer, correction = after["messages"]
        assert [question] == before["messages"]
        assert after | {"messages": []} == before | {"messages": []}
        assert (answer["role"], correction["role"]) == ("assistant", "user")
        assert "the answer is not valid JSON" in correction["content"][0]["text"]
    nothing_more(world, pipeline)


def test_a_tool_call_that_does_not_match_gets_a_result(world: World) -> None:
    tool = {"name": "rate", "input_schema": SCHEMA}
    asked = params(tools=[tool], tool_choice={"type": "tool", "name": "rate"})
    pipeline = world.pipeline(texts(1), params=asked, retry={"invalid": 1})
    scripted(world, "malformed")
    assert world.run(pipeline)["word"].notna().all()
    _, answer, correction = sent(world)[1][0]["messages"]
    call, result = answer["content"][-1], correction["content"][0]
    assert (call["type"], result["type"]) == ("tool_use", "tool_result")
    assert call["id"] == result["tool_use_id"] and result["is_error"]


def test_the_last_of_the_chain_counts_as_invalid(world: World) -> None:
    pipeline = world.pipeline(texts(2), output_schema=SCHEMA, retry={"invalid": 1})
    scripted(world, "malformed", "malformed")
    table = world.run(pipeline)
    assert list(table["error_type"]) == ["invalid_output"] * 2
    done = world.collect(pipeline).results
    assert done is not None and done.invalid_outputs == 2
    assert list(table["attempts"]) == [2, 2]
    nothing_more(world, pipeline)


def test_code_of_the_pipeline_decides_what_is_invalid(world: World) -> None:
    def parse(message: dict[str, Any]) -> dict[str, Any]:
        if not re.search(r"to text \w+: .{80}", message["content"][0]["text"]):
            raise ValueError("too short")
        return {"long": message["content"][0]["text"]}

    hooks = Hooks(parse_message=parse, output_columns=pa.schema([("long", pa.string())]))
    pipeline = world.pipeline({"a": "y" * 100}, retry={"invalid": 1}, hooks=hooks)
    scripted(world, "malformed")
    world.send(pipeline)
    world.collect(pipeline)
    submit_batches(world.root, pipeline.name, unattended=True, own_answers=pipeline.own_answers)
    assert world.finish(pipeline).results is not None
    assert world.table(pipeline)["long"].notna().all()
    assert "parse_message: too short" in sent(world)[1][0]["messages"][-1]["content"][0]["text"]


def test_a_paused_turn_goes_on_with_what_the_model_wrote(world: World) -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
    asked = params(model="claude-haiku-4-5") | thinking
    pipeline = world.pipeline(texts(2), params=asked, retry={"paused": 5})
    scripted(world, "pause_turn", "pause_turn")
    table = world.run(pipeline)
    assert list(table["stop_reason"]) == ["end_turn"] * 2
    stored = responses(world, pipeline)
    contents = [orjson.loads(one)["content"] for one in stored["response_json"]]
    for last in sent(world)[2]:
        assert [message["role"] for message in last["messages"]] == ["user", "assistant", "assistant"]
        assert all(message["content"] in contents for message in last["messages"][1:])
        assert last["messages"][1]["content"][0]["signature"]
    assert list(table["attempts"]) == [3, 3]


def test_a_turn_that_pauses_too_often_stays_paused(world: World) -> None:
    pipeline = world.pipeline(texts(1), retry={"paused": 2})
    scripted(world, *["pause_turn"] * 3)
    table = world.run(pipeline)
    assert list(table["stop_reason"]) == ["pause_turn"] and list(table["attempts"]) == [3]
    nothing_more(world, pipeline)


def test_follow_ups_are_retried_and_given_up_like_any_request(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE | {"max_attempts": 2})
    scripted(world, None, "overloaded_error", None, "permission_error")
    table = world.run(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 2, 2, 2]
    assert sent(world)[1] == sent(world)[2]
    assert list(table["result_type"]) == ["succeeded"] * 2  # the answer so far is better than none
    assert list(table["stop_reason"]) == ["max_tokens"] * 2
    assert list(table["attempts"]) == [4, 4]
    nothing_more(world, pipeline)


@pytest.mark.parametrize("is_new", [False, True], ids=["the same rows", "more rows"])
def test_a_chain_whose_follow_up_was_canceled_goes_on_with_the_next_run(world: World, is_new: bool) -> None:
    """As a canceled first request is sent by it. A run that was canceled itself sends nothing."""
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.send(pipeline)
    world.collect(pipeline)
    world.emulator.settings(latency=1000.0)
    world.submit(pipeline, unattended=True)
    cancel(world.root, "asked")
    world.emulator.settings(latency=0.0)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["stop_reason"]) == ["max_tokens"] * 2
    assert world.submit(pipeline).planned_again == 0
    if is_new:
        pipeline = world.pipeline(texts(2) | texts(1, "new"), params=short(), retry=TWICE)
    assert set(world.run(pipeline)["stop_reason"]) == {"end_turn"}
    assert sum(map(len, sent(world))) == 2 + 2 + 2 * 2 + 3 * is_new
    nothing_more(world, pipeline)


def test_without_the_field_nothing_is_asked_again_and_with_it_later_the_chain_goes_on(world: World) -> None:
    plain = world.pipeline(texts(2), params=short())
    assert list(world.run(plain)["stop_reason"]) == ["max_tokens"] * 2
    assert len(world.accepted()) == 1
    on = world.pipeline(params=short(), retry=TWICE)
    report = world.build(on)
    assert (report.written, report.reused) == (0, 2)
    world.submit(on)
    assert list(world.finish(on).results.counts) == ["succeeded"]  # type: ignore[union-attr]
    whole = world.table(on)
    assert list(whole["stop_reason"]) == ["end_turn"] * 2
    nothing_more(world, plain)
    assert len(world.accepted()) == 3
    edited = world.pipeline(params=short(system="Be brief."), retry=TWICE)
    world.run(edited)
    assert len(world.accepted()) == 6
    pd.testing.assert_frame_equal(world.run(world.pipeline(params=short(), retry=TWICE)), whole)
    assert len(world.accepted()) == 6  # the prompt from before has its chain


def test_partitions_share_a_chain(world: World) -> None:
    for key in ("a", "b"):
        (world.folder / f"{key}.jsonl").write_bytes(orjson.dumps({"id": "one", "text": "a text"}) + b"\n")
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"static": ["a", "b"]}, params=short(), retry=TWICE)
    for key in ("a", "b"):
        world.send(pipeline, key)
    for key in ("a", "b"):
        world.collect(pipeline, key)
    assert [world.submit(pipeline, key, unattended=True).planned_again for key in ("a", "b")] == [1, 0]
    for key in ("a", "b", "a"):
        world.finish(pipeline, key)
    assert [len(batch) for batch in sent(world)] == [1, 1, 1]
    tables = [pd.read_parquet(path) for path in sorted(world.path(pipeline.name, "results").rglob("*.parquet"))]
    assert [list(table["stop_reason"]) for table in tables] == [["end_turn"]] * 2


def test_a_refresh_has_a_chain_of_its_own(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    before = world.run(pipeline)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2] * 6
    table = world.table(pipeline)
    assert (table["batch_id"] != before["batch_id"]).all()
    assert list(table["attempts"]) == [3, 3] and list(table["cost_usd"]) == list(before["cost_usd"])
    nothing_more(world, pipeline)


def test_a_refresh_does_not_take_the_end_of_older_chains_for_its_answers(world: World) -> None:
    """It waits for follow-ups in flight, and sends all rows then. Those of its own hold nothing up."""
    world.run(world.pipeline(texts(2), params=short()))
    pipeline = world.pipeline(params=short(), retry=TWICE)
    world.send(pipeline)
    world.collect(pipeline)
    world.emulator.settings(latency=1000.0)
    assert world.submit(pipeline, unattended=True).planned_again == 2
    with pytest.raises(
        BusyError, match=r"the 2 follow-ups in .*part-00000\.jsonl, which carry on from answers of b"
    ):
        world.build(pipeline, refresh=True)
    world.emulator.settings(latency=0.0)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert world.build(pipeline, refresh=True).written == 2
    world.submit(pipeline)
    world.collect(pipeline)
    world.emulator.settings(latency=1000.0)
    assert world.submit(pipeline, unattended=True).planned_again == 2
    more = world.pipeline(texts(3), params=short(), retry=TWICE)
    report = world.build(more, refresh=True)
    assert (report.written, report.in_flight) == (1, 2)
    world.emulator.settings(latency=0.0)
    world.emulator.end_batches()
    world.submit(more)
    world.finish(more)
    assert list(world.table(more)["stop_reason"]) == ["end_turn"] * 3
    nothing_more(world, more)


def test_a_later_submission_follows_the_answers_of_a_refresh(world: World) -> None:
    plain = world.pipeline(texts(2), params=short())
    world.run(plain)
    world.build(plain, refresh=True)
    world.submit(plain)
    world.finish(plain)
    on = world.pipeline(params=short(), retry=TWICE)
    world.run(on)
    assert [len(batch) for batch in sent(world)] == [2] * 4
    nothing_more(world, on)


def test_a_chain_is_found_by_the_index_of_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history is not read, but looked up in the ledger."""
    for module in ("pipeline_outcomes", "in_flight"):
        monkeypatch.setattr(f"batch_assets.core.store.{module}.is_read_whole", lambda files, *_: files == 0)
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    table = world.run(pipeline)
    assert [len(batch) for batch in sent(world)] == [2] * 3
    assert list(table["attempts"]) == [3, 3] and list(table["stop_reason"]) == ["end_turn"] * 2
    stored = responses(world, pipeline)
    assert table["output_tokens"].sum() == stored["output_tokens"].sum()
    nothing_more(world, pipeline)


def test_the_spend_table_has_every_answer_and_none_as_superseded(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.run(pipeline)
    build_spend(world.root)
    spend = pd.read_parquet(world.path(*SPEND))
    assert spend["requests"].sum() == 6
    assert float(spend["superseded_usd"].sum()) == 0
    assert float(spend["truncated_usd"].sum()) > 0
    first = spend["cost_usd"].sum()
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.finish(pipeline)
    build_spend(world.root)
    spend = pd.read_parquet(world.path(*SPEND))
    assert (spend["cost_usd"].sum(), spend["superseded_usd"].sum()) == (2 * first, first)
    assert spend["paid_twice_usd"].sum() == 0


def test_a_plan_expects_the_follow_ups_that_earlier_rows_had(world: World) -> None:
    pipeline = world.pipeline(texts(4), params=short(), retry=TWICE)
    world.send(pipeline)
    world.collect(pipeline)
    more = world.pipeline(texts(20), params=short(), retry=TWICE)
    before = plan_requests(world.root, more, "", NOTHING_AGAIN).estimate
    pipeline = world.pipeline(texts(4), params=short(), retry=TWICE)
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert len(responses(world, pipeline)) == 12
    more = world.pipeline(texts(20), params=short(), retry=TWICE)
    after = plan_requests(world.root, more, "", NOTHING_AGAIN).estimate
    assert before is not None and after is not None
    assert before.exclusions == ["without the follow-ups still to come of 4 of these answers"]
    assert before.unbounded and not after.unbounded and not after.exclusions
    assert "from 4 answers to this prompt with their follow-ups" in after.as_text
    assert before.batch is not None and after.batch is not None
    cost = round(responses(world, pipeline)["cost_usd"].sum() * PICODOLLARS)
    assert before.batch.high < 4 * cost < after.batch.high
    single = world.pipeline(texts(20), params=short())
    first = plan_requests(world.root, single, "", NOTHING_AGAIN).estimate
    more = world.pipeline(texts(20), params=short(), retry=TWICE)
    assert first is not None and first.batch is not None
    assert first.batch.expected == before.batch.expected, "who has nothing asked again pays for first requests"
    world.run(more)
    actual = round(responses(world, pipeline)["cost_usd"].sum() * PICODOLLARS) - cost
    assert after.batch.low <= actual <= after.batch.high


def test_a_plan_without_answers_bounds_follow_ups_or_is_held(world: World) -> None:
    """The upper end is that of chains as long as `retry` allows; that of pauses is not known."""
    rows, schema = texts(20), {"output_schema": SCHEMA}
    single = world.pipeline(rows, params=short(), **schema)
    chained = world.pipeline(rows, params=short(), retry={**TWICE, "invalid": 1}, **schema)
    plans = [plan_requests(world.root, each, "", AskAgain()).estimate for each in (single, chained)]
    ranges = [plan.batch for plan in plans if plan is not None and plan.batch is not None]
    assert ranges[0].low == ranges[1].low and ranges[1].high > 4 * ranges[0].high
    assert plans[1] is not None and not plans[1].unbounded
    assert plans[1].exclusions == ["follow-ups only in the upper end, up to 3 for each request"]
    search = params(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}])
    paused = world.pipeline(rows, params=search, retry={"paused": 5}, confirm_above=1000)
    held = world.build(paused).why_held
    assert (
        held == "what its follow-ups cost is not known before some are answered, and confirm_above is $1,000.0000"
    )
    unknown = world.pipeline(texts(20), params=search | params("Edited: {{ text }}"), retry={**TWICE, "paused": 5})
    edited = plan_requests(world.root, unknown, "", AskAgain(limit=5))
    assert edited.report.rest is not None and edited.estimate is not None
    for estimate in (edited.report.rest, edited.estimate):
        assert estimate.exclusions[0] == "without follow-ups, of which `retry` allows up to 7 for each request"


def test_each_answer_of_a_chain_was_paid_in_vain_once(world: World) -> None:
    """The first answers are cut off, and their follow-ups do not match: that was all."""
    retry = {"truncated": {"times": 1, "max_tokens": 200}}
    pipeline = world.pipeline(texts(2), params=short(), output_schema=SCHEMA, retry=retry)
    scripted(world, None, "malformed")
    world.run(pipeline)
    build_spend(world.root)
    spend = pd.read_parquet(world.path(*SPEND))
    assert spend["truncated_usd"].sum() > 0 and spend["invalid_usd"].sum() > 0
    assert spend["truncated_usd"].sum() + spend["invalid_usd"].sum() == spend["cost_usd"].sum()


def test_what_a_follow_up_continued_is_no_waste_and_what_it_replaced_is(world: World) -> None:
    rules = {"paused": 1, "invalid": 1}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    pipeline = world.pipeline(texts(2), params=params(tools=[search]), output_schema=SCHEMA, retry=rules)
    scripted(world, "pause_turn", "malformed")
    assert world.run(pipeline)["is_ok"].all()
    paused, malformed, whole = responses(world, pipeline).groupby("attempts")["cost_usd"].sum()
    build_spend(world.root)
    spend = pd.read_parquet(world.path(*SPEND)).astype(dict.fromkeys((*PAID_IN_VAIN, "cost_usd"), float))
    assert spend["cost_usd"].sum() == pytest.approx(paused + malformed + whole)
    assert spend["invalid_usd"].sum() == pytest.approx(malformed)
    assert spend[list(PAID_IN_VAIN)].sum().sum() == pytest.approx(malformed)
    kept = pd.read_parquet(world.path(*SPEND))
    prune(world.root, "asked", 0.0, is_dry=False, in_force=True)
    build_spend(world.root)
    assert pd.read_parquet(world.path(*SPEND))[list(USELESS)].equals(kept[list(USELESS)])


@pytest.mark.parametrize("is_erased", [False, True], ids=["pruned", "erased"])
def test_what_was_paid_for_a_chain_in_vain_is_the_same_without_its_answers(world: World, is_erased: bool) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.run(pipeline)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.finish(pipeline)
    build_spend(world.root)
    before = pd.read_parquet(world.path(*SPEND))
    for in_force in (False, True):
        if is_erased:
            assert erase(world.root, "asked", [f"row-{int(in_force)}"]).is_complete
        else:
            prune(world.root, "asked", 0.0, is_dry=False, in_force=in_force)
        build_spend(world.root)
        after = pd.read_parquet(world.path(*SPEND))
        for name in USELESS:
            assert after[name].sum() == before[name].sum()


@pytest.mark.parametrize("collected", [1, 2])
def test_without_its_ledger_a_chain_is_found_again(world: World, collected: int) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.send(pipeline)
    for _ in range(collected):
        world.collect(pipeline)
        world.submit(pipeline, unattended=True)
    lose_ledger(world)
    world.submit(pipeline)
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 2, 2]
    assert list(world.table(pipeline)["attempts"]) == [3, 3]
    nothing_more(world, pipeline)


@pytest.mark.usefixtures("prompt_retries")
def test_a_follow_up_in_doubt_is_found_again_without_the_ledger(world: World) -> None:
    """It was accepted, and the reply, the receipt and the ledger were lost."""
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    world.send(pipeline)
    world.collect(pipeline)
    world.emulator.faults([LOST, {"match": LIST | {"after": 1}, "action": {"status": 500}}])
    world.submit(pipeline, unattended=True)
    assert len(world.accepted()) == 2
    lose_ledger(world)
    world.emulator.reset_faults()
    world.submit(pipeline)
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 2, 2]


def test_a_lost_text_is_reported_and_the_answer_stays(world: World) -> None:
    plain = world.pipeline(texts(2), params=short())
    report = world.build(plain)
    world.submit(plain)
    world.finish(plain)
    (world.submission_folder(plain, report) / "part-00000.jsonl").unlink()
    on = world.pipeline(params=short(), retry=TWICE)
    world.send(on)
    world.collect(on)
    waiting = world.submit(on, unattended=True).waiting["retries"]
    assert "is gone" in waiting and "2 requests whose answer is to be asked again" in waiting
    assert list(world.run(plain)["stop_reason"]) == ["max_tokens"] * 2
    assert len(world.accepted()) == 1


def test_request_files_stay_as_long_as_follow_ups_are_made_of_them(world: World) -> None:
    world.run(world.pipeline(texts(2), params=short()))
    pipeline = world.pipeline(params=short(), retry=TWICE)
    world.send(pipeline)
    world.collect(pipeline)
    apply_retention(world.root, pipeline.name, RetentionConfig(request_files_days=0))
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert list(world.table(pipeline)["stop_reason"]) == ["end_turn"] * 2
    apply_retention(world.root, pipeline.name, RetentionConfig(request_files_days=0))
    assert not list(world.path(pipeline.name, "requests").rglob("part-*.jsonl"))


def test_pruned_answers_are_asked_again_with_their_chains(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=short(), retry=TWICE)
    before = world.run(pipeline)
    world.emulator.clock(advance=10)
    report = prune(world.root, pipeline.name, 0, is_dry=False)
    assert (report.answers, report.kept) == (0, 6)  # the table has the sums
    report = prune(world.root, pipeline.name, 0, in_force=True, is_dry=False)
    assert (report.answers, report.again) == (6, 2)
    assert report.picodollars == picodollars_in(pa.chunked_array([pa.array(before["cost_usd"])]))
    table = world.run(pipeline)
    assert [len(batch) for batch in sent(world)] == [2] * 6
    assert list(table["stop_reason"]) == ["end_turn"] * 2
    assert list(table["cost_usd"]) == list(before["cost_usd"])


def test_nothing_is_left_of_an_erased_row_with_a_chain(world: World) -> None:
    rows = {"gone-1": "a secret alone", "gone-2": "a shared secret", "stays": "a shared secret"}
    pipeline = world.pipeline(rows, params=short(), retry=TWICE)
    before = world.run(pipeline)
    digest = before.loc[before["id"] == "gone-1", "custom_id"].item()[-22:]
    report = erase(world.root, pipeline.name, ["gone-1", "gone-2"])
    assert report.is_complete, list(report.open_ends())
    everything = every_text(world.path())
    for text in ("gone-1", "gone-2", "a secret alone", digest):
        assert text not in everything
    table = world.table(pipeline)
    assert list(table["id"]) == ["stays"] and list(table["attempts"]) == [3]
    assert table["custom_id"].item().startswith("stays____-020")
    nothing_more(world, world.pipeline({"stays": "a shared secret"}, params=short(), retry=TWICE))


def test_a_rule_that_nothing_can_meet_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match=r"retry.invalid.*any text is a valid answer"):
        world.pipeline(texts(1), retry={"invalid": 1})
    for wrong in (
        {"paused": 10},
        {"invalid": -1},
        {"truncated": {"max_tokens": "x3"}},
        {"truncated": {"times": 0}},
    ):
        with pytest.raises(ConfigError, match="retry"):
            world.pipeline(retry=wrong)


def run_in_a_process(folder: str, variables: dict[str, str]) -> None:
    """Do what `batch-assets run` does, in a process that is killed."""
    root = open_root(Settings.from_env(variables))
    dataset = {"path": "rows.jsonl", "key": "id"}
    pipeline = make_pipeline(Path(folder), dataset, params=short(), retry=TWICE)
    with root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    if newest is None or newest.final_at is None:
        build_requests(root, pipeline)
    submit_batches(root, pipeline.name)
    while True:
        poll(root, now=True)
        done = collect_results(root, pipeline.name).results
        if done is not None and done.final:
            return
        submit_batches(root, pipeline.name, unattended=True)


def test_killed_anywhere_a_chain_goes_on_and_nothing_is_paid_twice(
    new_world: Callable[..., World], python: ForkServer
) -> None:
    def prepare(world: World, rows: dict[str, str]) -> Pipeline:
        return world.pipeline(rows, params=short(), retry=TWICE)

    kill_anywhere(new_world, python, f"{__name__}:run_in_a_process", prepare, step=500)


def kill_anywhere(
    new_world: Callable[..., World],
    python: ForkServer,
    work: str,
    prepare: Callable[[World, dict[str, str]], Pipeline],
    *,
    step: int,
) -> None:
    """Kill a run of two chains of two follow-ups at random positions, and repeat it: each answer is followed once.

    Args:
        work: The function that runs all stages in a process.
        prepare: Makes the pipeline of a world over some rows.
        step: The number of positions between two kills.
    """
    for die_at in range(random.randint(1, step), 5000, step):  # other positions in every run
        world = new_world(name=f"killed at {die_at}")
        pipeline = prepare(world, texts(2, f"row {die_at}"))
        arguments = {
            "folder": str(world.folder),
            "variables": environment(world.emulator.url, world.root.settings.root),
        }
        (outcome,) = python.run((work, arguments), die_at=die_at)
        assert outcome.killed or not outcome.error, outcome
        world.query("update lease set until = 0")
        (again,) = python.run((work, arguments))
        assert not again.error, again
        assert [batch["requests"] for batch in world.accepted()] == [2, 2, 2], die_at
        table = world.table(pipeline)
        assert list(table["attempts"]) == [3, 3] and list(table["stop_reason"]) == ["end_turn"] * 2, die_at
        if not outcome.killed:
            break
    else:
        raise AssertionError("it was killed every time: look further")
