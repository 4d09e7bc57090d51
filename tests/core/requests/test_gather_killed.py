"""Gathered partitions after kills, and with a ledger that is lost or too old: nothing is sent twice."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.gathered_files import GatheredFiles
from batch_assets.core.requests.registration import Registrar
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.settings import Settings
from batch_assets.core.store.manifest import Manifest
from tests.forked import ForkServer

from ..lost_ledger import delete_ledger, end_grace_period
from ..support import World, environment, make_pipeline, params, texts
from .gathering import NAME, Gathering

KEYS = ["a", "b", "c"]
ROWS = {key: texts(2, "shared") | texts(2, key) for key in KEYS}
STEPS = {"GatheredFiles": GatheredFiles, "Registrar": Registrar, "Manifest": Manifest}
# The n-th call of a function, before or after which a process is killed.
POINTS = [
    pytest.param(("after", "GatheredFiles", "add", 2), id="while partitions are built"),
    pytest.param(("after", "GatheredFiles", "publish", 1), id="before the record"),
    pytest.param(("before", "Manifest", "write", 1), id="before the manifests"),
    pytest.param(("after", "Manifest", "write", 1), id="after the owner's manifest"),
    pytest.param(("after", "Manifest", "write", 2), id="before the last manifest"),
    pytest.param(("before", "Registrar", "_try_register", 1), id="before the registration"),
    pytest.param(("after", "Registrar", "_try_register", 1), id="after the registration"),
]
ON_BOTH = [("after", "Manifest", "write", 1), ("after", "Registrar", "_try_register", 1)]


def pipeline_in(folder: Path, prompt: str = "{{ text }}") -> Pipeline:
    fields: dict[str, Any] = {"batching": {"across_partitions": True}, "partitions": {"static": KEYS}}
    return make_pipeline(folder, {"path": "{partition}.jsonl", "key": "id"}, params=params(prompt), **fields)


def build_and_die(env: dict[str, str], folder: str, die: tuple[str, str, str, int] | None) -> list[Any]:
    """Build all partitions. The process is killed before or after the n-th call of a function."""
    if die is not None:
        when, owner, name, left = die
        step = getattr(STEPS[owner], name)

        def stepped(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            returned = step(*arguments) if left or when == "after" else None
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return returned

        setattr(STEPS[owner], name, stepped)
    with open_root(Settings.from_env(env)) as root:
        outcomes = build_partitions(root, pipeline_in(Path(folder)), KEYS, AskAgain())
        return [getattr(each, "written", str(each)) for each in outcomes.values()]


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__, "anthropic", "httpx2") as server:
        yield server


def killed(gathering: Gathering, children: ForkServer, die: tuple[str, str, str, int]) -> None:
    """Build in a process that is killed, and let its leases expire."""
    settings = gathering.world.root.settings
    env = environment(gathering.world.emulator.url, settings.root, settings.ledger_url)
    work = {"env": env, "folder": str(gathering.world.folder), "die": die}
    (child,) = children.run((f"{__name__}:build_and_die", work))
    assert child.killed, child.error
    gathering.world.query("update lease set until = 0")


def finish_as_new(gathering: Gathering, first: list[str] | None = None) -> None:
    """Run all stages, at first for some partitions only, and check that nothing is sent twice."""
    world = gathering.world
    for keys in ([first] if first is not None else []) + [KEYS]:
        outcomes = gathering.build(keys)
        assert -1 not in gathering.written(outcomes).values(), outcomes
        gathering.submit(keys)
        if world.query("select 1 from request_file where state = 'unresolved'"):
            end_grace_period(world)
            gathering.submit(keys)
    gathering.finish()
    gathering.check()
    before = len(world.accepted())
    gathering.run()
    assert len(world.accepted()) == before


@pytest.mark.parametrize("die", POINTS)
def test_a_build_that_is_killed_is_repeated(
    new_world: Callable[..., World],
    request: pytest.FixtureRequest,
    children: ForkServer,
    die: tuple[str, str, str, int],
) -> None:
    databases = ["sqlite", "postgresql"] if die in ON_BOTH else ["sqlite"]
    for number, database in enumerate(databases):
        server = request.getfixturevalue("postgres_server") if database == "postgresql" else None
        url = server.new_database() if server is not None else None
        world = new_world(ledger=url, name=database)
        gathering = Gathering(world, ROWS)
        killed(gathering, children, die)
        finish_as_new(gathering, ["b"] if number == 0 else None)
        check_folders(gathering)


def check_folders(gathering: Gathering) -> None:
    """Nothing is left of the killed build."""
    folders = [
        each for key in KEYS for each in gathering.world.path(NAME, "requests", f"partition={key}").iterdir()
    ]
    known = {id_ for (id_,) in gathering.world.query("select id from submission")}
    assert {folder.name for folder in folders} == known
    assert gathering.world.query("select name from lease") == []


@pytest.mark.parametrize("die", POINTS[3:6])
def test_a_build_that_is_killed_before_the_ledger_is_lost(
    world: World, children: ForkServer, die: tuple[str, str, str, int]
) -> None:
    gathering = Gathering(world, ROWS)
    killed(gathering, children, die)
    delete_ledger(world)
    world.reopened()
    finish_as_new(gathering, ["b"])


@pytest.mark.parametrize("die", POINTS[3:6])
def test_a_partition_that_is_built_after_the_kill_and_before_the_ledger_is_lost(
    world: World, children: ForkServer, die: tuple[str, str, str, int]
) -> None:
    """What the killed build left is not taken for what was sent."""
    gathering = Gathering(world, ROWS)
    killed(gathering, children, die)
    gathering.run(["b"])
    delete_ledger(world)
    world.reopened()
    finish_as_new(gathering)


@pytest.mark.parametrize("stage", ["requests", "batches", "ended", "results"])
def test_the_ledger_is_lost_after_a_stage(world: World, stage: str) -> None:
    gathering = Gathering(world, ROWS)
    gathering.build()
    if stage != "requests":
        gathering.submit()
    if stage == "ended":
        world.emulator.end_batches()
    if stage == "results":
        gathering.finish()
    delete_ledger(world)
    world.reopened()
    world.root.ledger.read().__enter__()
    assert gathering.waits() == dict.fromkeys(KEYS, 1)
    assert dict(world.query("select partition, written from submission")) == {"a": 4, "b": 2, "c": 2}
    finish_as_new(gathering)


class Copies:
    """Copies of the ledger, to which it is set back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._path = Path(world.root.settings.ledger_url.removeprefix("sqlite:///"))
        self._copies: dict[str, Path] = {}

    def make(self, name: str) -> None:
        copy = self._copies[name] = self._path.with_name(f"copy-{name}.db")
        with closing(sqlite3.connect(self._path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)

    def restore(self, name: str) -> None:
        delete_ledger(self._world)
        self._path.write_bytes(self._copies[name].read_bytes())
        self._world.reopened()
        self._world.query("delete from lease where name not like 'building:%'")


@pytest.mark.parametrize(
    ("copied", "lost"),
    [
        ("new", "recorded"),
        ("new", "registered"),
        ("new", "collected"),
        ("recorded", "registered"),
        ("recorded", "sent"),
        ("recorded", "collected"),
        ("registered", "sent"),
        ("sent", "collected"),
    ],
)
def test_a_ledger_that_is_older_than_the_files(
    world: World, monkeypatch: pytest.MonkeyPatch, copied: str, lost: str
) -> None:
    gathering, copies = Gathering(world, ROWS), Copies(world)
    world.root.ledger.read().__enter__()
    copies.make("new")
    register = Registrar._try_register

    def recorded(registrar: Registrar) -> bool | None:
        copies.make("recorded")
        if lost == "recorded":
            raise KeyboardInterrupt
        return register(registrar)

    ids: set[str] = set()
    with monkeypatch.context() as patched:
        patched.setattr(Registrar, "_try_register", recorded)
        try:
            gathering.build()
        except KeyboardInterrupt:
            world.query("delete from lease where name not like 'building:%'")
    copies.make("registered")
    if lost in ("sent", "collected"):
        ids = {id_ for (id_,) in world.query("select id from submission")}
    if lost in ("sent", "collected"):
        gathering.submit()
        copies.make("sent")
    if lost == "collected":
        gathering.finish()
    copies.restore(copied)
    finish_as_new(gathering, ["b"])
    assert ids <= {id_ for (id_,) in world.query("select id from submission")}
