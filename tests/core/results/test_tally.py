"""Counts of a table's requests, and of the batches of a submission's own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from batch_assets.core.ledger import batches
from batch_assets.core.ledger.own_batches import OwnBatches, own_batches
from batch_assets.core.planning.progress import requests_done
from batch_assets.core.prices import no_price_for
from batch_assets.core.results.report import ResultsReport

from ..support import CREATE, World, texts


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
    assert requests_done(world.files(pipeline), []) == (1, 1)
    with world.root.ledger.read() as tx:
        assert requests_done(world.files(pipeline), batches.waited_on(tx, sent.submission_id)) == (0, 1)


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
    assert no_price_for(report.tally.unpriced_models) == "no price for an answer that names no model, unheard-of"
    assert report.tally.cost_of({"a"}) == 0.5
    assert report.tally.cost_of({"a", "b"}) is None
