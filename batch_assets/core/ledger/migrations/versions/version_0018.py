"""What the requests of each submission were estimated to cost, for the report beside what they did cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("submission", sa.Column("estimate", sa.Text))
