"""Partitioned pipelines in Dagster: one definition for three assets, several partitions in one run, the sensor."""

import datetime as dt
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset  # what a daemon records
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id
from sensor_ticks import location_of, poll_and_tick, run_requested

from batch_assets import (
    build_message_batch_checks,
    build_message_batch_partitions_sensors,
    build_message_batch_sensor,
)
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.errors import ConfigError
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.core.requests.build import build_requests
from batch_assets.dagster.partitions import GivenPartitions, PartitionError, check_partition, partitions_definition
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.dagster.sensors import removed
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
CREATE = {"method": "POST", "path": "/v1/messages/batches"}
DAYS = {"daily": {"start": "2026-01-01", "end": "2026-01-05"}}
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.fixture
def quick(emulator: Emulator) -> Emulator:
    emulator.settings(latency=0.0)
    return emulator


def write_days(folder: Path, *days: str, text: str = "") -> dict[str, Any]:
    """A dataset with a file for each day, one row each, and the fields of a pipeline over it."""
    for day in days:
        (folder / f"{day}.csv").write_text(f"id,text\n{day},{text or f'of {day}'}\n")
    return {"dataset": {"path": "{partition}.csv", "key": "id", "types": {"id": "string"}}, "partitions": DAYS}


def run_range(
    assets: list[Any], instance: dg.DagsterInstance, first: str, last: str, *stages: str
) -> dg.ExecuteInProcessResult:
    """A run of several partitions, as a backfill launches it."""
    selection = [asset for asset in assets if asset.key.path[-1] in stages] if stages else None
    return dg.materialize(
        assets, selection=selection, instance=instance, tags={START: first, END: last}, raise_on_error=False
    )


def materialized(instance: dg.DagsterInstance, stage: str, name: str = "greetings") -> dict[str | None, Any]:
    """The metadata of the newest materialization of each partition."""
    records = instance.fetch_materializations(dg.AssetKey([name, stage]), limit=100).records
    metadata: dict[str | None, Any] = {}
    for record in records:
        assert record.asset_materialization is not None
        values = {key: value.value for key, value in record.asset_materialization.metadata.items()}
        metadata.setdefault(record.partition_key, values)
    return metadata


