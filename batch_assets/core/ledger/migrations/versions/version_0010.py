"""The ledger has an index of answers and of the requests in flight, which is filled when it is first needed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "indexed_file",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("pipeline", sa.String(100), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("requests", sa.Integer),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("row_groups", sa.Text, nullable=False),
        sa.Column("indexed_at", sa.Float, nullable=False),
        sa.Column("name_hash", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index("indexed_file_by_name", "indexed_file", ["pipeline", "name"])
    op.create_table(
        "index_check",
        sa.Column("pipeline", sa.String(100), primary_key=True),
        sa.Column("checked_at", sa.Float, nullable=False),
    )
    op.create_table(
        "answer",
        sa.Column("digest", sa.LargeBinary(16), primary_key=True),
        sa.Column("file_number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("file_row", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "asked",
        sa.Column("digest", sa.LargeBinary(16), primary_key=True),
        sa.Column("file_number", sa.Integer, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_index("asked_by_file", "asked", ["file_number"])
