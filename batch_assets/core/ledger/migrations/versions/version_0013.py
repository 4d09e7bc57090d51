"""A refused file that a batch in the list put in doubt is sent again once that batch proves another's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("intent", sa.Column("candidate_id", sa.String(80)))
