"""Notices of what became of submissions, and whom they go to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "notice_target",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("target", sa.String(200), primary_key=True),
        sa.Column("since", sa.Float, nullable=False),
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("submission_id", sa.String(64), sa.ForeignKey("submission.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try_at", sa.Float, nullable=False),
        sa.Column("sent_at", sa.Float),
        sa.Column("error", sa.Text),
    )
    op.create_index("notice_by_state", "notice", ["pipeline", "state"])
