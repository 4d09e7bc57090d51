"""An edited prompt shows in the UI until it is materialized: the code version of `requests` is its digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver  # the query of the UI
from dagster._core.loader import LoadingContextForTest

from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
PARAMS: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 50,
    "system": "{% include 'system.md' %}",
    "messages": [{"role": "user", "content": "{{ text }}"}],
}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}},
    "required": ["mood"],
    "additionalProperties": False,
}


@pytest.fixture
def asked(tmp_path: Path, make_assets: MakeAssets) -> MakeAssets:
    """A function that makes the assets of a pipeline whose system prompt is in a file."""
    (tmp_path / "system.md").write_text("{% include 'tone.md' %} Say how they feel.")
    (tmp_path / "tone.md").write_text("Be brief.")
    (tmp_path / "examples.yaml").write_text("- {role: user, content: fine}\n- {role: assistant, content: good}\n")

    def make(**changes: Any) -> list[dg.AssetsDefinition]:
        return make_assets(**({"params": PARAMS, "output_schema": SCHEMA} | changes))

    return make


def _version(assets: list[dg.AssetsDefinition]) -> str | None:
    specs = {spec.key.path[-1]: spec for asset in assets for spec in asset.specs}
    assert (specs["batches"].code_version, specs["results"].code_version) == (None, None)
    return specs["requests"].code_version


def shout(pipeline: object, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    return params


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {**PARAMS, "max_tokens": 51}},
        {
            "params": {
                **PARAMS,
                "messages": [{"role": "user", "content": "{{ load('examples.yaml') }} {{ text }}"}],
            }
        },
        {"output_schema": {**SCHEMA, "required": []}},
        {"output_schema": None},
        {"betas": ["context-1m-2025-08-07"]},
        {"anthropic_version": "2023-06-01"},
        {"render_request": shout},
    ],
)
def test_an_edited_prompt_changes_the_version(asked: MakeAssets, changes: dict[str, Any]) -> None:
    assert _version(asked()) == _version(asked())
    assert _version(asked(**changes)) != _version(asked())


@pytest.mark.parametrize("name", ["system.md", "tone.md"])
def test_every_file_that_a_prompt_includes_is_part_of_the_version(
    asked: MakeAssets, tmp_path: Path, name: str
) -> None:
    before = _version(asked())
    (tmp_path / "unread.md").write_text("no prompt includes it")
    assert _version(asked()) == before
    (tmp_path / name).write_text((tmp_path / name).read_text() + " Please.")
    assert _version(asked()) != before


def test_a_file_of_examples_is_part_of_the_version(asked: MakeAssets, tmp_path: Path) -> None:
    params = {**PARAMS, "messages": ["{{ load('examples.yaml') }}", *PARAMS["messages"]]}
    before = _version(asked(params=params))
    (tmp_path / "examples.yaml").write_text((tmp_path / "examples.yaml").read_text().replace("fine", "well"))
    assert _version(asked(params=params)) != before


@pytest.mark.parametrize(
    "changes",
    [
        {"batching": {"max_requests": 1}},
        {"retry": {"max_attempts": 9}},
        {"max_failed": 1.0},
        {"rows": 9},
        {"schedule": "0 2 * * *"},
        {
            "parse_message": lambda message: {"mood": "good"},
            "output_schema": SCHEMA,
            "like": {"output_schema": None},
        },
    ],
)
def test_other_settings_do_not_change_the_version(asked: MakeAssets, changes: dict[str, Any]) -> None:
    like = changes.pop("like", {})
    assert _version(asked(**changes)) == _version(asked(**like))


def _stale(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, stage: str, partition: str | None = None
) -> tuple[str, list[str]]:
    """What the UI shows of an asset: its status and the reasons."""
    graph = dg.Definitions(assets=assets).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    key = dg.AssetKey(["greetings", stage])
    causes = resolver.get_stale_causes(key, partition)
    return resolver.get_status(key, partition).value, [cause.reason for cause in causes]


@pytest.mark.parametrize("partition", [None, "de"])
def test_dagster_shows_the_change_until_it_is_materialized(
    asked: MakeAssets, emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path, partition: str | None
) -> None:
    emulator.settings(latency=0.0)
    fields: dict[str, Any] = {}
    if partition is not None:
        fields = {
            "dataset": {"path": "greetings-{partition}.csv", "key": "id"},
            "partitions": {"static": ["de", "en"]},
        }
        (tmp_path / "greetings-de.csv").write_text("id,text\n1,hallo\n")

    def materialize() -> list[dg.AssetsDefinition]:
        assets = asked(**fields)
        assert dg.materialize(assets, instance=instance, partition_key=partition).success
        return assets

    assets = materialize()
    assert _stale(assets, instance, "requests", partition) == ("FRESH", [])
    assert _stale(asked(batching={"max_requests": 1}, **fields), instance, "requests", partition)[0] == "FRESH"
    (tmp_path / "tone.md").write_text("Be thorough.")
    edited = asked(**fields)
    assert _stale(edited, instance, "requests", partition) == ("STALE", ["has a new code version"])
    assert _stale(materialize(), instance, "requests", partition) == ("FRESH", [])


def test_new_rows_with_the_same_prompt_are_new_data(
    asked: MakeAssets, emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    emulator.settings(latency=0.0)
    assets = asked(rows=2)
    assert dg.materialize(assets, instance=instance).success
    assert _stale(assets, instance, "batches") == ("FRESH", [])
    assert dg.materialize(asked(rows=3), instance=instance, selection=["greetings/requests"]).success
    assert _stale(assets, instance, "batches") == ("STALE", ["has a new dependency data version"])
