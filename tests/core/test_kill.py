"""Processes killed or frozen in the middle of a submission: the next one finishes, and nothing is paid twice."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.spend.build import build_spend
from tests.child import Child
from tests.forked import ForkServer

from .proxy import Proxy
from .support import World, environment, params, texts, wait_for

_SUBMIT = """
import sys
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.batches.submit import submit_batches
report = submit_batches(open_root(), "asked")
print(report.submitted, report.waiting)
"""
_FINISH = """
import time
from batch_assets.core.results.run import collect_results
from batch_assets.core.batches.poll import poll
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.batches.submit import submit_batches
root = open_root()
end = time.monotonic() + 60
while time.monotonic() < end:
    submit_batches(root, "asked", unattended=True)
    poll(root, now=True)
    if collect_results(root, "asked").results.final:
        break
    time.sleep(0.05)
else:
    raise SystemExit("never final")
"""
LEASE_SECONDS = 1.0


class Scene:
    """A world behind a proxy, and child processes that work in it."""

    def __init__(self, world: World, proxy: Proxy, python: ForkServer) -> None:
        self.world, self.proxy, self._python = world, proxy, python
        settings = world.root.settings
        self._env = os.environ | environment(
            proxy.url, settings.root, settings.ledger_url, BATCH_ASSETS_LEASE_SECONDS=str(LEASE_SECONDS)
        )
        self.children: list[Child] = []

    def start(self, script: str) -> Child:
        child = self._python.start("-c", script, env=self._env)
        self.children.append(child)
        return child

    def lock_ledger(self) -> sqlite3.Connection:
        """Keep every writer waiting until the connection is closed."""
        path = self.world.root.settings.ledger_url.removeprefix("sqlite:///")
        database = sqlite3.connect(path, timeout=30)
        database.execute("BEGIN IMMEDIATE")
        return database

    def freeze(self, child: Child) -> None:
        """Stop a process while it is not writing to the ledger: SQLite's lock would freeze with it."""
        with contextlib.closing(self.lock_ledger()):
            child.send_signal(signal.SIGSTOP)
            wait_for(lambda: "\nState:\tT" in Path(f"/proc/{child.pid}/status").read_text(), "the standstill")

    def finish_in_another_process(self) -> None:
        child = self.start(_FINISH)
        output = child.communicate(timeout=120)
        assert child.returncode == 0, output

    def rows(self) -> list[Any]:
        return [tuple(row) for row in self.world.query("select state from request_file order by id")]

    def check(self, count: int) -> None:
        """Check that every row has its answer, and that every request was accepted once."""
        table = self.world.table(self.world.pipeline())
        assert list(table["result_type"]) == ["succeeded"] * count
        custom_ids = self.world.accepted_custom_ids()
        assert len(custom_ids) == len(set(custom_ids)) == count


@pytest.fixture
def scene(new_world: Callable[..., World], python: ForkServer) -> Iterator[Scene]:
    made = new_world()
    with Proxy(made.emulator.url) as proxy:
        world = new_world(BATCH_ASSETS_EMULATOR=proxy.url)
        built = Scene(world, proxy, python)
        yield built
        for child in built.children:
            child.kill()
            child.communicate()


def _kill(child: Child) -> None:
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_killed_after_the_intent_before_the_server_got_anything(scene: Scene) -> None:
    scene.world.build(scene.world.pipeline(texts(3)))
    scene.proxy.hold("request")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    assert scene.rows() == [("sending",)]
    _kill(child)
    scene.proxy.cut()
    scene.finish_in_another_process()
    scene.check(3)


def test_killed_between_the_reservation_and_the_post_nothing_passes_the_cap(scene: Scene) -> None:
    """The reservation is written with the intent. The next process finds that nothing was sent, and sends it.

    If the last bytes were on their way, it is in doubt until the grace period is over, and keeps its reservation.
    """
    cap = 160_000_000  # picodollars, for two uploads of a file that may cost 74,000,000
    world, budget = scene.world, {"max_usd": cap / PICODOLLARS, "per": "month"}
    pipeline = world.pipeline(texts(2), budget=budget)
    record_caps(world.root, [pipeline])
    world.build(pipeline)
    scene.proxy.hold("request")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    _kill(child)
    assert world.accepted() == []
    ((state, worst),) = world.query("select state, worst from reservation")
    assert state == "open" and 70_000_000 < worst <= 80_000_000, "what is in doubt keeps its money"
    scene.proxy.cut()
    scene.finish_in_another_process()
    scene.check(2)
    rows = world.query("select state, worst from reservation order by id")
    first, last = rows
    assert last.state == "settled" and first.state in ("released", "open")
    billed = {entry["id"]: entry["picodollars"] for entry in world.emulator.bill()["batches"]}
    assert last.worst == sum(billed[batch["id"]] for batch in world.accepted())
    assert last.worst + (worst if first.state == "open" else 0) <= cap


