"""Submissions that ask again although there are answers, and those that leave requests out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("submission", sa.Column("fresh_after", sa.Float))
    op.add_column("submission", sa.Column("left_out", sa.Integer, nullable=False, server_default="0"))
