"""What the ledger records about a submission at one moment: everything that determines its next step.

One transaction reads any number of submissions, and the number of statements does not grow with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from batch_assets.core.ledger import (
    Transaction,
    budgets,
    files,
    leases,
    lost_answers,
    overview,
    pilots,
    queue,
    rescues,
    standstills,
    stubs,
    submissions,
)
from batch_assets.core.ledger.budgets import Prospect
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.ledger.pilots import PilotState
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.standstills import Standstill
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.ledger.stubs import Stub, Warmth
from batch_assets.core.planning.rescue_outlook import NO_RESCUE, RescueOutlook, read_outlooks
from batch_assets.core.store.refreshes import waiting_for_refresh

T = TypeVar("T")

# The shortest and the longest time between two tries to resend failed requests whose request file is lost.
SEND_AGAIN_SECONDS = 60.0
STANDSTILL_LAST_SECONDS = 3600.0


@dataclass(frozen=True)
class Snapshot:
    """A submission in force at one moment.

    Attributes:
        submission: The submission.
        now: The ledger's clock, seconds since 1970.
        files: The request files that its rows wait on, in a fixed order.
        batches: All batches of these files, earliest first.
        left_behind: Uncollected batches of other files of the same partition, on which no row waits any more.
        to_reconcile: Ids of the files in doubt that no process is sending: the API's list has to show whether they
            arrived.
        shared: Ids of the files of a canceled submission that another partition waits on: they are not canceled.
        is_sending: Whether a run of `batches` is working on the submission.
        is_collecting: Whether a run that a user started is collecting results of its pipeline.
        is_watched: Whether one of the partition's files was sent again, and its first batch may still turn up.
        needs_refresh: Whether only another refresh sends the requests that a limit left out.
        prospects: By id, when the files that a budget holds back may be sent.
        places: By id, when the files that wait for room in the queue may be sent.
        stubs: The stubs that held files wait for, by the ids of their files.
        pilots: By id, the pilots that held files wait for.
        rescue: The live calls for rows that have no answer when a deadline has passed.
        standstill: What prevents its failed requests from being sent again; None if nothing does.
    """

    submission: Submission
    now: float
    files: tuple[RequestFile, ...] = ()
    batches: tuple[Batch, ...] = ()
    left_behind: tuple[Batch, ...] = ()
    to_reconcile: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    is_sending: bool = False
    is_collecting: bool = False
    is_watched: bool = False
    needs_refresh: bool = False
    prospects: Mapping[str, Prospect] = field(default_factory=dict)
    places: Mapping[str, Prospect] = field(default_factory=dict)
    stubs: Mapping[str, Stub] = field(default_factory=dict)
    pilots: Mapping[str, PilotState] = field(default_factory=dict)
    rescue: RescueOutlook = NO_RESCUE
    standstill: Standstill | None = None

    @classmethod
    def of(cls, tx: Transaction, submission: Submission) -> Snapshot:
        """Read the snapshot of one submission."""
        return read_snapshots(tx, [submission])[submission.id]

    @property
    def is_unattended(self) -> bool:
        """Whether no user has to start a run of `batches`, and none is running now: no other run may send then.

        A user starts the first one, because sending costs money. Nothing of a canceled submission is sent.
        """
        return (self.submission.began_at is not None or self.submission.is_canceled) and not self.is_sending

    @cached_property
    def awaited(self) -> Sequence[RequestFile]:
        """The files that the submission may send or get answers from.

        A canceled one sends none. If another partition sends a file that they share, its answers are taken then.
        """
        if not self.submission.is_canceled:
            return self.files
        return [file for file in self.files if not file.state.unsent]

    @property
    def nothing_comes(self) -> bool:
        """Whether the submission is canceled, and no file is in flight that could still bring an answer."""
        return self.submission.is_canceled and not any(file.state.in_flight for file in self.awaited)

    @property
    def uncollected(self) -> list[Batch]:
        """Uncollected batches of the files that the submission waits on."""
        return [batch for batch in self.batches if batch.state.uncollected]

    @cached_property
    def ended(self) -> list[Batch]:
        """Batches that have ended and are due to be collected, including those left behind."""
        return [
            batch
            for batch in self._all_batches
            if batch.state is BatchState.ENDED and batch.next_download_at <= self.now
        ]

    @property
    def unreachable(self) -> list[Batch]:
        """Batches that have been unknown to the API for some time."""
        return [batch for batch in self._all_batches if batch.state is BatchState.UNREACHABLE]

    @property
    def running(self) -> list[Batch]:
        """Batches that the API works on, including those left behind."""
        return [batch for batch in self._all_batches if batch.state is BatchState.OPEN]

    @property
    def not_shown(self) -> list[Batch]:
        """Running batches that the API answered 404 for when it was last asked."""
        return [batch for batch in self.running if batch.missing_since is not None]

    @property
    def failing(self) -> list[Batch]:
        """Ended batches whose last download failed. It is tried again automatically."""
        return [
            batch
            for batch in self._all_batches
            if batch.state is BatchState.ENDED and batch.failing_since is not None
        ]

    @cached_property
    def lost_answers(self) -> list[str]:
        """Ids of the batches whose answers are lost and that rows wait for."""
        return [file.batch_id for file in self.files if lost_answers.is_lost(file) and file.batch_id is not None]

    @property
    def to_cancel(self) -> list[Batch]:
        """Batches of a canceled submission that run at the API and were not asked to end.

        A batch that was adopted on its count alone may be someone else's: it runs until its results show whose.
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

    @property
    def unsent_to_cancel(self) -> list[RequestFile]:
        """Unsent files of a canceled submission that no other partition waits on."""
        is_canceled = self.submission.is_canceled
        return [file for file in self.files if is_canceled and file.state.unsent and file.id not in self.shared]

    @cached_property
    def moving(self) -> list[RequestFile]:
        """Files that may still bring answers without a user's help."""
        lost = {batch.id for batch in self.batches if batch.state is BatchState.UNREACHABLE}
        lost.update(self.lost_answers)
        in_flight = (file for file in self.awaited if file.state.in_flight and file.state is not FileState.STOPPED)
        need_user = {file.id for file in [*self.to_approve, *self.over_budget]}
        stays = need_user | {file.id for file in self._held_for_pilot}
        moving = (file for file in in_flight if file.batch_id not in lost and file.id not in stays)
        return [file for file in moving if not self._waits_in_vain(file, need_user)]

    def _waits_in_vain(self, file: RequestFile, need_user: Collection[str]) -> bool:
        """Whether a file waits for a stub that is not sent without a user's help.

        Args:
            file: The file.
            need_user: The ids of the files that only a user can let go.
        """
        if not file.is_held_for_stub or self.awaiting_stub.get(file.id, 0.0) is not None:
            return False
        stub = self.stubs[file.stub or ""].file
        return stub.state is FileState.STOPPED or stub.id in need_user

    @cached_property
    def awaiting_stub(self) -> dict[str, float | None]:
        """Ids of the held files whose stub is awaited, with the time until when; None if it is not sent yet."""
        stubs_of = {file.id: self.stubs.get(file.stub or "") for file in self._held_for_stub}
        return {
            file_id: stub.until
            for file_id, stub in stubs_of.items()
            if stub is not None and stub.warmth(self.now) is Warmth.AWAITED
        }

    @property
    def to_release(self) -> list[RequestFile]:
        """Held files whose stub is no longer awaited."""
        return [file for file in self._held_for_stub if file.id not in self.awaiting_stub]

    @property
    def _held_for_stub(self) -> list[RequestFile]:
        return [file for file in self.awaited if file.is_held_for_stub]

    @cached_property
    def to_approve(self) -> list[RequestFile]:
        """Held files that only a user lets go."""
        return [file for file in self.awaited if file.is_held_for_approval]

    @cached_property
    def affordable(self) -> list[RequestFile]:
        """Files that a budget held back and that fit into it now."""
        return [file for file in self._held_by_budget if self.prospects[file.id].may_go]

    @cached_property
    def over_budget(self) -> list[RequestFile]:
        """Files that only a user can let go, because no money comes free for them."""
        return [file for file in self._held_by_budget if self.prospects[file.id].is_hopeless]

    @cached_property
    def until_budget(self) -> dict[str, Prospect]:
        """By id, when the other files that a budget holds back may be sent."""
        judged = {file.id: self.prospects[file.id] for file in self._held_by_budget}
        return {id_: each for id_, each in judged.items() if not each.may_go and not each.is_hopeless}

    @cached_property
    def pilot_due(self) -> list[RequestFile]:
        """Files that wait for a pilot that can be judged now."""
        return [file for file in self._held_for_pilot if file.id in self.pilots and self.pilots[file.id].is_due]

    @cached_property
    def without_pilot(self) -> list[RequestFile]:
        """Files that wait for a pilot that brings no answer any more: only another build takes a new one."""
        return [
            file for file in self._held_for_pilot if file.id not in self.pilots or self.pilots[file.id].is_gone
        ]

    @property
    def waits_for_pilot(self) -> bool:
        """Whether files wait for the pilot of another partition. That of its own shows in its own files."""
        own = {file.id for file in self.files}
        states = [self.pilots[file.id] for file in self._held_for_pilot if file.id in self.pilots]
        return any(not state.is_gone and own.isdisjoint(file.id for file in state.files) for state in states)

    @property
    def _held_for_pilot(self) -> list[RequestFile]:
        return [file for file in self.awaited if file.is_held_for_pilot]

    @property
    def enough(self) -> list[RequestFile]:
        """Files that were held for more requests and have waited long enough."""
        return [file for file in self.held_for_more if file.not_before <= self.now]

    @property
    def held_for_more(self) -> list[RequestFile]:
        """Files that are held for more requests."""
        return [file for file in self.awaited if file.is_held_for_more]

    @cached_property
    def with_room(self) -> list[RequestFile]:
        """Files that waited for room in the queue, and that it has room for now."""
        return [file for file in self._held_by_queue if self.places[file.id].may_go]

    @cached_property
    def until_room(self) -> dict[str, Prospect]:
        """By id, when the other files that wait for room in the queue may be sent."""
        judged = {file.id: self.places[file.id] for file in self._held_by_queue}
        return {id_: each for id_, each in judged.items() if not each.may_go}

    @property
    def _held_by_queue(self) -> list[RequestFile]:
        return [file for file in self.awaited if file.is_held_by_queue and file.id in self.places]

    @property
    def _held_by_budget(self) -> list[RequestFile]:
        return [file for file in self.awaited if file.is_held_by_budget and file.id in self.prospects]

    @property
    def others_run(self) -> bool:
        """Whether more answers are under way than those that are due to be collected."""
        ended = {batch.file_id for batch in self.ended}
        return any(file.id not in ended for file in self.moving)

    @property
    def has_unjoined(self) -> bool:
        """Whether answers were collected after the last join."""
        joined = self.submission.joined_seq or 0
        return any((file.collected_seq or 0) > joined for file in self.files)

    @property
    def next_try(self) -> float | None:
        """When the next unattended try to resend failed requests of a lost file is due; None if there are none."""
        if self.standstill is None or not self.submission.ask_again:
            return None
        return self.standstill.next_try(SEND_AGAIN_SECONDS, STANDSTILL_LAST_SECONDS)

    @property
    def stands_still(self) -> bool:
        """Whether it is too early for the next try."""
        return self.next_try is not None and self.now < self.next_try

    def in_state(self, *states: FileState) -> list[RequestFile]:
        """The files of `awaited` in these states."""
        return [file for file in self.awaited if file.state in states]

    def next_change(self) -> float | None:
        """Return when something may change automatically; None if the ledger has no such time.

        A batch may be due to be polled or collected, or the time is over that the API asked to wait.
        """
        due = set(map(id, self.ended))
        times = [batch.next_look_at for batch in self.uncollected if id(batch) not in due]
        held = [*self.until_budget.values(), *self.until_room.values()]
        times += [each.until for each in held if each.until is not None]
        times += [file.not_before for file in self.in_state(FileState.READY) if file.not_before > self.now]
        times += [file.not_before for file in self.held_for_more if file.not_before > self.now]
        times += [until for until in self.awaiting_stub.values() if until is not None]
        return min([*times, *self.rescue.times], default=None)

    @property
    def _all_batches(self) -> Iterator[Batch]:
        yield from self.batches
        yield from self.left_behind