def test_killed_while_waiting_for_a_server_that_goes_on_by_itself(scene: Scene) -> None:
    """The bytes were in transit: the batch appears after its process has died."""
    scene.world.build(scene.world.pipeline(texts(3)))
    scene.proxy.hold("reply")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    assert len(scene.world.accepted()) == 1
    _kill(child)
    scene.finish_in_another_process()
    scene.check(3)
    scene.proxy.let_go()


def test_killed_between_the_receipt_and_the_ledger(scene: Scene) -> None:
    pipeline = scene.world.pipeline(texts(3))
    folder = scene.world.submission_folder(pipeline, scene.world.build(pipeline))
    scene.proxy.hold("reply")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    database = scene.lock_ledger()  # the child's next transaction waits
    scene.proxy.let_go()
    wait_for(lambda: list(folder.glob("*.batch.json")), "the receipt")
    _kill(child)
    database.close()
    scene.world.emulator.faults(
        [{"match": {"path": "/v1/messages/batches", "method": "GET"}, "action": {"hide_from_list": 9999}}]
    )
    assert scene.rows() == [("sending",)]
    scene.finish_in_another_process()
    scene.check(3)


def test_killed_between_two_files(scene: Scene) -> None:
    scene.world.build(scene.world.pipeline(texts(4), batching={"max_requests": 2}))
    scene.world.emulator.faults([{"match": {"method": "POST", "nth": 2}, "action": {"delay": 3600}}])
    child = scene.start(_SUBMIT)
    wait_for(lambda: scene.rows() == [("submitted",), ("sending",)], "the second intent")
    _kill(child)
    scene.world.emulator.reset_faults()
    scene.finish_in_another_process()
    scene.check(4)


@pytest.mark.parametrize("is_stub", [True, False])
def test_killed_while_the_stub_of_the_prompt_cache_or_the_others_are_sent(scene: Scene, is_stub: bool) -> None:
    shared = {**params(), "system": f"{is_stub} Shared by all. " * 400}
    pipeline = scene.world.pipeline(texts(5), params=shared, cache="auto")
    scene.world.build(pipeline)
    if not is_stub:
        scene.world.submit(pipeline)
        poll(scene.world.root, now=True)
    scene.proxy.hold("reply")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    assert sorted(scene.rows()) == ([("held",), ("sending",)] if is_stub else [("sending",), ("submitted",)])
    _kill(child)
    scene.finish_in_another_process()
    scene.check(5)
    bodies = [scene.world.sent_body(batch["id"]) for batch in scene.world.accepted()]
    assert [body.count(b'"cache_control"') for body in bodies] == [1, 4]
    scene.proxy.let_go()


def test_frozen_before_the_reply_and_awake_after_another_took_over(scene: Scene) -> None:
    scene.world.build(scene.world.pipeline(texts(3)))
    scene.proxy.hold("reply")
    frozen = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    scene.freeze(frozen)
    scene.finish_in_another_process()
    before = scene.world.query("select * from history")
    scene.proxy.let_go()
    frozen.send_signal(signal.SIGCONT)
    output, errors = frozen.communicate(timeout=120)
    assert frozen.returncode == 0, errors
    assert "another process has taken over" in output
    assert scene.world.query("select * from history") == before
    scene.check(3)


def test_frozen_in_mid_upload_and_awake_after_another_sent_the_file(scene: Scene) -> None:
    """A process never finishes an upload under a lease that it lost: no server accepts half a body."""
    big = {key: text + "x" * 12_000_000 for key, text in texts(3).items()}
    scene.world.build(scene.world.pipeline(big))
    scene.proxy.hold("upload")
    frozen = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    scene.freeze(frozen)
    scene.finish_in_another_process()
    assert len(scene.world.accepted()) == 1
    frozen.send_signal(signal.SIGCONT)
    scene.proxy.let_go()
    output, errors = frozen.communicate(timeout=120)
    assert frozen.returncode == 0, errors
    assert "taken over" in output
    scene.check(3)


