"""The two ends of a round inside a run: the tags it carries, and closing it when the run is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from batch_assets.core.ledger import rounds
from batch_assets.core.root import Root
from batch_assets.dagster import keys

# A run that hangs is ended by Dagster's run monitoring after this long.
_MAX_RUNTIME_SECONDS = 3600


def name_of(number: int, opened_at: float) -> str:
    """What tells a submission's rounds apart in Dagster.

    In a ledger that was made again the numbers begin at 1 again, but Dagster still knows the runs of before.
    """
    return f"{number}:{int(opened_at)}"


def tags_for(submission_id: str, name: str) -> dict[str, str]:
    """The tags of a run that the sensor asks for, for the round of that name."""
    return {
        keys.SUBMISSION: submission_id,
        keys.ROUND: name,
        keys.MAX_RUNTIME: str(_MAX_RUNTIME_SECONDS),
        keys.MAX_RETRIES: "0",  # the next round is the retry
    }


def is_unattended(tags: Mapping[str, str]) -> bool:
    """Whether the sensor asked for the run, not a person."""
    return keys.ROUND in tags


@contextmanager
def closing(root: Root, tags: Mapping[str, str], *, when_done: bool) -> Iterator[None]:
    """Closes the run's round, if it has one, when the block fails or, with `when_done`, in any case."""
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
