"""Two roots with two endpoints in one code location: each pipeline works with its own, in every way to use it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from batch_assets import (
    MessageBatchResource,
    build_message_batch_checks,
    build_message_batch_jobs,
    build_message_batch_sensor,
    build_message_batch_watch_sensors,
)
from batch_assets.core.client_settings import REAL_BASE_URL
from batch_assets.core.errors import SettingsError
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
KEY = "sk-ant-api03-RECOGNIZE-ME-EU-4712"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Emulator]:
    """The other endpoint. Its batches end when a test ends them."""
    with Emulator(latency=3600.0) as running:
        yield running


@dataclass(frozen=True)
class Location:
    """A code location with a pipeline of the environment's root, `greetings`, and one of another, `gruesse`."""

    assets: list[dg.AssetsDefinition]
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    eu: MessageBatchResource

    def materialize(self, *names: str) -> dg.ExecuteInProcessResult:
        assets = [asset for asset in self.assets if asset.key.path[0] in names]
        chosen = [*assets, *build_message_batch_checks(assets)]
        done = dg.materialize(chosen, instance=self.instance, resources={"eu": self.eu})
        assert done.success
        return done

    def tick(self, name: str) -> list[list[list[str]]]:
        """The assets of each run that a sensor asks for."""
        sensor = self.definitions.get_repository_def().get_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance, definitions=self.definitions, resources={"eu": self.eu}
        ) as context:
            outcome = sensor.evaluate_tick(context)
        return [[key.path for key in request.asset_selection or []] for request in outcome.run_requests or []]


@pytest.fixture
def location(
    make_assets: MakeAssets, emulator: Emulator, elsewhere: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> Location:
    fields = {"max_failed": 1.0}  # one row is rejected
    assets = [*make_assets(**fields), *make_assets("gruesse", rows=7, resource_key="eu", watch=True, **fields)]
    eu = MessageBatchResource(root=str(tmp_path / "eu"), emulator_url=elsewhere.url)
    definitions = dg.Definitions(
        assets=assets,
        asset_checks=build_message_batch_checks(assets),
        jobs=build_message_batch_jobs(assets),
        sensors=[
            build_message_batch_sensor(),
            build_message_batch_sensor(resource_key="eu"),
            *build_message_batch_watch_sensors(assets),
        ],
        resources={"eu": eu},
    )
    return Location(assets, definitions, instance, eu)


def make_due(ledger: Path) -> None:
    """Makes open batches due: a tick looks at a fresh one only now and then."""
    with closing(sqlite3.connect(ledger)) as database, database:
        database.execute("update batch set next_poll_at = 0")


def test_each_pipeline_uses_its_own_endpoint_and_root(
    location: Location, emulator: Emulator, elsewhere: Emulator, tmp_path: Path
) -> None:
    before = len(elsewhere.log())
    location.materialize("greetings", "gruesse")
    assert [batch["requests"] for batch in emulator.log()] == [4]
    assert [batch["requests"] for batch in elsewhere.log()[before:]] == [7]
    for running, root in ((emulator, "root"), (elsewhere, "eu")):
        running.end_batches()
        make_due(tmp_path / root / "ledger.db")
    assert location.tick("message_batches_sensor") == [[["greetings", "results"]]]
    assert location.tick("message_batches_eu_sensor") == [[["gruesse", "results"]]]
    location.materialize("greetings", "gruesse")
    for root, name, other, rows in (("root", "greetings", "gruesse", 5), ("eu", "gruesse", "greetings", 8)):
        table = pd.read_parquet(tmp_path / root / name / "results")
        assert (len(table), (table["result_type"] == "succeeded").sum()) == (rows, rows - 1)
        assert not (tmp_path / root / other).exists()
        assert (tmp_path / root / "ledger.db").is_file()


def test_checks_cancel_and_watch_use_the_resource(location: Location, elsewhere: Emulator, tmp_path: Path) -> None:
    location.materialize("gruesse")
    elsewhere.end_batches()
    done = location.materialize("gruesse")
    figures = {evaluation.check_name: evaluation.metadata for evaluation in done.get_asset_check_evaluations()}
    assert figures["every_row_once"]["rows"].value == 8
    assert "results_are_collected_in_time" in figures
    job = location.definitions.resolve_job_def("gruesse_cancel")
    canceled = job.execute_in_process(instance=location.instance)
    assert canceled.success
    watched = location.definitions.get_repository_def().get_sensor_def("gruesse_watch_sensor")
    with dg.build_sensor_context(
        instance=location.instance, definitions=location.definitions, resources={"eu": location.eu}
    ) as context:
        assert "New or changed" in (watched.evaluate_tick(context).skip_message or "")
    # Nothing of it was looked for, or written, where the environment points to.
    assert not (tmp_path / "root").exists()


def test_a_pipeline_that_no_sensor_watches_is_named(
    make_assets: MakeAssets, emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    assets = [*make_assets(), *make_assets("gruesse", resource_key="eu")]
    sensor = build_message_batch_sensor()
    definitions = dg.Definitions(assets=assets, sensors=[sensor], resources={"eu": MessageBatchResource()})
    with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
        skip_message = sensor.evaluate_tick(context).skip_message
    assert skip_message == (
        "Nothing has been submitted. No sensor watches gruesse: add build_message_batch_sensor(resource_key='eu') "
        "to the definitions."
    )


def test_without_the_resource_definitions_do_not_load(make_assets: MakeAssets) -> None:
    definitions = dg.Definitions(assets=make_assets(resource_key="eu"))
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resource with key 'eu'"):
        dg.Definitions.validate_loadable(definitions)


def test_another_kind_of_resource_is_refused(make_assets: MakeAssets, instance: dg.DagsterInstance) -> None:
    with pytest.raises(dg.Failure, match=r"resource_key: 'eu' is a \w+; a MessageBatchResource is needed"):
        dg.materialize(make_assets(resource_key="eu"), instance=instance, resources={"eu": 5})


# --- Settings of a resource ------------------------------------------------------------------------------------


def test_without_fields_the_environment_is_used(emulator: Emulator, tmp_path: Path) -> None:
    settings = MessageBatchResource().settings()
    assert (settings.root, settings.base_url, settings.api_key) == (str(tmp_path / "root"), emulator.url, None)


def test_a_root_has_its_own_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCH_ASSETS_LEDGER", "sqlite:////elsewhere/ledger.db")
    assert MessageBatchResource(root=str(tmp_path)).settings().ledger_url == f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(SettingsError, match=r"root is s3://bucket: a remote root needs ledger, for example"):
        MessageBatchResource(root="s3://bucket").settings()
    with pytest.raises(SettingsError, match="`ledger` is given without `root`"):
        MessageBatchResource(ledger="sqlite:////tmp/ledger.db").settings()


def test_an_emulator_of_the_environment_comes_before_an_endpoint_and_its_own_before_that(
    emulator: Emulator,
) -> None:
    resource = MessageBatchResource(base_url="https://gateway.example.com", api_key=KEY)
    assert resource.settings().base_url == emulator.url
    assert MessageBatchResource(emulator_url="http://127.0.0.1:1").settings().base_url == "http://127.0.0.1:1"


def test_its_key_replaces_all_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "not-this-one")
    settings = MessageBatchResource(root=str(tmp_path), api_key=KEY).settings()
    assert (settings.base_url, settings.has_credentials, settings.api_key) == (REAL_BASE_URL, True, KEY)
    assert KEY not in repr(settings)


@pytest.mark.parametrize("name", ["root", "ledger", "api_key", "base_url", "emulator_url"])
def test_an_empty_value_is_never_the_environments(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is empty"):
        MessageBatchResource(**{name: ""}).settings()


# --- Secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("rot", "there is no field rot: did you mean root?"),
        ("folder", "there is no field folder: fields: root, led"),
    ],
)
def test_a_field_that_does_not_exist_is_refused(name: str, problem: str) -> None:
    """The environment's root would be used in place of the one that was meant."""
    with pytest.raises(SettingsError, match=re.escape(f"MessageBatchResource: {problem}")):
        MessageBatchResource(**{name: "/srv/eu"})


