"""The whole chain, on both kinds of ledger: dataset to batches to the table that users read."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from batch_assets.core.digests import DIGEST_CHARACTERS
from batch_assets.emulator import emulated_answer

from .support import World, params, texts


def test_every_row_gets_the_answer_to_its_own_request(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    rows = texts(25)
    pipeline = world.pipeline(rows, batching={"max_requests": 10})
    table = world.run(pipeline)
    assert list(table["id"]) == list(rows)
    for row in table.itertuples():
        expected = emulated_answer(params(content=rows[row.id]))["content"][0]["text"]
        assert row.response_text == expected
    assert set(table["result_type"]) == {"succeeded"}
    assert set(table["attempts"]) == {1}
    assert sorted(batch["requests"] for batch in world.accepted()) == [5, 10, 10]
    assert sorted(table["custom_id"]) == sorted(world.asked())


def test_a_repeated_run_of_every_stage_changes_and_costs_nothing(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url)
    pipeline = world.pipeline(texts(7))
    first = world.run(pipeline)
    for _ in range(2):
        world.submit(pipeline)
        world.collect(pipeline)
    pd.testing.assert_frame_equal(world.table(pipeline), first)
    assert len(world.accepted()) == 1


def test_new_rows_and_changed_rows_alone_are_sent(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    rows = texts(4)
    world.run(world.pipeline(rows))
    changed = {**rows, "row-1": "another text", "row-9": "a new row"}
    table = world.run(world.pipeline(changed))
    first, second = world.accepted(custom_ids=True)
    assert len(first["custom_ids"]) == 4
    assert [custom_id[: -DIGEST_CHARACTERS - 1] for custom_id in second["custom_ids"]] == ["row-1", "row-9"]
    assert list(table["result_type"]) == ["succeeded"] * 5
    for row in table.itertuples():
        assert changed[row.id][:100] in row.response_text


def test_requests_that_failed_for_a_passing_reason_are_asked_again(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url)
    mix = {"overloaded_error": 0.3, "expired": 0.3, "first": 1}
    world.emulator.faults([{"match": {"method": "POST"}, "action": {"error_mix": mix}}])
    pipeline = world.pipeline(texts(40))
    table = world.run(pipeline)
    assert set(table["result_type"]) == {"succeeded"}
    first, second = world.accepted()
    assert first["requests"] == 40
    assert list(table["attempts"]).count(2) == second["requests"] > 5
    assert table["error_type"].isna().all()
