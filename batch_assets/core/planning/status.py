"""The state of partitions as values: what `status --json` prints and the dashboard shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batch_assets.core.answers.result_types import final_rows
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.progress import requests_answered
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Join, NeedsUser, Wait


class PartitionState(StrEnum):
    """What a partition is in, in the order in which texts list the states."""

    NEEDS_USER = "needs_user"
    """Only a user can continue it."""
    DUE = "due"
    """The sensor, or a run, continues it now."""
    WAITING = "waiting"
    """It waits for the API, for a time, or for a run that works on it."""
    CANCELED = "canceled"
    """A user canceled it, and nothing of it is in flight."""
    COMPLETE = "complete"
    """Every row has its final result."""


@dataclass(frozen=True)
class PartitionStatus:
    """A partition's newest submission at one moment. Times are seconds since 1970 by the ledger's clock.

    Attributes:
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        submission: The id of the submission.
        state: What it is in.
        created_at: When it was built.
        began_at: When a run began to send it; `None` if none did.
        complete_at: When its table was complete; `None` if it is not.
        rows: The number of rows.
        rejected: How many of them the template rejected.
        done: How many have a final result.
        requests: The number of distinct requests that rows have waited for.
        answered: How many of these are answered.
        results: Rows by result type at the last join; empty before it.
        unusable: How many of the rows with an answer have one that cannot be used, as far as the ledger knows.
        files: Request files by state.
        batches: Batches by state.
        running: The batches that are not collected, earliest first.
    """

    pipeline: str
    partition: str
    submission: str
    state: PartitionState
    created_at: float
    began_at: float | None
    complete_at: float | None
    rows: int
    rejected: int
    done: int
    requests: int
    answered: int
    results: Mapping[str, int]
    unusable: int
    files: Mapping[str, int]
    batches: Mapping[str, int]
    running: tuple[Batch, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> PartitionStatus:
        """Return the status of a snapshot. It reads nothing more."""
        submission = snapshot.submission
        answered, requests = requests_answered([snapshot])
        results = submission.count_map
        return cls(
            submission.pipeline,
            submission.partition,
            submission.id,
            state_of(snapshot),
            submission.created_at,
            submission.began_at,
            submission.final_at,
            submission.rows,
            submission.rejected,
            final_rows(results) if results else submission.rejected,
            requests,
            answered,
            results,
            submission.unusable or 0,
            Counter(str(file.state) for file in snapshot.files),
            Counter(str(batch.state) for batch in snapshot.batches),
            tuple(snapshot.uncollected),
        )

    @property
    def ends_by(self) -> float | None:
        """When the API will have ended its open batches, at the latest; `None` if it has none."""
        return _latest_end(self.running)


@dataclass(frozen=True)
class StatusTotal:
    """Partitions together.

    Attributes:
        partitions: The number of partitions.
        states: Partitions by state.
        rows, rejected, done, requests, answered, unusable: Sums; see `PartitionStatus`.
        results: Rows by result type.
        running: The number of uncollected batches.
        ends_by: When the API will have ended all open batches, at the latest; `None` if there are none.
    """

    partitions: int
    states: Mapping[PartitionState, int]
    rows: int
    rejected: int
    done: int
    requests: int
    answered: int
    results: Mapping[str, int]
    unusable: int
    running: int
    ends_by: float | None

    @classmethod
    def of(cls, statuses: Sequence[PartitionStatus]) -> StatusTotal:
        """Add up the statuses of partitions."""
        results: Counter[str] = Counter()
        for status in statuses:
            results.update(status.results)
        states = Counter(status.state for status in statuses)
        # A batch of gathered partitions belongs to each of them.
        running = {batch.id: batch for status in statuses for batch in status.running}
        return cls(
            len(statuses),
            {state: states[state] for state in PartitionState if states[state]},
            sum(status.rows for status in statuses),
            sum(status.rejected for status in statuses),
            sum(status.done for status in statuses),
            sum(status.requests for status in statuses),
            sum(status.answered for status in statuses),
            results,
            sum(status.unusable for status in statuses),
            len(running),
            _latest_end(running.values()),
        )


def state_of(snapshot: Snapshot) -> PartitionState:
    """Return what a partition is in."""
    step = next_step(snapshot)
    if isinstance(step, NeedsUser):
        return PartitionState.NEEDS_USER
    if snapshot.submission.final_at is not None:
        return PartitionState.CANCELED if snapshot.submission.is_canceled else PartitionState.COMPLETE
    if isinstance(step, Join) and snapshot.nothing_comes:
        return PartitionState.CANCELED
    return PartitionState.WAITING if isinstance(step, Wait) else PartitionState.DUE


def _latest_end(batches: Iterable[Batch]) -> float | None:
    ends = (batch.expires_at for batch in batches if batch.state is BatchState.OPEN)
    return max((end for end in ends if end is not None), default=None)
