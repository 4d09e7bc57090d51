"""Rows of the ledger as typed records. `tables.py` explains their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.ledger.columns import FileColumns, SubmissionColumns
from batch_assets.core.ledger.intents import INTENTS_REFUSED, IntentOutcome
from batch_assets.core.ledger.states import BatchState, FileState, HoldReason, NoticeState, SubmissionState

_MARK_CHARACTERS = 6


@dataclass(frozen=True)
class Submission:
    """What one run of `requests` wrote for a partition, as the table `submission` records it."""

    seq: int
    id: str
    pipeline: str
    partition: str
    created_at: float
    rows: int
    rejected: int
    requests: int
    written: int
    headers: str
    max_attempts: int
    max_requests: int
    max_bytes: int
    began_at: float | None
    joined_seq: int | None
    joined_at: float | None
    counts: str | None
    ask_again: int
    final_at: float | None
    announced_at: float | None
    fresh_after: float | None
    left_out: int
    canceled_at: float | None
    estimate: str | None
    follow_ups: str | None = None
    held_back: bool = False
    unusable: int | None = None

    @property
    def count_map(self) -> dict[str, int]:
        """Rows by result_type at the last join."""
        return dict(json.loads(self.counts)) if self.counts else {}

    @property
    def state(self) -> SubmissionState:
        """The state, from the times. A canceled submission becomes final like any other."""
        if self.final_at is not None:
            return SubmissionState.FINAL
        if self.is_canceled:
            return SubmissionState.CANCELED
        return SubmissionState.BEGAN if self.began_at is not None else SubmissionState.REGISTERED

    @property
    def is_canceled(self) -> bool:
        """Whether a user canceled it: nothing of it is sent or retried."""
        return self.canceled_at is not None

    @property
    def follow_up_rules(self) -> FollowUpRules | None:
        """Which answers are followed by another request; `None` if none are."""
        return FollowUpRules.read(self.follow_ups)

    @property
    def attempts_allowed(self) -> int:
        """How many times each of its requests may be submitted; 0 once it was canceled."""
        return 0 if self.is_canceled else self.max_attempts


@dataclass(frozen=True)
class LastJoin:
    """What is recorded about the join that wrote a complete table.

    Attributes:
        inputs: The digest of what the join read.
        table: The version of the table's file, and the report, as JSON.
    """

    inputs: str
    table: str


@dataclass(frozen=True)
class RequestFile:
    """The body of one batch, as the table `request_file` records it."""

    id: str
    submission_id: str
    pipeline: str
    partition: str
    name: str
    requests: int
    bytes: int
    attempt: int
    state: FileState
    not_before: float
    error: str | None
    batch_id: str | None
    collected_seq: int | None
    headers: str | None
    checksum: str | None
    hold: HoldReason | None = None
    worst_case: int | None = None
    stub: str | None = None
    breakpoint: str | None = None
    follows: bool | None = None

    @property
    def is_held_by_budget(self) -> bool:
        """Whether it is held because a budget has too little left."""
        return self.state is FileState.HELD and self.hold is HoldReason.BUDGET

    @property
    def is_held_for_approval(self) -> bool:
        """Whether it is held and only a user lets it go."""
        return self.state is FileState.HELD and self.hold is not None and self.hold.needs_approval

    @property
    def is_held_for_pilot(self) -> bool:
        """Whether it is held because the pilot of its prompt is not judged yet."""
        return self.state is FileState.HELD and self.hold is HoldReason.PILOT

    @property
    def is_held_by_queue(self) -> bool:
        """Whether it is held because too many requests are queued."""
        return self.state is FileState.HELD and self.hold is HoldReason.QUEUE

    @property
    def is_held_for_more(self) -> bool:
        """Whether it is held until there are more requests, or until `not_before`."""
        return self.state is FileState.HELD and self.hold is HoldReason.MORE

    @property
    def is_held_for_stub(self) -> bool:
        """Whether it is held because its stub has to be answered first."""
        return self.state is FileState.HELD and self.hold is HoldReason.CACHE


@dataclass(frozen=True)
class SubmissionEntry:
    """A submission that is to be registered.

    Attributes:
        id: Its id.
        pipeline: The name of its pipeline.
        partition: The partition key; "" without partitions.
        rows: The number of its rows.
        rejected: How many of these the template rejected.
        requests: The number of distinct requests of its rows.
        written: The number of requests in its own files.
        headers: The headers of all its requests that are part of their identity.
        max_attempts: Attempts of each request, the first one included.
        max_requests: The most requests in one batch.
        max_bytes: The most bytes in the body of one batch.
        fresh_after: Answers to requests from before this time do not count; `None` without a refresh.
        left_out: The number of distinct requests that a limit left out.
        estimate: What its requests were estimated to cost, as JSON; `None` if it has none.
        follow_ups: Which answers are followed by another request, as JSON; `None` if none are.
        pilot: The digest of the prompt whose pilot its files wait for; `None` if they do not.
    """

    id: str
    pipeline: str
    partition: str
    rows: int
    rejected: int
    requests: int
    written: int
    headers: dict[str, str]
    max_attempts: int
    max_requests: int
    max_bytes: int
    fresh_after: float | None
    left_out: int
    estimate: str | None
    follow_ups: str | None = None
    pilot: str | None = None

    @property
    def columns(self) -> SubmissionColumns:
        """Its columns in the ledger."""
        return {
            "pipeline": self.pipeline,
            "partition": self.partition,
            "rows": self.rows,
            "rejected": self.rejected,
            "requests": self.requests,
            "written": self.written,
            "headers": json.dumps(self.headers),
            "max_attempts": self.max_attempts,
            "follow_ups": self.follow_ups,
            "max_requests": self.max_requests,
            "max_bytes": self.max_bytes,
            "fresh_after": self.fresh_after,
            "left_out": self.left_out,
            "estimate": self.estimate,
            "pilot": self.pilot,
            "ask_again": 0,
        }


@dataclass(frozen=True)
class RequestFileEntry:
    """A request file that is to be registered.

    Attributes:
        id: Its id.
        pipeline: The name of its pipeline.
        partition: The partition key; "" without partitions.
        name: Its name.
        requests: The number of its requests.
        bytes: The size of its body.
        attempt: The attempt of its requests, from 1.
        headers: The headers of its requests; `None` if they are the submission's.
        checksum: Its SHA-256 in hexadecimal.
        hold: What has to allow it to be sent; `None` if nothing has to.
        why_held: Why it is held, for users.
        stub: The id of the file that is sent first; `None` without a breakpoint.
        breakpoint: The breakpoint as JSON.
        not_before: When it is sent at the latest if it is held for more; else 0.
        follows: Whether its requests are follow-ups.
    """

    id: str
    pipeline: str
    partition: str
    name: str
    requests: int
    bytes: int
    attempt: int
    headers: dict[str, str] | None
    checksum: str | None
    hold: HoldReason | None = None
    why_held: str = "it waits for approval"
    stub: str | None = None
    breakpoint: str | None = None
    not_before: float = 0.0
    follows: bool | None = None

    def columns_in(self, submission_id: str) -> FileColumns:
        """Return its columns in the ledger, as a file of a submission."""
        return {
            "submission_id": submission_id,
            "pipeline": self.pipeline,
            "partition": self.partition,
            "name": self.name,
            "requests": self.requests,
            "bytes": self.bytes,
            "attempt": self.attempt,
            "headers": json.dumps(self.headers) if self.headers is not None else None,
            "checksum": self.checksum,
            "hold": self.hold,
            "stub": self.stub,
            "breakpoint": self.breakpoint,
            "not_before": self.not_before,
            "follows": self.follows,
        }


@dataclass(frozen=True)
class Intent:
    """One POST of a request file, recorded before it begins, as the table `intent` records it."""

    id: int
    file_id: str
    requests: int
    bytes: int
    anchor_id: str | None
    anchor_created_at: float | None
    started_at: float
    last_byte_at: float | None
    outcome: IntentOutcome
    watch_until: float | None
    seen_before: str | None
    latest_created_at: float | None
    body_complete: bool | None
    key_hash: str | None
    with_breakpoint: bool | None
    candidate_id: str | None

    @property
    def is_unseen(self) -> bool:
        """Whether it was refused, and the list of batches was not read since."""
        is_complete = self.body_complete is True and self.latest_created_at is None
        return is_complete and self.outcome in INTENTS_REFUSED

    @property
    def excluded(self) -> frozenset[str]:
        """The ids of batches that existed before it, so that none of them can be its batch."""
        listed = json.loads(self.seen_before) if self.seen_before else []
        return frozenset(filter(None, [self.anchor_id, *listed]))


@dataclass(frozen=True)
class Batch:
    """A batch of the API, ours or someone else's, as the table `batch` records it."""

    id: str
    file_id: str | None
    pipeline: str | None
    state: BatchState
    provisional: bool
    paid_twice: bool
    replied: bool | None
    processing_status: str
    requests: int
    counts: str
    created_at: float | None
    expires_at: float | None
    ended_at: float | None
    submitted_at: float | None
    missing_since: float | None
    next_poll_at: float
    downloads: int
    failing_since: float | None
    results_refused: bool
    canceled_at: float | None
    next_download_at: float
    next_delete_at: float

    @property
    def count_map(self) -> dict[str, int]:
        """The API's request_counts as last seen."""
        return dict(json.loads(self.counts))

    @property
    def lost_since(self) -> float | None:
        """Since when the API has not known the batch or, once it ended, its results; `None` if it knows them."""
        return self.failing_since if self.state is BatchState.ENDED else self.missing_since

    @property
    def next_look_at(self) -> float:
        """When an uncollected batch is next polled or, once it has ended, downloaded."""
        return self.next_download_at if self.state is BatchState.ENDED else self.next_poll_at


