"""Each pipeline has readings of the ledger's clock of its own, because several are written at the same time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    readings = op.get_bind().execute(sa.text('select boot_id, steady, now, "offset" from clock')).all()
    op.drop_table("clock")
    clock = op.create_table(
        "clock",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("steady", sa.Float, nullable=False),
        sa.Column("now", sa.Float, nullable=False),
        sa.Column("offset", sa.Float, nullable=False),
    )
    op.bulk_insert(clock, [{"pipeline": "", **reading._mapping} for reading in readings])