# Dagster reads the annotation itself, which is a text in this module.
Own: Any = type("Own", (dg.ConfigurableResource,), {"__annotations__": {"batches": MessageBatchResource}})


def test_a_resource_of_the_users_may_hold_one_that_is_configured_at_launch(tmp_path: Path) -> None:
    @dg.asset
    def root_of_own(own: Own) -> str | None:
        return own.batches.root

    batches = MessageBatchResource.configure_at_launch()
    resources = {"batches": batches, "own": Own(batches=batches)}
    job = dg.Definitions(
        [root_of_own], resources=resources, jobs=[dg.define_asset_job("job", [root_of_own])]
    ).resolve_job_def("job")

    run = job.execute_in_process({"resources": {"batches": {"config": {"root": str(tmp_path)}}}})

    assert run.output_for_node("root_of_own") == str(tmp_path)


def test_a_secret_as_text_is_refused_before_dagster_stores_it(make_assets: MakeAssets) -> None:
    for fields in ({"api_key": KEY}, {"ledger": f"postgresql+psycopg2://me:{KEY}@host/ledger", "root": "s3://x"}):
        with pytest.raises(SettingsError, match=r"as dg\.EnvVar\(…\)") as caught:
            dg.Definitions(resources={"eu": MessageBatchResource(**fields)}).get_repository_def()
        assert KEY not in str(caught.value)
        assert KEY not in repr(MessageBatchResource(**fields))


def test_dagster_stores_no_key_of_a_resource(
    make_assets: MakeAssets,
    emulator: Emulator,
    elsewhere: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BATCH_ASSETS_EMULATOR")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-OF-THE-ENVIRONMENT")
    monkeypatch.setenv("EU_KEY", KEY)
    monkeypatch.setenv("BATCH_ASSETS_RECONCILE_GRACE", "0")
    body = {"type": "error", "error": {"type": "authentication_error", "message": f"invalid key {KEY}"}}
    create = {"method": "POST", "path": "/v1/messages/batches", "nth": 1}
    elsewhere.reset_faults()
    elsewhere.faults([{"match": create, "action": {"status": 401, "body": body}}])
    eu = MessageBatchResource(root=str(tmp_path / "eu"), base_url=elsewhere.url, api_key=dg.EnvVar("EU_KEY"))
    assets = make_assets(resource_key="eu")
    (home := tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        succeeded = []
        for _ in range(3):
            done = dg.materialize(assets, instance=instance, resources={"eu": eu}, raise_on_error=False)
            succeeded.append(done.success)
            elsewhere.end_batches()
        assert succeeded == [False, True, True]
        materialized = {
            event.asset_key.path[-1] for event in done.get_asset_materialization_events() if event.asset_key
        }
        assert "results" in materialized
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err
    assert any(path.suffix == ".db" for path in home.rglob("*"))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
