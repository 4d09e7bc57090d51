"""Which answers of a submission are asked again by follow-up requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("submission", sa.Column("follow_ups", sa.Text))
