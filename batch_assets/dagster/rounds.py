"""A round inside a run: the tags that the run has, and closing the round when the run ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from batch_assets.core.ledger import rounds
from batch_assets.core.root import Root
from batch_assets.dagster import keys

# Dagster's run monitoring ends a run that hangs for this long.
_MAX_RUNTIME_SECONDS = 3600
# The end of a run, after its last transfer: the table is joined, and Dagster looks for overdue runs.
_LAST_SECONDS = 300
# A run of several partitions leaves this much of its time for each of them.
_FOR_ONE_SECONDS = 2400

# A tag of each run that Dagster itself started.
_STARTERS = frozenset(
    {
        "dagster/schedule_name",
        "dagster/sensor_name",
        "dagster/auto_materialize",
        "dagster/from_automation_condition",
    }
)


def name_of(number: int, opened_at: float) -> str:
    """Return the name that identifies a submission's round in Dagster.

    The number alone is not enough: a rebuilt ledger numbers rounds from 1 again, and Dagster still knows the
    earlier runs.
    """
    return f"{number}:{int(opened_at)}"


def tags_for(leader: str, name: str, ends: tuple[str, str] | None = None) -> dict[str, str]:
    """Return the tags of the run that the sensor requests for a round.

    Args:
        leader: The id of the submission, or of the first of several.
        name: The name of its round.
        ends: The first and the last partition of a run of several; None for a run of one or without partitions.
    """
    return {
        **({keys.RANGE_START: ends[0], keys.RANGE_END: ends[1]} if ends is not None else {}),
        keys.SUBMISSION: leader,
        keys.ROUND: name,
        keys.MAX_RUNTIME: str(_MAX_RUNTIME_SECONDS),
        keys.MAX_RETRIES: "0",  # the next round is the retry
    }


def seconds_left(context: dg.AssetExecutionContext) -> float | None:
    """Return how long the run may take until Dagster ends it; `None` for a run that the sensor did not request."""
    if not is_unattended(context.run.tags):
        return None
    record = context.instance.get_run_record_by_id(context.run.run_id)
    began_at = record.start_time if record is not None and record.start_time is not None else time.time()
    return _MAX_RUNTIME_SECONDS - _LAST_SECONDS - max(time.time() - began_at, 0.0)


def may_go_on(context: dg.AssetExecutionContext) -> Callable[[], bool]:
    """Return a function that tells whether the run should begin with one more partition.

    A run that the sensor requested for several partitions begins with none in the last part of its time, so that
    each of them has at least this part. The sensor requests another run for the rest.
    """
    left = seconds_left(context)
    end = time.monotonic() + left - _FOR_ONE_SECONDS if left is not None else math.inf
    return lambda: time.monotonic() < end


def is_unattended(tags: Mapping[str, str]) -> bool:
    """Return whether the sensor requested the run, not a user."""
    return keys.ROUND in tags


def is_started_by_user(tags: Mapping[str, str]) -> bool:
    """Return whether a user started the run, not a schedule, a sensor or an automation condition."""
    return not is_unattended(tags) and _STARTERS.isdisjoint(tags)


@contextmanager
def closing(root: Root, pipeline: str, tags: Mapping[str, str], *, when_done: bool) -> Iterator[None]:
    """Close the run's rounds, if it has any, when the block fails or, with `when_done`, in any case.

    Args:
        root: The root.
        pipeline: The name of the pipeline whose rounds they are.
        tags: The tags of the run.
        when_done: Close them also if the block does not fail.
    """
    try:
        yield
    except BaseException:
        _close(root, pipeline, tags)
        raise
    if when_done:
        _close(root, pipeline, tags)


def _close(root: Root, pipeline: str, tags: Mapping[str, str]) -> None:
    if is_unattended(tags):
        leader, number = tags[keys.SUBMISSION], int(tags[keys.ROUND].partition(":")[0])
        with root.ledger.write(pipeline) as tx:
            opened_at = rounds.opened_at(tx, leader, number)
            if opened_at is not None and name_of(number, opened_at) == tags[keys.ROUND]:
                rounds.close_run(tx, leader, number)
