"""Submissions whose last join did not replace the table, because that one is complete."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.add_column("submission", sa.Column("held_back", sa.Boolean, nullable=False, server_default=sa.false()))
    # Until then, only a refresh left a complete table as it was.
    op.execute(
        sa.text(
            "update submission set held_back = true "
            "where fresh_after is not null and final_at is null and counts is not null"
        )
    )
