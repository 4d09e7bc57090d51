"""What starts a pipeline automatically, for example a schedule, and how its file configures this."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from batch_assets import build_message_batch_schedules
from batch_assets.core.errors import ConfigError
from tests.documentation import blocks, page
from tests.projects import Project, whole_text

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
STAGES = ("requests", "batches", "results")
DAYS = {"daily": {"start": "2026-01-01", "timezone": "Europe/Berlin"}}
BY_DAY = {"path": "days/{partition}.csv"}


def due(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, at: str
) -> tuple[list[dg.RunRequest], str | None]:
    """What the schedule asks for at a time."""
    (schedule,) = build_message_batch_schedules(assets)
    repository = dg.Definitions(assets=assets, schedules=[schedule]).get_repository_def()
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    with (
        dg.partition_loading_context(dynamic_partitions_store=instance),  # the daemon's context refers to it
        dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=repository
        ) as context,
    ):
        data = schedule.evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message


def test_a_schedule_runs_all_three_stages_and_is_on(make_assets: MakeAssets, instance: dg.DagsterInstance) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assets = make_assets(schedule={"cron": "0 2 * * *", "timezone": "Europe/Berlin"})
        (schedule,) = build_message_batch_schedules(assets)
        definitions = dg.Definitions(assets=assets, schedules=[schedule])
        job = definitions.get_repository_def().get_job(schedule.job.name)
    assert (schedule.name, schedule.cron_schedule) == ("greetings_schedule", "0 2 * * *")
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert job.name == "greetings", "its runs are shown in the row of the pipeline's job"
    assert {key.path[-1] for key in job.asset_layer.executable_asset_keys} == set(STAGES)
    (request,), _ = due(assets, instance, "2026-01-01T02:00")
    assert (request.partition_key, request.run_config) == (None, {})
    assert build_message_batch_schedules(make_assets()) == []


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ("2026-01-04T22:59", "2026-01-03"),  # in Berlin the 4th is not over yet
        ("2026-01-04T23:00", "2026-01-04"),
        ("2025-12-31T12:00", None),
    ],
)
def test_the_newest_complete_time_partition_is_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, at: str, key: str | None
) -> None:
    assets = make_assets(dataset=BY_DAY, partitions=DAYS, schedule="0 2 * * *")
    (schedule,) = build_message_batch_schedules(assets)
    assert schedule.execution_timezone == "Europe/Berlin"
    requests, skip_message = due(assets, instance, at)
    assert [(request.partition_key, request.run_key) for request in requests] == ([(key, key)] if key else [])
    assert skip_message == (None if key else "greetings has no partition yet.")


@pytest.mark.parametrize(
    ("partitions", "known", "keys"),
    [
        ({"static": ["de", "en"]}, [], ["de", "en"]),
        ({"dynamic": True}, ["x", "y"], ["x", "y"]),
        ({"dynamic": True}, [], []),
        (
            dg.MultiPartitionsDefinition(
                {
                    "day": dg.DailyPartitionsDefinition("2026-01-01"),
                    "language": dg.StaticPartitionsDefinition(["de", "en"]),
                }
            ),
            [],
            ["2026-01-03|de", "2026-01-03|en"],
        ),
        (
            dg.MultiPartitionsDefinition(
                {
                    "day": dg.DailyPartitionsDefinition("2026-01-01"),
                    "language": dg.DynamicPartitionsDefinition(name="greetings"),
                }
            ),
            ["fr"],
            ["2026-01-03|fr"],
        ),
    ],
)
def test_other_partitions_have_a_run_each(
    make_assets: MakeAssets, kept: dg.DagsterInstance, partitions: Any, known: list[str], keys: list[str]
) -> None:
    assets = make_assets(dataset=BY_DAY, partitions=partitions, schedule="@hourly")
    kept.add_dynamic_partitions("greetings", known)
    requests, skip_message = due(assets, kept, "2026-01-04T12:00")
    assert sorted(str(request.partition_key) for request in requests) == keys
    assert len({request.run_key for request in requests}) == len(keys)
    assert (skip_message is None) == bool(keys)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("every night", "schedule: 'every night' is not a cron expression: give the five fields of cron"),
        ("0 25 * * *", "schedule: '0 25 * * *' is not a cron expression"),
        ("", "schedule.cron: the text is empty: give one"),
        ({"cron": "0 2 * * *", "timezone": "Mars"}, "schedule.timezone: there is no time zone 'Mars'"),
        ({"crn": "0 2 * * *"}, "schedule.crn: there is no such field: did you mean `cron`?"),
        (5, "schedule: "),
    ],
)
def test_a_schedule_without_a_time_is_refused_at_load(
    make_assets: MakeAssets, schedule: Any, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_message_batch_schedules(make_assets(schedule=schedule))
    assert problem in str(caught.value)


# --- in the pipeline's file


DOCUMENTED = page("docs/automation.md")
BLOCKS = {kind: [block.text for block in blocks(kind) if DOCUMENTED.name in block.location] for kind in (
    "yaml", "json", "sh", "python",
)}  # fmt: skip
PIPELINE = next(text for text in BLOCKS["yaml"] if "post_processing" in text)


def test_conditions_and_freshness_are_set_by_post_processing_as_documented(project: Project) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        specs = {spec.key.path[-1]: spec for spec in project.load(PIPELINE).resolve_all_asset_specs()}
    assert specs["requests"].automation_condition == dg.AutomationCondition.on_cron("0 2 * * *")
    assert specs["batches"].automation_condition == dg.AutomationCondition.eager()
    assert specs["results"].automation_condition is None
    assert specs["results"].freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))


def with_fields(fields: str) -> str:
    """The documented pipeline with more fields."""
    head, params, remainder = PIPELINE.partition("  params:")
    return head + textwrap.indent(fields, "  ") + params + remainder


def test_schedule_and_watch_of_the_pipeline_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVIEWS_SCHEDULE", raising=False)
    cron, with_zone, from_environment = (text for text in BLOCKS["yaml"] if text.startswith("schedule"))
    schedules_found: list[tuple[Any, str | None]] = []
    for text in (cron, with_zone, from_environment):
        schedules = project.load(with_fields(text)).get_repository_def().schedule_defs
        schedules_found += [(schedule.cron_schedule, schedule.execution_timezone) for schedule in schedules]
    assert schedules_found == [("0 2 * * *", None), ("0 2 * * 1-5", "Europe/Berlin")]
    monkeypatch.setenv("REVIEWS_SCHEDULE", "@daily")
    (schedule,) = project.load(with_fields(from_environment)).get_repository_def().schedule_defs
    assert (schedule.name, schedule.cron_schedule) == ("review_triage_schedule", "@daily")
    assert project.load(with_fields("schedule:\n")).get_repository_def().schedule_defs == []
    sensors = project.load(with_fields("watch: true\n")).get_repository_def().sensor_defs
    assert {sensor.name for sensor in sensors} >= {"message_batches_sensor", "review_triage_watch_sensor"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("schedule: nightly\n", "schedule: 'nightly' is not a cron expression"),
        ("schedule: {cron: 0 2 * * *, timezone: Mars}\n", "there is no time zone 'Mars'"),
        ("schedule: {crn: 0 2 * * *}\n", "crn"),
        ("watch: true\npartitions: {column: text}\n", "watch: files do not show which partitions have changed"),
    ],
)
def test_a_mistake_is_reported_with_file_and_field(project: Project, fields: str, problem: str) -> None:
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        project.load(with_fields(fields)).get_repository_def()
    assert problem in whole_text(caught.value)
    assert "defs/greetings/defs.yaml" in whole_text(caught.value)
