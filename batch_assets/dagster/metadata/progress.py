"""How far the batches of a submission are, as numbers that Dagster plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from batch_assets.core.api.objects import COUNTS
from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.overview import batches_of
from batch_assets.core.ledger.records import Batch, Submission
from batch_assets.dagster import keys
from batch_assets.dagster.cursor import Told
from batch_assets.dagster.metadata.batch_table import batch_table
from batch_assets.dagster.pipelines import PipelineAssets

# Between two observations of a submission's batches: a plot shows about 100 points, which then are a day. The
# emulator ends batches in seconds.
_PAUSE_SECONDS, _PAUSE_EMULATED = 900.0, 2.0
# A submission that became complete between two ticks still gets its last observation.
RECENT_SECONDS = 900.0


def counts_of(found: list[Batch]) -> dict[str, int]:
    """Numbers of batches, and of their requests by what became of them."""
    total: Counter[str] = Counter()
    for batch in found:
        total.update(batch.count_map)
    return {
        keys.BATCHES: len(found),
        keys.BATCHES_OPEN: sum(batch.state.unended for batch in found),
        **{keys.count_key(name): total[name] for name in COUNTS},
        **paid_twice_of(found),
    }


def paid_twice_of(found: list[Batch]) -> dict[str, int]:
    """The number of batches that turned up after their request file was sent again, if there are any."""
    number = sum(batch.paid_twice for batch in found)
    return {keys.PAID_TWICE: number} if number else {}


def observation(key: dg.AssetKey, submission: Submission, found: list[Batch], now: float) -> dg.AssetObservation:
    """An observation of `<name>/batches`: the numbers, and the batches one by one."""
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: submission.id,
        **counts_of(found),
        keys.BATCH_TABLE: batch_table(found, now),
    }
    return dg.AssetObservation(key, partition=submission.partition or None, metadata=metadata)


class Progress:
    """The observations that the sensor makes: when numbers have changed, but only now and then, and when the last
    batch has ended in any case. The first is that of the run which submitted them.

    All numbers are the ledger's, so that they are right after a restart, a resume, and in a rebuilt ledger.

    Args:
        told: the last observations, by submission; it is brought up to date.
        emulated: the API is the emulator.
    """

    def __init__(self, told: dict[str, Told], *, emulated: bool) -> None:
        self._told = told
        self._pause = _PAUSE_EMULATED if emulated else _PAUSE_SECONDS

    def observe(
        self, tx: Transaction, in_force: list[Submission], pipelines: Mapping[str, PipelineAssets]
    ) -> Iterator[dg.AssetObservation]:
        """What there is to tell of the submissions in force."""
        since = tx.now - RECENT_SECONDS
        watched = [submission for submission in in_force if (submission.final_at or tx.now) > since]
        for gone in set(self._told) - {submission.id for submission in watched}:
            del self._told[gone]
        of_them = batches_of(tx, [submission.id for submission in watched])
        for submission in watched:
            found = of_them[submission.id]
            counts = counts_of(found)
            if self._is_news(self._told.get(submission.id), counts, tx.now):
                self._told[submission.id] = Told(tx.now, list(counts.values()))
                yield observation(pipelines[submission.pipeline].stages["batches"], submission, found, tx.now)

    def _is_news(self, last: Told | None, counts: dict[str, int], now: float) -> bool:
        if last is None:
            return counts[keys.BATCHES_OPEN] < counts[keys.BATCHES] or _done(counts) > 0
        is_over = counts[keys.BATCHES_OPEN] == 0
        return list(counts.values()) != last.counts and (is_over or now - last.at >= self._pause)


def _done(counts: dict[str, int]) -> int:
    """Requests whose outcome is known."""
    return sum(counts[keys.count_key(name)] for name in COUNTS if name != "processing")
