"""Which rounds one run can do together.

Dagster gives a run of several partitions the first and the last key, so a group is a stretch of consecutive
partitions. A run of a single partition remains for every other partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import dagster as dg

from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.rounds import LastRound
from batch_assets.core.planning.steps import Announce, Round, Send, SendReason
from batch_assets.dagster.partitions import keys_of

# After each failed run, its partitions come in groups of a fraction of the size: soon the one that a run dies of
# is alone.
_SMALLER = 5


@dataclass(frozen=True)
class Due:
    """A submission that has something to do.

    Attributes:
        submission: The submission.
        step: What it has to do.
        last: Its newest round.
        failures: How many runs of its last rounds failed in a row.
    """

    submission: Submission
    step: Round
    last: LastRound
    failures: int = 0

    @property
    def urgency(self) -> tuple[bool, bool, float, int]:
        """The least comes first: what a person started sending and waits for longest.

        Last of all is the search for batches that may turn up late: no row waits for them.
        """
        watches = isinstance(self.step, Send) and self.step.why is SendReason.LATE_BATCH
        began_at = self.submission.began_at
        since = began_at if began_at is not None else self.submission.created_at
        return watches, began_at is None, since, self.submission.seq

    @property
    def kind(self) -> tuple[str, str, int]:
        """Only rounds of one kind are done together.

        A run materializes all of its tables or none, so one that stays incomplete would hold up complete ones.
        """
        if isinstance(self.step, Send):
            work = "send"
        elif isinstance(self.step, Announce):
            work = "announce"
        else:
            work = "part" if self.step.others_run else "all"
        return self.submission.pipeline, work, self.failures


class PartitionOrder:
    """The positions of a pipeline's partition keys in Dagster's order.

    Args:
        definition: The partitions of the pipeline; None without partitions.
        instance: The instance that knows the keys of dynamic partitions.
    """

    def __init__(self, definition: dg.PartitionsDefinition[str] | None, instance: dg.DagsterInstance) -> None:
        self._has_ranges = isinstance(
            definition,
            dg.StaticPartitionsDefinition | dg.TimeWindowPartitionsDefinition | dg.DynamicPartitionsDefinition,
        )
        known = keys_of(definition, instance) if definition is not None else [""]
        self._positions = {key: position for position, key in enumerate(known)}

    def __contains__(self, key: str) -> bool:
        return key in self._positions

    def position(self, key: str) -> int:
        """Return the position of a key that is known."""
        return self._positions[key]

    def follows(self, key: str, before: str) -> bool:
        """Return whether one run can have a key and the one before it."""
        return self._has_ranges and self._positions[key] == self._positions[before] + 1


def grouped(due: Iterable[Due], orders: Mapping[str, PartitionOrder], partitions_per_run: int) -> list[list[Due]]:
    """Return the rounds of each run, the most urgent run first.

    Args:
        due: The submissions that have something to do, in any order. Their partitions are known.
        orders: By pipeline, the order of its partitions.
        partitions_per_run: The largest number of rounds in a run.
    """
    by_kind: dict[tuple[str, str, int], list[Due]] = {}
    for entry in due:
        by_kind.setdefault(entry.kind, []).append(entry)
    groups = [
        group
        for (pipeline, _, failures), entries in by_kind.items()
        for group in _stretches(entries, orders[pipeline], max(1, partitions_per_run // _SMALLER**failures))
    ]
    return sorted(groups, key=lambda group: min(entry.urgency for entry in group))


def _stretches(entries: Collection[Due], order: PartitionOrder, most: int) -> Iterator[list[Due]]:
    """Cut entries of one kind into stretches of consecutive partitions."""
    stretch: list[Due] = []
    for entry in sorted(entries, key=lambda entry: order.position(entry.submission.partition)):
        key = entry.submission.partition
        if stretch and (len(stretch) == most or not order.follows(key, stretch[-1].submission.partition)):
            yield stretch
            stretch = []
        stretch.append(entry)
    if stretch:
        yield stretch
