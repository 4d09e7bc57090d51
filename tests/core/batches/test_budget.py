"""Under a budget, nothing is sent that could pass the cap; what does not fit is held and goes on by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.submit import submit_batches, submit_partitions
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.errors import ConfigError, SettingsError
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Join, NeedsUser, RaiseBudget, Send, SendReason, Wait, Waiting
from batch_assets.core.prices.budget import Budget, Hold, Period
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.settings import Settings

from ..lost_ledger import LOST, lose_ledger
from ..support import CREATE, LIST, World, params, texts

# A request of these texts can cost at most about $0.000037: 100 tokens of output are most of it.
ONE = 0.000037


def budgeted(world: World, rows: int, usd: float, per: str = "run", **more: Any) -> Pipeline:
    hold = more.pop("hold", "worst")
    pipeline = world.pipeline(texts(rows), budget={"max_usd": usd, "per": per, "hold": hold}, **more)
    record_caps(world.root, [pipeline])
    return pipeline


def counted(world: World) -> int:
    ((picodollars,),) = world.query("select coalesce(sum(worst), 0) from reservation")
    return int(picodollars)


def step_of(world: World, pipeline: Pipeline) -> Any:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        return next_step(Snapshot.of(tx, newest), put_off=(Join,))


def sent(world: World) -> int:
    return sum(batch["requests"] for batch in world.accepted())


def held(world: World) -> list[str]:
    rows = world.query("select error from request_file where state = 'held' order by id")
    return [str(row.error) for row in rows]


def test_what_fits_is_sent_and_the_rest_is_held_until_money_comes_free(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = budgeted(world, 32, 10 * ONE)
    world.send(pipeline)
    assert 5 <= sent(world) <= 10
    assert counted(world) <= 10 * ONE * PICODOLLARS
    assert held(world)
    assert held(world)[0].startswith("the budget of $0.00037 per run has $0.0")
    before = sent(world)
    world.submit(pipeline, unattended=True)
    assert sent(world) == before, "no answer has come in"
    world.emulator.end_batches()
    world.collect(pipeline)
    assert isinstance(step_of(world, pipeline), Send)
    world.submit(pipeline, unattended=True)
    assert sent(world) > before
    assert counted(world) <= 10 * ONE * PICODOLLARS


def test_a_whole_run_drips_through_a_cap_that_it_could_pass_at_once(world: World) -> None:
    pipeline = budgeted(world, 24, 12 * ONE)
    world.send(pipeline)
    assert sent(world) < 24
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 24
    assert len(world.accepted_custom_ids()) == len(set(world.accepted_custom_ids())) == 24
    assert 0 < counted(world) <= 12 * ONE * PICODOLLARS


def test_a_run_whose_money_is_gone_waits_for_a_user_and_goes_on_when_the_cap_is_raised(world: World) -> None:
    pipeline = budgeted(world, 4, 2.2 * ONE, batching={"max_requests": 2})
    world.send(pipeline)
    world.collect(pipeline)
    world.query("update reservation set worst = :all where state = 'settled'", all=int(2 * ONE * PICODOLLARS))
    assert sent(world) == 2
    step = step_of(world, pipeline)
    assert isinstance(step, NeedsUser)
    assert isinstance(step.remedy, RaiseBudget)
    assert sent(world) == 2
    raised = budgeted(world, 4, 1.0, batching={"max_requests": 2})
    assert step_of(world, raised) == Send(SendReason.AFFORDABLE, 1)
    world.finish(raised)
    assert sent(world) == 4


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_damaged_file_takes_no_money_of_those_after_it(world: World, is_missing: bool) -> None:
    """All of it in the same run. A file is announced when its upload begins, during which damage may be found."""
    pipeline = budgeted(world, 4, 0.1 * ONE, batching={"max_requests": 2})
    report = world.build(pipeline)
    announced: list[str] = []

    def submit() -> None:
        submit_batches(world.root, pipeline.name, on_file=lambda file: announced.append(file.id))

    submit()
    assert (world.states(pipeline), announced) == (["held", "held"], [])
    budgeted(world, 4, 2.2 * ONE)
    first, second = sorted(world.submission_folder(pipeline, report).glob("part-*.jsonl"))
    first.unlink() if is_missing else first.write_bytes(second.read_bytes())
    submit()
    assert world.states(pipeline) == ["refused", "submitted"]
    assert announced == [file.id for file in world.files(pipeline)[int(is_missing) :]]


def test_a_request_that_alone_is_too_dear_is_held(world: World) -> None:
    pipeline = budgeted(world, 1, 0.1 * ONE)
    report = world.send(pipeline)
    assert sent(world) == 0
    assert world.states(pipeline) == ["held"]
    (why,) = report.waiting.values()
    assert "less than" not in why
    assert re.search(r"the budget of \$0\.0000037 per run has \$0\.0000037 left, .* up to \$0\.0000", why)
    assert isinstance(step_of(world, pipeline).remedy, RaiseBudget)
    world.submit(pipeline, unattended=True)
    world.submit(pipeline)
    assert sent(world) == 0
    assert world.query("select count(*) from intent")[0][0] == 0
    budgeted(world, 1, 1.0)
    assert step_of(world, pipeline) == Send(SendReason.AFFORDABLE, 1)
    world.submit(pipeline, unattended=True)
    assert sent(world) == 1


def test_a_new_day_has_new_money(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = budgeted(world, 4, 2.2 * ONE, "day", batching={"max_requests": 2})
    world.send(pipeline)
    assert sent(world) == 2
    world.emulator.end_batches()
    world.emulator.settings(latency=3600)
    step = step_of(world, pipeline)
    assert isinstance(step, Wait)
    assert step.why is Waiting.BATCHES
    world.query("update reservation set day = day - 1")  # the next day
    assert step_of(world, pipeline) == Send(SendReason.AFFORDABLE, 1)
    world.submit(pipeline, unattended=True)
    assert sent(world) == 4


def test_a_month_sums_its_days_and_says_when_it_ends(world: World) -> None:
    pipeline = budgeted(world, 4, 2.2 * ONE, "month", batching={"max_requests": 2})
    world.send(pipeline)
    world.emulator.end_batches()
    world.collect(pipeline)
    world.query("update reservation set worst = :all, expected = :all", all=int(2.2 * ONE * PICODOLLARS))
    step = step_of(world, pipeline)
    assert isinstance(step, Wait)
    assert step.why is Waiting.BUDGET
    assert step.until is not None
    assert datetime.fromtimestamp(step.until, UTC).day == 1
    assert sent(world) == 2


def test_the_budget_of_the_root_holds_for_all_pipelines(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_BUDGET="0.000090 per day")
    world.emulator.settings(latency=3600)
    one = world.pipeline(texts(2, "a"), name="one")
    world.send(one)
    assert sent(world) == 2
    two = world.pipeline(texts(2, "b"), name="two")
    world.send(two)
    assert sent(world) == 2
    assert "the root's budget of" in held(world)[0]


def test_an_upload_whose_outcome_is_unknown_keeps_its_money(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST, {"match": {**LIST, "after": 1}, "action": {"status": 500}}])
    pipeline = budgeted(world, 4, 2.2 * ONE, batching={"max_requests": 2})
    world.send(pipeline)
    assert sent(world) == 2
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    assert sent(world) == 2
    assert counted(world) > ONE * PICODOLLARS


def test_a_retry_after_a_passing_error_reserves_again(world: World) -> None:
    """What failed cost nothing, so its money is free; what is tried again needs its own."""
    world.emulator.settings(latency=3600)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"overloaded_error": 1.0}}}])
    pipeline = budgeted(world, 4, 4.2 * ONE)
    world.send(pipeline)
    first = counted(world)
    world.emulator.end_batches()
    world.collect(pipeline)
    assert (sent(world), counted(world)) == (4, 0)
    pipeline = budgeted(world, 4, 2.2 * ONE)
    report = world.submit(pipeline, unattended=True)
    assert sent(world) == 4 + 2, "a part of what is tried again fits"
    assert first / 3 < counted(world) <= 2.2 * ONE * PICODOLLARS and report.waiting
    world.emulator.end_batches()
    world.emulator.settings(latency=0.0)
    world.finish(pipeline)
    assert sent(world) == 8 and set(world.table(pipeline)["attempts"]) == {2}
    assert 0 < counted(world) < first


def test_a_refresh_reserves_again(world: World) -> None:
    pipeline = budgeted(world, 2, 3 * ONE)
    world.run(pipeline)
    assert sent(world) == 2
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    assert sent(world) == 4, "a refresh is a run of its own"
    states = world.query("select state, count(*) from reservation group by state order by state")
    assert sum(row[1] for row in states) == 2


def test_what_was_sent_before_there_was_a_budget_counts(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.build(pipeline)
    world.query("update request_file set not_before = 9e12 where name = 'part-00001.jsonl'")
    world.submit(pipeline)
    assert sent(world) == 2
    assert counted(world) == 0
    world.query("update request_file set not_before = 0")
    pipeline = budgeted(world, 4, 2.2 * ONE, batching={"max_requests": 2})
    world.submit(pipeline)
    assert sent(world) == 2
    assert ONE * PICODOLLARS < counted(world) <= 2.2 * ONE * PICODOLLARS
    assert len(held(world)) == 1


@pytest.mark.parametrize("is_collected", [False, True])
def test_a_lost_ledger_counts_what_was_sent(new_world: Callable[..., World], is_collected: bool) -> None:
    world = new_world()
    if not is_collected:
        world.emulator.settings(latency=3600)
    pipeline = budgeted(world, 2, 2.2 * ONE, "month")
    world.send(pipeline)
    if is_collected:
        world.finish(pipeline)
    before = counted(world)
    lose_ledger(world)
    more = budgeted(world, 4, 2.2 * ONE, "month")
    world.send(more)
    if is_collected:
        assert before < counted(world) <= 2.2 * ONE * PICODOLLARS
    else:
        assert counted(world) == before
        assert sent(world) == 2


@pytest.mark.parametrize("is_resent", [False, True], ids=["being looked for", "never found"])
def test_money_of_an_upload_whose_batch_is_not_found_does_not_come_free(
    new_world: Callable[..., World], is_resent: bool
) -> None:
    grace = {"BATCH_ASSETS_RECONCILE_GRACE": "0" if is_resent else "3600"}
    world = new_world(**grace)
    pipeline = budgeted(world, 4, 4.5 * ONE, batching={"max_requests": 2})
    world.build(pipeline)
    lose_ledger(world, **grace)
    record_caps(world.root, [pipeline])
    for _ in range(2):
        world.submit(pipeline)
    assert sent(world) == 0
    step = step_of(world, pipeline)
    if not is_resent:
        assert not isinstance(step, NeedsUser), "it may still be found"
        return
    assert isinstance(step, NeedsUser)
    assert isinstance(step.remedy, RaiseBudget)
    assert "left, as $0.000144 count for uploads whose batch was never found, and this file" in held(world)[0]


def test_an_expected_cost_may_pass_the_cap(world: World) -> None:
    first = budgeted(world, 4, 8 * ONE, "month", hold="expected")
    world.run(first)
    cost = counted(world)
    world.emulator.settings(latency=3600)
    rest = 8 * ONE * PICODOLLARS - cost
    mean = cost / 4
    more = 4 + int(rest / mean) - 1
    second = budgeted(world, more, 8 * ONE, "month", hold="expected")
    world.send(second)
    assert sent(world) == more
    assert counted(world) > 8 * ONE * PICODOLLARS, "the worst case of what is in flight"


def test_a_request_without_a_bound_is_held(world: World) -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": "{{ uses }}"}
    with pytest.raises(ConfigError, match="there is no price for claude-unknown"):
        budgeted(world, 1, 1.0, params=params(model="claude-unknown"))
    with pytest.raises(ConfigError, match="nothing limits how often web_search_20250305 is used"):
        budgeted(world, 1, 1.0, params=params(tools=[{k: v for k, v in search.items() if k != "max_uses"}]))
    pipeline = budgeted(world, 1, 1.0, params=params(model="{{ text | replace('the text', 'claude') }}"))
    world.send(pipeline)
    assert sent(world) == 0
    assert "there is no price for claude of row 0" in held(world)[0]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("50 per month", Budget(50 * PICODOLLARS, Period.MONTH)),
        ("$0.5 per day, hold expected", Budget(PICODOLLARS // 2, Period.DAY, Hold.EXPECTED)),
        ("", None),
    ],
)
def test_the_budget_of_the_root_is_read(text: str, budget: Budget | None) -> None:
    assert Settings.from_env({"BATCH_ASSETS_BUDGET": text}).budget == budget


@pytest.mark.parametrize("text", ["50", "50 per run", "-1 per day", "0 per day", "much per month"])
def test_a_budget_of_the_root_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"BATCH_ASSETS_BUDGET is .*such as `50 per month`"):
        Settings.from_env({"BATCH_ASSETS_BUDGET": text})


def test_a_run_over_partitions_reads_once_which_files_they_wait_on_and_which_fit(world: World) -> None:
    statements, looks, keys = list[str](), list[tuple[int, int]](), list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    for more in (["a", "b"], ["c", "d", "e", "f"]):
        keys += more
        for key in more:
            pipeline = budgeted(world, 1, 0.1 * ONE, per="month")
            world.build(world.pipeline(texts(1, f"{key} row")), key)
        submit_partitions(world.root, pipeline.name, keys)
        assert len(held(world)) == len(keys)
        statements.clear()
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        outcomes = submit_partitions(world.root, pipeline.name, keys)
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
        assert [len(outcome.waiting) for outcome in outcomes.values() if isinstance(outcome, SubmitReport)] == [
            1 for _ in keys
        ]
        waits = [statement for statement in statements if "FROM request_file JOIN wait" in statement]
        one_by_one = [statement for statement in waits if "wait.submission_id = " in statement]
        assert len(one_by_one) <= len(keys), "only the retries of each partition are planned by themselves"
        looks.append((len(waits) - len(one_by_one), sum("FROM reservation" in each for each in statements)))
    assert looks[0] == looks[1] and min(looks[0]) > 0
