"""A ledger file that is not as it was written: said in a sentence, and made again once it is out of the way."""

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


def spoiled(path: Path) -> None:
    """The first page, which says that it is a database, stays as it is."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def ledger_file(world: World) -> Path:
    return world.path("ledger.db")


@pytest.mark.parametrize("damage", [overwritten, cut, spoiled])
def test_a_damaged_ledger_is_named_and_made_again_when_it_is_moved_away(
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
    path.rename(path.with_name("away.db"))  # as the error says
    world.reopened()
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


def test_a_ledger_that_is_damaged_while_it_is_open_is_named_as_well(world: World) -> None:
    world.send(world.pipeline(texts(1)))
    world.root.ledger.close()  # its connections: who opens the next one reads the file
    spoiled(ledger_file(world))
    with pytest.raises(DamagedFileError, match=str(ledger_file(world))), world.root.ledger.read() as tx:
        submissions.all_newest(tx)


def test_a_lease_says_so_at_its_next_check_and_not_in_its_own_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("threading.excepthook", seen.append)
    lease = leases.try_take(world.root.ledger, "work", seconds=1.0)
    assert lease is not None

    def said() -> str | None:
        """The file is damaged as often as it takes: the lease's thread may have it open, and write it anew."""
        world.root.ledger.close()
        overwritten(ledger_file(world))
        try:
            lease.check()
        except DamagedFileError as error:
            return str(error)
        return None

    assert "is damaged" in wait_for(said, "the lease to run out")
    with pytest.raises(DamagedFileError):
        lease.release()
    assert seen == []
