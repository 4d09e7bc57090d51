"""The index of answers names one request of each file, by which it is seen that rows of the index were lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("indexed_file", sa.Column("witness", sa.LargeBinary(16)))
