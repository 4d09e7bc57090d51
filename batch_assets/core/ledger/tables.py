"""The ledger's tables. Times are seconds since 1970, UTC; server times come from the API's own clock."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from batch_assets.core.ledger.outcomes import IntentOutcome, NoticeState, RoundState
from batch_assets.core.ledger.states import BatchState, FileState

Word = TypeVar("Word", bound=StrEnum)


class _Words(TypeDecorator[Word], Generic[Word]):
    """A column that holds the words of one enum. Any other word is refused, on its way in and out."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[Word], length: int) -> None:
        super().__init__(length)
        self.kind = kind

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Any) -> Word | None:
        return None if value is None else self.kind(value)


metadata = MetaData()

# One row: the API endpoint this root belongs to. It also is the row every writer locks on PostgreSQL.
endpoint = Table(
    "endpoint",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("base_url", Text),
    Column("organization", Text),
    Column("recorded_at", Float),
)

# What one materialization of `requests` wrote for a partition.
submission = Table(
    "submission",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), unique=True, nullable=False),
    Column("pipeline", String(100), nullable=False),
    Column("partition", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("requests", Integer, nullable=False),  # distinct ones that its rows want
    Column("written", Integer, nullable=False),  # of these, the ones its own files hold
    Column("headers", Text, nullable=False),  # JSON: headers of all its requests that are part of their identity
    Column("max_attempts", Integer, nullable=False),  # of each request, the first one included
    Column("max_requests", Integer, nullable=False),
    Column("max_bytes", Integer, nullable=False),
    Column("began_at", Float),  # a run of `batches` has begun: from here on it may be sent unattended
    Column("joined_seq", Integer),  # history as far as the last join had seen it
    Column("joined_at", Float),
    Column("counts", Text),  # JSON: rows by result_type at the last join
    Column("ask_again", Integer, nullable=False, default=0),  # requests whose failure may be mended
    Column("final_at", Float),  # every row has its final type
    Column("announced_at", Float),  # the materialization of results was logged
    Column("fresh_after", Float),  # a refresh: answers to requests from before it do not count
    Column("left_out", Integer, nullable=False, server_default="0"),  # distinct requests that a limit left out
    Column("canceled_at", Float),  # by a person: from here on nothing of it is sent or asked again
    Index("submission_by_partition", "pipeline", "partition", "seq"),
)

# One body of a batch. `states.py` tells what its states mean.
request_file = Table(
    "request_file",
    metadata,
    Column("id", String(160), primary_key=True),  # <submission>/<name>
    Column("submission_id", ForeignKey("submission.id"), nullable=False),
    Column("pipeline", String(100), nullable=False),
    Column("partition", Text, nullable=False),
    Column("name", String(80), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", _Words(FileState, 16), nullable=False),
    Column("not_before", Float, nullable=False, default=0.0),  # the API asked to wait until then
    Column("error", Text),  # the API's or the network's last words
    Column("batch_id", String(80)),
    Column("collected_seq", Integer),
    Column("headers", Text),  # JSON: those of its requests; NULL: those of its submission
    Index("request_file_by_submission", "submission_id"),
    Index("request_file_by_state", "state"),
)

# Request files a submission's rows wait on, whoever wrote them.
wait = Table(
    "wait",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("file_id", ForeignKey("request_file.id"), primary_key=True),
)

# One POST of a request file, written down before it begins.
intent = Table(
    "intent",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("file_id", ForeignKey("request_file.id"), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("anchor_id", String(80)),  # the newest batch just before, None for an empty list
    Column("anchor_created_at", Float),
    Column("started_at", Float, nullable=False),
    Column("last_byte_at", Float),
    Column("outcome", _Words(IntentOutcome, 16), nullable=False),
    Column("watch_until", Float),  # sent again meanwhile, but the first may still turn up
    Index("intent_by_file", "file_id"),
    Index("intent_by_outcome", "outcome"),
)

# One batch of the API, ours or somebody else's.
batch = Table(
    "batch",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("file_id", ForeignKey("request_file.id")),
    Column("pipeline", String(100)),
    Column("state", _Words(BatchState, 16), nullable=False),
    Column("provisional", Boolean, nullable=False, default=False),  # adopted on its count alone
    Column("paid_twice", Boolean, nullable=False, default=False),  # turned up after its file was sent again
    Column("processing_status", String(16), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("counts", Text, nullable=False),  # JSON: request_counts as last seen
    Column("created_at", Float),
    Column("expires_at", Float),
    Column("ended_at", Float),
    Column("submitted_at", Float),  # our clock
    Column("missing_since", Float),  # until it has ended: the first 404 in a row
    # When it is next looked at; once ended, downloaded again; once stored, deleted at the API.
    Column("next_poll_at", Float, nullable=False, default=0.0),
    Column("downloads", Integer, nullable=False, default=0),  # incomplete ones so far
    Column("failing_since", Float),  # once it has ended, until its answers are stored: the first failed download
    Index("batch_by_state", "state"),
    Index("batch_by_file", "file_id"),
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("owner", String(120), nullable=False),
    Column("until", Float, nullable=False),
)

# Runs the sensor asked for; one open round a submission.
round_ = Table(
    "round",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", _Words(RoundState, 8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("until", Float, nullable=False),
)

# Who is told of what becomes of a pipeline's submissions: of what happens from then on.
notice_target = Table(
    "notice_target",
    metadata,
    Column("pipeline", String(100), primary_key=True),
    Column("target", String(200), primary_key=True),
    Column("since", Float, nullable=False),
)

# What a target is told.
notice = Table(
    "notice",
    metadata,
    Column("id", String(32), primary_key=True),  # a digest of submission, kind, day and target: the same for ever
    Column("pipeline", String(100), nullable=False),
    Column("submission_id", ForeignKey("submission.id"), nullable=False),
    Column("kind", String(16), nullable=False),  # complete | failed | expires | uncollected
    Column("target", String(200), nullable=False),
    Column("content", Text, nullable=False),  # JSON: the message
    Column("state", _Words(NoticeState, 16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", Float, nullable=False),
    Column("sent_at", Float),
    Column("error", Text),  # of the last try
    Index("notice_by_state", "pipeline", "state"),
)

# Append-only: nothing in here is ever changed.
history = Table(
    "history",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("process", String(120), nullable=False),
    Column("kind", String(16), nullable=False),  # submission | file | batch | round
    Column("entity", String(160), nullable=False),
    Column("from_state", String(20)),
    Column("to_state", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Index("history_by_entity", "entity"),
    sqlite_autoincrement=True,
)
