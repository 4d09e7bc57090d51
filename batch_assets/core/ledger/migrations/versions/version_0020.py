"""Request files can have a breakpoint of the prompt cache, and wait for the file that writes the cache."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("request_file", sa.Column("stub", sa.String(160)))
    op.add_column("request_file", sa.Column("breakpoint", sa.Text))
    op.add_column("intent", sa.Column("with_breakpoint", sa.Boolean))