@dataclass(frozen=True)
class Notice:
    """A notice to one target, as the table `notice` records it."""

    id: str
    pipeline: str
    submission_id: str
    kind: str
    target: str
    content: str
    state: NoticeState
    created_at: float
    attempts: int
    next_try_at: float
    sent_at: float | None
    error: str | None


@dataclass(frozen=True)
class Pairing:
    ledger_id: str
    root_id: str
    root_location: str
    replaces: str | None
    paired_at: float
    files_from: float

    @property
    def mark(self) -> str:
        """The part of every custom_id that distinguishes the root from others."""
        return self.root_id[:_MARK_CHARACTERS]


Record = TypeVar("Record", Submission, RequestFile, Intent, Batch, Notice, Pairing)
_RECORDS = (Submission, RequestFile, Intent, Batch, Notice, Pairing)
_COLUMNS: dict[type, tuple[str, ...]] = {cls: tuple(field.name for field in fields(cls)) for cls in _RECORDS}


def to_record(cls: type[Record], row: sa.Row[Any]) -> Record:
    """Make a record from a row of its table."""
    mapping = row._mapping
    return cls(*[mapping[name] for name in _COLUMNS[cls]])


def to_records(cls: type[Record], rows: sa.CursorResult[Any]) -> list[Record]:
    """Make records from rows of their table."""
    names = list(rows.keys())
    values = itemgetter(*(names.index(name) for name in _COLUMNS[cls]))  # a name at a time takes twice as long
    return [cls(*values(row)) for row in rows]
