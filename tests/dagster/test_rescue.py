"""When a deadline has passed, the sensor asks for a run that makes live calls, and the run says what they cost."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
from sensor_ticks import location_of, tick
from sqlalchemy import text

from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def test_the_sensor_starts_the_run_that_asks_rows_live(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=24 * 3600)
    assets = make_assets(deadline="6h", rescue="live")
    location = location_of(assets)
    assert dg.materialize(assets, instance=instance).success
    assert not tick(location, instance).run_requests
    with open_root() as root, root.ledger.write() as tx:
        tx.execute(text("update submission set began_at = 0"))
        tx.execute(text("update batch set submitted_at = 0"))
    (request,) = tick(location, instance).run_requests
    assert [key.path[-1] for key in request.asset_selection] == ["batches", "results"]
    done = dg.materialize(assets, selection=request.asset_selection, instance=instance, tags=request.tags)
    assert done.success
    (sent,) = done.asset_materializations_for_node("greetings__batches")
    assert sent.metadata["batch_assets/live_calls"].value == "4 live calls: 4 answered"
    (event,) = done.asset_materializations_for_node("greetings__results")
    cost = sum(call["picodollars"] for call in emulator.live_calls()) / 10**12
    assert event.metadata["batch_assets/rescued"].value == 4
    for name in ("rescue_cost_usd", "cost_usd", "spent_usd"):
        assert abs(event.metadata[f"batch_assets/{name}"].value - cost) < 1e-12  # type: ignore[operator]
    assert not tick(location, instance).run_requests, "the batch goes on, and nothing is asked again"
