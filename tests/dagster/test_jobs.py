"""The jobs that send requests again, and the limit in the Launchpad, run by Dagster in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from sensor_ticks import poll_and_tick, run_requested

from batch_assets import (
    MessageBatchResource,
    build_message_batch_checks,
    build_message_batch_jobs,
    build_message_batch_sensor,
    build_message_batch_watch_sensors,
)
from batch_assets.core.errors import SettingsError
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
CREATE = {"method": "POST", "path": "/v1/messages/batches"}


def definitions(assets: list[dg.AssetsDefinition]) -> dg.Definitions:
    return dg.Definitions(
        assets=assets,
        jobs=build_message_batch_jobs(assets),
        sensors=[build_message_batch_sensor()],
        executor=dg.in_process_executor,
    )


def run_job(
    location: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    *,
    partition: str | None = None,
    tags: dict[str, str] | None = None,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    """Launch a job unchanged, or with another config of requests."""
    run_config = {"ops": {"greetings__requests": {"config": config}}} if config else None
    return location.resolve_job_def(name).execute_in_process(
        instance=instance, run_config=run_config, partition_key=partition, tags=tags
    )


def log(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    """The log lines of a run."""
    return [entry.user_message for entry in instance.all_logs(result.run_id)]


def materialize(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, *, partition: str | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"greetings__requests": {"config": config}}}
    return dg.materialize(assets, instance=instance, run_config=run_config, partition_key=partition)


def run_what_the_sensor_asks_for(
    location: dg.Definitions, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    (request,) = poll_and_tick(location, instance).run_requests
    return run_requested(request, assets, instance)


def stages(result: dg.ExecuteInProcessResult) -> list[str]:
    """The stages that were materialized."""
    materialized = [event.asset_key for event in result.get_asset_materialization_events()]
    return [key.path[-1] for key in materialized if key is not None]


def metadata(result: dg.ExecuteInProcessResult, stage: str) -> dict[str, Any]:
    """The metadata of a stage's observation."""
    (event,) = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
        if event.asset_key is not None and event.asset_key.path[-1] == stage
    ]
    return {key: value.value for key, value in event.metadata.items()}


def table(tmp_path: Path) -> pd.DataFrame:
    return pd.read_parquet(tmp_path / "root" / "greetings" / "results")


