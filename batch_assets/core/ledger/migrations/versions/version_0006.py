"""When a batch is next downloaded, and when it is next deleted, have columns of their own.

Until then `next_poll_at` was the time of the next download once a batch had ended, and of the next try to delete
the batch once its answers were stored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_batch = sa.table("batch", *map(sa.column, ("state", "next_poll_at", "next_download_at", "next_delete_at")))


def upgrade() -> None:
    for name in ("next_download_at", "next_delete_at"):
        op.add_column("batch", sa.Column(name, sa.Float, nullable=False, server_default="0"))
    ended, stored = _batch.c.state == "ended", _batch.c.state.in_(["collected", "deleting"])
    op.execute(sa.update(_batch).where(ended).values(next_download_at=_batch.c.next_poll_at))
    op.execute(sa.update(_batch).where(stored).values(next_delete_at=_batch.c.next_poll_at))
