"""One run may do the rounds of several submissions: each knows the submission that leads the run.

What the checks counted in a table is recorded, so that the checks of other partitions need not read it. There are
indexes for what the sensor reads in each tick: its cost follows what is going on, not the history.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("round", sa.Column("leader", sa.String(64)))
    op.add_column("round", sa.Column("leader_number", sa.Integer))
    op.create_index("round_by_leader", "round", ["leader"])
    op.add_column("submission", sa.Column("examined", sa.Text))
    op.create_index("wait_by_file", "wait", ["file_id"])
    op.create_index("batch_by_paid_twice", "batch", ["paid_twice"])
    op.drop_index("intent_by_outcome", "intent")
    op.create_index("intent_by_outcome", "intent", ["outcome", "watch_until"])