def test_a_refresh_shows_its_cost_and_is_sent_when_it_is_confirmed(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets()
    location = definitions(assets)
    assert stages(materialize(assets, instance)) == ["requests", "batches", "results"]
    paid = table(tmp_path)["cost_usd"].sum()

    estimated = run_job(location, instance, "greetings_refresh")
    assert estimated.success
    assert stages(estimated) == []
    known = metadata(estimated, "requests")
    assert known["batch_assets/estimated_requests"] == 4
    assert known["batch_assets/estimated_cost_usd"] == pytest.approx(paid)
    assert known["batch_assets/estimated_low_usd"] < paid < known["batch_assets/estimated_high_usd"]
    assert known["batch_assets/estimated_cost"].startswith("4 requests, less than $0.0001; from 4 answers")
    assert len(emulator.log()) == 1
    assert table(tmp_path)["batch_id"].dropna().nunique() == 1

    emulator.settings(latency=3600.0)
    begun = run_job(location, instance, "greetings_refresh", refresh=True, confirm=True)
    assert stages(begun) == ["requests", "batches"]
    assert [batch["requests"] for batch in emulator.log()] == [4, 4]
    assert metadata(begun, "results")["batch_assets/pending"] == 4
    assert set(table(tmp_path)["result_type"]) == {"succeeded", "rejected"}, "the old table is whole"
    emulator.end_batches()
    finished = run_what_the_sensor_asks_for(location, assets, instance)
    assert stages(finished) == ["results"]
    (event,) = finished.asset_materializations_for_node("greetings__results")
    actual = {key: value.value for key, value in event.metadata.items()}
    assert actual["batch_assets/new_cost_usd"] == pytest.approx(paid)
    assert actual["batch_assets/estimated_cost_usd"] == pytest.approx(paid)
    assert actual["batch_assets/estimate_off_percent"] == pytest.approx(0, abs=0.01)
    assert set(table(tmp_path)["batch_id"].dropna()) == {emulator.log()[1]["id"]}


def test_a_plan_sends_and_registers_nothing(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    """The materialization that follows says the same, and needs a limit for the rest."""
    emulator.settings(latency=0.0)
    assets = make_assets()
    location = definitions(assets)
    planned = run_job(location, instance, "greetings_plan")
    assert planned.success
    assert stages(planned) == []
    known = metadata(planned, "requests")
    counts = ("rows", "rejected", "requests", "estimated_requests", "reused", "in_flight", "batches")
    assert [known.get(f"batch_assets/{name}") for name in counts] == [5, 1, 4, 4, None, None, 1]
    assert "role: user" in known["batch_assets/preview"]
    assert any("Nothing was sent. To send greetings: 4 requests, " in line for line in log(instance, planned))
    assert emulator.log() == []
    assert list((tmp_path / "root").glob("greetings/**/*.*")) == []

    limited = materialize(assets, instance, limit=3)
    (event,) = limited.asset_materializations_for_node("greetings__requests")
    written = {key: value.value for key, value in event.metadata.items()}
    assert written["batch_assets/estimated_cost"].startswith("3 requests, ")
    assert written["batch_assets/rest_cost"].startswith("1 request, ")
    assert written["batch_assets/estimated_low_usd"] < written["batch_assets/estimated_high_usd"]
    assert "batch_assets/estimated_cost_usd" not in written, "no answer is known"


def test_a_run_that_may_cost_too_much_ends_green_and_held_until_a_click(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets(confirm_above=0)
    location = definitions(assets)
    held = dg.materialize(assets, instance=instance)
    assert held.success
    assert emulator.log() == []
    (event,) = held.asset_materializations_for_node("greetings__requests")
    why = str(event.metadata["batch_assets/held"].value)
    assert why.startswith("it may cost ") and why.endswith("launch the job greetings_approve")
    assert any("The requests are held: it may cost" in line for line in log(instance, held))
    assert run_job(location, instance, "greetings_approve").success
    assert stages(run_what_the_sensor_asks_for(location, assets, instance))[0] == "batches"
    assert [batch["requests"] for batch in emulator.log()] == [4]

    asked = [{"role": "user", "content": "Please: {{ text }}"}]
    edited = make_assets(
        confirm_above=0, params={"model": "claude-haiku-5-5", "max_tokens": 50, "messages": asked}
    )
    assert stages(materialize(edited, instance, confirm=True)) == ["requests", "batches", "results"]
    assert [batch["requests"] for batch in emulator.log()] == [4, 5]


@pytest.mark.parametrize(("fields", "has_job"), [({}, False), ({"confirm_above": 5}, True), ({"pilot": 2}, True)])
def test_a_pipeline_whose_requests_may_need_approval_has_the_job_for_it(
    make_assets: MakeAssets, fields: dict[str, Any], has_job: bool
) -> None:
    repository = definitions(make_assets(**fields)).get_repository_def()
    assert repository.has_job("greetings_approve") is has_job


def test_failed_rows_are_sent_again_by_a_click(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    assets = make_assets()
    location = definitions(assets)
    materialize(assets, instance)
    assert set(table(tmp_path)["result_type"]) == {"errored", "rejected"}
    emulator.reset_faults()
    assert stages(run_job(location, instance, "greetings_retry_failed")) == ["requests", "batches", "results"]
    assert set(table(tmp_path)["result_type"]) == {"succeeded", "rejected"}
    assert [batch["requests"] for batch in emulator.log()] == [4, 4]


def test_a_limit_leaves_rows_pending_and_the_sensor_reports_them_and_rests(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets()
    location = definitions(assets)
    limited = materialize(assets, instance, limit=1)
    assert stages(limited) == ["requests", "batches"], "nothing is logged as complete"
    known = metadata(limited, "results")
    assert (known["batch_assets/pending"], known["batch_assets/left_out"]) == (3, 3)
    assert known["batch_assets/sample"].count("| succeeded |") == 1
    assert "| rejected |" in known["batch_assets/failed_rows"]
    assert list(table(tmp_path)["result_type"]) == ["succeeded", *["pending"] * 3, "rejected"]
    for _ in range(2):
        rests = poll_and_tick(location, instance)
        assert rests.run_requests == []
        assert (
            "A limit left out 3 requests of greetings. To send them, materialize greetings/requests"
            in rests.skip_message
        )
    assert stages(materialize(assets, instance)) == ["requests", "batches", "results"]
    assert [batch["requests"] for batch in emulator.log()] == [1, 3]
    assert "limit left out" not in poll_and_tick(location, instance).skip_message


def test_after_a_limit_failed_rows_are_shown_with_their_reasons(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets()
    materialize(assets, instance)
    emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    message = {"role": "user", "content": "Again: {{ text }}"}
    edited = make_assets(params={"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [message]})
    known = metadata(materialize(edited, instance, limit=2), "results")
    assert known["batch_assets/waiting_table"], "the table of before stays"
    assert known["batch_assets/failed_rows"].count("| errored | permission\\_error | Your API key") == 2
    assert "| succeeded |" not in known["batch_assets/sample"]


def test_a_limited_refresh_is_marked_as_one_and_ends_when_it_is_canceled(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets()
    location = definitions(assets)
    materialize(assets, instance)
    limited = log(instance, materialize(assets, instance, refresh=True, confirm=True, limit=1))
    assert "5 rows, 1 rejected; 4 distinct requests: 1 to send, 0 reused, 0 in flight; part of a refresh" in (
        limited
    )
    assert "The limit leaves out 3 more requests: refresh it again to send them" in limited
    send_them = "materialize greetings/requests with `refresh` and `confirm`"
    left_out = f"A limit left out 3 requests of greetings. To send them, {send_them}"
    assert left_out in poll_and_tick(location, instance).skip_message
    canceled = log(instance, run_job(location, instance, "greetings_cancel"))
    assert any("nothing more of this submission will be sent" in line for line in canceled)
    (request,) = poll_and_tick(location, instance).run_requests
    assert request.tags["batch_assets/submission"]
    later = log(instance, materialize(assets, instance))
    assert "5 rows, 1 rejected; 4 distinct requests: 0 to send, 4 reused, 0 in flight" in later
    assert [batch["requests"] for batch in emulator.log()] == [4, 1]


@pytest.mark.parametrize("limit", [0, -1, True, "some", "5", 1.5])
def test_what_is_no_limit_is_refused(make_assets: MakeAssets, instance: dg.DagsterInstance, limit: Any) -> None:
    with pytest.raises(Exception, match=f"{limit!r} is no limit: write a whole number from 1 on, or `all`"):
        materialize(make_assets(), instance, limit=limit)


@pytest.mark.parametrize("limit", ["all", None])
def test_without_a_limit_all_requests_are_sent(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, limit: str | None
) -> None:
    emulator.settings(latency=0.0)
    (event,) = materialize(make_assets(), instance, limit=limit).asset_materializations_for_node(
        "greetings__requests"
    )
    assert event.metadata["batch_assets/new"].value == 4
    assert "batch_assets/left_out" not in event.metadata


def test_the_launchpad_is_filled_with_every_option(make_assets: MakeAssets) -> None:
    job = definitions(make_assets()).get_repository_def().get_job("greetings").get_job_snapshot()
    schema = job.config_schema_snapshot
    filled = default_values_yaml_from_type_snap(
        schema, schema.get_config_snap(str(job.mode_def_snaps[0].root_config_key))
    )
    config = yaml.safe_load(filled)["ops"]["greetings__requests"]["config"]
    options = ("retry_failed", "refresh", "accept_rendering", "plan", "confirm")
    assert config == {"limit": "all"} | dict.fromkeys(options, False)


def test_jobs_of_partitions_use_the_chosen_one(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    """The runs of the sensor also name their partition."""
    emulator.settings(latency=0.0)
    (tmp_path / "parts").mkdir()
    for key in ("de", "en"):
        (tmp_path / "parts" / f"{key}.csv").write_text(f"id,text\n1,hello {key}\n2,the same\n")
    assets = make_assets(
        dataset={"path": "parts/{partition}.csv", "key": "id"}, partitions={"static": ["de", "en"]}
    )
    location = definitions(assets)
    for key in ("de", "en"):
        materialize(assets, instance, partition=key)
    estimated = run_job(location, instance, "greetings_refresh", partition="en")
    assert metadata(estimated, "requests")["batch_assets/estimated_requests"] == 2
    both = {"dagster/asset_partition_range_start": "de", "dagster/asset_partition_range_end": "en"}
    together = log(instance, run_job(location, instance, "greetings_refresh", tags=both, refresh=True))
    (summed,) = [line for line in together if line.startswith("All 2 partitions: 4 requests, ")]
    assert summed.endswith("Requests that partitions share are counted in each, and sent once by each run.")
    assert not any(line.startswith("All ") for line in log(instance, estimated))
    above = make_assets(
        dataset={"path": "parts/{partition}.csv", "key": "id"},
        partitions={"static": ["de", "en"]},
        confirm_above=0.00004,
    )
    added_up = log(instance, run_job(definitions(above), instance, "greetings_refresh", tags=both, refresh=True))
    assert len([line for line in added_up if "beside" in line and "would hold" in line]) == 1
    emulator.settings(latency=3600.0)
    run_job(location, instance, "greetings_refresh", partition="en", refresh=True, confirm=True)
    assert [batch["requests"] for batch in emulator.log()] == [2, 1, 2]
    emulator.end_batches()
    (request,) = poll_and_tick(location, instance).run_requests
    assert request.partition_key == "en"
    job = location.get_repository_def().get_implicit_job_def_for_assets(request.asset_selection)
    assert job is not None
    resolved = request.with_resolved_tags_and_config(job, [], None)  # as the daemon does
    assert resolved.tags["dagster/partition"] == "en"
    assert resolved.tags["batch_assets/submission"].startswith("20")


def test_loading_and_launching_raises_no_warning_of_dagster(make_assets: MakeAssets) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repository = definitions(make_assets()).get_repository_def()
    names = {"greetings", "greetings_plan", "greetings_cancel", "greetings_retry_failed", "greetings_refresh"}
    assert all(repository.has_job(name) for name in names)
    for name in names:
        assert repository.get_job(name).description


@pytest.mark.parametrize("field", ["plan", "retry_failed", "refresh"])
def test_a_job_with_half_its_config_does_nothing_and_names_the_other_half(
    field: str, make_assets: MakeAssets, emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    """A config in the Launchpad replaces that of the job. Without its field, it would be a plain run."""
    location = definitions(make_assets())
    with pytest.raises(
        dg.Failure, match=rf"has no `{field}: true`, which is what the job greetings_{field} is for"
    ):
        run_job(location, instance, f"greetings_{field}", confirm=True)
    assert emulator.log() == []
    assert run_job(location, instance, f"greetings_{field}", **{field: True}).success


@pytest.mark.parametrize("build", [build_message_batch_jobs, build_message_batch_checks])
def test_anything_but_a_list_of_assets_is_refused(make_assets: MakeAssets, build: Callable[[Any], Any]) -> None:
    (asset, *_) = make_assets()
    for given, kind in ((asset, "AssetsDefinition"), ("abc", "str"), ([asset, 5], "int"), (None, "NoneType")):
        with pytest.raises(SettingsError, match=f"give a list of assets, .* not {kind}$"):
            build(given)


def test_no_two_pipelines_give_jobs_or_sensors_of_one_name(make_assets: MakeAssets) -> None:
    """Nor does a name that Dagster refuses for a job stop the code location."""
    names = ("trip", "trip_plan", "trip_plan_run", "trip_cancel", "trip_watch", "input", "input_run", "class")
    pipelines = {name: make_assets(name, watch=True) for name in (*names, "message_batches_eu")}
    everything = [asset for assets in pipelines.values() for asset in assets]
    sensors = [
        build_message_batch_sensor(resource_key=key) for key in (None, "eu", "eu_watch", "eu_watch_results")
    ]
    repository = dg.Definitions(
        assets=everything,
        jobs=build_message_batch_jobs(everything),
        sensors=[*sensors, *build_message_batch_watch_sensors(everything)],
        resources=dict.fromkeys(("eu", "eu_watch", "eu_watch_results"), MessageBatchResource()),
    ).get_repository_def()
    assert len(repository.sensor_defs) == len(sensors) + len(pipelines)
    jobs = {
        "trip_plan": "trip_plan_run",
        "trip_plan_run": "trip_plan_run_run",
        "input": "input_run",
        "trip": "trip",
    }
    for name, job in jobs.items():
        stages = repository.get_job(job).asset_layer.executable_asset_keys
        assert {key.path[0] for key in stages} == {name}
