"""`batch-assets doctor`: each check is one line, with what to change. The checks of a running deployment are in
tests/dagster/test_stack.py.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (  # what a daemon records
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from batch_assets.cli.doctor.api import api_findings, clock_finding
from batch_assets.cli.doctor.instance import instance_findings
from batch_assets.cli.doctor.location import Location
from batch_assets.cli.doctor.root import root_findings
from batch_assets.core.settings import Settings
from batch_assets.dagster.instance_settings import SHIPPED

from .support import BATCHES, Project

CONCERNS = (
    *("root", "permissions", "ledger", "pairing", "key", "endpoint", "clock", "definitions"),
    *("settings", "instance", "daemon", "pool", "sensor"),
)
SENSOR = "message_batches_sensor"
LIST = {"method": "GET", "path": BATCHES}


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """The mark and the text of each concern. A concern with several lines has its last one."""
    assert done.stderr == ""
    split = [line.split(None, 2) for line in done.stdout.splitlines()]
    return {concern: (mark, text) for mark, concern, text in split}


@pytest.fixture
def home(project: Project) -> Path:
    """A DAGSTER_HOME with the shipped settings."""
    folder = project.folder / "home"
    folder.mkdir()
    shutil.copy(SHIPPED, folder / "dagster.yaml")
    project.env["DAGSTER_HOME"] = str(folder)
    return folder


def test_a_project_that_ran_without_a_daemon(project: Project, home: Path) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    calls = len(project.emulator.requests()) if project.emulator else 0
    done = project.run("doctor")
    found = lines(done)
    assert tuple(found) == CONCERNS
    marks = {concern: mark for concern, (mark, _) in found.items()}
    assert [concern for concern, mark in marks.items() if mark != "ok"] == ["daemon", "sensor"]
    assert done.returncode == 1
    mark = json.loads((project.folder / "data/emulated/root.json").read_text())["id"][:6]
    assert found["pairing"][1].endswith(f"the root's mark is {mark}")
    assert "dagster-daemon run -m batch_assets.definitions" in found["daemon"][1]
    assert "message_batches_sensor has never ticked" in found["sensor"][1]
    assert len(project.emulator.requests()) == calls if project.emulator else False
    assert not list(project.folder.rglob("doctor-*"))


def test_nothing_is_created(bare_project: Project) -> None:
    done = bare_project.run("doctor")
    found = lines(done)
    assert done.returncode == 1
    assert found["root"][0] == found["ledger"][0] == "ok"
    assert "export ANTHROPIC_API_KEY=" in found["key"][1]
    assert "export DAGSTER_HOME=" in found["instance"][1]
    assert {found[concern][0] for concern in ("pairing", "endpoint", "clock", "settings", "pool", "sensor")} == {
        "skipped"
    }
    assert not (bare_project.folder / "data").exists()


def test_the_settings_are_written_once(bare_project: Project) -> None:
    file, home = bare_project.folder / "dagster.yaml", bare_project.folder / "home"
    assert lines(bare_project.run("doctor", "--write"))["settings"] == ("ok", f"{file} is written, as shipped")
    assert file.read_bytes() == SHIPPED.read_bytes()
    file.write_text("run_monitoring: {enabled: false}  # mine\n")
    found = bare_project.run("doctor", "--write").stdout
    assert (
        "run_monitoring.enabled is false, so a run whose process is gone keeps its slot in the pool: write "
        in found
    )
    assert f"`enabled: true` in {file} under run_monitoring" in found
    assert file.read_text() == "run_monitoring: {enabled: false}  # mine\n"

    bare_project.env["DAGSTER_HOME"] = str(home)
    assert "skipped  settings" in bare_project.run("doctor", "--write").stdout
    assert not home.exists()
    home.mkdir()
    assert "batch-assets doctor --write" in lines(bare_project.run("doctor"))["settings"][1]
    assert lines(bare_project.run("doctor", "--write"))["settings"][1].startswith(
        f"{home}/dagster.yaml is written"
    )
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []


def test_a_ledger_of_another_root_and_one_of_another_version(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    elsewhere = {"BATCH_ASSETS_ROOT": str(project.folder / "elsewhere")}
    assert project.run("run", "asked", env=elsewhere).returncode == 0
    ledger = project.folder / "data/emulated/ledger.db"
    mixed = elsewhere | {"BATCH_ASSETS_LEDGER": f"sqlite:///{ledger}"}
    mark, text = lines(project.run("doctor", env=mixed))["pairing"]
    assert (mark, "batch-assets move" in text) == ("wrong", True)

    with sqlite3.connect(ledger) as connection:
        connection.execute("update ledger_version set version_num = '0012'")
    mark, text = lines(project.run("doctor"))["ledger"]
    assert (mark, "`batch-assets status` upgrades the ledger" in text) == ("wrong", True)
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("select version_num from ledger_version").fetchall() == [("0012",)]
        connection.execute("update ledger_version set version_num = '9999'")
    mark, text = lines(project.run("doctor"))["ledger"]
    assert (mark, "install the newer batch_assets" in text) == ("wrong", True)
    connection.close()

    ledger.unlink()
    mark, text = lines(project.run("doctor"))["ledger"]
    assert (mark, "`batch-assets move`" in text) == ("wrong", True)
    assert not ledger.exists()


def test_a_root_that_cannot_be_written_and_files_that_others_can_open(project: Project) -> None:
    (project.folder / "file").write_text("")
    done = project.run("doctor", env={"BATCH_ASSETS_ROOT": str(project.folder / "file" / "root")})
    mark, text = lines(done)["root"]
    assert (mark, "sudo install -d -o" in text) == ("wrong", True)
    open_to_all = project.folder / "data/emulated/asked/requests"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o755)
    mark, text = lines(project.run("doctor"))["permissions"]
    assert (mark, "chmod -R go= " in text) == ("wrong", True)
    without_ledger = project.run("doctor", env={"BATCH_ASSETS_ROOT": "memory://root"})
    assert lines(without_ledger)["environment"][0] == "wrong"


def test_a_disk_that_takes_only_empty_files(tmp_path: Path) -> None:
    settings = Settings.from_env({"BATCH_ASSETS_ROOT": str(tmp_path)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))
    try:
        (root, _) = root_findings(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (root.mark, "cannot be written" in root.text) == ("wrong", True)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_key(project: Project) -> None:
    assert project.emulator is not None
    project.emulator.faults([{"match": LIST, "action": {"status": 401}}])
    found = lines(project.run("doctor"))
    mark, text = found["endpoint"]
    assert (mark, "HTTP 401" in text, "set ANTHROPIC_API_KEY" in text) == ("wrong", True, True)
    assert found["clock"][0] == "skipped"


def test_a_pipeline_file_with_a_mistake(project: Project, home: Path) -> None:
    project.add_pipeline("asked", ["one"], no_such_field=1)
    done = project.run("doctor")
    found = lines(done)
    assert (found["definitions"][0], found["sensor"][0], found["settings"][0]) == ("wrong", "wrong", "ok")
    assert "no_such_field" in found["definitions"][1]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("sk-ant-secret123\n", "a space, a quote or a line break"),
        ('"sk-ant-secret123"', "a space, a quote or a line break"),
        ("secret123456", "does not begin with sk-ant-"),
    ],
)
def test_the_form_of_a_key_is_checked_before_it_is_sent(
    key: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    of_environment = Settings.from_env({"ANTHROPIC_API_KEY": key, "BATCH_ASSETS_ROOT": str(tmp_path)})
    form, *others = api_findings(of_environment)
    assert (form.mark, problem in form.text, "secret123" in str(form)) == ("wrong", True, False)
    assert [finding.mark for finding in others] == ["skipped", "skipped"]


@pytest.mark.parametrize(("difference", "mark"), [(0.0, "ok"), (-59.0, "ok"), (61.0, "wrong"), (-3600.0, "wrong")])
def test_a_clock_that_differs(difference: float, mark: str) -> None:
    finding = clock_finding(1_000_000.0, 1_000_000.0 + difference)
    assert finding.mark == mark
    assert ("timedatectl" in finding.text) == (mark == "wrong")
    assert clock_finding(None, 0.0).mark == "skipped"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    shutil.copy(SHIPPED, tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as opened:
        yield opened


def found_by(location: Location) -> dict[str, tuple[str, str]]:
    return {finding.concern: (str(finding.mark), finding.text) for finding in instance_findings(location)}


def test_a_pool_without_slots(instance: dg.DagsterInstance) -> None:
    location = Location(1, [], ["message_batches"], [])
    assert found_by(location)["pool"] == ("ok", "message_batches has the default limit of dagster.yaml")
    assert found_by(location)["sensor"][0] == "ok", "no pipeline uses this root"
    instance.event_log_storage.set_concurrency_slots("message_batches", 0)
    mark, text = found_by(location)["pool"]
    assert (mark, "dagster instance concurrency set message_batches 1" in text) == ("wrong", True)
    instance.event_log_storage.set_concurrency_slots("message_batches", 3)
    assert found_by(location)["pool"] == ("ok", "message_batches admits 3 steps at a time")


def test_an_instance_that_cannot_be_opened(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    storage = "storage:\n  postgres:\n    postgres_url: {env: NO_SUCH_VARIABLE}\n"
    (tmp_path / "dagster.yaml").write_text(SHIPPED.read_text() + storage)
    found = found_by(Location(1, [], ["message_batches"], [SENSOR]))
    assert (found["instance"][0], "NO_SUCH_VARIABLE" in found["instance"][1]) == ("wrong", True)
    assert {found[concern][0] for concern in ("daemon", "pool", "sensor")} == {"skipped"}


def add_tick(instance: dg.DagsterInstance, age: float, status: TickStatus, **data: Any) -> None:
    """Add the sensor, as a daemon knows it, with one tick."""
    location = GrpcServerCodeLocationOrigin(host="localhost", port=4000, location_name="batch_assets")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), SENSOR)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE)
    if not instance.all_instigator_state():
        instance.add_instigator_state(state)
    ids = state.instigator_origin_id, state.selector_id
    instance.create_tick(
        TickData(
            ids[0],
            SENSOR,
            InstigatorType.SENSOR,
            status,
            time.time() - age,
            run_ids=[],
            selector_id=ids[1],
            **data,
        )
    )


def test_the_last_tick_of_the_sensor(instance: dg.DagsterInstance) -> None:
    location = Location(1, [], [], [SENSOR])
    assert "has never ticked" in found_by(location)["sensor"][1]
    add_tick(instance, 600.0, TickStatus.SUCCESS)
    mark, text = found_by(location)["sensor"]
    assert (mark, "ticked last 10 min ago" in text) == ("wrong", True)
    add_tick(instance, 40.0, TickStatus.SKIPPED, skip_reason="4 of 12 batches in progress")
    mark, text = found_by(location)["sensor"]
    assert (mark, text.endswith("s ago: 4 of 12 batches in progress")) == ("ok", True)
    add_tick(instance, 10.0, TickStatus.FAILURE, error=SerializableErrorInfo("ImportError: gone\n", [], None))
    mark, text = found_by(location)["sensor"]
    assert (mark, "ImportError: gone" in text) == ("wrong", True)
    (state,) = instance.all_instigator_state()
    instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
    mark, text = found_by(location)["sensor"]
    assert (mark, f"dagster sensor start {SENSOR} -w" in text) == ("wrong", True)


def test_the_command_names_a_workspace_that_exists(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, project = Location(1, [], [], []), tmp_path / "a project"
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text('[tool.dg]\n[tool.dg.project]\nroot_module = "mine"\n')
    assert found_by(location)["daemon"][1].endswith(": dagster-daemon run -m mine.definitions")
    (project / "workspace.yaml").touch()
    assert found_by(location)["daemon"][1].endswith(f": dagster-daemon run -w '{project}/workspace.yaml'")
    (tmp_path / "workspace.yaml").touch()
    assert found_by(location)["daemon"][1].endswith(": dagster-daemon run -w $DAGSTER_HOME/workspace.yaml")


def test_the_oldest_part_of_the_daemon_counts(instance: dg.DagsterInstance) -> None:
    location = Location(1, [], [], [])
    ages = dict.fromkeys(instance.get_required_daemon_types(), 5.0)
    for last, mark in ((30.0, "ok"), (500.0, "wrong")):
        for name, age in (ages | {"SENSOR": last}).items():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, name, "id", []))
        assert found_by(location)["daemon"][0] == mark
