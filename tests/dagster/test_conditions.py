"""Dagster's automation conditions on a pipeline's assets, and on assets downstream of its results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from batch_assets import build_message_batch_checks
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
STAGES = ("requests", "batches", "results")


def with_condition(
    assets: list[dg.AssetsDefinition], condition: Callable[[str], dg.AutomationCondition[Any] | None]
) -> list[dg.AssetsDefinition]:
    """The assets with a condition each, as `post_processing` sets it."""

    def changed(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=condition(spec.key.path[-1]))

    return [asset.map_asset_specs(changed) for asset in assets]


class Conditions:
    """A code location whose automation conditions are evaluated on demand."""

    def __init__(self, assets: list[Any], instance: dg.DagsterInstance, *others: Any) -> None:
        checks = build_message_batch_checks(assets)
        self.definitions = dg.Definitions(assets=[*assets, *others], asset_checks=checks)
        self.runnable, self.instance, self.cursor = [*assets, *others, *checks], instance, None

    def evaluate(self, at: datetime | None = None) -> list[str]:
        """The assets to be materialized, in order."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.instance,
            cursor=self.cursor,
            evaluation_time=at,
        )
        self.cursor = result.cursor
        graph = self.definitions.resolve_asset_graph()
        return [key.path[-1] for key in graph.toposorted_asset_keys if result.get_num_requested(key)]

    def run(self, *names: str) -> dg.ExecuteInProcessResult:
        keys = [
            key for key in self.definitions.resolve_asset_graph().get_all_asset_keys() if key.path[-1] in names
        ]
        selection = dg.AssetSelection.assets(*keys)
        return dg.materialize(self.runnable, selection=selection, instance=self.instance, raise_on_error=False)


def names(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key]


@dg.asset(deps=[dg.AssetKey(["greetings", "results"])], automation_condition=dg.AutomationCondition.eager())
def eager_table() -> None:
    """An asset downstream of the results."""


@dg.asset(
    deps=[dg.AssetKey(["greetings", "results"])],
    automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
)
def guarded_table() -> None:
    """An asset downstream of results whose blocking checks passed."""


def test_a_cron_condition_on_requests_includes_batches(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    conditions = {
        "requests": dg.AutomationCondition.on_cron("0 2 * * *"),
        "batches": dg.AutomationCondition.eager(),
    }
    location = Conditions(with_condition(make_assets(), conditions.get), instance, eager_table)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert location.evaluate(noon) == []
    assert location.evaluate(noon + timedelta(days=1)) == ["requests", "batches"]
    assert names(location.run("requests", "batches")) == ["requests", "batches"]
    assert location.evaluate(noon + timedelta(days=1, minutes=1)) == []
    assert len(emulator.log()) == 1


def test_downstream_assets_wait_until_results_are_complete(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(batching={"max_requests": 2}, max_failed=0.5)
    location = Conditions(assets, instance, eager_table, guarded_table)
    assert location.evaluate() == []
    location.run(*STAGES)
    assert location.evaluate() == []
    emulator.end_batches(emulator.log()[0]["id"])
    partial = location.run("results")
    assert partial.success
    assert names(partial) == []
    observations = instance.fetch_observations(dg.AssetKey(["greetings", "results"]), limit=1).records
    assert observations[0].asset_observation is not None
    assert observations[0].asset_observation.metadata["batch_assets/pending"].value == 2
    assert location.evaluate() == []
    emulator.end_batches()
    assert names(location.run("results")) == ["results"]
    assert location.evaluate() == ["eager_table", "guarded_table"]


def test_a_table_that_failed_its_checks_goes_no_further(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=0.0)
    location = Conditions(make_assets(), instance, eager_table, guarded_table)  # one row of five is rejected
    assert location.evaluate() == []
    result = location.run(*STAGES)
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    assert failed == ["failed_rows_are_few"]
    assert location.evaluate() == ["eager_table"]


def test_a_condition_on_results_too_does_no_harm(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    location = Conditions(
        with_condition(make_assets(max_failed=0.5), lambda stage: dg.AutomationCondition.eager()),
        instance,
        eager_table,
    )
    location.evaluate()
    location.run("requests", "batches")
    # Dagster also plans assets downstream of results into the run; they are left out with the results.
    assert location.evaluate() == ["results", "eager_table"]
    early = location.run("results", "eager_table")
    assert (early.success, names(early)) == (True, [])
    assert location.evaluate() == []  # it does not repeat without end
    emulator.end_batches()
    assert names(location.run("results")) == ["results"]
    assert location.evaluate() == ["eager_table"]
    assert len(emulator.log()) == 1
