"""What starts a pipeline by itself: a schedule, new files, conditions of Dagster's; and what hangs on results."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec
import pytest

from batch_assets import (
    build_message_batch_checks,
    build_message_batch_schedules,
    build_message_batch_watch_sensors,
)
from batch_assets.core.datasets.changes import fingerprints
from batch_assets.core.errors import ConfigError
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.emulator import Emulator
from tests.documentation import blocks, page

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
STAGES = ("requests", "batches", "results")
DAYS = {"daily": {"start": "2026-01-01", "timezone": "Europe/Berlin"}}
BY_DAY = {"path": "days/{partition}.csv"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("home"))) as opened:
        yield opened


@pytest.fixture
def kept(home: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """An instance that another process can open, as the daemon's: dynamic partitions ask for it."""
    yield home
    for key in home.get_dynamic_partitions("greetings"):
        home.delete_dynamic_partition("greetings", key)


# --- schedule


def due(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, at: str
) -> tuple[list[dg.RunRequest], str | None]:
    """What the schedule asks for at a time."""
    (schedule,) = build_message_batch_schedules(assets)
    repository = dg.Definitions(assets=assets, schedules=[schedule]).get_repository_def()
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    with (
        dg.partition_loading_context(dynamic_partitions_store=instance),  # which the daemon's context refers to
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
def test_of_partitions_of_time_the_newest_that_is_over_is_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, at: str, key: str | None
) -> None:
    assets = make_assets(dataset=BY_DAY, partitions=DAYS, schedule="0 2 * * *")
    (schedule,) = build_message_batch_schedules(assets)
    assert schedule.execution_timezone == "Europe/Berlin"
    requests, said = due(assets, instance, at)
    assert [(request.partition_key, request.run_key) for request in requests] == ([(key, key)] if key else [])
    assert said == (None if key else "greetings has no partition yet.")


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
    ],
)
def test_other_partitions_are_run_each_by_itself(
    make_assets: MakeAssets, kept: dg.DagsterInstance, partitions: Any, known: list[str], keys: list[str]
) -> None:
    assets = make_assets(dataset=BY_DAY, partitions=partitions, schedule="@hourly")
    kept.add_dynamic_partitions("greetings", known)
    requests, said = due(assets, kept, "2026-01-04T12:00")
    assert sorted(str(request.partition_key) for request in requests) == keys
    assert len({request.run_key for request in requests}) == len(keys)
    assert (said is None) == bool(keys)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("every night", "schedule: 'every night' is no time: give the five fields of cron"),
        ("0 25 * * *", "schedule: '0 25 * * *' is no time"),
        ("", "schedule: '' is no time"),
        ({"cron": "0 2 * * *", "timezone": "Mars"}, "schedule.timezone: there is no timezone 'Mars'"),
        ({"crn": "0 2 * * *"}, "schedule.cron: this field is required"),
        (5, "schedule: "),
    ],
)
def test_a_schedule_that_says_no_time_is_refused_at_load(
    make_assets: MakeAssets, schedule: Any, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_message_batch_schedules(make_assets(schedule=schedule))
    assert problem in str(caught.value)


# --- watch


class Watched:
    """A pipeline with `watch: true` whose sensor looks when it is told to."""

    def __init__(self, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> None:
        self.assets, self.instance = assets, instance
        self.cursor: str | None = None
        (self.sensor,) = build_message_batch_watch_sensors(assets)
        self.repository = dg.Definitions(assets=assets, sensors=[self.sensor]).get_repository_def()

    def look(self) -> tuple[list[str | None], str]:
        """The partitions that are asked for, and what the sensor says."""
        with dg.SensorEvaluationContext(  # as the daemon makes it: with a reference, where there is one
            instance_ref=self.instance.get_ref() if self.instance.is_persistent else None,
            instance=self.instance,
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=self.cursor,
            repository_name=None,
            repository_def=self.repository,
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor or self.cursor
        for added in data.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
        return [request.partition_key for request in data.run_requests or []], data.skip_message or ""

    def settle(self) -> list[str | None]:
        """Two looks: what the second one asks for."""
        assert self.look()[0] == []
        return self.look()[0]


def write_day(folder: Path, day: str, text: str = "hello") -> None:
    (folder / "days").mkdir(exist_ok=True)
    (folder / "days" / f"{day}.csv").write_text(f"id,text\n1,{text} {day}\n")


def test_a_file_is_run_when_two_looks_saw_it_alike(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched = Watched(make_assets(watch=True), instance)
    assert (watched.sensor.name, watched.sensor.default_status) == (
        "greetings_watch_sensor",
        dg.DefaultSensorStatus.RUNNING,
    )
    # What is there at the first look was never asked, as far as the sensor knows.
    asked, said = watched.look()
    assert (asked, said) == ([], "New or changed, and run if they are the same at the next look: greetings.csv.")
    assert watched.look()[0] == [None]
    assert watched.look() == ([], "No file of greetings.csv is new or has changed.")
    file = tmp_path / "greetings.csv"
    before = file.read_text()
    for _ in range(3):  # still being written
        file.write_text(file.read_text() + "7,more\n")
        assert watched.look()[0] == []
    assert watched.look()[0] == [None]
    file.write_text(before)  # as it once was: other rows than those of the last run
    assert watched.settle() == [None]
    file.unlink()
    asked, said = watched.look()
    assert (asked, "there is no file or folder greetings.csv" in said) == ([], True)
    assert len(str(watched.cursor)) < 200


def test_a_look_that_dagster_repeats_asks_the_same(make_assets: MakeAssets, instance: dg.DagsterInstance) -> None:
    watched = Watched(make_assets(watch=True), instance)
    watched.look()
    cursor = watched.cursor
    assert watched.look()[0] == [None]
    watched.cursor = cursor  # the tick died before Dagster took its cursor and its run
    assert watched.look()[0] == [None]
    watched.cursor = "not ours"
    assert watched.settle() == [None]


def test_folders_and_patterns_notice_added_and_removed_files(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for path in ("days", "days/*.csv"):
        for file in (tmp_path / "days").glob("*"):
            file.unlink()
        watched = Watched(make_assets(dataset={"path": path}, watch=True), instance)
        if path != "days":
            assert watched.look() == ([], "There is no file days/*.csv yet.")
        write_day(tmp_path, "a")
        assert watched.settle() == [None]
        write_day(tmp_path, "b")
        assert watched.settle() == [None]
        (tmp_path / "days" / ".c.csv.part").write_text("being written by another program")
        assert watched.settle() == []
        (tmp_path / "days" / "a.csv").unlink()
        assert watched.settle() == [None]


def test_only_partitions_whose_files_changed_are_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched = Watched(make_assets(dataset=BY_DAY, partitions=DAYS, watch=True), instance)
    for day in ("2026-01-01", "2026-01-02", "2999-01-01", "readme"):
        write_day(tmp_path, day)
    asked, said = watched.look()
    assert asked == []
    assert said.endswith(
        "2026-01-01, 2026-01-02. Of no partition, or of one whose time is not over: 2999-01-01, readme."
    )
    assert watched.look()[0] == ["2026-01-01", "2026-01-02"]
    write_day(tmp_path, "2026-01-02", "changed")
    write_day(tmp_path, "2026-01-03")
    assert watched.look()[0] == []
    write_day(tmp_path, "2026-01-03", "and still written to, which holds the other one up not at all")
    assert watched.look()[0] == ["2026-01-02"]
    assert watched.look()[0] == ["2026-01-03"]
    assert watched.look()[0] == []


@pytest.mark.parametrize(
    "path", ["days/{partition}", "days/{partition}/*.csv", "days/{partition}/{partition}.csv"]
)
def test_a_folder_for_each_partition_and_keys_that_are_new(
    make_assets: MakeAssets, kept: dg.DagsterInstance, tmp_path: Path, path: str
) -> None:
    watched = Watched(make_assets(dataset={"path": path}, partitions={"dynamic": True}, watch=True), kept)
    for key in ("de", "[en]", ".being_copied"):
        (tmp_path / "days" / key).mkdir(parents=True)
        (tmp_path / "days" / key / f"{key}.csv").write_text("id,text\n1,hello\n")
    assert watched.settle() == ["[en]", "de"]
    assert sorted(kept.get_dynamic_partitions("greetings")) == ["[en]", "de"]
    (tmp_path / "days" / "de" / "de.csv").write_text("id,text\n1,hello\n2,again\n")
    assert watched.settle() == ["de"]


def test_many_partitions_come_a_few_at_a_time_and_leave_the_cursor_short(
    make_assets: MakeAssets, kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched = Watched(make_assets(dataset=BY_DAY, partitions={"dynamic": True}, watch=True), kept)
    keys = [f"key{number:03}" for number in range(60)]
    for key in keys:
        write_day(tmp_path, key)
    asked: list[str | None] = []
    for _ in range(4):
        asked += watched.look()[0]
    assert asked == keys
    assert watched.look()[0] == []
    assert len(str(watched.cursor)) < 100
    kept = list((tmp_path / "root" / "greetings" / "watch").iterdir())
    assert len(kept) <= 2
    for file in kept:  # a root that is lost: everything counts as new, and what is answered is not asked again
        file.unlink()
    assert watched.settle() == keys[:25]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dataset": {"sql": "select 1", "url_env": "U"}}, "watch: only files can be watched"),
        ({"dataset": {"asset": "reviews"}}, "watch: only files can be watched; to follow the asset reviews set"),
        (
            {"partitions": {"static": ["de"], "column": "text"}},
            "watch: files do not say which partitions have changed",
        ),
    ],
)
def test_what_cannot_be_watched_is_refused_at_load(
    make_assets: MakeAssets, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_assets(watch=True, **fields)
    assert problem in str(caught.value)


@pytest.mark.parametrize("path", ["memory://incoming/{partition}.csv", "memory://incoming/*.csv"])
def test_files_of_another_file_system(make_assets: MakeAssets, kept: dg.DagsterInstance, path: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.rm("/incoming", recursive=True) if fs.exists("/incoming") else None
    partitions = {"dynamic": True} if "{" in path else None
    watched = Watched(make_assets(dataset={"path": path}, partitions=partitions, watch=True), kept)
    assert "There is no file" in watched.look()[1]
    fs.pipe("/incoming/a.csv", b"id,text\n1,hello\n")
    assert watched.settle() == ["a" if partitions else None]
    fs.pipe("/incoming/a.csv", b"id,text\n1,hello\n2,hello\n")
    assert watched.settle() == ["a" if partitions else None]


def test_the_listing_of_a_file_system_that_keeps_it_is_made_anew(make_assets: MakeAssets, tmp_path: Path) -> None:
    write_day(tmp_path, "a")
    for path in ("file-kept://{}/days/{{partition}}.csv", "file-kept://{}/days/*.csv"):
        fsspec.register_implementation("file-kept", _KeepsListings, clobber=True)
        partitions = {"dynamic": True} if "partition" in path else None
        assets = make_assets(dataset={"path": path.format(tmp_path)}, partitions=partitions)
        (found,) = pipelines_in(assets[0].specs).values()
        first = fingerprints(found.pipeline)
        write_day(tmp_path, "a", f"longer {path}")
        assert fingerprints(found.pipeline) != first


class _KeepsListings(fsspec.implementations.local.LocalFileSystem):  # type: ignore[misc]
    """As those of object stores do: what a folder held is remembered until it is told to forget it."""

    protocol = "file-kept"
    cachable = True

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        kept = self.__dict__.setdefault("kept", {})
        if path not in kept:
            kept[path] = super().ls(path, detail=True, **kwargs)
        return kept[path] if detail else [entry["name"] for entry in kept[path]]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.__dict__.pop("kept", None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("file-kept://")))


# --- conditions


def with_condition(
    assets: list[dg.AssetsDefinition], condition: Callable[[str], dg.AutomationCondition[Any] | None]
) -> list[dg.AssetsDefinition]:
    """The assets with a condition each, as `post_processing` sets it."""

    def changed(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=condition(spec.key.path[-1]))

    return [asset.map_asset_specs(changed) for asset in assets]


class Conditions:
    """A code location whose automation conditions are evaluated when a test says so."""

    def __init__(self, assets: list[Any], instance: dg.DagsterInstance, *others: Any) -> None:
        checks = build_message_batch_checks(assets)
        self.definitions = dg.Definitions(assets=[*assets, *others], asset_checks=checks)
        self.runnable, self.instance, self.cursor = [*assets, *others, *checks], instance, None

    def evaluate(self, at: datetime | None = None) -> list[str]:
        """The assets that are to be materialized, in order."""
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
    """Hangs on results."""


@dg.asset(
    deps=[dg.AssetKey(["greetings", "results"])],
    automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
)
def guarded_table() -> None:
    """Hangs on results whose blocking checks passed."""


def test_cron_on_requests_takes_batches_along(
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


def test_what_hangs_on_results_waits_until_they_are_complete(
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
    # Dagster plans what hangs on results into the run as well: with them it is left out.
    assert location.evaluate() == ["results", "eager_table"]
    early = location.run("results", "eager_table")
    assert (early.success, names(early)) == (True, [])
    assert location.evaluate() == []  # it does not go round and round
    emulator.end_batches()
    assert names(location.run("results")) == ["results"]
    assert location.evaluate() == ["eager_table"]
    assert len(emulator.log()) == 1


# --- in the pipeline's file


class Project:
    """A project of its own with one pipeline file."""

    def __init__(self, folder: Path) -> None:
        self.package = f"automated_{abs(hash(folder))}"
        self.folder = folder / self.package
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()
        (folder / "pyproject.toml").write_text(
            f'[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "{self.package}"\n'
        )

    def load(self, pipeline: str) -> dg.Definitions:
        file = self.folder / "defs" / "automated" / "defs.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pipeline)
        return dg.load_from_defs_folder(path_within_project=self.folder)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == made.package]:
        del sys.modules[name]


DOCUMENTED = page("docs/automation.md")
BLOCKS = {language: [block.text for block in blocks(language) if DOCUMENTED.name in block.place] for language in (
    "yaml", "json", "sh", "python",
)}  # fmt: skip
PIPELINE = next(text for text in BLOCKS["yaml"] if "post_processing" in text)


def test_conditions_and_freshness_come_by_post_processing_as_documented(project: Project) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {spec.key.path[-1]: spec for spec in project.load(PIPELINE).resolve_all_asset_specs()}
    assert found["requests"].automation_condition == dg.AutomationCondition.on_cron("0 2 * * *")
    assert found["batches"].automation_condition == dg.AutomationCondition.eager()
    assert found["results"].automation_condition is None
    assert found["results"].freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))


def with_fields(fields: str) -> str:
    """The documented pipeline with more fields."""
    head, params, rest = PIPELINE.partition("  params:")
    return head + textwrap.indent(fields, "  ") + params + rest


def test_schedule_and_watch_of_the_pipeline_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVIEWS_SCHEDULE", raising=False)
    cron, with_zone, from_environment = (text for text in BLOCKS["yaml"] if text.startswith("schedule"))
    found: list[tuple[Any, str | None]] = []
    for text in (cron, with_zone, from_environment):
        schedules = project.load(with_fields(text)).get_repository_def().schedule_defs
        found += [(schedule.cron_schedule, schedule.execution_timezone) for schedule in schedules]
    assert found == [("0 2 * * *", None), ("0 2 * * 1-5", "Europe/Berlin")]
    monkeypatch.setenv("REVIEWS_SCHEDULE", "@daily")
    (schedule,) = project.load(with_fields(from_environment)).get_repository_def().schedule_defs
    assert (schedule.name, schedule.cron_schedule) == ("review_triage_schedule", "@daily")
    sensors = project.load(with_fields("watch: true\n")).get_repository_def().sensor_defs
    assert {sensor.name for sensor in sensors} >= {"message_batches_sensor", "review_triage_watch_sensor"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("schedule: nightly\n", "schedule: 'nightly' is no time"),
        ("schedule: {cron: 0 2 * * *, timezone: Mars}\n", "there is no timezone 'Mars'"),
        ("schedule: {crn: 0 2 * * *}\n", "crn"),
        ("watch: true\npartitions: {column: text}\n", "watch: files do not say which partitions have changed"),
    ],
)
def test_a_mistake_is_reported_with_file_and_field(project: Project, fields: str, problem: str) -> None:
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        project.load(with_fields(fields)).get_repository_def()
    texts, error = [], caught.value
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert problem in "\n".join(texts)
    assert "defs/automated/defs.yaml" in "\n".join(texts)
