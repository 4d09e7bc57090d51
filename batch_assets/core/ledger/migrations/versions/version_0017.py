"""Request files can be held: they are not sent before something allows it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("request_file", sa.Column("hold", sa.String(16)))
