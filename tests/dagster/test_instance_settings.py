"""The settings of the shipped dagster.yaml: which of them matter, and how a code server reports other values."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from batch_assets.core.errors import SettingsError
from batch_assets.dagster import instance_settings
from batch_assets.dagster.instance_settings import (
    FREE,
    RULES,
    SHIPPED,
    Rule,
    differences,
    read_settings,
    write_shipped,
)
from tests.documentation import PROJECT

BAD: dict[str, Any] = {
    "telemetry.enabled": True,
    "sensors.use_threads": False,
    "run_retries.max_retries": 3,
    "run_monitoring.enabled": False,
    "run_monitoring.max_runtime_seconds": 0,
    "run_monitoring.free_slots_after_run_end_seconds": 0,
    "concurrency.runs.max_concurrent_runs": -1,
    "concurrency.runs.tag_concurrency_limits": [{"key": "batch_assets/submission", "limit": 1}],
    "concurrency.pools.default_limit": 0,
    "retention.sensor.purge_after_days.skipped": -1,
}


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def path_of(rule: Rule) -> str:
    return ".".join(rule.path)


def with_value(path: str, value: Any) -> dict[str, Any]:
    settings = deepcopy(yaml.safe_load(SHIPPED.read_text()))
    *parents, name = path.split(".")
    place = settings
    for parent in parents:
        place = place[parent]
    place[name] = value
    return settings


def found_in(folder: Path, settings: Any) -> list[str]:
    file = folder / "dagster.yaml"
    file.write_text(yaml.safe_dump(settings))
    return [each.path for each in differences(read_settings(file), file)]


def test_the_file_in_the_package_is_that_of_the_project() -> None:
    assert SHIPPED.read_bytes() == (PROJECT / "dagster.yaml").read_bytes()


def test_every_shipped_setting_has_a_rule_or_is_free() -> None:
    ruled = [path_of(rule) for rule in RULES]
    assert sorted([*ruled, *FREE]) == sorted(leaves(yaml.safe_load(SHIPPED.read_text())))


def test_the_shipped_settings_are_as_they_must_be() -> None:
    assert differences(read_settings(SHIPPED), SHIPPED) == []


@pytest.mark.parametrize("rule", RULES, ids=path_of)
def test_a_bad_value_is_named_with_the_line_that_changes_it(rule: Rule, tmp_path: Path) -> None:
    file, path = tmp_path / "dagster.yaml", path_of(rule)
    file.write_text(yaml.safe_dump(with_value(path, BAD[path])))
    (difference,) = differences(read_settings(file), file)
    assert difference.path == path
    line, where = difference.change.split("`")[1], difference.change.rpartition(" under ")[2]
    (name, value) = yaml.safe_load(line).popitem()
    assert found_in(tmp_path, with_value(f"{where}.{name}", value)) == []


def test_an_empty_file_lacks_what_dagster_does_not_do_by_default(tmp_path: Path) -> None:
    missing = found_in(tmp_path, {})
    assert "concurrency.pools.default_limit" in missing
    assert "concurrency.runs.max_concurrent_runs" not in missing
    assert missing == [each.path for each in differences(read_settings(tmp_path / "none.yaml"), tmp_path)]


@pytest.mark.parametrize("place", ["run_queue", "run_coordinator"])
def test_limits_at_the_places_of_the_chart_are_those_that_dagster_uses(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load(SHIPPED.read_text())
    runs, pools = settings["concurrency"]["runs"], settings["concurrency"]["pools"]
    runs["max_concurrent_runs"] = {"env": "MOST_RUNS"}
    settings["concurrency"] = {"default_op_concurrency_limit": pools["default_limit"]}
    coordinator = {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator", "config": runs}
    settings[place] = runs if place == "run_queue" else coordinator
    monkeypatch.setenv("MOST_RUNS", "7")
    assert found_in(tmp_path, settings) == []
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert (queue.max_concurrent_runs, queue.tag_concurrency_limits) == (7, runs["tag_concurrency_limits"])
    monkeypatch.setenv("MOST_RUNS", "-1")
    assert found_in(tmp_path, settings) == ["concurrency.runs.max_concurrent_runs"]


def test_a_coordinator_without_a_queue_is_named(tmp_path: Path) -> None:
    coordinator = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}
    shipped = yaml.safe_load(SHIPPED.read_text())
    assert found_in(tmp_path, {**shipped, "run_coordinator": coordinator}) == ["run_coordinator"]


def test_one_number_of_days_for_all_ticks_will_do(tmp_path: Path) -> None:
    assert found_in(tmp_path, with_value("retention.sensor.purge_after_days", 5)) == []


def test_a_file_that_another_process_writes_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dagster.yaml"
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        file.write_text("theirs")

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert not write_shipped(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("dagster.yaml", "theirs")]
    with pytest.raises(SettingsError, match=r"dagster\.yaml cannot be written .*: cp "):
        write_shipped(tmp_path / "no_such_folder")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a load of three pipelines logs."""
    caplog.clear()
    instance_settings.warn_of_differences.cache_clear()
    with caplog.at_level(logging.WARNING, "batch_assets"):
        for _ in range(3):
            instance_settings.warn_of_differences()
    return [record.getMessage() for record in caplog.records]


def test_a_code_server_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(with_value("run_monitoring.enabled", False)))
    assert warnings(caplog) == [], "this is no code server"
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "grpc", "-m", "batch_assets.definitions"])
    (warning,) = warnings(caplog)
    assert "run_monitoring.enabled" in warning
    assert "batch-assets doctor" in warning
    (tmp_path / "dagster.yaml").write_text("- no map")
    assert "cannot be read" in warnings(caplog)[0]
    (tmp_path / "dagster.yaml").unlink()
    assert "does not exist" in warnings(caplog)[0]
    (tmp_path / "dagster.yaml").write_bytes(SHIPPED.read_bytes())
    assert warnings(caplog) == []