def read_snapshots(tx: Transaction, selected: Sequence[Submission]) -> dict[str, Snapshot]:
    """Read the snapshots of some submissions. The keys are their ids."""
    if not selected:
        return {}
    ids = [submission.id for submission in selected]
    files_of, batches_of = overview.files_of(tx, ids), overview.batches_of(tx, ids)
    watched = overview.watched_partitions(tx)
    open_intents = overview.files_with_open_intent(tx)
    held_leases = leases.held_among(tx, _lease_names(selected, open_intents))
    standstill_of = standstills.current_of(tx, [submission.id for submission in selected if submission.ask_again])
    refreshes = waiting_for_refresh(tx, [submission for submission in selected if submission.left_out])
    left_behind = overview.left_behind_of(tx, selected, batches_of)
    held = {file.id: file for id_ in ids for file in files_of[id_] if file.state is FileState.HELD}.values()
    by_budget = [file for file in held if file.is_held_by_budget]
    prospects = budgets.prospects(tx, budgets.recorded(tx), by_budget) if by_budget else {}
    by_queue = [file for file in held if file.is_held_by_queue]
    places = queue.prospects(tx, by_queue) if by_queue else {}
    pilot_of = pilots.waited_for(tx, [file for file in held if file.is_held_for_pilot])
    stub_of = stubs.by_id(tx, {file.stub for file in held if file.is_held_for_stub and file.stub is not None})
    outlooks = read_outlooks(tx, selected, files_of, batches_of, held_leases)
    canceled = [submission for submission in selected if submission.is_canceled]
    shared = overview.shared_of(tx, canceled, files_of, (batches_of, left_behind))
    to_reconcile = {file_id for file_id in open_intents if files.lease_name(file_id) not in held_leases}
    return {
        submission.id: Snapshot(
            submission=submission,
            now=tx.now,
            files=tuple(files_of[submission.id]),
            batches=tuple(batches_of[submission.id]),
            left_behind=tuple(left_behind.get(submission.id, ())),
            to_reconcile=frozenset(file.id for file in files_of[submission.id] if file.id in to_reconcile),
            shared=shared.get(submission.id, frozenset()),
            is_sending=submissions.sending_name(submission.id) in held_leases,
            is_collecting=collecting_name(submission.pipeline) in held_leases,
            is_watched=(submission.pipeline, submission.partition) in watched,
            needs_refresh=submission.id in refreshes,
            prospects=_among(prospects, (file.id for file in files_of[submission.id])),
            places=_among(places, (file.id for file in files_of[submission.id])),
            stubs=_among(stub_of, (file.stub or "" for file in files_of[submission.id] if file.is_held_for_stub)),
            pilots=_among(pilot_of, (file.id for file in files_of[submission.id])),
            rescue=outlooks.get(submission.id, NO_RESCUE),
            standstill=standstill_of.get(submission.id),
        )
        for submission in selected
    }


def _among(values: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    """Return the values of those keys that have one."""
    return {key: values[key] for key in keys if key in values} if values else {}


def _lease_names(selected: Sequence[Submission], file_ids: Iterable[str]) -> Iterator[str]:
    yield from (submissions.sending_name(submission.id) for submission in selected)
    for pipeline in {submission.pipeline for submission in selected}:
        yield from (collecting_name(pipeline), rescues.lease_name(pipeline))
    yield from map(files.lease_name, file_ids)
