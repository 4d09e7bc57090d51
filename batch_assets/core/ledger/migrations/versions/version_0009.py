"""The ledger has an id and knows the root that it belongs to. Intents and batches carry evidence of ownership.

For each intent: the batches that existed before it, the latest time at which its batch can have been created,
whether the body was complete, and a hash of the key. For each batch: whether the reply to its own create named it.
For each request file: its checksum.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# The reasons that the history has for a batch that a reply or a receipt named.
_NAMED = ("the API accepted it", "its receipt names the batch")

_batch = sa.table("batch", *map(sa.column, ("id", "provisional", "replied")))
_history = sa.table("history", *map(sa.column, ("kind", "entity", "reason")))


def upgrade() -> None:
    op.create_table(
        "pairing",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("ledger_id", sa.String(40), nullable=False),
        sa.Column("root_id", sa.String(40), nullable=False),
        sa.Column("root_location", sa.Text, nullable=False),
        sa.Column("replaces", sa.String(40)),
        sa.Column("paired_at", sa.Float, nullable=False),
        sa.Column("files_from", sa.Float, nullable=False),
    )
    op.add_column("intent", sa.Column("seen_before", sa.Text))
    op.add_column("intent", sa.Column("latest_created_at", sa.Float))
    op.add_column("intent", sa.Column("body_complete", sa.Boolean))
    op.add_column("intent", sa.Column("key_hash", sa.String(64)))
    op.add_column("batch", sa.Column("replied", sa.Boolean))
    op.add_column("request_file", sa.Column("checksum", sa.String(64)))
    _fill_replied()


def _fill_replied() -> None:
    of_it = sa.and_(_history.c.kind == "batch", _history.c.entity == _batch.c.id)
    was_named = sa.exists().where(of_it, _history.c.reason.in_(_NAMED))
    op.execute(sa.update(_batch).where(_batch.c.provisional == sa.false(), was_named).values(replied=sa.true()))
