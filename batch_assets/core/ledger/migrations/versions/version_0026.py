"""The collections of a pipeline have an index, in place of one of the collections of all pipelines.

It has collected files only: a database without statistics would find any file of a pipeline by it, and so read the
collected ones to find those in flight.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.drop_index("request_file_by_collection", "request_file")
    is_collected = sa.text("collected_seq IS NOT NULL")
    op.create_index(
        "request_file_by_collection",
        "request_file",
        ["pipeline", "collected_seq"],
        sqlite_where=is_collected,
        postgresql_where=is_collected,
    )
