"""A bench: one emulator, one zygote, and the trials that are made with them, one after the other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batch_assets.emulator import Emulator
from tests.chaos import work
from tests.chaos.judge import Accepted, Verdict, accepted_by, judge, same_table
from tests.chaos.zygote import End, Order, Zygote
from tests.core.support import CREATE, texts, write_rows

# An API key for each trial gives it a workspace of its own; all of them go to the emulator in one argument.
_KEYS = 4000
_SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Prepared:
    """A root that has come as far as the beginning of a stage.

    Attributes:
        key: of the workspace that its batches are in; None as long as it has none.
        accepted: what the API had accepted by then.
        ask_again: digests that may be asked once more.
    """

    folder: Path
    rows: dict[str, str]
    max_requests: int
    key: str | None = None
    accepted: Accepted = field(default_factory=dict)
    ask_again: frozenset[str] = frozenset()


class Trial:
    """A root of its own, a workspace of its own, and child processes that work in them."""

    def __init__(self, bench: Bench, prepared: Prepared, folder: Path, key: str, grace: float) -> None:
        self._bench, self._prepared, self.folder, self.key = bench, prepared, folder, key
        self.root = folder / "root"
        self._since = len(bench.emulator.log())
        self._env = {
            "ANTHROPIC_BASE_URL": bench.emulator.url,
            "ANTHROPIC_API_KEY": key,
            "BATCH_ASSETS_RECONCILE_GRACE": str(grace),
        }

    def order(self, task: str, **options: Any) -> Order:
        """Work in this trial's root."""
        dataset, most = str(self._prepared.folder), self._prepared.max_requests
        return Order(task, str(self.folder), dataset, most, self._env, **options)

    def run(self, task: str, **options: Any) -> End:
        """Runs a child process to its end, and waits for what it left under way at the server."""
        end = self._bench.zygote.run(self.order(task, **options))
        if end.killed:
            self._bench.settle()
        return end

    def accepted(self) -> dict[str, list[str]]:
        """What the API accepted in this trial."""
        return accepted_by(self._bench.emulator, self.key, self._since)

    def finish(self, *, from_dataset: bool, foreign: Sequence[str] = ()) -> Verdict:
        """Goes on in a new process to the last row, does everything once more, and judges.

        Args:
            foreign: ids of batches that somebody else submitted to the workspace.
        """
        end = self.run("finish from the dataset" if from_dataset else "finish")
        accepted = {batch: ids for batch, ids in self.accepted().items() if batch not in foreign}
        prepared = self._prepared
        known = {**prepared.accepted, **accepted}
        verdict = judge(self.root, work.NAME, prepared.rows, known, prepared.ask_again)
        if end.failed:
            verdict.problems.append(f"it could not be finished:\n{end.log}")
        elif not same_table(self.folder / work.FIRST_TABLE, self.root / work.NAME / "results" / "results.parquet"):
            verdict.problems.append("a rerun changed the table")
        return verdict


class Bench:
    """A context manager.

    Args:
        folder: empty; everything is in it.
        latency: seconds that a batch takes at this bench's emulator.
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self._folder = folder
        keys = {f"k{number}": f"k{number}" for number in range(_KEYS)}
        self.emulator = Emulator(state=folder / "emulator", latency=latency, workspaces=keys)
        self.zygote = Zygote()
        self._numbers = count()
        self._prepared: dict[str, Prepared] = {}

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            stack.enter_context(self.emulator)
            stack.enter_context(self.zygote)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._opened.close()

    @cached_property
    def chain_seconds(self) -> float:
        """How long the chain takes here when nobody kills it."""
        with self.trial(self.prepared("requests")) as trial:
            began = time.monotonic()
            trial.run("chain")
            return time.monotonic() - began

    @contextmanager
    def trial(self, prepared: Prepared, grace: float = 0.0) -> Iterator[Trial]:
        """A trial that begins where the prepared root stands; its files are removed after it.

        Args:
            grace: seconds for which a batch may be hidden. 0 is safe where the server has settled.
        """
        number = next(self._numbers)
        folder = self._folder / f"trial-{number}"
        folder.mkdir()
        if (prepared.folder / "root").exists():
            shutil.copytree(prepared.folder / "root", folder / "root")
        try:
            yield Trial(self, prepared, folder, prepared.key or f"k{number}", grace)
        finally:
            shutil.rmtree(folder)

    def settle(self) -> None:
        """Waits until the server has dealt with everything that was sent to it before.

        A killed process may have sent a whole body that the server has not looked at yet. A call that begins
        now is answered after the server has seen it, and by then the upload lies in its folder until the batch
        is accepted or refused.
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
        """The root just before a stage, made at its first use."""
        if stage not in self._prepared:
            self._prepared[stage] = self._prepare(stage)
        return self._prepared[stage]

    def _prepare(self, stage: str) -> Prepared:
        before = {
            "requests": (),
            "batches": ("requests",),
            "collection": ("requests", "batches"),
            "results": ("requests", "batches", "collection"),
            "retry": ("requests", "batches", "collection", "results"),
        }[stage]
        # Results of a stage that downloads are more than one read of a socket.
        rows, most = (texts(240), 120) if stage == "collection" else (texts(5), 2)
        folder = self._folder / f"before-{stage}"
        folder.mkdir()
        write_rows(folder / "rows.jsonl", rows)
        start = Prepared(folder, rows, most)
        if not before:
            return start
        key = f"k{next(self._numbers)}"
        making = Trial(self, start, folder, key, 0.0)
        if stage == "retry":
            self.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 0.5}}}])
        for task in before:
            if task == "collection":
                time.sleep(self.emulator.settings()["latency"])
            end = making.run(task)
            if end.failed:
                raise RuntimeError(f"before {stage}: {task}: {end.log}")
        self.emulator.reset_faults()
        accepted = making.accepted()
        failed = frozenset(_failed(folder / "root" / work.NAME / "results")) if stage == "retry" else frozenset()
        own_workspace = key if stage in ("collection", "results") else None
        return Prepared(folder, rows, most, own_workspace, accepted, failed)


def _failed(results: Path) -> Iterator[str]:
    """Digests, as in custom_ids, of the rows whose request failed in passing."""
    for row in pq.read_table(results, columns=["custom_id", "result_type"]).to_pylist():
        if row["result_type"] == "pending":
            yield row["custom_id"][-22:]
