"""The Dagster instance: its settings, its pools and its daemon."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from batch_assets.cli.doctor.finding import Finding, Findings, ok, skipped, wrong
from batch_assets.cli.doctor.location import Location
from batch_assets.cli.doctor.sensor import sensor_findings
from batch_assets.cli.doctor.workspace import workspace_option
from batch_assets.core.errors import SettingsError
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import find_project
from batch_assets.core.text import count, duration
from batch_assets.dagster.instance_settings import FILE_NAME, RULES, differences, read_settings, write_shipped

# The daemon reports every 30 seconds.
_HEARTBEAT_SECONDS = 120.0
_OF_INSTANCE = ("daemon", "pool", "sensor")
_UNSET = re.compile(r'environment variable "(\w+)"')


def instance_findings(location: Location | None, *, write: bool = False) -> Findings:
    """Check the instance that DAGSTER_HOME names.

    Args:
        location: What the definitions need of it; None if they do not load.
        write: Whether to write the shipped dagster.yaml, if there is none.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home or not Path(home).is_dir():
        is_ = f"is {home}, which is not a folder" if home else "is not set"
        yield wrong("instance", f"DAGSTER_HOME {is_}", _export_home())
        # Without DAGSTER_HOME, `dg dev` takes the settings of the folder that it is run in.
        if home or not (write or (find_project() / FILE_NAME).is_file()):
            yield skipped("settings", "there is no instance")
        else:
            yield from _setting_findings(find_project(), write)
        yield from (skipped(concern, "there is no instance") for concern in _OF_INSTANCE)
        return
    yield from _setting_findings(Path(home), write)
    try:
        with _without_warnings(), dg.DagsterInstance.get() as instance:
            of_instance = list(_findings_in(instance, location))
    except Exception as error:  # a storage raises errors of its driver
        yield _not_opened(home, error)
        yield from (skipped(concern, "the instance cannot be opened") for concern in _OF_INSTANCE)
        return
    yield ok("instance", f"{home} can be opened")
    yield from of_instance


def _export_home() -> str:
    """Return the command that sets DAGSTER_HOME. `make dev` keeps its instance in the project's folder."""
    of_project = find_project() / ".dagster"
    home = shell_quoted(str(of_project)) if (of_project / FILE_NAME).is_file() else "/path/to/the/folder"
    return f"export DAGSTER_HOME={home}  # the folder that has {FILE_NAME}"


def _setting_findings(folder: Path, write: bool) -> Findings:
    file = folder / FILE_NAME
    try:
        if write and write_shipped(folder):
            yield ok("settings", f"{file} is written, as shipped")
            return
        if not file.is_file():
            yield wrong("settings", f"{file} does not exist", "batch-assets doctor --write")
            return
        found = differences(read_settings(file), file)
    except (SettingsError, OSError) as error:
        yield wrong("settings", str(error))
        return
    yield from (wrong("settings", f"{each.path} {each.problem}", each.change) for each in found)
    if not found:
        yield ok("settings", f"{file} has the {len(RULES)} settings that matter as shipped")


def _findings_in(instance: dg.DagsterInstance, location: Location | None) -> Findings:
    yield _daemon_finding(instance)
    if location is None:
        yield from (skipped(concern, "the definitions do not load") for concern in ("pool", "sensor"))
    else:
        yield from _pool_findings(instance, location.pools)
        yield from sensor_findings(instance, location)


def _pool_findings(instance: dg.DagsterInstance, pools: Sequence[str]) -> Findings:
    """Check the limits that the instance's database has for pools, which come before the default."""
    limits = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
    for pool in pools:
        limit = limits.get(pool)
        if limit == 0:
            yield wrong(
                "pool",
                f"{pool} has the limit 0, so no step in it runs",
                f"dagster instance concurrency set {shell_quoted(pool)} 1",
            )
        elif limit is None:
            yield ok("pool", f"{pool} has the default limit of dagster.yaml")
        else:
            yield ok("pool", f"{pool} admits {count(limit, 'step')} at a time")


def _daemon_finding(instance: dg.DagsterInstance) -> Finding:
    heartbeats = instance.get_daemon_heartbeats()
    latest = {
        name: heartbeats[name].timestamp for name in instance.get_required_daemon_types() if name in heartbeats
    }
    start = f"dagster-daemon run {workspace_option()}"
    if not latest:
        return wrong("daemon", "no daemon has run yet", start)
    oldest, at = min(latest.items(), key=lambda item: item[1])
    age = time.time() - at
    if age > _HEARTBEAT_SECONDS:
        return wrong("daemon", f"its part {oldest} reported last {duration(age)} ago", start)
    return ok("daemon", f"all {len(latest)} parts reported within {duration(max(age, 1.0))}")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep each retry of a connection from being logged: the check reports what came of them."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _not_opened(home: str, error: Exception) -> Finding:
    """Report an instance that cannot be opened. Dagster's own text may repeat a password of dagster.yaml."""
    if (unset := _UNSET.search(str(error))) is not None:
        return wrong("instance", f"{home}/{FILE_NAME} needs the variable {unset[1]}", f"export {unset[1]}=…")
    problem = f"the instance of {home} cannot be opened ({type(error).__name__})"
    change = "`dagster instance info` shows why; if its database is older, dagster instance migrate"
    return wrong("instance", problem, change)
