"""Pilots: a small batch of a prompt's requests, whose answers are judged before the rest is sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("submission", sa.Column("pilot", sa.String(64)))
    op.create_table(
        "pilot",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("prompt", sa.String(64), primary_key=True),
        sa.Column("submission_id", sa.String(64), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(8)),
        sa.Column("why", sa.Text),
        sa.Column("looked_seq", sa.Integer),
    )
