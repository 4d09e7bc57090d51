"""A round inside a run: the tags that the run has, and closing the round when the run ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from batch_assets.core.ledger import rounds
from batch_assets.core.root import Root
from batch_assets.dagster import keys

# Dagster's run monitoring ends a run that hangs for this long.
_MAX_RUNTIME_SECONDS = 3600
# The end of a run, after its last transfer: the table is joined, and Dagster looks for overdue runs.
_LAST_SECONDS = 300


def name_of(number: int, opened_at: float) -> str:
    """Return the name that identifies a submission's round in Dagster.

    The number alone is not enough: a rebuilt ledger numbers rounds from 1 again, and Dagster still knows the
    earlier runs.
    """
    return f"{number}:{int(opened_at)}"


def tags_for(submission_id: str, name: str) -> dict[str, str]:
    """Return the tags of the run that the sensor requests for a round."""
    return {
        keys.SUBMISSION: submission_id,
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


def is_unattended(tags: Mapping[str, str]) -> bool:
    """Return whether the sensor requested the run, not a user."""
    return keys.ROUND in tags


@contextmanager
def closing(root: Root, tags: Mapping[str, str], *, when_done: bool) -> Iterator[None]:
    """Close the run's round, if it has one, when the block fails or, with `when_done`, in any case."""
    try:
        yield
    except BaseException:
        _close(root, tags)
        raise
    if when_done:
        _close(root, tags)


def _close(root: Root, tags: Mapping[str, str]) -> None:
    if is_unattended(tags):
        with root.ledger.write() as tx:
            number, _, opened_at = rounds.current(tx, tags[keys.SUBMISSION])
            if name_of(number, opened_at) == tags[keys.ROUND]:
                rounds.close(tx, tags[keys.SUBMISSION], number)
