"""A damaged ledger file is reported in a readable error, and rebuilt once it is moved away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import leases, submissions

from ..support import World, texts, wait_for


def overwritten(path: Path) -> None:
    path.write_bytes(b"no database " * 500)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def corrupted_after_first_page(path: Path) -> None:
    """Keep the first page, which identifies the file as a database."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def ledger_file(world: World) -> Path:
    return world.path("ledger.db")


@pytest.mark.parametrize("damage", [overwritten, cut, corrupted_after_first_page])
def test_a_damaged_ledger_is_reported_and_rebuilt_after_it_is_moved_away(
    world: World, damage: Callable[[Path], None]
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.root.close()
    path = ledger_file(world)
    damage(path)
    world.reopened()
    with pytest.raises(DamagedFileError, match=f"the ledger {path} is damaged: .*move it away"):
        poll(world.root, now=True)
    path.rename(path.with_name("away.db"))  # as the error advises
    world.reopened()
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


def test_a_ledger_that_is_damaged_while_it_is_open_is_reported(world: World) -> None:
    world.send(world.pipeline(texts(1)))
    world.root.ledger.close()  # closes the connections, so that the next one reads the file
    corrupted_after_first_page(ledger_file(world))
    with pytest.raises(DamagedFileError, match=str(ledger_file(world))), world.root.ledger.read() as tx:
        submissions.all_newest(tx)


def test_a_lease_reports_a_damaged_ledger_at_its_next_check_and_not_in_its_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("threading.excepthook", seen.append)
    lease = leases.try_take(world.root.ledger, "work", seconds=1.0)
    assert lease is not None

    def error_text() -> str | None:
        """Damage the file on every call, because the lease's thread may have it open and write it again."""
        world.root.ledger.close()
        overwritten(ledger_file(world))
        try:
            lease.check()
        except DamagedFileError as error:
            return str(error)
        return None

    assert "is damaged" in wait_for(error_text, "the lease to run out")
    with pytest.raises(DamagedFileError):
        lease.release()
    assert seen == []
