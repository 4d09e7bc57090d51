"""That a batch was canceled, and that the API refused its results, have columns of their own.

Until then only texts in the history showed them: the reason "canceled by a person", and a question about the API
key in the reason of the last failed download.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_WHOSE_KEY = "Does ANTHROPIC_API_KEY belong to the workspace that submitted it?"

_batch = sa.table("batch", *map(sa.column, ("id", "state", "failing_since", "canceled_at", "results_refused")))
_history = sa.table(
    "history", *map(sa.column, ("seq", "at", "kind", "entity", "from_state", "to_state", "reason"))
)
_of_batch = sa.and_(_history.c.kind == "batch", _history.c.entity == _batch.c.id)


def upgrade() -> None:
    op.add_column("batch", sa.Column("canceled_at", sa.Float))
    op.add_column("batch", sa.Column("results_refused", sa.Boolean, nullable=False, server_default=sa.false()))
    _fill_canceled_at()
    _fill_results_refused()


def _fill_canceled_at() -> None:
    """The API did not have to report "canceling": it may have ended the batch at once."""
    is_cancel = sa.or_(_history.c.to_state == "canceling", _history.c.reason == "canceled by a person")
    canceled_at = sa.select(sa.func.min(_history.c.at)).where(_of_batch, is_cancel).scalar_subquery()
    op.execute(sa.update(_batch).values(canceled_at=canceled_at))


def _fill_results_refused() -> None:
    last_failure = (
        sa.select(_history.c.reason)
        .where(_of_batch, _history.c.from_state == "ended")
        .order_by(_history.c.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    is_failing = sa.and_(_batch.c.state == "ended", _batch.c.failing_since.is_not(None))
    asks_whose_key = last_failure.contains(_WHOSE_KEY, autoescape=True)
    op.execute(sa.update(_batch).where(is_failing, asks_whose_key).values(results_refused=sa.true()))
