"""The tables of 0.1.0, the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "endpoint",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("base_url", sa.Text),
        sa.Column("organization", sa.Text),
        sa.Column("recorded_at", sa.Float),
    )
    op.create_table(
        "submission",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), unique=True, nullable=False),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("written", sa.Integer, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("max_requests", sa.Integer, nullable=False),
        sa.Column("max_bytes", sa.Integer, nullable=False),
        sa.Column("began_at", sa.Float),
        sa.Column("joined_seq", sa.Integer),
        sa.Column("joined_at", sa.Float),
        sa.Column("counts", sa.Text),
        sa.Column("ask_again", sa.Integer, nullable=False),
        sa.Column("final_at", sa.Float),
        sa.Column("announced_at", sa.Float),
        sa.Index("submission_by_partition", "pipeline", "partition", "seq"),
    )
    op.create_table(
        "request_file",
        sa.Column("id", sa.String(160), primary_key=True),
        sa.Column("submission_id", sa.String(64), sa.ForeignKey("submission.id"), nullable=False),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("batch_id", sa.String(80)),
        sa.Column("collected_seq", sa.Integer),
        sa.Index("request_file_by_submission", "submission_id"),
        sa.Index("request_file_by_state", "state"),
    )
    op.create_table(
        "wait",
        sa.Column("submission_id", sa.String(64), sa.ForeignKey("submission.id"), primary_key=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id"), primary_key=True),
    )
    op.create_table(
        "intent",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id"), nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("anchor_id", sa.String(80)),
        sa.Column("anchor_created_at", sa.Float),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("last_byte_at", sa.Float),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("watch_until", sa.Float),
        sa.Index("intent_by_file", "file_id"),
        sa.Index("intent_by_outcome", "outcome"),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id")),
        sa.Column("pipeline", sa.String(100)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("provisional", sa.Boolean, nullable=False),
        sa.Column("paid_twice", sa.Boolean, nullable=False),
        sa.Column("processing_status", sa.String(16), nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float),
        sa.Column("expires_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("submitted_at", sa.Float),
        sa.Column("missing_since", sa.Float),
        sa.Column("next_poll_at", sa.Float, nullable=False),
        sa.Column("downloads", sa.Integer, nullable=False),
        sa.Index("batch_by_state", "state"),
        sa.Index("batch_by_file", "file_id"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("owner", sa.String(120), nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
    op.create_table(
        "round",
        sa.Column("submission_id", sa.String(64), sa.ForeignKey("submission.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("process", sa.String(120), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("entity", sa.String(160), nullable=False),
        sa.Column("from_state", sa.String(20)),
        sa.Column("to_state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Index("history_by_entity", "entity"),
        sqlite_autoincrement=True,
    )
