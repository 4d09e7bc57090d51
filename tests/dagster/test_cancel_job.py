"""What users do to batches in the UI: the job that cancels, and the check that warns of lost answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sensor_ticks import tick
from sqlalchemy import text

from batch_assets import (
    build_message_batch_cancel_jobs,
    build_message_batch_checks,
    build_message_batch_jobs,
    build_message_batch_sensor,
)
from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
CHECK = "results_are_collected_in_time"


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(text(statement))
        return list(result) if result.returns_rows else []


def definitions(assets: list[dg.AssetsDefinition]) -> dg.Definitions:
    return dg.Definitions(
        assets=assets,
        asset_checks=build_message_batch_checks(assets),
        jobs=build_message_batch_cancel_jobs(assets),
        sensors=[build_message_batch_sensor()],
        executor=dg.in_process_executor,
    )


def cancel(location: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"cancel_batches": {"config": config}}}
    job = location.resolve_job_def("greetings_cancel")
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    data = event.step_failure_data
    return f"{data.user_failure_data.description if data.user_failure_data else data.error}"


def test_the_job_cancels_and_the_sensor_brings_the_results_in(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets()
    location = definitions(assets)
    dg.materialize(assets, instance=instance)
    emulator.settings(cancel_delay=0.0)
    assert cancel(location, instance).success
    ledger("update batch set next_poll_at = 0")
    (request,) = tick(location, instance).run_requests
    assert [key.path[-1] for key in request.asset_selection] == ["results"]
    result = dg.materialize(assets, selection=request.asset_selection, instance=instance, tags=request.tags)
    assert result.success
    assert not result.get_asset_materialization_events(), "nothing downstream starts"
    (event,) = result.filter_events(lambda event: event.is_asset_observation)
    assert event.asset_observation_data.asset_observation.metadata["batch_assets/canceled"].value == 4
    assert not tick(location, instance).run_requests
    assert len(emulator.log()) == 1

    emulator.settings(latency=0.0)
    dg.materialize(assets, instance=instance)
    assert [batch["requests"] for batch in emulator.log()] == [4, 4]


def test_one_partition_or_one_batch_is_canceled_as_the_config_says(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets()
    location = definitions(assets)
    dg.materialize(assets, instance=instance)
    (batch,) = emulator.log()
    assert "has no partition 'B'" in failure(cancel(location, instance, partition="B"))
    assert "has no batch msgbatch_x" in failure(cancel(location, instance, batch_id="msgbatch_x"))
    assert cancel(location, instance, batch_id=batch["id"]).success
    assert ledger("select processing_status from batch") == [("canceling",)]


def test_a_cancel_that_the_api_refuses_fails_the_run_with_its_text(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets()
    dg.materialize(assets, instance=instance)
    emulator.faults([{"match": {"path": "*/cancel"}, "action": {"status": 500}}])
    assert "HTTP 500" in failure(cancel(definitions(assets), instance))


def names(checks: dg.AssetChecksDefinition) -> set[str]:
    return {spec.name for spec in checks.check_specs}


def check(assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> Any:
    (only,) = [checks for checks in build_message_batch_checks(assets) if CHECK in names(checks)]
    result = dg.materialize(
        [*assets, only], selection=dg.AssetSelection.checks(only), instance=instance, raise_on_error=False
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_check_warns_of_answers_that_are_soon_lost(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    assets = make_assets()
    assert check(assets, instance).passed
    assert not (tmp_path / "root").exists()
    dg.materialize(assets, instance=instance)
    assert check(assets, instance).passed
    ledger("update batch set created_at = created_at - 86400 * 27")
    warned = check(assets, instance)
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    (batch,) = emulator.log()
    assert f"{batch['id']} (open): 2 d 0 h left" in warned.description
    assert warned.metadata["batch_assets/batch_ids"].value == [batch["id"]]
    ledger("update batch set state = 'collected'")
    assert check(assets, instance).passed


def test_the_sensor_evaluates_the_check_when_its_outcome_changes(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets()
    location = definitions(assets)
    dg.materialize(assets, instance=instance)
    first = tick(location, instance)
    assert first.asset_events == []
    ledger("update batch set created_at = created_at - 86400 * 27, next_poll_at = next_poll_at + 3600")
    second = tick(location, instance, first.cursor)
    (warning,) = second.asset_events
    assert (warning.check_name, warning.passed, warning.severity) == (CHECK, False, dg.AssetCheckSeverity.WARN)
    assert tick(location, instance, second.cursor).asset_events == []
    cursor = json.loads(second.cursor)
    cursor["warned"]["greetings"] = cursor["warned"]["greetings"].replace("20", "19", 1)
    a_day_ago = json.dumps(cursor)
    assert len(tick(location, instance, a_day_ago).asset_events) == 1
    ledger("update batch set state = 'collected'")
    events = tick(location, instance, second.cursor).asset_events
    (over,) = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    assert over.passed
    without = dg.Definitions(assets=assets, sensors=[build_message_batch_sensor()])
    ledger("update batch set state = 'open'")
    assert tick(without, instance).asset_events == []


@pytest.mark.parametrize("partitions", [None, dg.StaticPartitionsDefinition(["a", "b"])])
def test_job_and_check_load_together_with_partitioned_assets(make_assets: MakeAssets, partitions: Any) -> None:
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=partitions))
        for asset in make_assets()
    ]
    repository = definitions(assets).get_repository_def()
    assert repository.has_job("greetings_cancel")
    assert {key.name for key in repository.asset_checks_defs_by_key} >= {CHECK, "every_row_once"}


def test_the_job_that_approves_lets_held_files_go_and_the_sensor_sends_them(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(confirm_above=5)
    location = dg.Definitions(
        assets=assets, jobs=build_message_batch_jobs(assets), sensors=[build_message_batch_sensor()]
    )
    requests = next(asset for asset in assets if asset.key.path[-1] == "requests")
    dg.materialize([requests], instance=instance)
    ledger("update request_file set state = 'held', hold = 'confirm', error = 'it may cost $7'")
    dg.materialize(assets, selection=[key for asset in assets for key in asset.keys][1:], instance=instance)
    assert emulator.log() == []
    skip = tick(location, instance)
    held = "1 request file is held: it may cost $7. To let them go, launch the job greetings_approve"
    assert held in str(skip.skip_message)
    approved = location.resolve_job_def("greetings_approve").execute_in_process(instance=instance)
    log = [entry.user_message for entry in instance.all_logs(approved.run_id)]
    assert "1 request file with 4 requests approved" in log and "why they were held: it may cost $7" in log
    ledger("update round set opened_at = opened_at - 3600, until = until - 3600")
    (request,) = tick(location, instance).run_requests
    assert [key.path[-1] for key in request.asset_selection] == ["batches", "results"]
    dg.materialize(assets, selection=request.asset_selection, instance=instance, tags=request.tags)
    assert len(emulator.log()) == 1