def sensor_asks(assets: list[Any], instance: dg.DagsterInstance) -> list[str | None]:
    """The partitions that a tick of the sensor asks for."""
    sensor = build_message_batch_sensor()
    repository = dg.Definitions(assets=assets, sensors=[sensor]).get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        return [request.partition_key for request in sensor.evaluate_tick(context).run_requests or []]


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The error of each step that failed."""
    events = result.filter_events(lambda event: event.is_step_failure)
    return {
        str(event.step_key): event.step_failure_data.user_failure_data.description or ""
        for event in events
        if event.step_failure_data.user_failure_data is not None
    }


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("kind", ["hourly", "daily", "weekly", "monthly"])
def test_windows_are_those_of_dagster(make_assets: MakeAssets, kind: str, zone: str) -> None:
    first, end = {
        "hourly": ("2025-10-20", "2025-11-05"),
        "daily": ("2025-10-20", "2026-12-20"),
        "weekly": ("2025-10-19", "2026-12-20"),
        "monthly": ("2025-10-01", "2026-12-01"),
    }[kind]
    times = {"start": first, "end": end, "timezone": zone}
    assets = make_assets(dataset={"path": "{partition}.csv"}, partitions={kind: times})
    (bound,) = pipelines_in(assets[0].specs).values()
    config, definition = bound.pipeline.config.partitions, bound.partitions
    assert config is not None and isinstance(definition, dg.TimeWindowPartitionsDefinition)
    keys = definition.get_partition_keys(current_time=dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    assert len(keys) > 12
    assert (config.window(keys[0]).start, config.window(keys[-1]).end) == (config.times.since, config.times.until)
    for key in keys:
        window = definition.time_window_for_partition_key(key)
        ours = config.window(key)
        assert (ours.start.timestamp(), ours.end.timestamp()) == (window.start.timestamp(), window.end.timestamp())


def test_three_assets_share_the_definition_and_load_without_a_warning(make_assets: MakeAssets) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assets = make_assets(dataset={"path": "{partition}.csv"}, partitions=DAYS)
        definitions = dg.Definitions(assets=assets, asset_checks=build_message_batch_checks(assets))
        definitions.resolve_asset_graph()
    first, *others = [asset.partitions_def for asset in assets]
    assert all(other is first for other in others)
    assert first is not None
    assert first.get_partition_keys() == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    (spec,) = assets[0].specs
    assert "Partitions: daily from 2026-01-01 to 2026-01-05, UTC." in (spec.description or "")
    assert [asset.backfill_policy for asset in assets] == [dg.BackfillPolicy.multi_run(25)] * 3
    (unpartitioned, *_) = make_assets()
    assert (unpartitioned.partitions_def, unpartitioned.backfill_policy) == (None, None)


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        ({"static": ["a", "b"]}, dg.StaticPartitionsDefinition(["a", "b"])),
        ({"dynamic": True}, dg.DynamicPartitionsDefinition(name="greetings")),
        ({"column": "id"}, dg.DynamicPartitionsDefinition(name="greetings")),
        (dg.StaticPartitionsDefinition(["x"]), dg.StaticPartitionsDefinition(["x"])),
        (PartitionsConfig(static=["c"]), dg.StaticPartitionsDefinition(["c"])),
    ],
)
def test_every_kind_has_its_definition(make_assets: MakeAssets, partitions: Any, expected: Any) -> None:
    by_value = partitions == {"column": "id"}
    assets = make_assets(dataset={"path": "rows.csv" if by_value else "{partition}.csv"}, partitions=partitions)
    assert [asset.partitions_def for asset in assets] == [expected] * 3


@pytest.mark.parametrize("kind", ["hourly", "daily", "weekly", "monthly", "static"])
def test_a_definition_of_dagsters_divides_like_the_same_one_of_a_pipeline_file(
    make_assets: MakeAssets, kind: str
) -> None:
    """So replacing one by the other moves no table."""
    start = "2026-03-01"  # a Sunday
    config = PartitionsConfig.model_validate({kind: ["a"] if kind == "static" else {"start": start}})
    (asset, *_) = make_assets(dataset={"path": "{partition}.csv"}, partitions=config)
    assert asset.partitions_def is not None
    assert GivenPartitions(asset.partitions_def).division == config.division


def test_a_definition_of_dagsters_needs_a_dataset_that_differs(make_assets: MakeAssets) -> None:
    with pytest.raises(ConfigError, match="every partition would read the same rows"):
        make_assets(partitions=dg.StaticPartitionsDefinition(["x"]))


def test_a_definition_of_dagsters_gives_windows_to_a_query(make_assets: MakeAssets) -> None:
    weekly = dg.WeeklyPartitionsDefinition("2026-01-01", day_offset=1, timezone="Europe/Berlin")
    assets = make_assets(dataset={"sql": "select :partition_start as s", "url_env": "U"}, partitions=weekly)
    (bound,) = pipelines_in(assets[0].specs).values()
    assert partitions_definition(bound.pipeline) is weekly
    assert bound.pipeline.partitions is not None
    window = bound.pipeline.partitions.window("2026-01-05")
    assert (window.start.isoformat(), window.end.isoformat()[:10]) == ("2026-01-05T00:00:00+01:00", "2026-01-12")


def test_several_partitions_in_one_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    assets = make_assets(**write_days(tmp_path, *days, text="the same"))
    checks = build_message_batch_checks(assets)
    condition = dg.AutomationCondition
    every_day = condition.eager().without(condition.in_latest_time_window())

    @dg.asset(
        deps=[assets[-1].key],
        partitions_def=assets[-1].partitions_def,
        automation_condition=every_day & condition.all_deps_blocking_checks_passed(),
    )
    def guarded() -> None:
        """An asset downstream of results whose blocking checks passed."""

    definitions = dg.Definitions(assets=[*assets, guarded], asset_checks=checks)
    before = dg.evaluate_automation_conditions(definitions, instance)
    result = dg.materialize(
        [*assets, *checks], instance=instance, tags={START: days[0], END: days[1]}, raise_on_error=False
    )
    assert result.success, failures(result)
    for stage in ("requests", "batches", "results"):
        assert sorted(map(str, materialized(instance, stage))) == days[:2]
    metadata = materialized(instance, "requests")
    assert [metadata[day]["batch_assets/new"] for day in days[:2]] == [1, 0]
    assert [metadata[day].get("batch_assets/in_flight") for day in days[:2]] == [None, 1]
    assert [metadata[day]["dagster/partition_row_count"] for day in days[:2]] == [1, 1]
    assert len({metadata[day]["batch_assets/submission_id"] for day in days[:2]}) == 2
    assert {metadata[day]["batch_assets/submission_id"] for day in days[:2]} == {
        metadata["batch_assets/submission_id"] for metadata in materialized(instance, "results").values()
    }
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert len(evaluations) == 8
    assert all(evaluation.passed for evaluation in evaluations.values())
    assert {evaluation.description for evaluation in evaluations.values()} == {None}, "nothing is wrong"
    assert sensor_asks(assets, instance) == []
    after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert sorted(after.get_requested_partitions(guarded.key)) == days[:2]
    # A request that two partitions share is paid once, here in one run and in the next.
    assert dg.materialize(assets, instance=instance, partition_key=days[2]).success
    assert [batch["requests"] for batch in quick.log()] == [1]
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert sorted(table["partition"]) == days
    assert set(table["result_type"]) == {"succeeded"}


@pytest.mark.parametrize("gathered", [False, True])
def test_a_missing_file_fails_its_own_partition_only(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path, gathered: bool
) -> None:
    assets = make_assets(
        **write_days(tmp_path, "2026-01-01", "2026-01-03"), batching={"across_partitions": gathered}
    )
    (tmp_path / "2026-01-04.csv").write_text("id,text\n")  # a day without rows has a table, too
    of_requests = failures(run_range(assets, instance, "2026-01-01", "2026-01-04", "requests"))
    assert of_requests["greetings__requests"].startswith("1 of 4 partitions failed. 2026-01-02: ")
    assert "batches" not in of_requests["greetings__requests"]
    assert sensor_asks(assets, instance) == [], "no one has asked to send"
    (error,) = failures(run_range(assets, instance, "2026-01-01", "2026-01-04")).values()
    assert error.startswith("1 of 4 partitions failed. 2026-01-02: ")
    assert "there is no file or folder 2026-01-02.csv" in error
    assert error.endswith("\ngreetings/batches went on for 3 other partitions.")
    built = ["2026-01-01", "2026-01-03", "2026-01-04"]
    for stage in ("requests", "batches"):
        assert sorted(map(str, materialized(instance, stage))) == built
    assert materialized(instance, "results") == {}
    assert sum(batch["requests"] for batch in quick.log()) == 2
    while requested := poll_and_tick(location_of(assets), instance).run_requests:
        for request in requested:
            run_requested(request, assets, instance)
    assert sorted(map(str, materialized(instance, "results"))) == built


def test_a_stage_continues_for_the_partitions_that_have_its_input(
    make_assets: MakeAssets,
    instance: dg.DagsterInstance,
    quick: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assets = make_assets(**write_days(tmp_path, "2026-01-01", "2026-01-03"))
    with monkeypatch.context() as without_api:
        without_api.delenv("BATCH_ASSETS_EMULATOR")
        (error,) = failures(run_range(assets, instance, "2026-01-01", "2026-01-03")).values()
    assert "\ngreetings/batches failed for 2 other partitions. No API to talk to: set" in error
    assert sensor_asks(assets, instance) == [], "it may not begin with what no run has begun"
    alone = dg.materialize(assets, instance=instance, partition_key="2026-01-02", raise_on_error=False)
    assert "partition 2026-01-02: dataset.path: there is no file" in failures(alone)["greetings__requests"]
    error = failures(run_range(assets, instance, "2026-01-01", "2026-01-03", "batches"))["greetings__batches"]
    assert "1 of 3 partitions failed. 2026-01-02: Nothing to submit yet" in error
    assert sorted(map(str, materialized(instance, "batches"))) == ["2026-01-01", "2026-01-03"]
    assert len(quick.log()) == 2


def test_only_complete_partitions_have_results(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(**write_days(tmp_path, "2026-01-01", "2026-01-02"))
    assert dg.materialize(assets, instance=instance, partition_key="2026-01-02").success
    emulator.end_batches()
    result = run_range(assets, instance, "2026-01-01", "2026-01-02")
    assert result.success
    assert sorted(map(str, materialized(instance, "batches"))) == ["2026-01-01", "2026-01-02"]
    # Checks do not run for some of a run's partitions: the complete one gets a run of its own, with its checks.
    assert materialized(instance, "results") == {}
    observed = instance.fetch_observations(dg.AssetKey(["greetings", "results"]), limit=2).records
    assert sorted(str(record.partition_key) for record in observed) == ["2026-01-01", "2026-01-02"]
    assert sensor_asks(assets, instance) == ["2026-01-02"]
    emulator.end_batches()
    assert run_range(assets, instance, "2026-01-01", "2026-01-02", "results").success
    assert sorted(map(str, materialized(instance, "results"))) == ["2026-01-01", "2026-01-02"]
    assert sensor_asks(assets, instance) == []


def test_a_complete_partition_is_materialized_again_next_to_an_incomplete_one(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(**write_days(tmp_path, "2026-01-01", "2026-01-02"))
    assert dg.materialize(assets, instance=instance, partition_key="2026-01-01").success
    emulator.end_batches()
    assert run_range(assets, instance, "2026-01-01", "2026-01-01", "results").success
    assert dg.materialize(assets, instance=instance, partition_key="2026-01-02").success
    assert sensor_asks(assets, instance) == []
    assert run_range(assets, instance, "2026-01-01", "2026-01-02", "results").success
    assert sensor_asks(assets, instance) == ["2026-01-01"]


def test_a_partition_that_fails_leaves_the_others_results_to_runs_of_their_own(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(**write_days(tmp_path, "2026-01-01", "2026-01-02"))
    assert run_range(assets, instance, "2026-01-01", "2026-01-02", "requests", "batches").success
    (tmp_path / "root" / "greetings" / "results" / "partition=2026-01-01" / "results.parquet").mkdir(parents=True)
    error = failures(run_range(assets, instance, "2026-01-01", "2026-01-02", "results"))["greetings__results"]
    assert error.startswith("1 of 2 partitions failed. 2026-01-01: ")
    assert materialized(instance, "results") == {}
    assert "2026-01-02" in sensor_asks(assets, instance)


def test_a_blocking_check_stops_a_run_of_several_partitions(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    quick.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    assets = make_assets(**write_days(tmp_path, "2026-01-01", "2026-01-02"))
    ran = []

    @dg.asset(deps=[assets[-1].key])
    def report() -> None:
        ran.append(1)

    result = run_range(
        [*assets, *build_message_batch_checks(assets), report], instance, "2026-01-01", "2026-01-02"
    )
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    blocking, everywhere = "failed_rows_are_few", "failed_rows_are_few_in_all_partitions"
    assert [(check.check_name, check.partition, check.severity.value) for check in failed] == [
        (blocking, "2026-01-01", "ERROR"), (blocking, "2026-01-02", "ERROR"), (everywhere, None, "WARN")
    ]  # fmt: skip
    assert str(failed[1].description).startswith("2026-01-02: 1 of 1 row failed")
    assert str(failed[2].description).splitlines()[1].startswith("- 2026-01-02: 1 of 1 row failed")
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert failure.step_failure_data.user_failure_data is not None
    assert str(failure.step_failure_data.user_failure_data.description).startswith(
        "The blocking asset check failed_rows_are_few failed:\n2026-01-01: 1 of 1 row failed"
    )
    assert (result.success, ran) == (False, [])
    assert sorted(map(str, materialized(instance, "results"))) == ["2026-01-01", "2026-01-02"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_bad_day_blocks_its_own_day_only(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path, at_once: bool
) -> None:
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    fields = write_days(tmp_path, *days)
    (tmp_path / "2026-01-02.csv").write_text('id,text\nbad,""\n')  # its only row is rejected
    assets = make_assets(**fields)
    checks = build_message_batch_checks(assets)
    condition = dg.AutomationCondition
    every_day = condition.eager().without(condition.in_latest_time_window())
    guarded = dg.AssetSpec(
        "guarded",
        deps=[assets[-1].key],
        partitions_def=assets[-1].partitions_def,
        automation_condition=every_day & condition.all_deps_blocking_checks_passed(),
    )

    bad = condition.any_checks_match(condition.check_failed() | condition.in_progress(), blocking_only=True)
    some_days = condition.eager().without(~condition.any_deps_missing())
    of_all = dg.AssetSpec(
        "of_all", deps=[assets[-1].key], automation_condition=some_days & ~condition.any_deps_match(bad)
    )

    @dg.multi_asset(specs=[guarded])
    def report() -> None:
        """An asset downstream of results, of each day."""

    @dg.multi_asset(specs=[of_all])
    def report_of_all() -> None:
        """An asset downstream of results, of all days."""

    definitions = dg.Definitions(assets=[*assets, report, report_of_all], asset_checks=checks)
    cursor = dg.evaluate_automation_conditions(definitions, instance).cursor

    def run(first: str, last: str) -> None:
        result = dg.materialize(
            [*assets, *checks], instance=instance, tags={START: first, END: last}, raise_on_error=False
        )
        judged = {check.partition: check.passed for check in result.get_asset_check_evaluations()}
        assert {day: judged[day] for day in judged if day} == {
            day: day != "2026-01-02" for day in days if first <= day <= last
        }

    for first, last in [(days[0], days[2])] if at_once else [(day, day) for day in days]:
        run(first, last)
    evaluated = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
    assert sorted(evaluated.get_requested_partitions(guarded.key)) == [days[0], days[2]]
    assert evaluated.get_num_requested(of_all.key) == 0
    assert dg.evaluate_automation_conditions(definitions, instance, cursor=evaluated.cursor).total_requested == 0
    alone = dg.materialize(  # as "Execute all" on the page of the checks does
        [*assets, *checks], selection=dg.AssetSelection.checks(*checks), instance=instance, raise_on_error=False
    )
    assert {check.partition for check in alone.get_asset_check_evaluations()} == {*days, None}
    everywhere = {check.check_name: check for check in alone.get_asset_check_evaluations()}
    listed = everywhere["failed_rows_are_few_in_all_partitions"]
    assert (listed.passed, listed.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(listed.description).startswith("2026-01-02: 1 of 1 row failed (100%; max_failed is 1%): 1 rejected")
    unchanged = dg.evaluate_automation_conditions(definitions, instance, cursor=evaluated.cursor)
    assert unchanged.total_requested == 0
    (tmp_path / "2026-01-02.csv").write_text("id,text\ngood,of 2026-01-02\n")
    assert dg.materialize([*assets, *checks], instance=instance, partition_key=days[1]).success
    repaired = dg.evaluate_automation_conditions(definitions, instance, cursor=evaluated.cursor)
    assert repaired.get_requested_partitions(guarded.key) == {days[1]}
    assert repaired.get_num_requested(of_all.key) == 1


def test_the_partition_of_an_asset_is_the_dataset(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(dataset={"asset": "reviews", "key": "id"}, partitions=DAYS)

    @dg.asset(partitions_def=assets[0].partitions_def)
    def reviews(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"id": [1], "text": [f"of {context.partition_key}"]})

    for day in ("2026-01-01", "2026-01-02"):
        assert dg.materialize([reviews, *assets], instance=instance, partition_key=day).success
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert dict(zip(table["partition"], table["text"], strict=True)) == {
        "2026-01-01": "of 2026-01-01",
        "2026-01-02": "of 2026-01-02",
    }
    assert [asset.backfill_policy for asset in assets] == [None] * 3
    several = dg.materialize(
        [reviews, *assets], selection=[assets[0]], instance=instance, raise_on_error=False,
        tags={START: "2026-01-01", END: "2026-01-02"},
    )  # fmt: skip
    assert "reads the table of one at a time" in failures(several)["greetings__requests"]


def test_a_column_picks_from_the_table_of_an_asset_without_partitions(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    @dg.asset
    def reviews() -> pd.DataFrame:
        return pd.DataFrame(
            {"id": [1, 2, 3, 4], "text": ["a", "b", "c", "d"], "language": ["de", "en", None, "EN"]}
        )

    assets = make_assets(
        dataset={"asset": "reviews", "key": "id"}, partitions={"static": ["de", "en"], "column": "language"}
    )
    assert dg.materialize([reviews], instance=instance).success
    result = dg.materialize([reviews, *assets], selection=assets, instance=instance, partition_key="en")
    assert result.success
    metadata = materialized(instance, "requests")["en"]
    assert (metadata["dagster/partition_row_count"], metadata["batch_assets/without_partition"]) == (1, 2)


def test_the_sensor_adds_new_values_and_reads_nothing_twice(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assets = make_assets(dataset={"path": "*.jsonl"}, partitions={"column": "text"})
    (sensor,) = build_message_batch_partitions_sensors(assets)
    assert (sensor.name, sensor.default_status) == ("greetings_partitions_sensor", dg.DefaultSensorStatus.RUNNING)
    dg.Definitions(assets=assets, sensors=[sensor]).get_repository_def()

    def look(cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        outcome = sensor(context)
        assert isinstance(outcome, dg.SensorResult | dg.SkipReason)
        return outcome

    early = look()
    assert isinstance(early, dg.SkipReason)
    assert "dataset.path: " in str(early.skip_message)
    (tmp_path / "a.jsonl").write_text('{"text": "de"}\n{"text": "en"}\n{"text": null}\n')
    first = look()
    assert isinstance(first, dg.SensorResult)
    (request,) = first.dynamic_partitions_requests or []
    assert (request.partitions_def_name, request.partition_keys) == ("greetings", ["de", "en"])
    assert "new partitions: de, en" in str(first.skip_reason)
    instance.add_dynamic_partitions("greetings", ["de", "en"])
    # If no file changes, none is opened: this one could not be.
    (tmp_path / "a.jsonl").chmod(0)
    again = look(first.cursor)
    assert isinstance(again, dg.SkipReason)
    assert "No file of *.jsonl has changed" in str(again.skip_message)
    (tmp_path / "a.jsonl").chmod(0o644)
    (tmp_path / "b.jsonl").write_text('{"text": "fr"}\n{"text": "de"}\n{"text": "x...y"}\n')
    second = look(first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert [request.partition_keys for request in second.dynamic_partitions_requests or []] == [["fr"]]
    assert "Left out: the key 'x...y'" in str(second.skip_reason)


def test_only_pipelines_by_value_of_files_have_that_sensor(make_assets: MakeAssets) -> None:
    for dataset, partitions in (
        ({"path": "a.csv"}, {"static": ["a"], "column": "id"}),
        ({"path": "{partition}.csv"}, {"dynamic": True}),
        ({"asset": "raw"}, {"column": "id"}),
    ):
        assert build_message_batch_partitions_sensors(make_assets(dataset=dataset, partitions=partitions)) == []


@pytest.mark.parametrize(
    ("partitions", "requested", "problem"),
    [
        ({"column": "lang"}, ["de"], ""),
        (
            {"static": ["en"], "column": "lang"},
            [],
            "'de' was sent as a partition, but the pipeline no longer has this partition",
        ),
        (None, [], "'de' was sent as a partition, but the pipeline has no partitions now"),
    ],
)
def test_a_key_that_dagster_does_not_know_does_not_fail_the_tick(
    make_assets: MakeAssets,
    instance: dg.DagsterInstance,
    quick: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    partitions: dict[str, Any] | None,
    requested: list[str],
    problem: str,
) -> None:
    monkeypatch.setattr(removed, "PATIENCE_SECONDS", 0.0)
    (tmp_path / "rows.csv").write_text("id,text,lang\n1,hello,de\n")
    assets = make_assets(dataset={"path": "rows.csv", "key": "id"}, partitions=partitions)
    (bound,) = pipelines_in(assets[0].specs).values()
    with open_root() as root:  # like the command line
        build_requests(root, bound.pipeline, "de")
        submit_batches(root, "greetings", "de")
    sensor = build_message_batch_sensor()
    repository = dg.Definitions(assets=assets, sensors=[sensor]).get_repository_def()
    with (
        dg.partition_loading_context(dynamic_partitions_store=instance),  # like the daemon
        dg.build_sensor_context(instance=instance, repository_def=repository) as context,
    ):
        data = sensor.evaluate_tick(context)
    assert [request.partition_key for request in data.run_requests or []] == requested
    assert problem in (data.skip_message or "")
    assert instance.get_dynamic_partitions("greetings") == requested
    for thread in threading.enumerate():
        if thread.name == "removed pipelines":
            thread.join()
    with open_root() as root, root.ledger.read() as tx:
        (submission,) = submissions.all_newest(tx)
    assert (submission.final_at is not None) == (not requested), "no run collects its answers"


def test_partitions_of_two_dimensions(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    colors, sizes = dg.StaticPartitionsDefinition(["red", "blue"]), dg.StaticPartitionsDefinition(["s", "m"])
    both = dg.MultiPartitionsDefinition({"color": colors, "size": sizes})
    (tmp_path / "red|s.csv").write_text("id,text\n1,of red s\n")
    assets = make_assets(dataset={"path": "{partition}.csv", "key": "id"}, partitions=both)
    key = dg.MultiPartitionKey({"color": "red", "size": "s"})
    assert dg.materialize(assets, instance=instance, partition_key=key).success
    assert list(materialized(instance, "results")) == ["red|s"]
    check_partition("asked", both, "red|s")
    with pytest.raises(PartitionError, match=r"no partition 'green\|s'"):
        check_partition("asked", both, "green|s")


def test_a_dimension_whose_keys_only_dagster_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colors, sizes = dg.DynamicPartitionsDefinition(name="colors"), dg.StaticPartitionsDefinition(["s", "m"])
    both = dg.MultiPartitionsDefinition({"color": colors, "size": sizes})
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(
        PartitionError, match="asked has partitions that only a Dagster instance knows: set DAGSTER_HOME"
    ):
        check_partition("asked", both, "red|s")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("colors", ["red"])
    check_partition("asked", both, "red|s")
    with pytest.raises(PartitionError, match=r"no partition 'blue\|s'. There are red\|s, red\|m"):
        check_partition("asked", both, "blue|s")


@pytest.mark.parametrize(
    ("definition", "key", "problem"),
    [
        (None, "2026-01-01", "has no partitions: leave --partition out"),
        (dg.DynamicPartitionsDefinition(name="x"), "", "has dynamic partitions: name one with --partition KEY"),
        (dg.StaticPartitionsDefinition(["de", "en"]), "", "name one with --partition KEY. There are de, en"),
        (
            dg.StaticPartitionsDefinition(["german", "english"]),
            "germn",
            "no partition 'germn'. There are german and 1",
        ),
        (
            dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05"),
            "2026-01-05",
            "2026-01-01 to 2026-01-04",
        ),
        (dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05"), "Monday", "no partition 'Monday'"),
        (dg.DailyPartitionsDefinition("2999-01-01"), "2999-01-01", "There are none yet"),
    ],
)
def test_an_invalid_key_is_refused_with_some_valid_ones(definition: Any, key: str, problem: str) -> None:
    with pytest.raises(PartitionError, match="asked") as caught:
        check_partition("asked", definition, key)
    assert problem in str(caught.value)


def test_existing_keys_pass() -> None:
    check_partition("asked", None, "")
    check_partition("asked", dg.DynamicPartitionsDefinition(name="x"), "new")
    check_partition("asked", dg.StaticPartitionsDefinition(["de"]), "de")
    check_partition("asked", dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05"), "2026-01-04")


def test_a_backfill_whose_requests_are_all_answered_leaves_the_tables_to_the_sensor(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    """Dagster has `results` in none of these backfills, so no run of theirs writes the new tables."""
    day = "2026-01-01"
    assets = make_assets(**write_days(tmp_path, day))
    assert dg.materialize(assets, instance=instance, partition_key=day).success
    (tmp_path / f"{day}.csv").write_text(f"id,text\n{day},of {day}\nnew,of {day}\n")
    assert dg.materialize(assets, selection=assets[:2], instance=instance, partition_key=day).success
    assert [batch["requests"] for batch in quick.log()] == [1]
    assert sensor_asks(assets, instance) == [day]


def backfill_of(instance: dg.DagsterInstance, days: list[str], *selection: dg.AssetKey) -> str:
    """The id of a backfill whose runs have all been launched, as the daemon records it."""
    id_ = make_new_backfill_id()
    subset = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05").subset_with_partition_keys(days)
    data = AssetBackfillData.empty(AssetGraphSubset({selection[0]: subset}), time.time(), instance)
    instance.add_backfill(
        PartitionBackfill(
            id_,
            BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=time.time(),
            asset_selection=list(selection),
            asset_backfill_data=data,
        )
    )
    return id_


def test_a_backfill_of_results_that_waits_is_ended_by_its_last_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    """The daemon would mark its partitions as failed; test_automation_daemon.py has one with a daemon."""
    days = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    assets = make_assets(**write_days(tmp_path, *days))
    key = assets[-1].key
    assert run_range(assets, instance, days[0], days[1], "requests", "batches").success
    assert run_range(assets, instance, days[2], days[2], "requests").success

    def run(id_: str, first: str, last: str) -> dg.ExecuteInProcessResult:
        tags = {START: first, END: last, "dagster/backfill": id_}
        return dg.materialize(assets, selection=[key], instance=instance, tags=tags, raise_on_error=False)

    def outcome(id_: str) -> tuple[str, str | None]:
        backfill = instance.get_backfill(id_)
        assert backfill is not None
        return backfill.status.value, backfill.error.message if backfill.error is not None else None

    waits = backfill_of(instance, days, key)
    other = instance.create_run_for_job(
        dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/backfill": waits},
    )
    assert run(waits, days[0], days[0]).success
    assert outcome(waits) == ("REQUESTED", None)  # another run has not ended
    instance.delete_run(other.run_id)
    assert run(waits, days[1], days[1]).success
    assert outcome(waits) == ("COMPLETED_SUCCESS", None)

    mixed = backfill_of(instance, days, key)
    assert run(mixed, days[0], days[3]).success  # of 01-03 nothing was sent, and of 01-04 nothing was built
    status, why = outcome(mixed)
    assert status == "COMPLETED_FAILED" and why is not None
    assert why.startswith("2 partitions get no answers without a user")
    assert why.endswith("The sensor materializes 2 partitions when the answers are complete.")

    never = backfill_of(instance, days, key)
    error = failures(run(never, days[3], days[3]))["greetings__results"]
    assert error == "Nothing has been submitted yet: materialize greetings/requests and greetings/batches first."
    assert outcome(never) == ("REQUESTED", None)  # its partition has failed, as Dagster sees

    more = backfill_of(instance, days, key, dg.AssetKey("downstream"))
    emulator.end_batches()
    assert run(more, days[0], days[2]).success
    assert outcome(more) == ("REQUESTED", None)  # Dagster goes on with the other asset
    assert sensor_asks(assets, instance) == [None]  # a run of both days
    complete = backfill_of(instance, days, key)
    assert run(complete, days[0], days[1]).success
    assert outcome(complete) == ("REQUESTED", None)  # all was materialized, as Dagster sees
    assert sorted(map(str, materialized(instance, "results"))) == days[:2]
    assert run_range(assets, instance, days[2], days[2], "batches").success
    assert run(complete, days[2], days[2]).success
    assert outcome(complete) == ("COMPLETED_SUCCESS", None)
    backfill = instance.get_backfill(complete)
    assert backfill is not None and backfill.asset_backfill_data is not None
    counted = backfill.asset_backfill_data.materialized_subset.get_partitions_subset(key)
    assert sorted(counted.get_partition_keys()) == days[:2]
