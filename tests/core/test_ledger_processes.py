"""Four processes at one ledger: no lease is held twice, no transition is lost, none happens twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.ledger import Ledger, tables

from .forked import ForkServer

_PROCESSES, _STEPS = 4, 25
_HAMMER = """
import random, sys
import sqlalchemy as sa
from batch_assets.core.errors import LeaseLostError
from batch_assets.core.ledger import Ledger, files, leases, tables
url, steps = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()  # all begin together
ledger = Ledger(url)  # the tables too are made by whoever comes first
done = 0
while done < steps:
    lease = leases.try_take(ledger, f"work:{random.randrange(2)}", seconds=5.0)
    if lease is None:
        continue
    with ledger.write() as tx:
        lease.confirm(tx)
        count = tx.execute(sa.select(tables.endpoint.c.recorded_at)).scalar() or 0.0
        tx.execute(sa.update(tables.endpoint).values(recorded_at=count + 1))
        tx.record("work", lease.name, "free", "taken", "")
    with ledger.write() as tx:
        lease.confirm(tx)
        tx.record("work", lease.name, "taken", "free", "")
    lease.release()
    done += 1
ledger.close()
"""
_CLAIM = """
import sys
import sqlalchemy as sa
from batch_assets.core.errors import LeaseLostError
from batch_assets.core.ledger import Ledger, files, tables
ledger = Ledger(sys.argv[1])
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    try:
        with ledger.write() as tx:
            files.intend(tx, files.by_id(tx, f"s/{number}"), None, None)
        print(number)
    except LeaseLostError:
        pass
ledger.close()
"""


def _run(script: str, url: str, steps: int) -> list[str]:
    """Runs the script in several processes at once and returns what each printed."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, url, str(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(_PROCESSES)
    ]
    outputs = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        outputs.append(output)
    return outputs


def test_leases_and_transitions_of_many_processes_stand_one_after_the_other(ledger_url: str) -> None:
    _run(_HAMMER, ledger_url, _STEPS)
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


def test_each_file_is_claimed_by_exactly_one(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    number = 60
    values = dict.fromkeys(
        ("rows", "rejected", "requests", "written", "max_attempts", "max_requests", "max_bytes"), 1
    )
    with ledger.write() as tx:
        own = {"pipeline": "p", "partition": ""}
        submission = {"id": "s", "created_at": tx.now, "headers": "{}", "ask_again": 0}
        tx.execute(sa.insert(tables.submission).values(**submission, **own, **values))
        for at in range(number):
            file = {
                "id": f"s/{at}",
                "submission_id": "s",
                "name": str(at),
                "requests": 1,
                "bytes": 1,
                "attempt": 1,
            }
            tx.execute(sa.insert(tables.request_file).values(**file, **own, state="ready", not_before=0.0))
    outputs = _run(_CLAIM, ledger_url, number)
    claimed = Counter(line for output in outputs for line in output.split())
    assert claimed == Counter(map(str, range(number)))
    with ledger.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(tables.intent)).scalar() == number
    ledger.close()


def use(url: str) -> None:
    """What any process does first."""
    ledger = Ledger(url)
    with ledger.write() as tx:
        tx.record("work", "any", None, "done", "")
    ledger.close()


def test_a_new_ledger_waits_for_whoever_is_making_it(tmp_path: Path) -> None:
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


def test_opening_a_ledger_leaves_the_locks_of_another_thread(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url)
    with ForkServer(__name__) as children, ledger.read() as tx:
        tx.last_seq()
        Ledger(url).close()
        # Another process that closes the ledger removes the log of a database that nobody else has open.
        assert children.run((f"{__name__}:use", {"url": url}))[0].error == ""
        assert (tmp_path / "ledger.db-wal").exists()
    ledger.close()
