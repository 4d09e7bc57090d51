"""A cancel, and downloads that fail, have columns of their own.

Until then a canceled submission had `max_attempts` 0, and `missing_since` of an ended batch was the first download
in a row that failed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_submission = sa.table("submission", *map(sa.column, ("id", "created_at", "max_attempts", "canceled_at")))
_batch = sa.table("batch", *map(sa.column, ("state", "missing_since", "failing_since")))
_history = sa.table("history", *map(sa.column, ("at", "kind", "entity", "to_state")))


def upgrade() -> None:
    op.add_column("submission", sa.Column("canceled_at", sa.Float))
    op.add_column("batch", sa.Column("failing_since", sa.Float))
    _fill_canceled_at()
    _fill_failing_since()


def _fill_canceled_at() -> None:
    """The original max_attempts is lost. Use 1, the minimum: a canceled submission is never retried."""
    its_cancel = sa.and_(
        _history.c.kind == "submission",
        _history.c.entity == _submission.c.id,
        _history.c.to_state == "canceled",
    )
    canceled_at = sa.select(sa.func.min(_history.c.at)).where(its_cancel).scalar_subquery()
    op.execute(
        sa.update(_submission)
        .where(_submission.c.max_attempts == 0)
        .values(canceled_at=sa.func.coalesce(canceled_at, _submission.c.created_at), max_attempts=1)
    )


def _fill_failing_since() -> None:
    """Once the answers of a batch are stored, neither time means anything."""
    op.execute(sa.update(_batch).where(_batch.c.state == "ended").values(failing_since=_batch.c.missing_since))
    op.execute(sa.update(_batch).where(_batch.c.state.not_in(["open", "unreachable"])).values(missing_since=None))
