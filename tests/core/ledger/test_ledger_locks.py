"""A process that is frozen or cut off in a write holds up no other, and every wait ends in a sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.errors import LedgerUnavailableError
from batch_assets.core.ledger import Ledger, connection, leases, sqlite_file
from batch_assets.core.ledger.states import EntityKind

from ..postgres import PostgresServer
from ..support import World, texts

SHORT = {"idle_in_transaction_session_timeout": 0.5, "lock_timeout": 5.0, "statement_timeout": 10.0}


@pytest.fixture
def server_url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(connection, "_TIMEOUTS", dict(SHORT))
    return postgres_server.new_database()


def test_a_frozen_writer_loses_its_connection_and_the_others_go_on(server_url: str) -> None:
    frozen, other = Ledger(server_url), Ledger(server_url)
    with (
        pytest.raises(LedgerUnavailableError, match="What was not committed did not happen"),
        frozen.write() as tx,
    ):
        tx.record(EntityKind.ROUND, "frozen", None, "done", "")
        lease = leases.try_take(other, "work")  # waits for the frozen process, and no longer than it may be idle
        assert lease is not None
        lease.release()
        tx.record(EntityKind.ROUND, "frozen", None, "done", "")
    with frozen.write() as tx:  # it goes on with a new connection
        assert tx.execute(sa.text("select count(*) from history")).scalar() == 0
    frozen.close()
    other.close()


def test_a_lock_that_is_held_for_too_long_is_a_sentence(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TIMEOUTS", SHORT | {"lock_timeout": 0.5})
    url = postgres_server.new_database()
    ledger = Ledger(url)
    holder = sa.create_engine(url)
    with holder.begin() as held:
        held.execute(sa.text("select id from endpoint for update"))
        with pytest.raises(LedgerUnavailableError, match="is locked: another process"), ledger.write():
            pass
        with ledger.read() as tx:  # a reader does not wait
            assert tx.last_seq() == 0
    with ledger.write() as tx:
        tx.record(EntityKind.ROUND, "any", None, "done", "")
    holder.dispose()
    ledger.close()


@pytest.mark.parametrize("query", ["", "?connect_timeout=3"])
def test_a_server_that_is_not_there_is_a_sentence_without_the_password(
    postgres_server: PostgresServer, query: str
) -> None:
    url = f"postgresql+psycopg2://user:pass-word@127.0.0.1:9/name{query}"
    with pytest.raises(LedgerUnavailableError, match="cannot be reached") as caught:
        Ledger(url)
    assert "pass-word" not in str(caught.value)


def test_the_timeouts_are_in_force(postgres_server: PostgresServer) -> None:
    ledger = Ledger(postgres_server.new_database())
    with ledger.read() as tx:
        shown = {name: tx.execute(sa.text(f"show {name}")).scalar() for name in SHORT}
    ledger.close()
    assert shown == {
        "idle_in_transaction_session_timeout": "30s",
        "lock_timeout": "1min",
        "statement_timeout": "2min",
    }


def test_parameters_of_the_url_take_precedence(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database() + "?options=-c%20lock_timeout%3D7000&connect_timeout=4"
    ledger = Ledger(url)
    with ledger.read() as tx:
        assert tx.execute(sa.text("show lock_timeout")).scalar() == "7s"
        assert tx.execute(sa.text("show statement_timeout")).scalar() == "2min", "and the others stay"
    ledger.close()


def test_a_locked_sqlite_ledger_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.2)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailableError, match=r"ledger\.db is locked"), ledger.write():
        pass
    holder.close()
    ledger.close()


def test_a_run_whose_connection_is_cut_ends_with_a_sentence_and_the_next_one_goes_on(
    new_world: Callable[..., World], postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()  # with the usual time-outs: a build on a busy machine may take its time
    world = new_world(ledger=url)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    killer = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    kill = sa.text("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    with pytest.raises(LedgerUnavailableError, match="cannot be reached"), world.root.ledger.write() as tx:
        with killer.connect() as other:
            other.execute(kill)
        tx.record(EntityKind.ROUND, "any", None, "done", "")
    killer.dispose()
    world.run(pipeline)
    assert len(world.accepted()) == 1
