"""A join that would write the same table is skipped: the inputs and the report of the last one are recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("submission", sa.Column("joined_inputs", sa.String(64)))
    op.add_column("submission", sa.Column("joined_table", sa.Text))
