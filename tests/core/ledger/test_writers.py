"""On PostgreSQL, pipelines are written at the same time. What concerns all of them still happens one by one."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.ledger import Lease, Ledger, batches, connection, leases
from batch_assets.core.ledger.states import BatchState, EntityKind
from batch_assets.core.open_root import open_root
from batch_assets.core.results import write
from batch_assets.core.results.write import write_results
from batch_assets.core.settings import Settings
from tests.forked import ForkServer

from ..postgres import PostgresServer
from ..proxy import Proxy
from ..support import World, environment, texts, wait_for, write_rows

Writing = dict[str, Any]
P: Writing = {"pipeline": "p"}
Q: Writing = {"pipeline": "q"}
P_SENDS: Writing = P | {"endpoint": True}
Q_SENDS: Writing = Q | {"endpoint": True}
ROOT: Writing = {}
_THREADS, _STEPS, _PIPELINES = 6, 30, ("p", "q", "r")


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


@pytest.fixture
def url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new ledger, whose locks are not waited for longer than a test should take to fail."""
    monkeypatch.setattr(connection, "_TIMEOUTS", connection._TIMEOUTS | {"lock_timeout": 20.0})
    return postgres_server.new_database()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


@pytest.fixture
def waiting(url: str) -> Iterator[Callable[[], int]]:
    """Returns how many sessions of the database wait for a lock now."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    count = sa.text(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )

    def sessions() -> int:
        with engine.connect() as observer:
            return int(observer.execute(count).scalar_one())

    yield sessions
    engine.dispose()


def note(ledger: Ledger, **writing: Any) -> int:
    with ledger.write(**writing) as tx:
        return tx.record(EntityKind.ROUND, "any", None, "done", "")


@pytest.mark.parametrize(("first", "second"), [(P, Q), (P_SENDS, Q), (P, Q_SENDS)])
def test_two_pipelines_are_written_at_the_same_time(ledger: Ledger, first: Writing, second: Writing) -> None:
    with ledger.write(**first) as tx:
        before = tx.record(EntityKind.ROUND, "any", None, "done", "")
        assert note(ledger, **second) > before, "it ends while the first one is open"
        lease = leases.try_take(ledger, "work", pipeline=second["pipeline"])
        assert lease is not None
        lease.check()
        lease.release()


@pytest.mark.parametrize(
    ("first", "second"),
    [(P, P), (ROOT, P), (P, ROOT), (ROOT, ROOT), (P_SENDS, Q_SENDS), (P_SENDS, P), (ROOT, P_SENDS)],
)
def test_others_wait(ledger: Ledger, waiting: Callable[[], int], first: Writing, second: Writing) -> None:
    with ThreadPoolExecutor() as pool:
        with ledger.write(**first) as tx:
            later = pool.submit(note, ledger, **second)
            wait_for(lambda: waiting() == 1 or later.done(), "the second writer")
            assert not later.done()
            before = tx.record(EntityKind.ROUND, "any", None, "done", "")
        assert later.result() > before


def test_a_writer_of_the_root_comes_before_later_ones(ledger: Ledger, waiting: Callable[[], int]) -> None:
    with ThreadPoolExecutor() as pool:
        with ledger.write("p"):
            of_root = pool.submit(note, ledger)
            wait_for(lambda: waiting() == 1 or of_root.done(), "the writer of the root")
            later = pool.submit(note, ledger, pipeline="q")
            wait_for(lambda: waiting() == 2 or later.done(), "a later writer")
        assert of_root.result() < later.result()


def mixed(ledger: Ledger, seed: int, done: list[str]) -> None:
    """Write pipelines, some of them with the endpoint, and the root, in any order.

    Each write adds one to the row of all that it locks, in two statements: another one in between would be lost.
    """
    chance = random.Random(seed)
    for _ in range(_STEPS):
        pipeline = chance.choice([*_PIPELINES, None])
        endpoint = pipeline is None or chance.random() < 0.4
        names = [pipeline] if pipeline is not None else [*_PIPELINES]
        names += ["endpoint"] if endpoint else []
        with ledger.write(pipeline, endpoint=endpoint) as tx:
            for name in names:
                row = tx.connection.execute(
                    sa.text("select n, at from storm where name = :name"), {"name": name}
                ).one()
                assert row.at <= tx.now, "the clock goes back"
                values = {"name": name, "n": row.n + 1, "at": tx.now}
                tx.connection.execute(sa.text("update storm set n = :n, at = :at where name = :name"), values)
        done += names


def test_a_storm_of_all_kinds_of_writers_loses_nothing_and_does_not_deadlock(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.execute(sa.text("create table storm (name text primary key, n integer, at float)"))
        for name in (*_PIPELINES, "endpoint"):
            tx.connection.execute(sa.text("insert into storm values (:name, 0, 0)"), {"name": name})
    done: list[list[str]] = [[] for _ in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for future in [pool.submit(mixed, ledger, seed, done[seed]) for seed in range(_THREADS)]:
            future.result()
    names = [name for of_thread in done for name in of_thread]
    with ledger.read() as tx:
        counts = dict(tx.execute(sa.text("select name, n from storm")).all())
    assert counts == {name: names.count(name) for name in (*_PIPELINES, "endpoint")}


def die_writing(url: str, writing: Writing) -> None:
    with Ledger(url).write(**writing) as tx:
        tx.record(EntityKind.ROUND, "killed", None, "done", "")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("writing", [P, P_SENDS, ROOT])
def test_a_killed_writer_leaves_nothing_and_holds_up_no_one(
    ledger: Ledger, url: str, children: ForkServer, writing: Writing
) -> None:
    children.run((f"{__name__}:die_writing", {"url": url, "writing": writing}))
    for later in (writing, Q_SENDS, ROOT):
        note(ledger, **later)
    with ledger.read() as tx:
        assert [*tx.execute(sa.text("select entity from history")).scalars()] == ["any"] * 3


def test_a_pipeline_runs_while_another_one_is_written(
    new_world: Callable[..., World], url: str, waiting: Callable[[], int]
) -> None:
    world = new_world(ledger=url)
    world.run(world.pipeline(texts(2)))
    with world.root.ledger.write("another") as tx:
        tx.record(EntityKind.ROUND, "any", None, "done", "")
        table = world.run(world.pipeline(texts(3)))
    assert len(table) == 3
    assert [batch["requests"] for batch in world.accepted()] == [2, 1]


def test_two_pipelines_with_files_of_equal_count_are_never_in_doubt_together(
    new_world: Callable[..., World], url: str, waiting: Callable[[], int]
) -> None:
    """Both see no file in doubt, and both go on to write the intent at the same moment."""
    world = new_world(ledger=url)
    names = ["first", "second"]
    for name in names:
        write_rows(world.folder / f"{name}.jsonl", texts(3, name))
        pipeline = world.pipeline(dataset={"path": f"{name}.jsonl", "key": "id"}, name=name)
        world.build(pipeline)
    holder = sa.create_engine(url)
    with Proxy(world.emulator.url) as proxy, ThreadPoolExecutor() as pool:
        env = environment(proxy.url, world.root.settings.root, url)

        def submit(name: str) -> Any:
            with open_root(Settings.from_env(env)) as root:
                return submit_batches(root, name)

        with open_root(Settings.from_env(env)) as root:  # what is written once, with the organization of a reply
            root.api.page()
            root.check_endpoint()
            root.note_key()
        proxy.hold("request")
        with holder.begin() as held:
            held.execute(sa.text("select id from endpoint for update"))
            sent = [pool.submit(submit, name) for name in names]
            wait_for(lambda: waiting() == 2 or any(each.done() for each in sent), "both intents", 20)
            assert not any(each.done() for each in sent)
        (later,) = wait_for(lambda: [each for each in sent if each.done()], "the one that waits", 20)
        assert next(iter(later.result().waiting.values())).endswith("same request count, outcome still unknown")
        assert world.query("select outcome, requests from intent") == [("open", 3)]
        proxy.let_go()
        for each in sent:
            each.result()
        assert len(world.accepted()) == 1
        for name in names:
            submit(name)
    assert [batch["requests"] for batch in world.accepted()] == [3, 3]
    holder.dispose()


def test_answers_are_joined_that_are_recorded_while_a_join_begins(
    new_world: Callable[..., World], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pipeline's later number in the history is visible before the number of these answers is."""
    world = new_world(ledger=url)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    poll(world.root, now=True)
    numbered, begun = threading.Event(), threading.Event()
    collecting: list[Future[None]] = []

    def collect() -> None:
        with world.root.ledger.write(pipeline.name) as tx:
            (ended,) = batches.in_state(tx, BatchState.ENDED)
            batches.collected(tx, ended.id, "its answers are stored")
            numbered.set()
            assert begun.wait(20)

    hold, newest = leases.hold, write.submissions.newest

    with ThreadPoolExecutor() as pool:

        @contextmanager
        def held(*arguments: Any, **more: Any) -> Iterator[Lease]:
            with hold(*arguments, **more) as lease:
                collecting.append(pool.submit(collect))
                assert numbered.wait(20)
                note(world.root.ledger, pipeline="another")
                yield lease

        def read(*arguments: Any) -> Any:
            if collecting:  # what the join reads is as of now
                begun.set()
                collecting[0].result()
            return newest(*arguments)

        monkeypatch.setattr(leases, "hold", held)
        monkeypatch.setattr(write.submissions, "newest", read)
        write_results(world.root, pipeline.name)
        monkeypatch.undo()
    (file,) = world.files(pipeline)
    ((joined,),) = world.query("select joined_seq from submission")
    assert file.collected_seq is not None
    assert joined < file.collected_seq
