"""Submissions that are no longer in force are known by a column, so that no reader of the others passes over them.

Retention can remove lines of the history, and notes of which submissions it did so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("submission", sa.Column("superseded_at", sa.Float))
    op.add_column("submission", sa.Column("history_removed_at", sa.Float))
    submission = sa.table(
        "submission",
        *(sa.column(name) for name in ("pipeline", "partition", "seq", "created_at", "superseded_at")),
    )
    later = submission.alias("later")
    same = sa.and_(later.c.pipeline == submission.c.pipeline, later.c.partition == submission.c.partition)
    next_one = (
        sa.select(later.c.created_at)
        .where(same, later.c.seq > submission.c.seq)
        .order_by(later.c.seq)
        .limit(1)
        .scalar_subquery()
    )
    op.get_bind().execute(sa.update(submission).values(superseded_at=next_one))
    op.create_index("submission_in_force", "submission", ["superseded_at", "pipeline", "partition", "seq"])
    op.create_index("submission_by_pipeline", "submission", ["pipeline", "seq"])
    op.create_index("submission_by_refresh", "submission", ["pipeline", "fresh_after"])
    op.create_index("submission_by_retention", "submission", ["pipeline", "history_removed_at", "superseded_at"])
