"""Leases, rounds and guarantees of the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.errors import BatchAssetsError, BusyError, EndpointMismatchError, LeaseLostError
from batch_assets.core.ledger import Ledger, Transaction, leases, rounds, tables
from batch_assets.core.ledger.endpoint import Endpoint, bind_endpoint
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.ledger.states import EntityKind

from ..support import wait_for


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def _expire(ledger: Ledger, name: str) -> None:
    """Expire a lease, as if its process had been gone for longer than the lease lasts."""
    with ledger.write() as tx:
        tx.execute(sa.update(tables.lease).where(tables.lease.c.name == name).values(until=tx.now - 1))


def test_only_one_process_holds_a_lease(ledger: Ledger) -> None:
    first = leases.try_take(ledger, "a")
    assert first is not None
    assert leases.try_take(ledger, "a") is None
    other = leases.try_take(ledger, "b")
    assert other is not None
    other.release()
    first.release()
    again = leases.try_take(ledger, "a")
    assert again is not None
    again.release()


def test_errors_say_what_a_lease_protects(ledger: Ledger) -> None:
    with hold_pipeline(ledger, "greetings") as lease:
        with pytest.raises(BusyError, match="is busy with the requests of greetings; repeat"):
            hold_pipeline(ledger, "greetings").__enter__()
        _expire(ledger, "requests:greetings")
        with (
            pytest.raises(LeaseLostError, match=r"taken over the requests of greetings$"),
            ledger.read() as tx,
        ):
            lease.confirm(tx)


def test_hold_waits_for_another_holder_or_reports_that_it_is_busy(ledger: Ledger) -> None:
    with leases.hold(ledger, "a"), pytest.raises(BusyError, match="busy with a"), leases.hold(ledger, "a"):
        pass
    first = leases.try_take(ledger, "a")
    assert first is not None
    releasing = threading.Timer(0.2, first.release)
    releasing.start()
    with leases.hold(ledger, "a", wait=30):
        pass
    releasing.join()


def test_a_lease_is_released_when_its_block_fails(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), leases.hold(ledger, "a"):
        raise ZeroDivisionError
    with leases.hold(ledger, "a"):
        pass


def test_a_file_removed_by_a_process_that_took_over_is_reported_as_a_lost_lease(ledger: Ledger) -> None:
    with pytest.raises(FileNotFoundError), leases.hold(ledger, "a"):
        raise FileNotFoundError
    with pytest.raises(LeaseLostError, match="taken over a"), leases.hold(ledger, "a", seconds=3600):
        _expire(ledger, "a")
        raise FileNotFoundError


def test_an_expired_lease_goes_to_the_next_and_its_first_holder_may_record_nothing(ledger: Ledger) -> None:
    first = leases.try_take(ledger, "a")
    assert first is not None
    _expire(ledger, "a")
    second = leases.try_take(ledger, "a")
    assert second is not None
    with pytest.raises(LeaseLostError, match="taken over a"), ledger.write() as tx:
        first.confirm(tx)
    with ledger.write() as tx:
        second.confirm(tx)
    first.release()  # must not take the lease away from the second
    with ledger.read() as tx:
        assert leases.is_held(tx, "a")
    second.release()


def test_a_lease_is_renewed_while_its_holder_lives(ledger: Ledger) -> None:
    with leases.hold(ledger, "a", seconds=0.4) as lease:
        with ledger.read() as tx:
            first = tx.now + 0.4

        def renewed() -> bool:
            with ledger.read() as tx:
                return tx.now > first and leases.is_held(tx, "a")

        wait_for(renewed, "a renewal")
        lease.check()


def test_a_process_that_slept_too_long_notices_before_its_next_step(ledger: Ledger) -> None:
    lease = leases.Lease(ledger, "a", "me", 0.05)  # without the thread that keeps it alive
    with ledger.write() as tx:
        tx.execute(sa.insert(tables.lease).values(name="a", owner="me", until=tx.now + 0.05))
    time.sleep(0.1)
    other = leases.try_take(ledger, "a")
    assert other is not None
    with pytest.raises(LeaseLostError):
        lease.check()
    other.release()


def _submission(ledger: Ledger) -> str:
    values = dict.fromkeys(
        ("rows", "rejected", "requests", "written", "max_attempts", "max_requests", "max_bytes"), 1
    )
    with ledger.write() as tx:
        tx.execute(
            sa.insert(tables.submission).values(
                id="s", pipeline="p", partition="", created_at=tx.now, headers="{}", ask_again=0, **values
            )
        )
    return "s"


def _open_next(tx: Transaction, submission: str) -> int:
    last = rounds.current_of(tx, [submission])
    return rounds.open_runs(tx, [[rounds.RoundEntry(submission, "why")]], last)[0].number


def test_one_round_is_open_and_the_next_has_the_next_number(ledger: Ledger) -> None:
    submission = _submission(ledger)
    with ledger.write() as tx:
        assert rounds.current_of(tx, [submission]) == {}
        assert _open_next(tx, submission) == 1
        assert rounds.current_of(tx, [submission])[submission][:2] == (1, True)
        rounds.close_all(tx, [(submission, 1)])
        rounds.close_all(tx, [(submission, 1)])
        assert rounds.current_of(tx, [submission])[submission][:2] == (1, False)
        assert _open_next(tx, submission) == 2
    with ledger.read() as tx:
        history = tx.execute(sa.select(tables.history.c.entity, tables.history.c.to_state)).all()
    assert [tuple(row) for row in history] == [("s:1", "open"), ("s:1", "closed"), ("s:2", "open")]


def test_a_round_whose_run_never_reports_back_is_given_up(ledger: Ledger) -> None:
    submission = _submission(ledger)
    with ledger.write() as tx:
        _open_next(tx, submission)
    with ledger.write() as tx:
        tx.execute(sa.update(tables.round_).values(until=tx.now - 1))
        assert rounds.current_of(tx, [submission])[submission][:2] == (1, True), "only the caller knows its run"
        rounds.close_all(tx, [(submission, 1)])
        assert _open_next(tx, submission) == 2


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.write() as tx:
        tx.record(EntityKind.FILE, "x", None, "ready", "why")
        raise ZeroDivisionError
    with ledger.read() as tx:
        assert tx.last_seq() == 0


def test_a_read_sees_one_state_of_the_ledger(ledger: Ledger) -> None:
    """Changes between two statements of a read are not visible to it."""
    with ledger.read() as tx:
        before = tx.last_seq()
        with ledger.write() as other:
            other.record(EntityKind.FILE, "x", None, "ready", "why")
        assert tx.last_seq() == before
    with ledger.read() as tx:
        assert tx.last_seq() == before + 1


def test_the_endpoint_is_bound_once_and_organization_and_workspace_when_they_are_known(ledger: Ledger) -> None:
    with ledger.write() as tx:
        bind_endpoint(tx, Endpoint("https://one"))
        bind_endpoint(tx, Endpoint("https://one", "org-a"))
        bind_endpoint(tx, Endpoint("https://one"))
        bind_endpoint(tx, Endpoint("https://one", workspace="ws-a"))
        bind_endpoint(tx, Endpoint("https://one", "org-a", "ws-a"))
    for other, named in (
        (Endpoint("https://two", "org-a", "ws-a"), "https://one, but the API is now https://two"),
        (Endpoint("https://one", "org-b", "ws-a"), "organization org-a, but the key belongs to org-b"),
        (Endpoint("https://one", "org-a", "ws-b"), "workspace ws-a, but the workspace is now ws-b"),
        (Endpoint("https://one", "org-a"), "workspace ws-a, but the workspace is now that of the credentials"),
    ):
        with pytest.raises(EndpointMismatchError, match=named), ledger.write() as tx:
            bind_endpoint(tx, other)


def test_only_the_owner_can_read_a_ledger_file(tmp_path: Path) -> None:
    Ledger(f"sqlite:///{tmp_path}/new/folder/ledger.db").close()
    assert stat.S_IMODE((tmp_path / "new/folder/ledger.db").stat().st_mode) == 0o600


def test_the_error_for_an_invalid_url_does_not_repeat_it() -> None:
    with pytest.raises(BatchAssetsError, match="the URL of the ledger") as caught:
        Ledger("postgres//user:pass-word@host")
    assert "pass-word" not in str(caught.value)
