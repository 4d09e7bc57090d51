"""Every error of the ledger's database is a sentence: where it is, what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.errors import DamagedFileError, LedgerUnavailableError, PairingError, SettingsError
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.remedies import GiveLedgerUrl

from ..postgres import PostgresServer
from ..support import World, texts

Execute = Callable[..., None]


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def execute(database: str) -> Iterator[Execute]:
    """Execute a statement in the database of the ledger as its administrator."""
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text("set default_transaction_read_only = off"))
            connection.execute(sa.text(statement))

    yield run
    engine.dispose()


def as_user(url: str, user: str) -> str:
    return sa.make_url(url).set(username=user, password="pass-word").render_as_string(hide_password=False)


def test_a_read_only_database_is_a_sentence_and_goes_on_when_it_can_be_written(
    new_world: Callable[..., World], database: str, execute: Execute
) -> None:
    world = new_world(ledger=database)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    world.root.close()  # a new connection shows what the server has become
    read_only = f"alter database {sa.make_url(database).database} set default_transaction_read_only"
    execute(f"{read_only} = on")
    for step in (world.build, world.submit):
        with pytest.raises(
            LedgerUnavailableError, match=r"is read-only: .*the standby now.* a later run continues"
        ):
            step(pipeline)
    execute(f"{read_only} = off")
    world.run(pipeline)
    assert len(world.accepted()) == 1


def test_a_user_without_privileges_is_told_what_to_grant(database: str, execute: Execute) -> None:
    Ledger(database).close()
    execute("create role without_privileges login")
    with pytest.raises(
        LedgerUnavailableError, match=r"permission denied .*Grant the user of the URL all"
    ) as caught:
        Ledger(as_user(database, "without_privileges"))
    with pytest.raises(LedgerUnavailableError, match="permission denied"):
        Ledger.tables_version(as_user(database, "without_privileges"))
    assert "pass-word" not in str(caught.value) and "without_privileges:***@" in str(caught.value)


def test_an_unknown_parameter_of_the_url_is_named(database: str) -> None:
    with pytest.raises(SettingsError, match=r'invalid connection option "foo".*Correct its parameters') as caught:
        Ledger(f"{database}?foo=bar")
    assert caught.value.remedy == GiveLedgerUrl()


def test_a_schema_that_does_not_exist_is_to_be_created(database: str) -> None:
    with pytest.raises(SettingsError, match=r"no schema to create its tables in.*Create the schema"):
        Ledger(f"{database}?options=-csearch_path%3Dmissing")


def test_a_ledger_without_one_of_its_tables_is_damaged(
    new_world: Callable[..., World], database: str, execute: Execute
) -> None:
    world = new_world(ledger=database)
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    world.root.close()
    execute("drop table pairing")
    with pytest.raises(DamagedFileError, match=r'"pairing" does not exist\. Restore the database from a backup'):
        world.build(pipeline)
    execute("drop schema public cascade")  # as the error advises
    execute("create schema public")
    assert world.build(pipeline).written == 0


def test_a_sqlite_ledger_without_one_of_its_tables_is_damaged(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger.write() as tx:
        tx.execute(sa.text("drop table history"))
    remedy = r"no such table: history\. It is best to move it away"
    with pytest.raises(DamagedFileError, match=remedy), ledger.read() as tx:
        tx.last_seq()
    ledger.close()


def test_a_sqlite_ledger_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    remedy = r"ledger\.db cannot be used: .*Make it and its folder writable"
    with pytest.raises(LedgerUnavailableError, match=remedy), ledger.write() as tx:
        tx.connection.exec_driver_sql("PRAGMA query_only=ON")
        tx.record(EntityKind.ROUND, "any", None, "done", "")
    ledger.close()


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    remedy = (
        r"full\. Is its disk full, or not mounted\? What was not committed did not happen; a later run continues$"
    )
    with pytest.raises(LedgerUnavailableError, match=remedy), ledger.write() as tx:
        tx.connection.exec_driver_sql("PRAGMA max_page_count=1")
        tx.record(EntityKind.ROUND, "any", None, "done", "x" * 1_000_000)
    ledger.close()


@pytest.mark.parametrize("statement", ["selec 1", "select 1 where :missing = 1", "rollback to nowhere"])
def test_a_fault_of_a_statement_keeps_its_traceback(tmp_path: Path, statement: str) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with pytest.raises(sa.exc.SQLAlchemyError), ledger.read() as tx:
        tx.connection.exec_driver_sql(statement)
    ledger.close()


def test_a_fault_of_a_statement_for_a_server_keeps_its_traceback(database: str) -> None:
    ledger = Ledger(database)
    with pytest.raises(sa.exc.ProgrammingError, match="syntax error"), ledger.read() as tx:
        tx.connection.exec_driver_sql("selec 1")
    ledger.close()


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"names the folder {tmp_path}: give the path of a file") as caught:
        Ledger(f"sqlite:///{tmp_path}")
    assert caught.value.remedy == GiveLedgerUrl()


def test_a_refusal_shows_the_schemas_of_both_ledgers(
    new_world: Callable[..., World], database: str, execute: Execute
) -> None:
    for schema in ("one", "two"):
        execute(f"create schema {schema}")
    world = new_world(ledger=f"{database}?options=-csearch_path%3Done")
    _ = world.root.ledger
    with pytest.raises(PairingError) as refused:
        _ = new_world(ledger=f"{database}?options=-csearch_path%3Dtwo").root.ledger
    assert "search_path%3Done" in str(refused.value) and "search_path%3Dtwo" in str(refused.value)
