"""Versions of the ledger's tables, and how a ledger comes from one to the next.

`versions/` holds an Alembic script for each, `tables.py` always the newest. Alembic is imported for an old ledger
only: a ledger is opened often, and that costs more than everything else about it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from batch_assets.core.errors import LedgerVersionError
from batch_assets.core.io.database import as_text
from batch_assets.core.ledger import tables

HEAD = "0030"
"""The version of `tables.py`."""

# A name of its own: Dagster keeps its `alembic_version` in what may be the same database.
_version = sa.Table("ledger_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
_upgrading = threading.Lock()


def version_of(connection: Connection) -> str | None:
    """The version of the tables in a database, None when there are none."""
    inspector = sa.inspect(connection)
    if inspector.has_table(_version.name):
        return str(connection.execute(sa.select(_version.c.version_num)).scalar_one())
    if not inspector.has_table(tables.endpoint.name):
        return None
    # These tables are older than the table of versions.
    columns = {column["name"] for column in inspector.get_columns(tables.request_file.name)}
    return "0002" if "headers" in columns else "0001"


def create(connection: Connection) -> None:
    """Create the tables of the newest version."""
    tables.metadata.create_all(connection)
    _write_down(connection)


def upgrade(connection: Connection, version: str) -> None:
    """Upgrade the tables to the newest version, in the transaction of the connection.

    Args:
        connection: The connection.
        version: The version that the tables have.

    Raises:
        LedgerVersionError: When this package does not know that version.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(__file__).parent))
    try:
        scripts.get_revision(version)
    except CommandError:
        raise LedgerVersionError(
            f"the ledger {as_text(connection.engine.url)} was created or upgraded by a newer batch_assets: its "
            f"tables have version {version}, and this batch_assets knows versions up to {HEAD}. Upgrade "
            "batch_assets here too; nothing was changed"
        ) from None
    steps = list(scripts.iterate_revisions(HEAD, version))
    with _upgrading, Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
    _write_down(connection)


def _write_down(connection: Connection) -> None:
    _version.metadata.create_all(connection)
    connection.execute(sa.delete(_version))
    connection.execute(sa.insert(_version).values(version_num=HEAD))
