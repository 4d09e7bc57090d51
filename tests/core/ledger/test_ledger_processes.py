"""Four processes with one ledger: no lease is held twice, no transition is lost or happens twice."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.errors import LeaseLostError
from batch_assets.core.ledger import Ledger, files, leases, tables
from batch_assets.core.ledger.states import EntityKind
from tests.forked import ForkServer

_PROCESSES, _STEPS, _FILES = 4, 25, 60


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def hammer(url: str) -> None:
    """Take leases and work under them. The first process also creates the tables."""
    ledger = Ledger(url)
    done = 0
    while done < _STEPS:
        lease = leases.try_take(ledger, f"work:{random.randrange(2)}", seconds=30.0)
        if lease is None:
            continue
        with ledger.write() as tx:
            lease.confirm(tx)
            count = tx.execute(sa.select(tables.endpoint.c.recorded_at)).scalar() or 0.0
            tx.execute(sa.update(tables.endpoint).values(recorded_at=count + 1))
            tx.record(EntityKind.FILE, lease.name, "free", "taken", "")
        with ledger.write() as tx:
            lease.confirm(tx)
            tx.record(EntityKind.FILE, lease.name, "taken", "free", "")
        lease.release()
        done += 1
    ledger.close()


def claim(url: str) -> list[int]:
    """Write an intent for every file that is not being sent."""
    ledger = Ledger(url)
    claimed = []
    for number in range(_FILES):
        with contextlib.suppress(LeaseLostError), ledger.write() as tx:
            files.intend(tx, files.by_id(tx, f"s/{number}"), [], None)
            claimed.append(number)
    ledger.close()
    return claimed


def use(url: str) -> None:
    """Open the ledger, as every process does first."""
    ledger = Ledger(url)
    with ledger.write() as tx:
        tx.record(EntityKind.FILE, "any", None, "done", "")
    ledger.close()


def _run(children: ForkServer, work: Callable[[str], Any], url: str, processes: int = _PROCESSES) -> list[Any]:
    """Do the work in several processes at once, and return what each returned."""
    outcomes = children.run(*[(f"{__name__}:{work.__name__}", {"url": url})] * processes)
    assert not any(outcome.error for outcome in outcomes), "\n".join(outcome.error for outcome in outcomes)
    return [outcome.value for outcome in outcomes]


def test_leases_and_transitions_of_many_processes_do_not_interleave(ledger_url: str, children: ForkServer) -> None:
    _run(children, hammer, ledger_url)
    ledger = Ledger(ledger_url)
    with ledger.read() as tx:
        count = tx.execute(sa.select(tables.endpoint.c.recorded_at)).scalar()
        rows = tx.execute(sa.select(tables.history).order_by(tables.history.c.seq)).all()
        left = tx.execute(sa.select(sa.func.count()).select_from(tables.lease)).scalar()
    ledger.close()
    assert count == _PROCESSES * _STEPS
    assert len(rows) == 2 * _PROCESSES * _STEPS
    assert left == 0
    assert len({row.process for row in rows}) == _PROCESSES
    for name in ("work:0", "work:1"):
        mine = [row for row in rows if row.entity == name]
        taken, freed = mine[::2], mine[1::2]
        assert {row.to_state for row in taken} <= {"taken"}
        assert [row.process for row in taken] == [row.process for row in freed]


def test_each_file_is_claimed_by_exactly_one_process(ledger_url: str, children: ForkServer) -> None:
    ledger = Ledger(ledger_url)
    values = dict.fromkeys(
        ("rows", "rejected", "requests", "written", "max_attempts", "max_requests", "max_bytes"), 1
    )
    with ledger.write() as tx:
        own = {"pipeline": "p", "partition": ""}
        submission = {"id": "s", "created_at": tx.now, "headers": "{}", "ask_again": 0}
        tx.execute(sa.insert(tables.submission).values(**submission, **own, **values))
        for at in range(_FILES):
            file = {
                "id": f"s/{at}",
                "submission_id": "s",
                "name": str(at),
                "requests": 1,
                "bytes": 1,
                "attempt": 1,
            }
            tx.execute(sa.insert(tables.request_file).values(**file, **own, state="ready", not_before=0.0))
    claimed = [number for numbers in _run(children, claim, ledger_url) for number in numbers]
    assert sorted(claimed) == list(range(_FILES))
    with ledger.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(tables.intent)).scalar() == _FILES
    ledger.close()


def test_a_new_ledger_waits_for_the_process_that_creates_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    maker = sqlite3.connect(path, isolation_level=None)
    maker.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(use, f"sqlite:///{path}")
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.5)
        maker.execute("COMMIT")
        opening.result()
    maker.close()


def test_opening_a_ledger_leaves_the_locks_of_another_thread(tmp_path: Path, children: ForkServer) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url)
    with ledger.read() as tx:
        tx.last_seq()
        Ledger(url).close()
        # Another process that closes the ledger removes the log of a database that no other process has open.
        _run(children, use, url, processes=1)
        assert (tmp_path / "ledger.db-wal").exists()
    ledger.close()
