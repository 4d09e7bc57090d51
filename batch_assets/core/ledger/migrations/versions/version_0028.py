"""Request files say whether their requests are follow-ups, so that no request counts as answered twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column("request_file", sa.Column("follows", sa.Boolean))
