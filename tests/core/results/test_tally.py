"""Counts of a table's requests, and of the batches of a submission's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.own_batches import OwnBatches, own_batches
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.progress import requests_answered
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.results.report import ResultsReport

from ..support import CREATE, World, texts

_COUNTED = pa.schema(
    [
        *((name, pa.string()) for name in ("result_type", "batch_id", "response_model", "error_type")),
        ("attempts", pa.int32()),
        ("cost_usd", pa.float64()),
        ("cache_creation_input_tokens", pa.int64()),
        ("cache_read_input_tokens", pa.int64()),
    ]
)


def own(world: World, submission_id: str) -> OwnBatches:
    with world.root.ledger.read() as tx:
        return own_batches(tx, submission_id)


def test_own_batches_and_those_of_an_earlier_submission(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 1.0, "first": 1}}}])
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    sent = world.send(pipeline)
    first = world.finish(pipeline).results
    assert first is not None
    assert first.tally.attempts == {2: 4}
    assert first.tally.errors == {}
    mine = own(world, sent.submission_id)
    assert mine.ids == {batch["id"] for batch in world.accepted()}
    assert set(first.tally.requests) < mine.ids  # the first attempts brought no answer in force
    assert first.tally.cost_of(set(mine.ids)) == pytest.approx(first.cost_usd)
    assert mine.bytes == sum(file.bytes for file in world.files(pipeline))
    for seconds in (mine.queue, mine.processing, mine.collection):
        assert seconds is not None
        assert 0 <= seconds < 180

    world.emulator.reset_faults()
    world.emulator.settings(latency=3600.0)
    pipeline = world.pipeline(texts(5), batching={"max_requests": 2})
    sent = world.send(pipeline)
    joined = world.collect(pipeline).results
    assert joined is not None
    # The fifth row is pending and counts nowhere.
    assert joined.tally.requests == first.tally.requests
    theirs = own(world, sent.submission_id)
    assert len(theirs.ids) == 1
    assert not theirs.ids & set(joined.tally.requests)
    assert theirs.queue is not None
    assert (theirs.processing, theirs.collection) == (None, None)
    assert answered(world, pipeline) == (0, 1), "the four that are reused do not count"
    world.emulator.end_batches()
    poll(world.root, now=True)
    assert answered(world, pipeline) == (1, 1)


def answered(world: World, pipeline: Pipeline) -> tuple[int, int]:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
        assert submission is not None
        return requests_answered([Snapshot.of(tx, submission)])


def test_a_request_that_is_sent_again_is_answered_once_and_a_canceled_one_not_at_all(world: World) -> None:
    before = texts(5, "before")
    world.run(world.pipeline(before))
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 0.5, "first": 1}}}])
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(before | texts(40), batching={"max_requests": 20})
    first, _ = world.send(pipeline).submitted
    assert answered(world, pipeline) == (0, 40)
    world.emulator.end_batches(first)
    report = world.collect(pipeline).results
    assert report is not None and 0 < report.ask_again < 20
    known = 20 - report.ask_again
    assert answered(world, pipeline) == (known, 40), "attempts that ended without an answer do not count"
    world.submit(pipeline, unattended=True)
    assert len(world.files(pipeline)) == 3
    assert answered(world, pipeline) == (known, 40), "the second attempt is no further request"
    cancel(world.root, pipeline.name)
    world.emulator.end_batches()
    poll(world.root, now=True)
    assert answered(world, pipeline) == (known, 40), "a canceled request is not answered"


def test_models_of_answers_without_a_price_are_reported_even_without_a_name() -> None:
    rows: dict[str, list[Any]] = {
        "result_type": ["succeeded"] * 3 + ["errored"],
        "batch_id": ["a", "b", "b", "c"],
        "attempts": [1] * 4,
        "cost_usd": [0.5, None, None, None],
        "response_model": ["priced", "unheard-of", None, None],
        "error_type": pa.array([None, None, None, "invalid_request_error"], pa.string()),
        "cache_creation_input_tokens": [0] * 4,
        "cache_read_input_tokens": [0] * 4,
    }
    report = ResultsReport("any", "any")
    report.tally.add(pa.table(rows).slice(0, 1), pa.array([True]))
    assert report.cost_usd == 0.5
    report.tally.add(pa.table(rows).slice(1), pa.array([True] * 3))
    assert report.cost_usd is None
    assert (
        default_prices().why_unknown(report.tally.unpriced_models)
        == "no price for an answer that names no model, unheard-of"
    )
    assert report.tally.cost_of({"a"}) == 0.5
    assert report.tally.cost_of({"a", "b"}) is None


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_counted_as_one_by_one(seed: int) -> None:
    """The counts and sums are the same, whatever the slices, and with nothing to count."""
    random = Random(seed)
    rows = [
        {
            "result_type": random.choice(["succeeded", "succeeded", "errored", "expired", "pending"]),
            "batch_id": random.choice(["a", "b", None]),
            "attempts": random.choice([1, 2, None]),
            "cost_usd": random.choice([None, random.random(), random.random() / 3]),
            "response_model": random.choice(["one", None]),
            "error_type": random.choice([None, "one", "other"]),
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": None,
        }
        for _ in range(random.randrange(60))
    ]
    is_first = [random.random() < 0.7 for _ in rows]
    report = ResultsReport("any", "any")
    table = pa.Table.from_pylist(rows, _COUNTED)
    for start in range(0, len(rows), 20):
        report.tally.add(table.slice(start, 20), pa.array(is_first[start : start + 20]))
    arrived = [row for row in rows if row["result_type"] != "pending"]
    failed = [(row["result_type"], row["error_type"]) for row in arrived if row["error_type"]]
    assert report.tally.errors == Counter(failed)
    shown = zip(rows, is_first, strict=True)
    once = [row for row, first in shown if first and row in arrived and row["batch_id"]]
    assert report.tally.requests == Counter(row["batch_id"] for row in once)
    assert report.tally.attempts == Counter(row["attempts"] for row in once)
    costs: Counter[str] = Counter()
    for row in once:
        costs[row["batch_id"]] += round((row["cost_usd"] or 0.0) * PICODOLLARS)
    assert report.tally.costs == costs
    unpriced = {row["batch_id"] for row in once if row["result_type"] == "succeeded" and row["cost_usd"] is None}
    assert report.tally.unpriced == unpriced
