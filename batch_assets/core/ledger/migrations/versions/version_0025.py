"""Live calls for rows that have no answer when a deadline has passed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.add_column("batch", sa.Column("live_of", sa.String(160)))
    op.create_index("batch_by_live", "batch", ["live_of"])
    op.create_table(
        "rescue_rule",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("max_in_flight", sa.Integer, nullable=False),
    )
    op.create_table(
        "rescue",
        sa.Column("submission_id", sa.String(64), sa.ForeignKey("submission.id"), primary_key=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id"), primary_key=True),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("needs", sa.BigInteger),
        sa.Column("expects", sa.BigInteger),
        sa.Column("why", sa.Text),
    )
    op.create_index("rescue_by_pipeline", "rescue", ["pipeline"])
    op.create_table(
        "live_group",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("file_id", sa.String(160), sa.ForeignKey("request_file.id"), nullable=False),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("worst_case", sa.BigInteger),
        sa.Column("started_at", sa.Float, nullable=False),
    )
    op.create_index("live_group_by_file", "live_group", ["file_id"])
    op.create_index("live_group_by_pipeline", "live_group", ["pipeline"])
