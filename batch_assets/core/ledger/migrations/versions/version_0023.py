"""How many requests may be queued at the API."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.create_table(
        "queue",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("max_in_flight", sa.Integer),
        sa.Column("account", sa.Integer),
        sa.Column("ask_at", sa.Float),
        sa.Column("learned", sa.Integer),
        sa.Column("learned_at", sa.Float),
        sa.Column("served_at", sa.Float),
        sa.Column("passed_at", sa.Float),
    )
