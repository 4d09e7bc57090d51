"""A bench: one emulator, one zygote, and the trials that are made with them, one after the other."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batch_assets.emulator import Emulator
from tests.chaos import work
from tests.chaos.trial import Prepared, Trial
from tests.chaos.zygote import Zygote
from tests.core.support import CREATE, texts, write_rows

Rules = Sequence[Mapping[str, Any]]

# Each trial has its own API key, and so a workspace of its own. The emulator gets all keys in one argument.
_KEYS = 4000
# The first of these workspaces have a second key.
_SECOND, _SECOND_KEYS = "s", 1500
_SETTLED_SECONDS = 60.0
LONG_ROWS = "requests, with two long rows"
MANY_ROWS = "requests, with many rows"
LARGE_ROWS = "requests, with many large rows"
"""Stages to prepare: nothing but a dataset, of requests that differ in size, of 30 in each file, of 900 in each
file and as large as the ledger."""


class Bench:
    """One emulator and one zygote. Used as a context manager.

    Args:
        folder: Empty; everything is in it.
        latency: Seconds that a batch takes at this bench's emulator.
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self._folder = folder
        keys = {f"k{number}": f"k{number}" for number in range(_KEYS)}
        keys |= {f"{key}{_SECOND}": key for key in [*keys][:_SECOND_KEYS]}
        self.emulator = Emulator(state=folder / "emulator", latency=latency, workspaces=keys)
        self._numbers = count()
        self._prepared: dict[str, Prepared] = {}

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            stack.enter_context(self.emulator)
            self.zygote = stack.enter_context(Zygote(self.emulator.url))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._opened.close()

    @cached_property
    def chain_seconds(self) -> float:
        """How long all stages take on this bench without a kill."""
        with self.trial(self.prepared("requests")) as trial:
            began = time.monotonic()
            trial.run("chain")
            return time.monotonic() - began

    @contextmanager
    def trial(self, prepared: Prepared, grace: float = 0.0, *, one_by_one: bool = False) -> Iterator[Trial]:
        """A trial that starts from a prepared root. Its files are removed afterwards.

        Args:
            grace: Seconds for which a batch may be hidden. 0 is safe if the server has settled.
            one_by_one: Upload one file at a time, so that calls come in the order of the files.
        """
        number = next(self._numbers)
        folder = self._folder / f"trial-{number}"
        folder.mkdir()
        if (prepared.folder / "root").exists():
            shutil.copytree(prepared.folder / "root", folder / "root")
        try:
            key = prepared.key or f"k{number}"
            yield Trial(self, prepared, folder, key, grace, one_by_one=one_by_one)
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def faults(self, rules: Rules) -> Iterator[Callable[[], int]]:
        """Set rules of the emulator for the block. Yields a function that counts the hits of the first rule."""
        self.emulator.faults(rules)
        struck = 0

        def so_far() -> int:
            now = self.emulator.control("faults")
            return now[0]["hits"] if now else struck

        try:
            yield so_far
        finally:
            struck = so_far()
            self.emulator.reset_faults()

    @contextmanager
    def settings(self, **values: Any) -> Iterator[None]:
        """Change settings of the emulator for the block."""
        before = self.emulator.settings()
        self.emulator.settings(**values)
        try:
            yield
        finally:
            self.emulator.settings(**{name: before[name] for name in values})

    def calls(self) -> Counter[str]:
        """The number of API calls so far, by method and path template."""
        return Counter(self.emulator.requests())

    def other_key(self) -> str:
        """A new key, which has a workspace of its own."""
        return f"k{next(self._numbers)}"

    @staticmethod
    def second_key(key: str) -> str:
        """Another key of the same workspace."""
        return f"{key}{_SECOND}"

    def settle(self) -> None:
        """Wait until the server has handled everything that was sent to it before.

        A killed process may have sent a whole body that the server has not seen yet. A call that begins now is
        answered after the server has seen that body. The upload is then in its folder until the batch is
        accepted or refused.
        """
        incoming = self.emulator.state / "incoming"
        for _ in range(2):
            self.emulator.requests()
        under_way = {path.name for path in incoming.iterdir()}
        end = time.monotonic() + _SETTLED_SECONDS
        while under_way & {path.name for path in incoming.iterdir()}:
            if time.monotonic() > end:
                raise TimeoutError("the emulator does not settle")
            time.sleep(0.005)

    def prepared(self, stage: str) -> Prepared:
        """The root just before a stage. It is made when it is first used."""
        if stage not in self._prepared:
            self._prepared[stage] = self._prepare(stage)
        return self._prepared[stage]

    def _prepare(self, stage: str) -> Prepared:
        before = {
            "requests": (),
            LONG_ROWS: (),
            MANY_ROWS: (),
            LARGE_ROWS: (),
            "batches": ("requests",),
            "collection": ("requests", "batches"),
            "results": ("requests", "batches", "collection"),
            "retry": ("requests", "batches", "collection", "results"),
            "follow-up": ("requests", "batches", "collection", "results"),
        }[stage]
        # The results of a stage that downloads must need more than one read of a socket.
        rows, most = (texts(240), 120) if stage == "collection" else (texts(5), 2)
        if stage == LONG_ROWS:
            rows |= {key: f"{rows[key]} {'long ' * 200}" for key in ("row-1", "row-4")}
        elif stage == MANY_ROWS:
            rows, most = texts(60), 30
        elif stage == LARGE_ROWS:
            rows, most = {key: f"{text} {os.urandom(300).hex()}" for key, text in texts(1000).items()}, 900
        folder = self._folder / f"before-{len(self._prepared)}"
        folder.mkdir()
        write_rows(folder / "rows.jsonl", rows)
        if stage == "follow-up":
            (folder / work.WITH_TOOL).touch()
        start = Prepared(folder, rows, most)
        if not before:
            return start
        key = f"k{next(self._numbers)}"
        making = Trial(self, start, folder, key, 0.0)
        if stage == "retry":
            # Of five requests, with 0.5 none fails once in 32 times, and then there is nothing to retry.
            self.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 0.8}}}])
        elif stage == "follow-up":
            self.emulator.faults([{"match": CREATE, "action": {"error_mix": {"tool_use": 1.0}}}])
        for task in before:
            if task == "collection":
                time.sleep(self.emulator.settings()["latency"])
            end = making.run(task)
            if end.failed:
                raise RuntimeError(f"before {stage}: {task}: {end.log}")
        self.emulator.reset_faults()
        accepted = making.accepted()
        sent_again = frozenset[str]()
        if stage == "retry":
            sent_again = frozenset(_failed(folder / "root" / work.NAME / "results"))
        elif stage == "follow-up":
            sent_again = frozenset(custom_id[-22:] for ids in accepted.values() for custom_id in ids)
        own_workspace = key if stage in ("collection", "results") else None
        return Prepared(folder, rows, most, own_workspace, accepted, sent_again)


def _failed(results: Path) -> Iterator[str]:
    """Digests, as in custom_ids, of the rows whose request failed for a passing reason."""
    for row in pq.read_table(results, columns=["custom_id", "result_type"]).to_pylist():
        if row["result_type"] == "pending":
            yield row["custom_id"][-22:]
