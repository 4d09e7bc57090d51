"""The ledger's clock: a step of the wall clock ends nothing early and holds nothing longer."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.ledger import Ledger, leases
from batch_assets.core.ledger.clock import Reading, _next

from ..support import CREATE, World, texts

HOUR = 3600.0
STEPS = [20 * 60.0, -3 * HOUR, 400 * 86400.0, -400 * 86400.0]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock forward or back, for this process and what it opens."""
    real = time.time
    steps = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + sum(steps))
    return steps.append


@pytest.mark.parametrize("seconds", STEPS)
@pytest.mark.parametrize("is_new_process", [False, True])
def test_a_step_ends_no_lease_and_holds_none_longer(
    tmp_path: object, step: Callable[[float], None], seconds: float, is_new_process: bool
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url)
    with ledger.write() as tx:
        before = tx.now
    lease = leases.try_take(ledger, "work", 30.0)
    assert lease is not None
    step(seconds)
    other = Ledger(url) if is_new_process else ledger
    assert leases.try_take(other, "work") is None
    with ledger.write() as tx:
        lease.confirm(tx)
        assert before <= tx.now < before + 20
    with other.read() as tx:
        assert tx.now < before + 20
    lease.release()
    for opened in {ledger, other}:
        opened.close()


@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_during_a_create_ends_no_grace(
    new_world: Callable[..., World], step: Callable[[float], None], seconds: float
) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    step(seconds)
    for _ in range(2):
        world.submit(pipeline, unattended=True)
        world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    assert world.states(pipeline) == ["unresolved"]
    world.query("update intent set last_byte_at = last_byte_at - 901")
    reconcile(world.root)
    assert world.states(pipeline) == ["ready"], "and none lasts longer"


@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_keeps_the_sensor_from_nothing(world: World, step: Callable[[float], None], seconds: float) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    step(seconds)
    world.emulator.end_batches()
    world.reopened()
    ((wait,),) = world.query("select max(next_poll_at) - (select max(now) from clock) from batch")
    assert wait <= 60
    world.query("update batch set next_poll_at = next_poll_at - 60")
    done = world.finish(pipeline)
    assert done.results is not None and done.results.final


def test_the_clock_comes_back_to_the_wall_clock(world: World) -> None:
    """A step of a minute is made up for in less than two hours, by at most a hundredth of each second."""
    reading = Reading("boot", 0.0, 1e9, 0.0)
    for second in range(1, 6001):
        after = _next(reading, None, "boot", float(second), 1e9 + second + 60)
        assert 0.99 <= after.now - reading.now <= 1.0101
        reading = after
    assert reading.offset == pytest.approx(0.0, abs=0.01)


def test_another_machine_keeps_the_distance_and_never_goes_back() -> None:
    recorded = Reading("a", 100.0, 5000.0, 1200.0)
    assert _next(recorded, None, "b", 7.0, 3900.0).now == 5100.0
    assert _next(recorded, None, "b", 7.0, 3000.0).now == 5000.0
    own = Reading("b", 7.0, 4990.0, 0.0)
    assert _next(recorded, own, "b", 27.0, 99999.0).now == pytest.approx(5010.0, abs=0.3)


def test_a_postgresql_ledger_has_the_same_clock(ledger_url: str) -> None:
    ledger, other = Ledger(ledger_url), Ledger(ledger_url)
    with ledger.write() as tx:
        first = tx.now
    with other.write() as tx:
        second = tx.now
    with ledger.read() as tx:
        assert first <= second <= tx.now < first + 20
    ledger.close()
    other.close()
