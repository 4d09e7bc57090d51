"""One run may do the rounds of several submissions: each knows the submission that leads the run.

What the checks counted in a table is recorded, so that the checks of other partitions need not read it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("round", sa.Column("leader", sa.String(64)))
    op.add_column("round", sa.Column("leader_number", sa.Integer))
    op.create_index("round_by_leader", "round", ["leader"])
    op.add_column("submission", sa.Column("examined", sa.Text))
