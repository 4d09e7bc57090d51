"""Each amount is reported once, by the event that the log has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batch_assets.core.ledger import Ledger, spend
from batch_assets.core.ledger.spend import NOTHING, Spend, SpendEvent
from benchmarks.history import measured

LOG: dict[str, bool | None] = {}


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    LOG.clear()
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def report(ledger: Ledger, *partitions: str, run: str = "run") -> dict[str, SpendEvent]:
    with ledger.write("p") as tx:
        return spend.report(tx, "p", partitions, run, lambda _, event: LOG.get(event, False))


def record(
    ledger: Ledger, batch_id: str, picodollars: int, partition: str = "", *, left_out: bool = False
) -> None:
    with ledger.write("p") as tx:
        spend.record(tx, batch_id, "p", partition, Spend(picodollars, 0), left_out=left_out)


def test_an_amount_is_reported_once_and_by_its_partition(ledger: Ledger) -> None:
    record(ledger, "a", 2**40, "one")
    record(ledger, "b", 5, "one")
    record(ledger, "c", 7, "two")
    record(ledger, "c", 9, "two")  # collected again
    record(ledger, "free", 0, "two")
    events = report(ledger, "one", "two", "three")
    assert {key: (event.new, event.not_logged) for key, event in events.items()} == {
        "one": (Spend(2**40 + 5, 0), NOTHING),
        "two": (Spend(7, 0), NOTHING),
    }
    with ledger.write("p") as tx:
        spend.note_logged(tx, [event.id for event in events.values()])
    assert report(ledger, "one", "two") == {}
    record(ledger, "d", 1, "two")
    (event,) = report(ledger, "one", "two").values()
    assert event.new == Spend(1, 0)


def test_after_a_kill_the_log_decides(ledger: Ledger) -> None:
    record(ledger, "a", 5)
    (killed,) = report(ledger, "").values()
    LOG[killed.id] = None
    assert report(ledger, "") == {}, "its run may still log it"
    LOG[killed.id] = True
    record(ledger, "b", 3)
    (event,) = report(ledger, "").values()
    assert (event.new, event.not_logged) == (Spend(3, 0), NOTHING)
    assert report(ledger, "")[""].not_logged == Spend(3, 0), "this one is missing from the log"
    record(ledger, "c", 2)
    (event,) = report(ledger, "").values()
    assert (event.new, event.not_logged) == (Spend(2, 0), Spend(3, 0)), "so is that one"
    LOG[event.id] = True
    assert report(ledger, "") == {}


def test_answers_that_were_stored_already_are_not_reported_as_spent(ledger: Ledger) -> None:
    record(ledger, "a", 5, left_out=True)
    assert report(ledger, "")[""].not_logged == Spend(5, 0)


def test_the_number_of_statements_does_not_grow_with_the_partitions(ledger: Ledger) -> None:
    for number in range(60):
        record(ledger, f"b{number}", number + 1, f"{number}")
    with measured() as few:
        report(ledger, "1")
    with measured() as many:
        assert len(report(ledger, *(f"{number}" for number in range(60)))) == 60
    assert len(many.statements) <= len(few.statements)
