"""What each collected batch cost, and which run of Dagster reported it, so that no amount is reported twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "spend",
        sa.Column("batch_id", sa.String(80), primary_key=True),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("picodollars", sa.BigInteger, nullable=False),
        sa.Column("unpriced", sa.Integer, nullable=False),
        sa.Column("left_out", sa.Boolean, nullable=False),
        sa.Column("event", sa.String(32)),
        sa.Column("run_id", sa.String(64)),
        sa.Column("is_logged", sa.Boolean, nullable=False),
    )
    op.create_index("spend_by_partition", "spend", ["pipeline", "partition", "is_logged"])
