"""The progress of a submission's batches, as numbers that Dagster plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from batch_assets.core.api.objects import COUNTS
from batch_assets.core.ledger.records import Batch, Submission
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.remedies import Stage
from batch_assets.dagster import keys
from batch_assets.dagster.cursor import Observed
from batch_assets.dagster.metadata.batch_table import batch_table
from batch_assets.dagster.metadata.numbers import without_zeros
from batch_assets.dagster.pipelines import PipelineAssets

# Pause between two observations of a submission's batches. A plot shows about 100 points, so it covers a day. The
# emulator ends batches in seconds.
_PAUSE_SECONDS, _PAUSE_EMULATED = 900.0, 2.0
# Observations in one tick. The daemon needs about a hundredth of a second for each.
_AT_ONCE = 50
# A submission that became complete between two ticks still gets its last observation.
RECENT_SECONDS = 900.0
# The first two counts of the API are those of requests that go as they should.
_ALWAYS = (keys.BATCHES, keys.BATCHES_OPEN, *map(keys.count_key, COUNTS[:2]))


def counts_of(batches: list[Batch]) -> dict[str, int]:
    """Return the number of batches, of open batches, and of their requests by outcome."""
    total: Counter[str] = Counter()
    for batch in batches:
        total.update(batch.count_map)
    return {
        keys.BATCHES: len(batches),
        keys.BATCHES_OPEN: sum(batch.state.unended for batch in batches),
        **{keys.count_key(name): total[name] for name in COUNTS},
        **paid_twice_of(batches),
    }


def paid_twice_of(batches: list[Batch]) -> dict[str, int]:
    """Return the number of batches that turned up after their request file was sent again; {} if none did."""
    number = sum(batch.paid_twice for batch in batches)
    return {keys.PAID_TWICE: number} if number else {}


def observation(key: dg.AssetKey, submission: Submission, batches: list[Batch], now: float) -> dg.AssetObservation:
    """Return an observation of `<name>/batches`, with the numbers and a table of the batches."""
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: submission.id,
        **_shown(counts_of(batches)),
        keys.BATCH_TABLE: batch_table(batches, now),
    }
    return dg.AssetObservation(key, partition=submission.partition or None, metadata=metadata)


def _shown(counts: dict[str, int]) -> dict[str, float]:
    """Return the counts without those of outcomes that most batches do not have, if they are 0."""
    return {key: counts[key] for key in _ALWAYS} | without_zeros(counts)


class Progress:
    """The sensor's observations of batches.

    It observes a submission when its numbers have changed and some time has passed, and always when its last batch
    has ended. The run that submits the batches makes the first observation.

    All numbers come from the ledger, so they are right after a restart and in a rebuilt ledger.

    Args:
        observed: The last observation of each submission. `observe` updates it.
        emulated: Whether the API is the emulator.
    """

    def __init__(self, observed: dict[str, Observed], *, emulated: bool) -> None:
        self._observed = observed
        self._pause = _PAUSE_EMULATED if emulated else _PAUSE_SECONDS

    def observe(
        self, snapshots: Iterable[Snapshot], pipelines: Mapping[str, PipelineAssets]
    ) -> Iterator[dg.AssetObservation]:
        """Yield observations that are due, of submissions in force: a limited number, the rest in later ticks."""
        watched = [snapshot for snapshot in snapshots if _is_recent(snapshot)]
        for submission_id in set(self._observed) - {snapshot.submission.id for snapshot in watched}:
            del self._observed[submission_id]
        left = _AT_ONCE
        for snapshot in watched:
            if not left:
                return
            submission, batches = snapshot.submission, list(snapshot.batches)
            counts = counts_of(batches)
            if self._is_news(self._observed.get(submission.id), counts, snapshot.now):
                left -= 1
                self._observed[submission.id] = Observed(snapshot.now, list(counts.values()))
                yield observation(
                    pipelines[submission.pipeline].stages[Stage.BATCHES], submission, batches, snapshot.now
                )

    def _is_news(self, last: Observed | None, counts: dict[str, int], now: float) -> bool:
        if last is None:
            return counts[keys.BATCHES_OPEN] < counts[keys.BATCHES] or _requests_done(counts) > 0
        is_over = counts[keys.BATCHES_OPEN] == 0
        return list(counts.values()) != last.counts and (is_over or now - last.at >= self._pause)


def _is_recent(snapshot: Snapshot) -> bool:
    return (snapshot.submission.final_at or snapshot.now) > snapshot.now - RECENT_SECONDS


def _requests_done(counts: dict[str, int]) -> int:
    """Return the number of requests whose outcome is known."""
    return sum(counts[keys.count_key(name)] for name in COUNTS if name != "processing")
