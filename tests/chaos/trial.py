"""A trial: a root, a workspace, the processes that work in them, and the judge's verdict."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos import work
from tests.chaos.auditor import audit, audit_live
from tests.chaos.judge import Accepted, Verdict, accepted_by, judge, same_table
from tests.chaos.zygote import Child, End, Order

if TYPE_CHECKING:
    from tests.chaos.bench import Bench

# The errors of a process after another one has taken over.
_OTHERS_AT_IT = ("batch_assets.core.errors.BusyError", "batch_assets.core.errors.LeaseLostError")


@dataclass(frozen=True)
class Prepared:
    """A root in the state before a stage.

    Attributes:
        key: The key of the workspace of its batches; None before it has any.
        accepted: What the API had accepted until then.
        ask_again: Digests that may be sent once more.
    """

    folder: Path
    rows: dict[str, str]
    max_requests: int
    key: str | None = None
    accepted: Accepted = field(default_factory=dict)
    ask_again: frozenset[str] = frozenset()


class Trial:
    """A root of its own, a workspace of its own, and child processes that work in them.

    Attributes:
        key: The key of its workspace.
        rows: Its dataset, row key -> text.
        foreign: Ids of batches that someone else submitted to the workspace.
        problems: What went wrong, except for lost rows and the like. Every verdict contains them.
    """

    def __init__(
        self, bench: Bench, prepared: Prepared, folder: Path, key: str, grace: float, *, one_by_one: bool = False
    ) -> None:
        self._bench, self._prepared, self.folder, self.key = bench, prepared, folder, key
        self.rows = prepared.rows
        self.foreign: list[str] = []
        self.problems: list[str] = []
        self.root = folder / "root"
        self._ledger_url = f"sqlite:///{self.root}/ledger.db"
        self._since = len(bench.emulator.log())
        self._env = {
            "ANTHROPIC_BASE_URL": bench.emulator.url,
            "ANTHROPIC_API_KEY": key,
            "BATCH_ASSETS_RECONCILE_GRACE": str(grace),
        } | ({"BATCH_ASSETS_TRANSFERS": "1"} if one_by_one else {})

    def use_ledger(self, url: str) -> None:
        """Have the processes keep the ledger in this database. Its root must not have one yet."""
        self._ledger_url = self._env["BATCH_ASSETS_LEDGER"] = url

    def through(self, url: str) -> None:
        """Have the processes reach the API under another URL. Its root must not be bound to one yet."""
        self._env["ANTHROPIC_BASE_URL"] = url

    def start(self, task: str, *, key: str | None = None, **options: Any) -> Child:
        """Start a child process that works in this root.

        Args:
            key: An API key other than the trial's.
        """
        dataset, most = str(self._prepared.folder), self._prepared.max_requests
        env = self._env | ({"ANTHROPIC_API_KEY": key} if key else {})
        return self._bench.zygote.start(Order(task, str(self.folder), dataset, most, env, **options))

    def run(self, task: str, *, key: str | None = None, **options: Any) -> End:
        """Run a child process to its end, and wait for the server to handle what the process left behind."""
        end = self.start(task, key=key, **options).wait()
        if end.killed:
            self._bench.settle()
        return end

    def accepted(self) -> dict[str, list[str]]:
        """What the API accepted in this trial, from anyone."""
        return accepted_by(self._bench.emulator, self.key, self._since)

    def batches(self) -> Accepted:
        """What the API accepted in this trial and for the prepared root, without other people's batches."""
        accepted = {batch: ids for batch, ids in self.accepted().items() if batch not in self.foreign}
        return {**self._prepared.accepted, **accepted}

    def live_calls(self) -> list[dict[str, Any]]:
        """The live calls that the API answered in this trial."""
        return [call for call in self._bench.emulator.live_calls() if call["workspace"] == self.key]

    def ledger(self, statement: str) -> list[Any]:
        """Query the ledger, or change it as the passing of time would."""
        with closing(sqlite3.connect(self.root / "ledger.db", timeout=30)) as database, database:
            return database.execute(statement).fetchall()

    def lose_ledger(self) -> None:
        """Delete the ledger, as a user might."""
        for path in self.root.glob("ledger.db*"):
            path.unlink()

    def finish(self, *, from_dataset: bool, by_user: bool = False, **judged: Any) -> Verdict:
        """Continue in a new process to the last row, run everything once more, and judge.

        Args:
            from_dataset: Build requests first; otherwise continue from the ledger alone.
            by_user: Continue from the ledger, but also send what only a user may send.
            judged: See `verdict`.
        """
        unattended = "finish by a user" if by_user else "finish"
        end = self.run("finish from the dataset" if from_dataset else unattended)
        if end.failed:
            self.problems.append(f"it could not be finished:\n{end.log}")
        elif not same_table(self.folder / work.FIRST_TABLE, self.table):
            self.problems.append("a rerun changed the table")
        return self.verdict(**judged)

    def verdict(
        self,
        *,
        ask_again: Callable[[], Collection[str]] = frozenset,
        ends: Mapping[str, str] | None = None,
        reported: bool = False,
    ) -> Verdict:
        """Judge the current state.

        Args:
            ask_again: Returns digests as `judge` takes them, in addition to those of the prepared root.
            ends, reported: See `judge`.
        """
        spend = self.run("spend")
        self.expect(not spend.failed, f"what was spent could not be written:\n{spend.log}")
        verdict = judge(
            self.root,
            work.NAME,
            self.rows,
            self.batches(),
            ledger_url=self._ledger_url,
            ask_again=self._prepared.ask_again | set(ask_again()),
            ends=ends or {},
            reported=reported,
        )
        if not spend.failed:
            verdict.audit = audit(self.root, self._bench.emulator, self.batches())
            if calls := self.live_calls():
                verdict.audit.add(audit_live(self.root, calls))
        self.problems += [problem for problem in verdict.problems if problem not in self.problems]
        verdict.problems = self.problems
        return verdict

    def expect(self, holds: bool, problem: str) -> None:
        """Record a problem unless a condition holds."""
        if not holds:
            self.problems.append(problem)

    def expect_given_up(self, end: End) -> None:
        """Record how a process failed, unless the reason is that another process had taken over."""
        self.expect(not end.failed or end.log.splitlines()[-1].startswith(_OTHERS_AT_IT), f"it failed:\n{end.log}")

    def expect_success(self, end: End) -> None:
        """Record how a process failed that should have succeeded."""
        self.expect(not (end.failed or end.killed), f"it failed:\n{end.log}")

    @property
    def table(self) -> Path:
        """The table that users read."""
        return self.root / work.NAME / "results" / "results.parquet"
