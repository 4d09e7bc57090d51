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


def described(schema: dg.TableSchema) -> dict[str, str]:
    return {column.name: column.description or "" for column in schema.columns}


def lineage(result: dg.ExecuteInProcessResult) -> dict[str, list[str]]:
    """The upstream columns of each column of results, as the event of its materialization has them."""
    (event,) = result.asset_materializations_for_node("greetings__results")
    entry = event.metadata["dagster/column_lineage"]
    assert isinstance(entry, dg.TableColumnLineageMetadataValue)
    deps = entry.value.deps_by_column
    assert {dep.asset_key.to_user_string() for column in deps.values() for dep in column} == {"raw/reviews"}
    # Dagster's open-source UI hides that entry, and shows descriptions: those of the definition, if it has any.
    schema = event.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    for column, text in described(schema.schema).items():
        names = ", ".join(dep.column_name for dep in deps.get(column, ()))
        assert text.endswith(f"From {names} of raw/reviews.") if names else "of raw/reviews" not in text
    return {column: [dep.column_name for dep in sources] for column, sources in deps.items()}


def test_each_column_of_results_names_the_columns_that_it_comes_from(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    @dg.asset(key=["raw", "reviews"])
    def reviews() -> Any:
        return pd.DataFrame(TABLE | {"stars": [5, 1, 3], "unused": ["a", "b", "c"]})

    emulator.settings(latency=0.0)
    dataset = {"asset": "raw/reviews", "key": {"id": "review"}, "columns": {"stars": "rating"}}
    schema = {
        "type": "object",
        "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    named = make_assets(dataset=dataset, output_schema=schema)
    expected = {"review": ["id"], "rating": ["stars"], "response_text": ["text"], "mood": ["text"]}
    assert lineage(dg.materialize([reviews, *named], instance=instance)) == expected
    before = described(next(iter(named[-1].specs)).metadata["dagster/column_schema"])
    assert {column for column, text in before.items() if text.endswith("of raw/reviews.")} == {*expected}
    assert before["response_text"] == "The text blocks of the answer, joined. From text of raw/reviews."

    whole = {
        "model": "claude-haiku-5-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "{{ row | tojson }}"}],
    }
    numbered = make_assets(dataset={"asset": "raw/reviews", "columns": ["stars"]}, params=whole)
    assert lineage(dg.materialize([reviews, *numbered], instance=instance)) == {
        "stars": ["stars"],
        "response_text": ["stars"],
    }
    unknown = make_assets(dataset={"asset": "raw/reviews"}, params=whole)
    before = described(next(iter(unknown[-1].specs)).metadata["dagster/column_schema"])
    assert not [text for text in before.values() if "of raw/reviews" in text], (
        "all columns, and which is not known"
    )


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