def test_a_live_process_keeps_its_lease_however_long_it_takes(scene: Scene) -> None:
    scene.world.build(scene.world.pipeline(texts(3)))
    scene.proxy.hold("reply")
    child = scene.start(_SUBMIT)
    assert scene.proxy.held.wait(120)
    started = time.time()

    def renewed() -> list[Any]:
        return scene.world.query("select 1 from lease where name like 'file:%' and until > :t", t=started + 2.5)

    wait_for(renewed, "a lease renewed beyond its first end")
    second = scene.start(_SUBMIT)
    output, _ = second.communicate(timeout=120)
    assert "another process is sending it" in output
    assert scene.rows() == [("sending",)]
    scene.proxy.let_go()
    child.communicate(timeout=120)
    scene.finish_in_another_process()
    scene.check(3)


def test_killed_in_mid_download(scene: Scene, tmp_path: Path) -> None:
    """A response file is complete or absent. The next process downloads it again."""
    scene.world.send(scene.world.pipeline(texts(3)))
    scene.world.emulator.faults([{"match": {"path": "*/results", "times": 1}, "action": {"delay": 3600}}])
    child = scene.start(_FINISH)
    wait_for(lambda: scene.world.calls()["GET /v1/messages/batches/{id}/results"], "the download")
    _kill(child)
    assert not list(scene.world.path("asked", "responses").glob("*.parquet"))
    scene.finish_in_another_process()
    scene.check(3)
    assert not [
        path for path in scene.world.path("asked", "results").glob("*.parquet") if path.name != "results.parquet"
    ]


_RESCUE = """
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.open_root import open_root
from batch_assets.core.results.run import collect_results
with open_root() as root:
    print(submit_batches(root, "asked", unattended=True).live_calls)
    collect_results(root, "asked")
"""


def _past_the_deadline(scene: Scene) -> None:
    """Send a batch that runs when its deadline has passed. Live calls are made one at a time."""
    world = scene.world
    world.emulator.settings(latency=24 * 3600)
    pipeline = world.pipeline(texts(3), deadline="6h", rescue={"live": {"max_in_flight": 1}})
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    world.query("update submission set began_at = 0")
    world.query("update batch set submitted_at = 0")


def _rescued(scene: Scene) -> str:
    """Make the live calls that are left in another process, after the lease of a killed one."""
    wait_for(
        lambda: not scene.world.query("select 1 from lease where until > :t", t=time.time()), "the lease's end"
    )
    output, errors = (child := scene.start(_RESCUE)).communicate(timeout=120)
    assert child.returncode == 0, errors
    return output.strip()


def _check_live_calls(scene: Scene, unknown: int) -> None:
    """Check that no call was repeated, and that the bill is within what the table of what was spent says."""
    world = scene.world
    calls = world.live_calls()
    assert len({call["params"] for call in calls}) == len(calls)
    rows = [row for row in build_spend(world.root).rows if row.tier == "live"]
    known, high = sum(row.cost for row in rows), sum(row.high or 0 for row in rows if row.kind == "unknown")
    assert sum(row.amounts["requests"] for row in rows if row.kind == "unknown") == unknown
    assert known <= sum(call["picodollars"] for call in calls) <= known + high
    world.emulator.end_batches()
    scene.finish_in_another_process()
    assert list(world.table(world.pipeline())["result_type"]) == ["succeeded"] * 3


@pytest.mark.parametrize("part", ["request", "reply"])
def test_killed_in_a_live_call_it_is_not_repeated(scene: Scene, part: str) -> None:
    _past_the_deadline(scene)
    scene.proxy.hold(part)
    child = scene.start(_RESCUE)
    assert scene.proxy.held.wait(120)
    _kill(child)
    scene.proxy.cut()
    assert len(scene.world.live_calls()) == (part == "reply")
    assert _rescued(scene) == "2 live calls: 2 answered"
    _check_live_calls(scene, unknown=1)


def test_frozen_in_a_live_call_past_its_lease_another_one_goes_on(scene: Scene) -> None:
    _past_the_deadline(scene)
    scene.proxy.hold("reply")
    child = scene.start(_RESCUE)
    assert scene.proxy.held.wait(120)
    scene.freeze(child)
    assert _rescued(scene) == "2 live calls: 2 answered"
    scene.proxy.let_go()
    child.send_signal(signal.SIGCONT)
    child.communicate(timeout=120)
    _check_live_calls(scene, unknown=1)
