"""The ledger has a clock of its own, which goes on evenly when the wall clock is set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("steady", sa.Float, nullable=False),
        sa.Column("now", sa.Float, nullable=False),
        sa.Column("offset", sa.Float, nullable=False),
    )
