"""The ledger's tables. Times are seconds since 1970, UTC. Times of batches at the API are by the API's clock."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

from batch_assets.core.ledger.enum_column import EnumColumn
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.partial_index import partial_index
from batch_assets.core.ledger.states import (
    BatchState,
    EntityKind,
    FileState,
    HoldReason,
    NoticeState,
    PilotVerdict,
    ReservationState,
    RoundState,
)
from batch_assets.core.prices.budget import Hold, Period

metadata = MetaData()

# One row: the API endpoint that this root belongs to. On PostgreSQL it is locked by who writes an intent.
endpoint = Table(
    "endpoint",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("base_url", Text),
    Column("organization", Text),
    Column("workspace", Text),  # null: that of the credentials, or a root that was not used since 0027
    Column("recorded_at", Float),
)

# One row, once the ledger is paired with its root: the ids of both. The file root.json in the root has them too.
pairing = Table(
    "pairing",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ledger_id", String(40), nullable=False),
    Column("root_id", String(40), nullable=False),
    Column("root_location", Text, nullable=False),  # for messages only
    Column("replaces", String(40)),  # the id of the ledger in whose place the root was paired with this one
    Column("paired_at", Float, nullable=False),
    Column("files_from", Float, nullable=False),  # a user accepted that files from before this time are missing
)

# The last readings of the ledger's clock, see `clock.py`: by writers of the whole root, and of each pipeline.
clock = Table(
    "clock",
    metadata,
    Column("pipeline", String(100), primary_key=True),  # "" for the whole root
    Column("boot_id", String(64), nullable=False),  # the start of the machine that `steady` counts from
    Column("steady", Float, nullable=False),
    Column("now", Float, nullable=False),
    Column("offset", Float, nullable=False),  # how far `now` was ahead of the wall clock
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
    Column("requests", Integer, nullable=False),  # distinct requests of its rows
    Column("written", Integer, nullable=False),  # the number of these in its own files
    Column("headers", Text, nullable=False),  # JSON: headers of all its requests that are part of their identity
    Column("max_attempts", Integer, nullable=False),  # attempts of each request, the first one included
    Column("follow_ups", Text),  # JSON: which answers are asked again, see `FollowUpRules`; NULL: none
    Column("max_requests", Integer, nullable=False),
    Column("max_bytes", Integer, nullable=False),
    Column("began_at", Float),  # a run of `batches` has begun: from now on it may be sent unattended
    Column("joined_seq", Integer),  # the last collection of a file that it waited on when the last join began
    Column("joined_at", Float),
    Column("counts", Text),  # JSON: rows by result_type at the last join
    Column("unusable", Integer),  # rows with an answer that cannot be used at that join; NULL: from before 0029
    Column("examined", Text),  # JSON: what the checks counted in the table since the last join
    Column("joined_inputs", String(64)),  # a digest of what the last join read, if the next one may be skipped
    Column("joined_table", Text),  # JSON: the version of the table that it wrote, and its report
    # The last join did not replace the table, because that is complete: it wrote the waiting table.
    Column("held_back", Boolean, nullable=False, default=False, server_default=false()),
    Column("ask_again", Integer, nullable=False, default=0),  # failed requests that are to be retried
    Column("final_at", Float),  # every row has its final type
    Column("announced_at", Float),  # the materialization of results was logged
    Column("fresh_after", Float),  # a refresh: answers to requests from before it do not count
    Column("left_out", Integer, nullable=False, server_default="0"),  # distinct requests that a limit left out
    Column("canceled_at", Float),  # a user canceled it: from then on nothing of it is sent or retried
    Column("estimate", Text),  # JSON: what its requests were estimated to cost, before they were sent
    Column("pilot", String(64)),  # the digest of the prompt whose pilot its files wait for; NULL: they do not
    Column("superseded_at", Float),  # a later one was registered; NULL: it may be in force, as its `seq` decides
    Column("history_removed_at", Float),  # retention removed what nothing needs of its lines in the history
    Index("submission_by_partition", "pipeline", "partition", "seq"),
    Index("submission_in_force", "superseded_at", "pipeline", "partition", "seq"),
    Index("submission_by_pipeline", "pipeline", "seq"),
    Index("submission_by_refresh", "pipeline", "fresh_after"),
    Index("submission_by_retention", "pipeline", "history_removed_at", "superseded_at"),
)

# The body of one batch. `states.py` explains its states.
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
    Column("state", EnumColumn(FileState, 16), nullable=False),
    # The API asked to wait until then. Of a file that is held for more requests: when it is sent at the latest.
    Column("not_before", Float, nullable=False, default=0.0),
    Column("error", Text),  # the last error of the API or the network, or what it waits for
    Column("batch_id", String(80)),
    Column("collected_seq", Integer),
    Column("headers", Text),  # JSON: the headers of its requests; NULL: the headers of its submission
    Column("checksum", String(64)),  # SHA-256 of the file in hexadecimal; NULL for files of earlier versions
    Column("hold", EnumColumn(HoldReason, 16)),  # what has to allow it to be sent; NULL if nothing has to
    Column("worst_case", BigInteger),  # the most that it can cost in picodollars; NULL: not computed, or no bound
    Column("stub", String(160)),  # the file that is sent first, for the prompt cache; NULL: it has no breakpoint
    Column("breakpoint", Text),  # JSON: where its requests get `cache_control` while they are sent
    Column("follows", Boolean),  # its requests are follow-ups; NULL: they are not, or it is from before 0028
    Index("request_file_by_submission", "submission_id"),
    Index("request_file_by_state", "state"),
    partial_index("request_file_by_collection", "pipeline", "collected_seq", where="collected_seq IS NOT NULL"),
)

# The request files that a submission's rows wait on, written by any submission.
wait = Table(
    "wait",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("file_id", ForeignKey("request_file.id"), primary_key=True),
    Index("wait_by_file", "file_id"),
)

# One POST of a request file, recorded before it begins.
intent = Table(
    "intent",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("file_id", ForeignKey("request_file.id"), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("anchor_id", String(80)),  # the newest batch just before; NULL: there was no batch
    Column("anchor_created_at", Float),
    Column("started_at", Float, nullable=False),
    Column("last_byte_at", Float),
    Column("outcome", EnumColumn(IntentOutcome, 16), nullable=False),
    Column("watch_until", Float),  # sent again, but the first batch may still turn up until then
    Column("seen_before", Text),  # JSON: ids of the batches in the list just before, which cannot be its batch
    Column("latest_created_at", Float),  # a batch created later cannot be its batch, by the API's clock
    Column("body_complete", Boolean),  # false until its last bytes are about to be sent; NULL: not recorded
    Column("key_hash", String(64)),  # a salted hash of the API key; NULL: the key is unknown
    Column("with_breakpoint", Boolean),  # it sent the breakpoint of its file; NULL: it did not
    Column("candidate_id", String(80)),  # the batch that put it in doubt although it was refused
    Index("intent_by_file", "file_id"),
    Index("intent_by_outcome", "outcome", "watch_until"),
)

# One batch of the API, ours or someone else's.
batch = Table(
    "batch",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("file_id", ForeignKey("request_file.id")),
    Column("pipeline", String(100)),
    Column("state", EnumColumn(BatchState, 16), nullable=False),
    Column("provisional", Boolean, nullable=False, default=False),  # adopted on its count alone
    Column("paid_twice", Boolean, nullable=False, default=False),  # turned up after its file was sent again
    Column("replied", Boolean),  # the reply to its own create named it, so it is certainly ours; NULL: it did not
    Column("processing_status", String(16), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("counts", Text, nullable=False),  # JSON: request_counts as last seen
    Column("created_at", Float),
    Column("expires_at", Float),
    Column("ended_at", Float),
    Column("submitted_at", Float),  # our clock
    Column("missing_since", Float),  # until it has ended: the first 404 in a row
    Column("next_poll_at", Float, nullable=False, default=0.0),  # until it has ended: when it is next polled
    Column("downloads", Integer, nullable=False, default=0),  # the number of incomplete downloads so far
    Column("failing_since", Float),  # once it has ended, until its answers are stored: the first failed download
    # Once it has ended, until its answers are stored: the API refused the last download. It may be deleted.
    Column("results_refused", Boolean, nullable=False, default=False, server_default=false()),
    Column("canceled_at", Float),  # when a user canceled it, or the API was first seen to cancel it
    Column("live_of", String(160)),  # live calls for requests of this request file; NULL: it is a batch
    Column("next_download_at", Float, nullable=False, server_default="0"),  # no unattended run downloads before
    Column("next_delete_at", Float, nullable=False, server_default="0"),  # retention does not delete it before
    Index("batch_by_state", "state"),
    Index("batch_by_file", "file_id"),
    Index("batch_by_paid_twice", "paid_twice"),
    Index("batch_by_live", "live_of"),
)

# What a collected batch cost, for Dagster's log: each amount is in one event, see `spend.py`.
spend = Table(
    "spend",
    metadata,
    Column("batch_id", String(80), primary_key=True),
    Column("picodollars", BigInteger),  # of the answers whose cost is known; NULL until the cost is read
    Column("unpriced", Integer, nullable=False),  # the number of the other answers
    Column("event", String(32)),  # the event that is to count it
    Column("run_id", String(64)),  # Dagster's run that logs the event
    Column("is_logged", Boolean, nullable=False),  # an event in Dagster's log counts it
    Index("spend_by_logged", "is_logged"),
)

# The pilot of each prompt that has or had one, see `pilots.py`.
pilot = Table(
    "pilot",
    metadata,
    Column("pipeline", String(100), primary_key=True),
    Column("prompt", String(64), primary_key=True),  # the digest of the prompt
    Column("submission_id", String(64), nullable=False),  # that of its first file
    Column("files", Text, nullable=False),  # JSON: the ids of its request files
    Column("terms", Text, nullable=False),  # JSON: by what its answers are judged
    Column("verdict", EnumColumn(PilotVerdict, 8)),  # NULL: not judged
    Column("why", Text),  # the reason for the verdict, for users
    Column("looked_seq", Integer),  # the last collection of the pipeline when it could not be judged yet
)

# The budgets in force, as the last process that sends or watches has read them.
budget = Table(
    "budget",
    metadata,
    Column("pipeline", String(100), primary_key=True),  # "" for the root
    Column("picodollars", BigInteger, nullable=False),
    Column("per", EnumColumn(Period, 8), nullable=False),
    Column("hold", EnumColumn(Hold, 8), nullable=False),
)

# What each upload of a request file counts in budgets, see `reservations.py`.
reservation = Table(
    "reservation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("file_id", ForeignKey("request_file.id"), nullable=False),
    Column("submission_id", String(64), nullable=False),  # that of the file
    Column("pipeline", String(100), nullable=False),
    Column("intent_id", Integer),  # NULL: the ledger does not have the intent of its batch
    Column("batch_id", String(80)),  # the batch that the file became; NULL: not known
    Column("day", Integer, nullable=False),  # when it was sent, in days since 1970
    Column("state", EnumColumn(ReservationState, 8), nullable=False),
    Column("worst", BigInteger),  # what it counts under `hold: worst`, in picodollars; NULL: not computed
    Column("expected", BigInteger),  # what it counts under `hold: expected`
    Index("reservation_by_file", "file_id"),
    Index("reservation_by_intent", "intent_id"),
    Index("reservation_by_batch", "batch_id"),
    Index("reservation_by_run", "submission_id", "state", "worst", "expected"),
    Index("reservation_by_day", "day", "state", "worst", "expected"),
    Index("reservation_by_pipeline", "pipeline", "day", "state", "worst", "expected"),
)

# How many requests may be queued at the API, see `queue.py`.
queue = Table(
    "queue",
    metadata,
    Column("pipeline", String(100), primary_key=True),  # "" for the root and the account
    Column("max_in_flight", Integer),  # as set by a user, as the last process that sends or watches has read it
    Column("account", Integer),  # the account's limit as the API shows it; NULL: the key may not read it
    Column("ask_at", Float),  # the API is not asked for it before
    Column("learned", Integer),  # what the API refused more than
    Column("learned_at", Float),
    Column("served_at", Float),  # when it last sent a file
    Column("passed_at", Float),  # since when it could have taken its turn; NULL: it could not
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("owner", String(120), nullable=False),
    Column("until", Float, nullable=False),
)

# Runs that the sensor requested. A submission has at most one open round.
round_ = Table(
    "round",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", EnumColumn(RoundState, 8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("leader", String(64)),  # the submission, with its round, that names a run of several; NULL: its own run
    Column("leader_number", Integer),
    Index("round_by_leader", "leader"),
)

# Targets that receive notices about a pipeline's submissions, of events after `since`.
notice_target = Table(
    "notice_target",
    metadata,
    Column("pipeline", String(100), primary_key=True),
    Column("target", String(200), primary_key=True),
    Column("since", Float, nullable=False),
)

# A notice to one target.
notice = Table(
    "notice",
    metadata,
    Column("id", String(32), primary_key=True),  # a digest of submission, kind, day and target: it never changes
    Column("pipeline", String(100), nullable=False),
    Column("submission_id", ForeignKey("submission.id"), nullable=False),
    Column("kind", String(16), nullable=False),  # complete | failed | expires | uncollected | held | budget
    Column("target", String(200), nullable=False),
    Column("content", Text, nullable=False),  # JSON: what the notice reports
    Column("state", EnumColumn(NoticeState, 16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", Float, nullable=False),
    Column("sent_at", Float),
    Column("error", Text),  # the error of the last try
    Index("notice_by_state", "pipeline", "state"),
)

# Append-only: nothing in here is ever changed, except that an erasure replaces the names of rows in `reason`.
history = Table(
    "history",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("process", String(120), nullable=False),
    Column("kind", EnumColumn(EntityKind, 16), nullable=False),
    Column("entity", String(160), nullable=False),
    Column("from_state", String(20)),
    Column("to_state", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Index("history_by_entity", "entity"),
    sqlite_autoincrement=True,
)

# The index of answers may be emptied: a cache of what files say, see `answer_index.py`. A file that is in it.
indexed_file = Table(
    "indexed_file",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # never used again for another file
    Column("pipeline", String(100), nullable=False),
    Column("name", String(200), nullable=False),  # of a response file; the id of a request file
    Column("version", String(200), nullable=False),  # which content of the file is in the index
    Column("requests", Integer),  # NULL until all of them are in the index
    Column("ended_at", Float, nullable=False),
    Column("row_groups", Text, nullable=False),  # JSON: [rows, bytes] of each row group of a response file
    Column("indexed_at", Float, nullable=False),
    Column("name_hash", BigInteger),  # of a response file; NULL for a request file
    Column("witness", LargeBinary(16)),  # a digest of the file: if it is missing, rows of the index were lost
    Index("indexed_file_by_name", "pipeline", "name"),
    sqlite_autoincrement=True,
)

# When the versions of all response files of a pipeline were last compared with the index.
index_check = Table(
    "index_check",
    metadata,
    Column("pipeline", String(100), primary_key=True),
    Column("checked_at", Float, nullable=False),
)

# A response: the request that it answers, its row in the response file, and the outcome.
answer = Table(
    "answer",
    metadata,
    Column("digest", LargeBinary(16), primary_key=True),
    Column("file_number", Integer, primary_key=True, autoincrement=False),
    Column("file_row", Integer, nullable=False),
    Column("outcome", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A request in a request file that is in flight, or was when it was last looked at.
asked = Table(
    "asked",
    metadata,
    Column("digest", LargeBinary(16), primary_key=True),
    Column("file_number", Integer, primary_key=True, autoincrement=False),
    Index("asked_by_file", "file_number"),
    sqlite_with_rowid=False,
)
