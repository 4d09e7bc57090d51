"""The ledger knows how many answers of a table cannot be used, so that `succeeded` does not look like success."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.add_column("submission", sa.Column("unusable", sa.Integer))
