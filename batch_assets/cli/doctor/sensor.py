"""The sensors of a root: whether they run, and their last ticks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from batch_assets.cli.doctor.finding import Finding, Findings, ok, wrong
from batch_assets.cli.doctor.location import Location
from batch_assets.cli.doctor.workspace import workspace_option
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.text import duration

if TYPE_CHECKING:
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick

# A sensor ticks every 30 seconds.
_TICK_SECONDS = 120.0


def sensor_findings(instance: dg.DagsterInstance, location: Location) -> Findings:
    """Check the sensors that poll batches and start runs.

    Args:
        instance: The instance whose daemon evaluates them.
        location: The definitions, with the names of the sensors.
    """
    if not location.sensors:
        yield ok("sensor", "no pipeline of the definitions uses this root, so it needs none")
    states = instance.all_instigator_state() if location.sensors else []
    for name in location.sensors:
        yield _finding(name, [state for state in states if state.name == name], instance)


def _finding(name: str, states: list[InstigatorState], instance: dg.DagsterInstance) -> Finding:
    """Check one sensor. Another code location of the instance may have one of the same name: the latest counts."""
    tick = max(_last_ticks(states, instance), key=lambda tick: tick.timestamp, default=None)
    if states and not any(state.is_running for state in states):
        start = f"dagster sensor start {shell_quoted(name)} {workspace_option()}"
        return wrong("sensor", f"{name} is stopped", start)
    if tick is None:
        return wrong(
            "sensor",
            f"{name} has never ticked",
            "start the code server and the daemon, with the same DAGSTER_HOME",
        )
    age = time.time() - tick.timestamp
    ago = f"{name} ticked last {duration(age)} ago"
    if age > _TICK_SECONDS:
        return wrong("sensor", ago, "start the code server and the daemon, and look at their logs")
    if tick.status.value == "FAILURE":
        error = tick.error.message.strip() if tick.error is not None else "no reason is recorded"
        return wrong(
            "sensor", f"{ago}, and failed ({error})", "change what the error names, and reload the code location"
        )
    return ok("sensor", f"{ago}{f': {tick.skip_reason}' if tick.skip_reason else ''}")


def _last_ticks(states: list[InstigatorState], instance: dg.DagsterInstance) -> Iterator[InstigatorTick]:
    for state in states:
        yield from instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
