"""A partition whose file waits for room, or for more requests, ends green; the sensor has it sent later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sensor_ticks import location_of, poll_and_tick, run_requested
from sqlalchemy import text

from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def waiting(result: dg.ExecuteInProcessResult) -> list[str]:
    (event,) = result.asset_materializations_for_node("greetings__batches")
    value: Any = event.metadata["batch_assets/waiting"].value
    return [*value.values()]


def test_a_partition_that_waits_for_the_queue_is_green_and_is_sent_when_room_comes_free(
    make_assets: MakeAssets,
    kept: dg.DagsterInstance,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_MAX_IN_FLIGHT", "5")
    for key in ("de", "en"):
        (tmp_path / f"{key}.csv").write_text("id,text\n" + "".join(f"{n},hello {key} {n}\n" for n in range(4)))
    dataset = {"path": "{partition}.csv", "key": "id"}
    assets = make_assets(dataset=dataset, partitions={"static": ["de", "en"]})
    location = location_of(assets)
    done = [dg.materialize(assets, instance=kept, partition_key=key) for key in ("de", "en")]
    assert all(each.success for each in done)
    assert [batch["requests"] for batch in emulator.log()] == [4]
    assert waiting(done[1]) == [
        "held: the root's limit is reached: 4 of 5 requests are queued, and this file has 4"
    ]
    ticked = poll_and_tick(location, kept)
    assert not ticked.run_requests
    assert "greetings [en] waits for room in the queue of the API" in (ticked.skip_message or "")

    emulator.end_batches()
    requests = poll_and_tick(location, kept).run_requests
    assert sorted(request.partition_key for request in requests) == ["de", "en"]
    assert all(run_requested(request, assets, kept).success for request in requests)
    assert [batch["requests"] for batch in emulator.log()] == [4, 4]
    emulator.end_batches()
    (last,) = poll_and_tick(location, kept).run_requests
    assert last.partition_key == "en"
    assert run_requested(last, assets, kept).success
    assert [event.partition for event in events(kept)].count("en") == 1


def events(instance: dg.DagsterInstance) -> list[Any]:
    key = dg.AssetKey(["greetings", "results"])
    records = instance.fetch_materializations(key, limit=10).records
    return [record.asset_materialization for record in records]


@pytest.mark.parametrize(
    "starter", ["dagster/schedule_name", "dagster/sensor_name", "dagster/from_automation_condition"]
)
def test_few_requests_of_a_run_that_no_user_started_wait_for_more(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, starter: str
) -> None:
    assets = make_assets(batching={"min_requests": 6, "max_wait": "6h"})
    location = location_of(assets)
    result = dg.materialize(assets, instance=instance, tags={starter: "any"})
    assert result.success
    assert emulator.log() == []
    assert waiting(result) == ["held: 4 requests are there, and min_requests is 6"]
    ticked = poll_and_tick(location, instance)
    assert not ticked.run_requests
    assert "greetings waits for more requests, to send them together, the next try is in " in (
        ticked.skip_message or ""
    )

    make_assets(rows=5)  # the dataset has one row more
    assert dg.materialize(assets, instance=instance).success  # a user does not wait
    assert [batch["requests"] for batch in emulator.log()] == [5]


def test_the_sensor_sends_few_requests_that_have_waited_long_enough(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(batching={"min_requests": 6, "max_wait": "6h"})
    location = location_of(assets)
    assert dg.materialize(assets, instance=instance, tags={"dagster/schedule_name": "any"}).success
    with open_root() as root, root.ledger.write() as tx:
        tx.execute(text("update request_file set not_before = not_before - 21600"))
    (request,) = poll_and_tick(location, instance).run_requests
    assert run_requested(request, assets, instance).success
    assert [batch["requests"] for batch in emulator.log()] == [4]
