"""What each batch cost, and which event of Dagster's log reports it. The last collection has an index.

Batches that are stored by now are taken as reported: earlier versions logged their cost in another way.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "spend",
        sa.Column("batch_id", sa.String(80), primary_key=True),
        sa.Column("picodollars", sa.BigInteger),
        sa.Column("unpriced", sa.Integer, nullable=False),
        sa.Column("event", sa.String(32)),
        sa.Column("run_id", sa.String(64)),
        sa.Column("is_logged", sa.Boolean, nullable=False),
    )
    op.create_index("spend_by_logged", "spend", ["is_logged"])
    op.create_index("request_file_by_collection", "request_file", ["collected_seq"])
    insert = (
        "insert into spend (batch_id, picodollars, unpriced, is_logged) "
        "select id, 0, 0, :yes from batch where state in ('collected', 'deleting', 'deleted')"
    )
    op.get_bind().execute(sa.text(insert), {"yes": True})
