"""What the ledger says of a submission at one moment: all that decides what happens to it next.

Read in one transaction, for as many submissions as are asked for: the number of statements does not grow with
theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets.core.ledger import Transaction, files, leases, overview, standstills, submissions
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.standstills import Standstill
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.store.refreshes import waiting_for_refresh

# The least and the most time between two tries to ask failed requests again whose request file is lost.
SEND_AGAIN_SECONDS = 60.0
STANDSTILL_LAST_SECONDS = 3600.0


@dataclass(frozen=True)
class Snapshot:
    """A submission in force at one moment.

    Attributes:
        now: the ledger's clock, seconds since 1970.
        files: the request files that its rows wait on, in a fixed order.
        batches: all batches that these files became, earliest first.
        left_behind: uncollected batches of other files of the same partition, which no row waits on any more.
        in_doubt: ids of those files that may or may not have reached the API, and that no process is sending.
        shared: ids of those files that another partition waits on as well. It is read for canceled submissions
            only: what they share is left to run.
        is_sending: a run of `batches` is at work on it.
        is_collecting: a person's run is collecting results of its pipeline.
        is_watched: one of the partition's files was sent again, and its first batch may still turn up.
        needs_refresh: what a limit left out is asked only when a refresh is asked for again.
        standstill: what keeps its failed requests from being asked again, None where nothing does.
    """

    submission: Submission
    now: float
    files: tuple[RequestFile, ...] = ()
    batches: tuple[Batch, ...] = ()
    left_behind: tuple[Batch, ...] = ()
    in_doubt: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    is_sending: bool = False
    is_collecting: bool = False
    is_watched: bool = False
    needs_refresh: bool = False
    standstill: Standstill | None = None

    @classmethod
    def of(cls, tx: Transaction, submission: Submission) -> Snapshot:
        """The snapshot of one submission."""
        return read_snapshots(tx, [submission])[submission.id]

    @property
    def is_unattended(self) -> bool:
        """Whether a run of `batches` has begun to send it, and none is at work now.

        Before that it takes a person: sending costs money. What a run is sending is its own business.
        """
        return self.submission.began_at is not None and not self.is_sending

    @property
    def uncollected(self) -> list[Batch]:
        """Batches of the files it waits on whose answers are not collected."""
        return [batch for batch in self.batches if batch.state.uncollected]

    @cached_property
    def ended(self) -> list[Batch]:
        """Batches that have ended and are due to be collected, those left behind among them."""
        return [
            batch
            for batch in self._all_batches
            if batch.state is BatchState.ENDED and batch.next_poll_at <= self.now
        ]

    @property
    def unreachable(self) -> list[Batch]:
        """Batches that the API has not known for long."""
        return [batch for batch in self._all_batches if batch.state is BatchState.UNREACHABLE]

    @property
    def to_cancel(self) -> list[Batch]:
        """Batches of a canceled submission that run at the API and were not asked to end.

        One adopted on its count alone may be somebody else's: it is left to run until its results tell.
        """
        if not self.submission.is_canceled:
            return []
        return [
            batch
            for batch in self._all_batches
            if batch.state is BatchState.OPEN
            and batch.processing_status == "in_progress"
            and not batch.provisional
            and batch.file_id not in self.shared
        ]

    @cached_property
    def moving(self) -> list[RequestFile]:
        """Files that may still bring answers without a person's help."""
        lost = {batch.id for batch in self.batches if batch.state is BatchState.UNREACHABLE}
        held = (file for file in self.files if file.state.in_flight and file.state is not FileState.STOPPED)
        return [file for file in held if file.batch_id not in lost]

    @property
    def others_run(self) -> bool:
        """Whether answers are under way besides those that are due to be collected."""
        ended = {batch.file_id for batch in self.ended}
        return any(file.id not in ended for file in self.moving)

    @property
    def has_unjoined(self) -> bool:
        """Whether answers were collected after the last join."""
        joined = self.submission.joined_seq or 0
        return any((file.collected_seq or 0) > joined for file in self.files)

    @property
    def next_try(self) -> float | None:
        """When failed requests that a lost file keeps from being asked again are tried unattended; None where none
        are kept.
        """
        if self.standstill is None or not self.submission.ask_again:
            return None
        return self.standstill.next_try(SEND_AGAIN_SECONDS, STANDSTILL_LAST_SECONDS)

    @property
    def stands_still(self) -> bool:
        """Whether it is too early for another such try."""
        return self.next_try is not None and self.now < self.next_try

    def in_state(self, *states: str) -> list[RequestFile]:
        """The files in these states."""
        return [file for file in self.files if file.state in states]

    def next_change(self) -> float | None:
        """When something may change by itself: a batch is due to be looked at or collected, or the time is over
        that the API asked to wait. None when the ledger names no such time.
        """
        due = set(map(id, self.ended))
        times = [batch.next_poll_at for batch in self.uncollected if id(batch) not in due]
        times += [file.not_before for file in self.in_state(FileState.READY) if file.not_before > self.now]
        return min(times, default=None)

    @property
    def _all_batches(self) -> Iterator[Batch]:
        yield from self.batches
        yield from self.left_behind


def read_snapshots(tx: Transaction, given: Sequence[Submission]) -> dict[str, Snapshot]:
    """The snapshots of some submissions, by submission."""
    if not given:
        return {}
    ids = [one.id for one in given]
    waited, became = overview.files_of(tx, ids), overview.batches_of(tx, ids)
    uncollected, watched = overview.uncollected_at(tx), overview.watched_places(tx)
    open_intents = overview.files_with_open_intent(tx)
    held = leases.held_among(tx, _lease_names(given, open_intents))
    kept = standstills.current_of(tx, [one.id for one in given if one.ask_again])
    refreshes = waiting_for_refresh(tx, [one for one in given if one.left_out])
    left = {one.id: _left_behind(uncollected, one, became[one.id]) for one in given}
    canceled = [one for one in given if one.is_canceled]
    wanting = overview.wanting_partitions(
        tx, sorted({batch.file_id or "" for one in canceled for batch in (*became[one.id], *left[one.id])})
    )
    in_doubt = {file_id for file_id in open_intents if files.lease_name(file_id) not in held}
    return {
        one.id: Snapshot(
            submission=one,
            now=tx.now,
            files=tuple(waited[one.id]),
            batches=tuple(became[one.id]),
            left_behind=left[one.id],
            in_doubt=frozenset(file.id for file in waited[one.id] if file.id in in_doubt),
            shared=_shared(wanting, one) if one.is_canceled else frozenset(),
            is_sending=submissions.sending_name(one.id) in held,
            is_collecting=collecting_name(one.pipeline) in held,
            is_watched=(one.pipeline, one.partition) in watched,
            needs_refresh=one.id in refreshes,
            standstill=kept.get(one.id),
        )
        for one in given
    }


def _lease_names(given: Sequence[Submission], file_ids: Iterable[str]) -> Iterator[str]:
    yield from (submissions.sending_name(one.id) for one in given)
    yield from {collecting_name(one.pipeline) for one in given}
    yield from map(files.lease_name, file_ids)


def _left_behind(
    uncollected: dict[overview.Place, list[Batch]], one: Submission, waited: list[Batch]
) -> tuple[Batch, ...]:
    """The partition's uncollected batches but for those of files that the submission waits on."""
    known = {batch.id for batch in waited}
    here = uncollected.get((one.pipeline, one.partition), [])
    return tuple(batch for batch in here if batch.id not in known)


def _shared(wanting: dict[str, set[str]], one: Submission) -> frozenset[str]:
    return frozenset(file_id for file_id, partitions in wanting.items() if partitions - {one.partition})
