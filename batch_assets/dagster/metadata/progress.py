"""The progress of a submission's batches, as numbers that Dagster plots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from batch_assets.core.api.objects import COUNTS
from batch_assets.core.ledger.records import Batch, Submission
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.remedies import Stage
from batch_assets.dagster import keys
from batch_assets.dagster.cursor import Observed, SensorCursor
from batch_assets.dagster.metadata.batch_table import batch_table
from batch_assets.dagster.metadata.numbers import without_zeros
from batch_assets.dagster.pipelines import PipelineAssets

# Pause between two observations of a submission's batches. A plot shows about 100 points, so it covers a day. The
# emulator ends batches in seconds.
_PAUSE_SECONDS, _PAUSE_EMULATED = 900.0, 2.0
# Observations in one tick. The daemon needs about a hundredth of a second for each.
_AT_ONCE = 50
# A submission that became final between two ticks still gets its last observation.
_RECENT_SECONDS = 900.0
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

    A tick makes a limited number of observations. Submissions that became final come first, and the cursor has the
    time from which on some of them are left: later ticks observe them, however long that takes.

    All numbers come from the ledger, so they are right after a restart and in a rebuilt ledger.

    Args:
        cursor: The sensor's cursor. `observe` updates what has been observed.
        now: The ledger's clock.
        emulated: Whether the API is the emulator.

    Attributes:
        final_since: Submissions that became final after this time may be left to observe.
    """

    def __init__(self, cursor: SensorCursor, now: float, *, emulated: bool) -> None:
        self._cursor, self._now = cursor, now
        self._pause = _PAUSE_EMULATED if emulated else _PAUSE_SECONDS
        self.final_since = min(now - _RECENT_SECONDS, cursor.observed_until or now)

    def observe(
        self, snapshots: Iterable[Snapshot], pipelines: Mapping[str, PipelineAssets]
    ) -> Iterator[dg.AssetObservation]:
        """Yield observations that are due, of submissions in force: a limited number, the rest in later ticks."""
        watched = [snapshot for snapshot in snapshots if self._is_watched(snapshot)]
        observed = self._cursor.observed
        for submission_id in set(observed) - {snapshot.submission.id for snapshot in watched}:
            del observed[submission_id]
        due = [snapshot for snapshot in watched if self._is_news(snapshot)]
        due.sort(key=self._urgency)
        for snapshot in due[:_AT_ONCE]:
            submission, batches = snapshot.submission, list(snapshot.batches)
            observed[submission.id] = Observed(self._now, list(counts_of(batches).values()))
            key = pipelines[submission.pipeline].stages[Stage.BATCHES]
            yield observation(key, submission, batches, self._now)
        left = [snapshot.submission.final_at for snapshot in due[_AT_ONCE:]]
        first = min((final_at for final_at in left if final_at is not None), default=self._now)
        self._cursor.observed_until = math.nextafter(first, 0.0)

    def _is_watched(self, snapshot: Snapshot) -> bool:
        """Whether there may be news, such as the end of a late batch that was open when it was last observed."""
        final_at, last = snapshot.submission.final_at, self._cursor.observed.get(snapshot.submission.id)
        return final_at is None or final_at > self.final_since or (last is not None and last.open > 0)

    def _is_news(self, snapshot: Snapshot) -> bool:
        counts, last = counts_of(list(snapshot.batches)), self._cursor.observed.get(snapshot.submission.id)
        if last is None:
            return counts[keys.BATCHES_OPEN] < counts[keys.BATCHES] or _requests_done(counts) > 0
        is_over = counts[keys.BATCHES_OPEN] == 0
        return list(counts.values()) != last.counts and (is_over or self._now - last.at >= self._pause)

    def _urgency(self, snapshot: Snapshot) -> tuple[float, float]:
        """Return what sorts observations: final submissions first, then those observed longest ago."""
        last = self._cursor.observed.get(snapshot.submission.id)
        return snapshot.submission.final_at or math.inf, last.at if last is not None else 0.0


def _requests_done(counts: dict[str, int]) -> int:
    """Return the number of requests whose outcome is known."""
    return sum(counts[keys.count_key(name)] for name in COUNTS if name != "processing")
