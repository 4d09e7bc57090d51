"""Request files may have headers of their own: `betas` that depend on the row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("request_file", sa.Column("headers", sa.Text))
