"""Budgets, and what each upload counts in them. Batches and files in doubt are open until their cost is read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_BATCHES = """
    insert into reservation (file_id, submission_id, pipeline, batch_id, day, state)
    select request_file.id, request_file.submission_id, request_file.pipeline, batch.id,
        cast({floor}(coalesce(batch.submitted_at, batch.created_at, batch.ended_at, 0.0) / 86400.0) as integer),
        'open'
    from batch join request_file on request_file.id = batch.file_id
    where batch.state not in ('foreign', 'disproved')
"""
_IN_DOUBT = """
    insert into reservation (file_id, submission_id, pipeline, intent_id, day, state)
    select request_file.id, request_file.submission_id, request_file.pipeline, intent.id,
        cast({floor}(intent.started_at / 86400.0) as integer), 'open'
    from intent join request_file on request_file.id = intent.file_id
    where intent.outcome in ('open', 'unresolved', 'resent')
"""


def upgrade() -> None:
    op.add_column("request_file", sa.Column("worst_case", sa.BigInteger))
    op.create_table(
        "reservation",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id"), nullable=False),
        sa.Column("submission_id", sa.String(64), nullable=False),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("intent_id", sa.Integer),
        sa.Column("batch_id", sa.String(80)),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("worst", sa.BigInteger),
        sa.Column("expected", sa.BigInteger),
    )
    op.create_table(
        "budget",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("picodollars", sa.BigInteger, nullable=False),
        sa.Column("per", sa.String(8), nullable=False),
        sa.Column("hold", sa.String(8), nullable=False),
    )
    op.create_index("reservation_by_file", "reservation", ["file_id"])
    op.create_index("reservation_by_intent", "reservation", ["intent_id"])
    op.create_index("reservation_by_batch", "reservation", ["batch_id"])
    op.create_index("reservation_by_run", "reservation", ["submission_id", "state", "worst", "expected"])
    op.create_index("reservation_by_day", "reservation", ["day", "state", "worst", "expected"])
    op.create_index("reservation_by_pipeline", "reservation", ["pipeline", "day", "state", "worst", "expected"])
    # SQLite's cast cuts the fraction off, that of PostgreSQL rounds.
    floor = "" if op.get_bind().dialect.name == "sqlite" else "floor"
    for statement in (_BATCHES, _IN_DOUBT):
        op.get_bind().execute(sa.text(statement.format(floor=floor)))
