"""Under a budget, a run whose files are held is green; the sensor says why, and asks for a run when one fits."""

from __future__ import annotations

import re
from collections.abc import Callable

import dagster as dg
from sensor_ticks import location_of, poll_and_tick

from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def test_a_run_with_held_files_is_green_and_goes_on_when_the_cap_is_raised(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets(budget={"max_usd": 0.00001, "per": "month"})
    result = dg.materialize(assets, instance=instance)
    assert result.success
    assert emulator.log() == []
    (event,) = result.asset_materializations_for_node("greetings__batches")
    (why,) = event.metadata["batch_assets/waiting"].value.values()  # type: ignore[union-attr]
    assert why.startswith("held: the budget of ")
    ticked = poll_and_tick(location_of(assets), instance)
    assert not ticked.run_requests
    assert "1 request file is held: the budget of " in (ticked.skip_message or "")

    raised = make_assets(budget={"max_usd": 1, "per": "month"})
    (request,) = poll_and_tick(location_of(raised), instance).run_requests
    assert [key.path[-1] for key in request.asset_selection] == ["batches", "results"]
    again = dg.materialize(raised, selection=request.asset_selection, instance=instance, tags=request.tags)
    assert again.success
    assert [batch["requests"] for batch in emulator.log()] == [4]

    (request,) = poll_and_tick(location_of(raised), instance).run_requests
    assert dg.materialize(raised, selection=request.asset_selection, instance=instance, tags=request.tags).success
    spent = make_assets(budget={"max_usd": 0.00001, "per": "month"})
    assert re.search(
        r"greetings: \d{3} % of the budget of .* is spent: ",
        poll_and_tick(location_of(spent), instance).skip_message or "",
    )
