"""Ledgers with the tables of earlier versions, made by the scripts that upgrade ledgers of users."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from batch_assets.core.ledger import migrations

SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))


def create_tables(connection: sa.Connection, version: str) -> None:
    """Create the tables as a version made them. The first two versions recorded no version."""
    steps = [*SCRIPTS.iterate_revisions(version, "base")]
    with Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
    if version > "0002":
        connection.execute(sa.text("create table ledger_version (version_num varchar(32) primary key)"))
        connection.execute(sa.text("insert into ledger_version values (:version)"), {"version": version})


def downgrade(connection: sa.Connection, version: str) -> None:
    """Give a ledger the tables of an earlier version, with the rows and columns that both versions have.

    Left out are the readings of the clock, whose key changed. On PostgreSQL, the numbers of new rows begin at 1
    again, so the ledger can be upgraded and read, but no more.
    """
    later = sa.MetaData()
    later.reflect(connection)
    for name in later.tables:
        connection.execute(sa.text(f'create table "later_{name}" as select * from "{name}"'))
    later.drop_all(connection)
    create_tables(connection, version)
    earlier = sa.MetaData()
    earlier.reflect(connection, only=[*_names_of(connection) & {*later.tables} - {"clock", "ledger_version"}])
    for table in earlier.sorted_tables:
        columns = ", ".join(f'"{name}"' for name in {*table.c.keys()} & {*later.tables[table.name].c.keys()})
        statement = f'insert into "{table.name}" ({columns}) select {columns} from "later_{table.name}"'
        connection.execute(sa.text(statement))
    for name in later.tables:
        connection.execute(sa.text(f'drop table "later_{name}"'))


def _names_of(connection: sa.Connection) -> set[str]:
    return {*sa.inspect(connection).get_table_names()}
