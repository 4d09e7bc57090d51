"""A dataset that is the table of another asset, with its lineage in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pytest

from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
TABLE = {"id": [1, 2, 3], "text": ["one", "two", "three"]}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_the_table_of_an_asset_is_the_dataset(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path, make: Any
) -> None:
    @dg.asset(key=["raw", "reviews"])
    def reviews() -> Any:
        return make(TABLE)

    emulator.settings(latency=0.0)
    assets = make_assets(dataset={"asset": "raw/reviews", "key": "id"})
    graph = dg.Definitions(assets=[reviews, *assets]).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["greetings", "requests"])).parent_keys == {reviews.key}
    assert dg.materialize([reviews, *assets], instance=instance).success
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert list(table["text"]) == TABLE["text"]
    assert set(table["result_type"]) == {"succeeded"}
    # The next day only the downstream asset is materialized: its IO manager loads the table.
    assert dg.materialize([reviews, *assets], selection=assets, instance=instance).success


def test_a_value_that_is_not_a_table_is_reported_in_a_sentence(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    @dg.asset
    def number() -> int:
        return 7

    assets = make_assets(dataset={"asset": "number"})
    result = dg.materialize([number, *assets], instance=instance, raise_on_error=False)
    (event,) = result.filter_events(
        lambda event: event.is_step_failure and event.step_key == "greetings__requests"
    )
    description = event.step_failure_data.user_failure_data.description
    assert (
        "dataset.asset: the asset number has a value of the type int: it must be a table of pandas" in description
    )
