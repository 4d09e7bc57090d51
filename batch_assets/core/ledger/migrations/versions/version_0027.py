"""The root is bound to a workspace, too: when the settings first name one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.add_column("endpoint", sa.Column("workspace", sa.Text))
