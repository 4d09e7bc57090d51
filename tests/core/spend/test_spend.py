"""The table of what was spent, compared with the emulator's own bill after every kind of history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.io.layout import SPEND, SPEND_BATCHES
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.submissions import of_pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prune import prune
from batch_assets.core.spend.amounts import CLASSES
from batch_assets.core.spend.build import SpendReader, SpendReport, build_spend
from batch_assets.core.spend.spend_table import MEANINGS, PAID_IN_VAIN, SPEND_SCHEMA, Labels, SpendTotal
from benchmarks.history import measured

from ..lost_ledger import lose_ledger
from ..support import CREATE, RESULTS, World, params, texts, write_rows

SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
    "additionalProperties": False,
}
CACHED = [{"type": "text", "text": "Be brief. " * 1000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


def bill(world: World) -> dict[str, int]:
    """What the emulator charges for the batches of this world, by batch id."""
    ours = {entry["id"] for entry in world.accepted()}
    return {entry["id"]: entry["picodollars"] for entry in world.emulator.bill()["batches"] if entry["id"] in ours}


def spent(world: World, **more: Any) -> pd.DataFrame:
    """Write the table, check its sums, and return it."""
    build_spend(world.root, **more)
    table = pq.read_table(world.path(*SPEND))
    assert table.schema == SPEND_SCHEMA
    frame: pd.DataFrame = table.to_pandas()
    split = frame[[*CLASSES, "unsplit_usd"]].sum(axis=1)
    assert (split == frame["cost_usd"]).all(), "the classes add up to the cost"
    return frame


def audit(world: World) -> pd.DataFrame:
    """Check the table against the bill: each batch, whose answers are stored, to the picodollar."""
    frame = spent(world)
    batches = pd.read_parquet(world.path(*SPEND_BATCHES))
    costs = {batch_id: sum(of["cost_usd"]) for batch_id, of in batches.groupby("batch_id")}
    high = {batch_id: sum(of["high_usd"]) for batch_id, of in batches.groupby("batch_id")}
    unknown = set(batches.loc[batches["kind"] == "unknown", "batch_id"])
    for batch_id, amount in bill(world).items():
        billed = Decimal(amount) / PICODOLLARS
        if batch_id in unknown:
            assert costs[batch_id] <= billed <= high[batch_id]
        else:
            assert billed == costs[batch_id], batch_id
    assert sum(frame["cost_usd"]) == sum(costs.values())
    return frame


def cost_of(frame: pd.DataFrame, column: str = "cost_usd") -> Decimal:
    return sum(frame[column], Decimal(0))


def test_one_run(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 4})
    table = world.run(pipeline)
    frame = audit(world)
    (row,) = frame.to_dict("records")
    assert (row["pipeline"], row["model"], row["service_tier"], row["kind"]) == (
        pipeline.name,
        "claude-haiku-5-5",
        "batch",
        "known",
    )
    assert row["day"] == table["ended_at"].iloc[0].date()
    assert (row["requests"], row["answers"], row["rows"]) == (6, 6, 6)
    assert row["input_tokens"] == table["input_tokens"].sum()
    assert row["saved_batch_usd"] == row["cost_usd"] == row["high_usd"] > 0
    assert row["usd_per_1000_rows"] == pytest.approx(row["cost_usd"] * 1000 / 6, abs=Decimal("1e-12"))
    assert row["estimated_low_usd"] < row["cost_usd"] < row["estimated_high_usd"], "once for all batches"
    assert pd.isna(row["partition"]) and pd.isna(row["workspace"])
    world.query("update intent set key_hash = 'f00d1234beef'")
    assert list(spent(world)["workspace"]) == ["f00d1234"], "the API does not name it, the key is a sign of it"


def test_caching_is_split_and_can_cost_more_than_it_saves(world: World) -> None:
    pipeline = world.pipeline(texts(3), params=params(system=CACHED))
    world.run(pipeline)
    (row,) = audit(world).to_dict("records")
    assert row["cache_write_1h_tokens"] > 3 * 3000 and row["cache_write_5m_tokens"] == 0
    assert row["cache_write_1h_usd"] > 0 and row["unsplit_usd"] == 0
    # Written for twice the price of fresh input and never read.
    assert row["saved_cache_usd"] == -row["cache_write_1h_usd"] / 2


def test_a_refresh_and_an_edited_prompt(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    world.run(pipeline)
    first = cost_of(spent(world))
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.finish(pipeline)
    frame = audit(world)
    assert cost_of(frame) == 2 * first and cost_of(frame, "superseded_usd") == first
    with world.root.ledger.read() as tx:
        of_runs = [
            orjson.loads(submission.estimate or "")["batch"] for submission in of_pipeline(tx, pipeline.name)
        ]
    assert cost_of(frame, "estimated_high_usd") * PICODOLLARS == sum(batch["high"] for batch in of_runs)
    world.run(world.pipeline(params=params("Shortly: {{ text }}")))
    frame = audit(world)
    assert cost_of(frame, "superseded_usd") == first, "an edited prompt has other requests"
    assert cost_of(frame) > 2 * first
    assert frame["rows"].sum() == 4, "only the rows of the table as it is"


def test_rows_that_share_an_answer_and_rows_that_keep_theirs(world: World) -> None:
    rows = {"a": "one", "b": "one", "c": "two"}
    pipeline = world.pipeline(rows)
    world.run(pipeline)
    answers = pd.read_parquet(next(world.path(pipeline.name, "responses").glob("*.parquet")))
    costs = sorted(Decimal(round(cost * PICODOLLARS)) / PICODOLLARS for cost in answers["cost_usd"])
    (row,) = audit(world).to_dict("records")
    assert (row["requests"], row["rows"]) == (2, 3)
    assert row["saved_reuse_usd"] in costs
    world.run(world.pipeline(rows | {"d": "three"}))
    frame = audit(world)
    assert cost_of(frame, "saved_reuse_usd") == row["saved_reuse_usd"] + sum(costs), "none was asked again"


def test_the_answers_of_another_partition_do_not_count_as_saved(world: World) -> None:
    for key in "ab":
        write_rows(world.folder / f"{key}.jsonl", texts(3))
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"static": ["a", "b"]})
    for key in "ab":
        world.send(pipeline, key)
        world.finish(pipeline, key)
    frame = audit(world)
    assert (frame["requests"].sum(), frame["rows"].sum()) == (3, 6)
    assert cost_of(frame, "saved_reuse_usd") == 0


def test_failures_cost_nothing_and_what_no_row_can_use_is_named(world: World) -> None:
    mix = {"overloaded_error": 0.25, "refusal": 0.25, "max_tokens": 0.25, "first": 1}
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": mix}}])
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    pipeline = world.pipeline(texts(24), output_schema=schema)
    table = world.run(pipeline)
    frame = audit(world)
    assert frame["requests"].sum() > frame["answers"].sum() == 24
    assert frame.loc[frame["model"].isna(), "cost_usd"].sum() == 0
    is_cut = table["stop_reason"] == "max_tokens"
    cut = sum(Decimal(round(cost * PICODOLLARS)) for cost in table.loc[is_cut, "cost_usd"])
    assert cost_of(frame, "truncated_usd") * PICODOLLARS == cut > 0
    assert cost_of(frame, "invalid_usd") == 0, "each answer counts once"
    assert sum(cost_of(frame, name) for name in PAID_IN_VAIN) == cost_of(frame, "truncated_usd")


def test_a_canceled_batch_is_paid_as_far_as_it_was_answered(world: World) -> None:
    world.emulator.clock(frozen=True)
    world.emulator.settings(latency=100.0)
    pipeline = world.pipeline(texts(10))
    world.send(pipeline)
    world.emulator.clock(advance=50)
    frame = audit(world)
    assert list(frame["kind"]) == ["unknown"] and cost_of(frame) == 0 < cost_of(frame, "high_usd")
    cancel(world.root, pipeline.name)
    world.emulator.clock(advance=100)
    world.collect(pipeline)
    frame = audit(world)
    assert set(frame["kind"]) == {"known"} and frame["answers"].sum() == 5 and cost_of(frame) > 0


@pytest.mark.parametrize("deleted", [False, True])
def test_answers_that_are_never_served_are_unknown(world: World, deleted: bool) -> None:
    """The API deletes the batch, or serves only some of its lines, again and again."""
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    (batch_id,) = bill(world)
    if deleted:
        poll(world.root, now=True)
        world.emulator.archive_batches(batch_id)
    else:
        world.emulator.faults([{"match": RESULTS, "action": {"lines": {"missing": 2}}}])
        for _ in range(3):
            world.collect(pipeline)
        world.query("update batch set failing_since = failing_since - 4000")
    world.collect(pipeline)
    frame = audit(world)
    (unknown,) = frame[frame["kind"] == "unknown"].to_dict("records")
    assert unknown["requests"] == (6 if deleted else 2)
    total = SpendTotal.of(build_spend(world.root).rows)
    assert total.most is not None and total.cost < sum(bill(world).values()) <= total.most
    assert total.unknown_requests == unknown["requests"]


def test_a_lost_reply_is_unknown_until_its_batch_is_found(world: World) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"drop": "after_commit"}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    total = SpendTotal.of(build_spend(world.root).rows)
    assert total.unknown_requests == 3 and total.cost == 0 and (total.most or 0) >= sum(bill(world).values()) > 0
    world.emulator.reset_faults()
    world.finish(pipeline)
    assert set(audit(world)["kind"]) == {"known"}


def test_erased_rows_and_a_lost_ledger_change_nothing_of_what_was_paid(world: World) -> None:
    rows = texts(4)
    pipeline = world.pipeline(rows | {"again": rows["row-2"]}, params=params(system=CACHED))
    world.run(pipeline)
    before = spent(world)
    erase(world.root, pipeline.name, ["row-1", "again"], pipeline)
    for _ in range(2):
        for name in (SPEND, SPEND_BATCHES):  # nothing kept helps
            world.path(*name).unlink()
        after = audit(world)
        of_rows = {"rows", "usd_per_1000_rows", "saved_reuse_usd", "invalid_usd"}
        gone = of_rows | {"workspace", "estimated_low_usd", "estimated_high_usd"}
        columns = [name for name in SPEND_SCHEMA.names if name not in gone]
        assert after[columns].equals(before[columns])
        assert (*before["rows"], *after["rows"]) == (5, 3)
        assert cost_of(before, "saved_reuse_usd") > cost_of(after, "saved_reuse_usd") == 0
        world.root.close()
        for path in world.path().glob("ledger.db*"):
            path.unlink()
        world.reopened()


def test_a_batch_that_is_paid_twice(world: World) -> None:
    """Its reply was lost, and the list did not show it until its file was sent again."""
    hidden = {"match": {"method": "GET", "path": "/v1/messages/batches"}, "action": {"hide_from_list": 3600}}
    world.emulator.faults([{"match": CREATE | {"times": 1}, "action": {"drop": "after_commit"}}, hidden])
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    first = build_spend(world.root)
    total = SpendTotal.of(first.rows)
    assert len(bill(world)) == 2 and total.unknown_requests == 3
    assert total.most is not None and 2 * total.cost == sum(bill(world).values()) <= total.most
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    world.collect(pipeline)
    frame = audit(world)
    assert cost_of(frame, "paid_twice_usd") * PICODOLLARS == total.cost
    assert set(frame["kind"]) == {"known"}


@pytest.mark.parametrize("way", ["pruned", "given up"])
def test_answers_that_were_asked_again_are_paid_twice(world: World, way: str) -> None:
    """Nothing in the ledger says so of pruned ones; and lost ones are there again once a backup is restored."""
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    once = audit(world)
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    backup = path.read_bytes()
    if way == "pruned":
        prune(world.root, pipeline.name, 0.0, in_force=True, is_dry=False)
    else:
        path.unlink()
        world.query("update batch set state = 'lost'")
        world.query("update request_file set state = 'canceled'")
        world.reopened()
    world.run(pipeline)
    if way == "given up":
        path.write_bytes(backup)
    frame = audit(world)
    assert (cost_of(frame), cost_of(frame, "paid_twice_usd")) == (2 * cost_of(once), cost_of(once))


def test_a_lost_ledger_remembers_an_upload_whose_file_was_sent_again(world: World) -> None:
    hidden = {"match": {"method": "GET", "path": "/v1/messages/batches"}, "action": {"hide_from_list": 3600}}
    world.emulator.faults([{"match": CREATE | {"times": 1}, "action": {"drop": "after_commit"}}, hidden])
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    before, billed = SpendTotal.of(build_spend(world.root).rows), sum(bill(world).values())
    for _ in range(2):
        lose_ledger(world)
        after = SpendTotal.of(build_spend(world.root).rows)
        assert (after.cost, after.most, after.unknown_requests) == (before.cost, before.most, 3)
        assert after.most is not None and after.cost < billed <= after.most
    reserved = world.query("select count(*) n from reservation where state = 'open' and batch_id is null")
    assert [row.n for row in reserved] == [1]
    world.emulator.reset_faults()
    world.submit(pipeline, unattended=True)
    world.collect(pipeline)
    for _ in range(2):  # now its answers are stored
        frame = audit(world)
        assert cost_of(frame, "paid_twice_usd") * PICODOLLARS == before.cost
        assert set(frame["kind"]) == {"known"}
        lose_ledger(world)


@pytest.mark.parametrize("accepted", [True, False])
def test_an_upload_whose_file_was_sent_again_stays_unknown(
    new_world: Callable[..., World], ledger_url: str, accepted: bool
) -> None:
    """It may have been paid, also when its batch is no longer looked for."""
    world = new_world(ledger=ledger_url)
    drop = {"drop": "after_commit" if accepted else "before_commit"}
    hidden = {"match": {"method": "GET", "path": "/v1/messages/batches"}, "action": {"hide_from_list": 3600}}
    world.emulator.faults([{"match": CREATE | {"times": 1}, "action": drop}, hidden])
    world.run(world.pipeline(texts(3)))
    assert [row.outcome for row in world.query("select outcome from intent order by id")] == ["resent", "accepted"]
    world.query("update intent set watch_until = 1 where watch_until is not null")
    total = SpendTotal.of(build_spend(world.root).rows)
    billed = sum(bill(world).values())
    assert total.unknown_requests == 3 and billed == (2 if accepted else 1) * total.cost
    assert total.most is not None and billed <= total.most
    # The batch that had put a refused upload in doubt proves to be another's.
    world.query("update intent set candidate_id = 'msgbatch_other' where outcome = 'resent'")
    assert SpendTotal.of(build_spend(world.root).rows).unknown_requests == 3
    with world.root.ledger.write() as tx:
        batches.note_foreign(tx, BatchObject("msgbatch_other", "ended", {}, 1.0, None, 1.0, None), "a test")
    assert SpendTotal.of(build_spend(world.root).rows).unknown_requests == 0


def test_partitions_models_and_days(world: World) -> None:
    rows = {"a": "north", "b": "south"}
    for day in range(2):
        world.emulator.clock(advance=86400)
        for partition, key in (("n", "a"), ("s", "b")):
            pipeline = world.pipeline(
                {key: f"{rows[key]} {day}"},
                name=f"asked_{partition}",
                params=params() | ({"model": "claude-opus-5-5"} if partition == "s" else {}),
            )
            world.run(pipeline)
    frame = audit(world)
    assert Counter(zip(frame["pipeline"], frame["model"], strict=True)) == {
        ("asked_n", "claude-haiku-5-5"): 2,
        ("asked_s", "claude-opus-5-5"): 2,
    }
    assert frame["day"].nunique() == 2
    spent(world, labels={"asked_n": Labels("4711", {"team": "reviews"})})
    frame = spent(world)  # a run that does not know the pipeline file keeps them
    north = frame["pipeline"] == "asked_n"
    assert set(frame.loc[north, "cost_center"]) == {"4711"} and frame.loc[~north, "cost_center"].isna().all()
    assert set(frame.loc[north, "tags"]) == {'{"team":"reviews"}'}


def test_another_price_list_changes_nothing_that_was_spent(world: World, tmp_path: Any) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    before = spent(world)
    (tmp_path / "prices.yaml").write_text("models: {claude-haiku-5-5: {input: 9}}")
    world.path(*SPEND_BATCHES).unlink()
    world.reopened(BATCH_ASSETS_PRICES=str(tmp_path / "prices.yaml"))
    after = spent(world)
    assert cost_of(after) == cost_of(before) == cost_of(after, "unsplit_usd")
    assert cost_of(before, "unsplit_usd") == 0


def test_a_run_reads_what_is_new(world: World) -> None:
    """The statements do not grow with the batches, and only new response files are read."""
    counted: list[SpendReport] = []
    statements: list[int] = []
    for turn, rows in enumerate((3, 30)):
        pipeline = world.pipeline(texts(rows, f"turn{turn}"), batching={"max_requests": 1})
        world.run(pipeline)
        executed: list[str] = []
        note: Callable[..., None] = lambda *args, to=executed: to.append(args[2])  # noqa: E731
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        counted.append(build_spend(world.root))
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
        statements.append(len(executed))
    assert [report.read for report in counted] == [3, 30]
    assert statements[0] == statements[1]
    assert build_spend(world.root).read == 0


def test_a_run_compares_only_what_is_new(world: World) -> None:
    """Neither files nor statements grow with the history of a pipeline whose answers are followed by others."""
    rules = {"retry": {"truncated": {"times": 1, "max_tokens": 200}}, "batching": {"max_requests": 1}}
    costs, reader = list[tuple[int, int]](), SpendReader(world.root)
    for turn, rows in enumerate((6, 1, 10, 1)):
        world.run(world.pipeline(texts(rows, f"turn{turn}"), params=params() | {"max_tokens": 10}, **rules))
        with measured() as cost:
            report = build_spend(world.root)
        opened = [call for call in cost.calls if call.startswith("open ") and "/responses/" in call]
        costs.append((len(opened), len(cost.statements)))
        before = [row.amounts for row in report.rows]
        with measured() as cost:  # as the dashboard does, which has read what came before
            assert [row.amounts for row in reader.read().rows] == before
        assert not [each for each in cost.statements if not each.lstrip().startswith(("SELECT", "WITH", "BEGIN"))]
        world.path(*SPEND_BATCHES).rename(kept := world.folder / "kept.parquet")
        assert [row.amounts for row in build_spend(world.root).rows] == before, "as if all were read again"
        kept.rename(world.path(*SPEND_BATCHES))
    assert costs[1] == costs[3], "one row more costs the same after 6 and after 17"
    assert build_spend(world.root).read == 0
    world.run(world.pipeline(texts(1, "last"), params=params() | {"max_tokens": 10}, **rules))
    world.query("update indexed_file set version = 'old' where requests is not null")
    rows = [row.amounts for row in reader.read().rows]
    assert world.query("select count(*) from indexed_file where version = 'old'") != [(0,)], (
        "it has written nothing"
    )
    assert rows == [row.amounts for row in build_spend(world.root).rows]


def test_an_invalid_answer_that_a_refresh_replaces_was_paid_in_vain_once(world: World) -> None:
    """Also while the refresh waits for other rows, so that the table still has the answer."""
    pipeline = world.pipeline(texts(4), output_schema=SCHEMA, batching={"max_requests": 2})
    mixes = ({"malformed": 1.0}, {"malformed": 1.0}, {}, {"overloaded_error": 1.0})
    world.emulator.faults(
        [{"match": CREATE | {"nth": number}, "action": {"error_mix": mix}} for number, mix in enumerate(mixes, 1)]
    )
    world.run(pipeline)
    invalid = cost_of(spent(world), "invalid_usd")
    assert invalid > 0
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    report = world.collect(pipeline).results
    assert report is not None and report.held_back and report.counts == {"succeeded": 2, "pending": 2}
    for _ in range(2):  # the second one reads nothing
        frame = audit(world)
        assert (cost_of(frame, "superseded_usd"), cost_of(frame, "invalid_usd")) == (invalid / 2, invalid / 2)
    world.finish(pipeline)
    frame = audit(world)
    assert (cost_of(frame, "superseded_usd"), cost_of(frame, "invalid_usd")) == (invalid, 0)


def test_what_nothing_bounds_is_read_again_only_when_that_may_have_changed(world: World, tmp_path: Path) -> None:
    pipeline = world.pipeline(texts(3), params=params(model="claude-unknown-9"), batching={"max_requests": 1})
    world.send(pipeline)

    def read() -> tuple[int, set[int | None]]:
        with measured() as cost:
            rows = build_spend(world.root).rows
        opened = [call for call in cost.calls if call.startswith("open ") and "/requests/" in call]
        return len(opened), {row.high for row in rows}

    assert read() == (3, {None})
    assert read() == (0, {None})
    (file,) = world.path(pipeline.name, "requests").rglob("part-00001.jsonl")
    content = file.read_bytes()
    file.unlink()
    assert read() == (1, {None})
    assert read() == (0, {None})
    file.write_bytes(content)
    priced = {"input": 1, "output": 5, "cache_read": 0.1, "context_window": 200_000, "max_output": 8192}
    (prices := tmp_path / "prices.yaml").write_bytes(orjson.dumps({"models": {"claude-unknown-9": priced}}))
    world.reopened(BATCH_ASSETS_PRICES=str(prices))
    opened, highs = read()
    assert opened == 3 and None not in highs
    assert read() == (0, highs)


def test_amounts_of_many_dollars_are_exact(world: World) -> None:
    """A day of more than a thousand dollars is exact to the picodollar, which a float64 cannot hold."""
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")
    stored = pq.read_table(path)
    large = pa.array([999.999999999999] * 3, pa.float64())
    position = stored.column_names.index("cost_usd")
    pq.write_table(stored.set_column(position, "cost_usd", large), path)
    frame = spent(world)
    assert cost_of(frame) == Decimal("2999.999999999997")
    assert orjson.loads(frame[["rows"]].to_json())["rows"]["0"] == 3


def test_every_column_is_described_in_the_ui_and_in_the_docs() -> None:
    assert set(MEANINGS) == set(SPEND_SCHEMA.names)
    page = (Path(__file__).parents[3] / "docs" / "cost.md").read_text()
    assert [name for name in SPEND_SCHEMA.names if f"`{name}`" not in page] == []
