"""What the ledger says about all pipelines at one moment, as the page shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Transaction, budgets, endpoint, sent, submissions
from batch_assets.core.ledger.near_caps import BudgetUse, budget_uses
from batch_assets.core.ledger.recent import RecentBatch, recent_batches
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.planning.status import PartitionState, PartitionStatus, StatusTotal
from batch_assets.core.planning.time_to_go import TimeToGo, time_to_go
from batch_assets.core.root import Root

# Batches of each pipeline that are read: the newest that have ended, and the newest others. All uncollected ones
# are known by their partitions.
_BATCHES = 50
# Partitions whose errors are read one by one, each of which may take a statement.
_WITH_ERRORS = 50


@dataclass(frozen=True)
class Words:
    """How whoever opens the page words what comes next. The core names no commands.

    Attributes:
        waits_for: Returns what a submission waits for.
        errors_of: Yields what is wrong with it.
        error: Returns the text of an error, with its remedy.
        broken_files: Returns the mistakes of broken pipeline files.
    """

    waits_for: Callable[[Snapshot], str]
    errors_of: Callable[[Transaction, Snapshot], Iterable[str]]
    error: Callable[[BatchAssetsError], str]
    broken_files: Callable[[], list[str]]


@dataclass(frozen=True)
class PartitionView:
    """A partition of a pipeline.

    Attributes:
        status: Its status.
        waits_for: What it waits for, and who has to do something.
        errors: What is wrong with it.
        joined_at: When its table was last written; `None` if it was not.
    """

    status: PartitionStatus
    waits_for: str
    errors: tuple[str, ...]
    joined_at: float | None


@dataclass(frozen=True)
class PipelineView:
    """A pipeline.

    Attributes:
        name: Its name.
        total: Its partitions together.
        partitions: Each of them, those first that need a user or are not complete.
        left: How long its open batches probably take; `None` if none is open.
    """

    name: str
    total: StatusTotal
    partitions: tuple[PartitionView, ...]
    left: TimeToGo | None

    @property
    def version(self) -> tuple[object, ...]:
        """Changes whenever one of its tables may have changed."""
        return tuple(sorted((each.status.submission, each.joined_at or 0.0) for each in self.partitions))


@dataclass(frozen=True)
class State:
    """All pipelines of a root.

    Attributes:
        now: The ledger's time, seconds since 1970.
        pipelines: The pipelines, by name.
        total: All partitions together.
        batches: The newest batches of each pipeline, the newest first.
        budgets: How much of each budget is spent.
        is_emulated: Whether answers are made up, and amounts not billed.
        sent: Differs whenever something was sent, answered or lost since; see `sent_version`.
    """

    now: float
    pipelines: tuple[PipelineView, ...]
    total: StatusTotal
    batches: tuple[RecentBatch, ...]
    budgets: tuple[BudgetUse, ...]
    is_emulated: bool
    sent: tuple[object, ...]

    @property
    def spend_version(self) -> tuple[object, ...]:
        """Changes whenever what was spent may have changed."""
        return self.sent, *(each.version for each in self.pipelines)

    def pipeline(self, name: str) -> PipelineView | None:
        """Return a pipeline by its name."""
        return next((each for each in self.pipelines if each.name == name), None)


def read_state(root: Root, words: Words) -> State:
    """Read the state. The number of statements does not grow with the number of partitions.

    Args:
        root: The root.
        words: How to word what comes next.
    """
    with root.ledger.read() as tx:
        snapshots = list(read_snapshots(tx, submissions.all_newest(tx)).values())
        recent = recent_batches(tx, _BATCHES)
        recorded = budgets.recorded(tx) | {budgets.ROOT: root.settings.budget}
        names = sorted({snapshot.submission.pipeline for snapshot in snapshots})
        few = len(snapshots) <= _WITH_ERRORS
        views = [
            PartitionView(
                PartitionStatus.of(snapshot),
                words.waits_for(snapshot),
                tuple(words.errors_of(tx, snapshot)) if few else (),
                snapshot.submission.joined_at,
            )
            for snapshot in snapshots
        ]
        return State(
            tx.now,
            tuple(_pipeline(name, views, recent, tx.now) for name in names),
            StatusTotal.of([view.status for view in views]),
            tuple(recent),
            tuple(budget_uses(tx, recorded)),
            endpoint.is_emulated(tx),
            sent.sent_version(tx),
        )


def _pipeline(name: str, views: list[PartitionView], recent: list[RecentBatch], now: float) -> PipelineView:
    own = [view for view in views if view.status.pipeline == name]
    order = list(PartitionState)
    own.sort(key=lambda view: order.index(view.status.state))
    running = [batch for view in own for batch in view.status.running]
    ended = [each for each in recent if each.pipeline == name]
    return PipelineView(
        name, StatusTotal.of([view.status for view in own]), tuple(own), time_to_go(running, ended, now)
    )
