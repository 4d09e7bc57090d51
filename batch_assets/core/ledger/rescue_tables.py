"""The ledger's tables about live calls. Times are seconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from batch_assets.core.ledger.tables import metadata

# When rows without an answer are asked by live calls, as the last process that sends or watches has read it.
rescue_rule = Table(
    "rescue_rule",
    metadata,
    Column("pipeline", String(100), primary_key=True),
    Column("seconds", Float, nullable=False),  # after the first run of `batches`
    Column("max_in_flight", Integer, nullable=False),  # the most live calls at a time
)

# How far the requests of a file that the rows of a submission ask are asked by live calls, see `rescues.py`.
rescue = Table(
    "rescue",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("file_id", ForeignKey("request_file.id"), primary_key=True),
    Column("pipeline", String(100), nullable=False),
    Column("is_done", Boolean, nullable=False),  # each of these requests was called, or cannot be
    Column("not_before", Float, nullable=False),  # no live call is made for it before
    Column("needs", BigInteger),  # a budget holds it: the most that the next call can cost; -1: no bound
    Column("expects", BigInteger),  # what the next call is expected to cost; both are NULL if it is not held
    Column("why", Text),  # what it waits for, or why requests were left to the batch
    Index("rescue_by_pipeline", "pipeline"),
)

# Live calls whose answers are not stored yet. Those of a killed process may have been paid for.
live_group = Table(
    "live_group",
    metadata,
    Column("id", String(80), primary_key=True),  # also the name of the response file that it becomes
    Column("file_id", ForeignKey("request_file.id"), nullable=False),
    Column("pipeline", String(100), nullable=False),
    Column("calls", Integer, nullable=False),
    Column("worst_case", BigInteger),  # the most that they can cost in picodollars; NULL: no bound
    Column("started_at", Float, nullable=False),
    Index("live_group_by_file", "file_id"),
    Index("live_group_by_pipeline", "pipeline"),
)
