"""Any order of runs, crashes, edits, faults and waiting: nothing is lost, nothing is paid twice.

To run more examples than the suite: BATCH_ASSETS_MACHINE_EXAMPLES=2000 pytest tests/core/test_state_machine.py
(BATCH_ASSETS_MACHINE_STEPS sets the steps of each). A failure prints the steps, and a line that repeats them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import SubmissionStoppedError, UnreachableError
from batch_assets.core.ledger import joins, submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.steps import Send, SendReason, Step
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from tests.forked import ForkServer

from .machine_faults import FAULTS, SPOILED
from .observer import STRANGER, Observer, Source, call, newest_submissions
from .support import BATCHES, World, as_new, environment, make_pipeline, params, round_for, write_rows

EXAMPLES = int(os.environ.get("BATCH_ASSETS_MACHINE_EXAMPLES") or 6)
STEPS = int(os.environ.get("BATCH_ASSETS_MACHINE_STEPS") or 30)
PARTITIONS = ("A", "B")
PROMPTS = ("{{ text }}", "Again, please: {{ text }}")
TEXTS = ("one", "two", "three", "four", "")
KEYS = ("k0", "k1", "k2", "k3")
GRACE = 900.0
# After so long, every lease of a dead process has expired, and everything that had to wait is due.
LONG = 1000.0
# Columns with times of the ledger's own clock. The passing of time moves them into the past.
_TIMES = {
    "request_file": ("not_before",),
    "intent": ("started_at", "last_byte_at", "watch_until"),
    "batch": (
        "submitted_at",
        "missing_since",
        "failing_since",
        "canceled_at",
        "next_poll_at",
        "next_download_at",
        "next_delete_at",
    ),
    "lease": ("until",),
    "round": ("opened_at", "until"),
    "submission": ("created_at", "began_at", "joined_at", "final_at", "announced_at", "canceled_at"),
}


class Aborted(BaseException):
    """Raised from a callback. It ends the stage, but the stage still cleans up."""


def pipeline_over(folder: Path, partition: str, prompt: str) -> Pipeline:
    """The only pipeline, over the rows of a partition."""
    dataset = {"path": f"rows-{partition}.jsonl", "key": "id"}
    return make_pipeline(folder, dataset, params=params(prompt), batching={"max_requests": 2})


def stage(env: dict[str, str], folder: str, name: str, partition: str, prompt: str) -> None:
    """Run a stage in a process of its own."""
    with open_root(Settings.from_env(env)) as root:
        if name == "build":
            build_requests(root, pipeline_over(Path(folder), partition, prompt), partition)
        elif name == "submit":
            submit_batches(root, "asked", partition)
        elif name == "sensor":
            tick(root, [partition])
        else:
            poll(root, now=True)
            collect_results(root, "asked", partition)


def tick(root: Root, partitions: list[str]) -> list[Step]:
    """Poll once, then do the runs that the sensor asks for. Return the step of each."""
    poll(root, now=True)
    steps: list[Step] = []
    for partition in partitions:
        with root.ledger.read() as tx:
            submission = submissions.newest(tx, "asked", partition)
            work = round_for(tx, submission)
        if work is None:
            continue
        steps.append(work)
        try:
            if isinstance(work, Send):
                submit_batches(root, "asked", partition, unattended=True)
        except (SubmissionStoppedError, UnreachableError):
            continue  # the run fails before it comes to `results`
        done = collect_results(root, "asked", partition).results
        if done is not None and done.final:
            with root.ledger.write() as tx:
                joins.announced(tx, done.submission_id)
    return steps


class Machine(RuleBasedStateMachine):
    """One pipeline of two partitions that share requests."""

    emulator: Emulator
    children: ForkServer
    scratch: Path

    def __init__(self) -> None:
        super().__init__()
        as_new(self.emulator)
        self.emulator.settings(latency=3600, cancel_delay=30)
        self.folder = Path(tempfile.mkdtemp(dir=self.scratch))
        self.env = environment(self.emulator.url, self.folder / "output", BATCH_ASSETS_RECONCILE_GRACE=str(GRACE))
        self.world = World(self.emulator, self.folder, open_root(Settings.from_env(self.env)))
        self.root = self.world.root
        self.observer = Observer(self.world)
        self.rows: dict[str, dict[str, str]] = {name: {} for name in PARTITIONS}
        self.prompt = PROMPTS[0]
        self.sources: dict[str, Source] = {}

    @initialize()
    def begin(self) -> None:
        self.rows = {"A": {"k0": "one", "k1": "two", "k2": "three"}, "B": {"k0": "two", "k1": "three"}}
        for partition in PARTITIONS:
            self.write(partition)

    def write(self, partition: str) -> None:
        write_rows(self.folder / f"rows-{partition}.jsonl", self.rows[partition])

    def registered(self) -> None:
        """Record what new submissions were built from."""
        for partition, submission_id in newest_submissions(self.world, "asked").items():
            self.sources.setdefault(submission_id, Source(dict(self.rows[partition]), self.prompt))

    def current(self, partition: str) -> Source | None:
        submission_id = newest_submissions(self.world, "asked").get(partition)
        return self.sources[submission_id] if submission_id is not None else None

    # What users do.

    @rule(partition=st.sampled_from(PARTITIONS), key=st.sampled_from(KEYS), text=st.sampled_from(TEXTS))
    def edit_row(self, partition: str, key: str, text: str) -> None:
        self.rows[partition][key] = text
        self.write(partition)

    @rule(partition=st.sampled_from(PARTITIONS), key=st.sampled_from(KEYS))
    def remove_row(self, partition: str, key: str) -> None:
        self.rows[partition].pop(key, None)
        self.write(partition)

    @rule(prompt=st.sampled_from(PROMPTS))
    def edit_prompt(self, prompt: str) -> None:
        self.prompt = prompt

    @rule(partition=st.sampled_from(PARTITIONS))
    def build(self, partition: str) -> None:
        build_requests(self.root, pipeline_over(self.folder, partition, self.prompt), partition)
        self.registered()

    @rule(partition=st.sampled_from(PARTITIONS))
    def submit(self, partition: str) -> None:
        with contextlib.suppress(SubmissionStoppedError, UnreachableError):
            submit_batches(self.root, "asked", partition)

    @rule(partition=st.sampled_from(PARTITIONS))
    def build_and_submit(self, partition: str) -> None:
        self.build(partition)
        self.submit(partition)

    @rule(partition=st.sampled_from(PARTITIONS))
    def cancel(self, partition: str) -> None:
        if self.current(partition) is not None:
            cancel(self.root, "asked", partition)

    @rule(end=st.sampled_from(["end", "expire"]))
    def both_partitions_run(self, end: str) -> None:
        """Run both partitions up to their first answers or failures."""
        for partition in PARTITIONS:
            self.build_and_submit(partition)
        self.emulator.control(end, {})
        for partition in PARTITIONS:
            self.collect(partition)

    # What the sensor does.

    @rule()
    def sensor(self) -> None:
        tick(self.root, list(PARTITIONS))

    @rule(partition=st.sampled_from(PARTITIONS))
    def collect(self, partition: str) -> None:
        poll(self.root, now=True)
        done = collect_results(self.root, "asked", partition).results
        source = self.current(partition)
        assert (done is None) == (source is None)
        if done is not None and source is not None:
            table = self.newest_table(partition)
            self.observer.check_table(table, source)
            assert done.final == ("pending" not in set(table["result_type"]))

    @rule(partition=st.sampled_from(PARTITIONS))
    def join(self, partition: str) -> None:
        write_results(self.root, "asked", partition)

    # Stages that are interrupted.

    @rule(
        partition=st.sampled_from(PARTITIONS),
        name=st.sampled_from(["build", "submit", "sensor", "collect"]),
        boundary=st.integers(1, 60),
    )
    def killed(self, partition: str, name: str, boundary: int) -> None:
        arguments = {
            "env": self.env,
            "folder": str(self.folder),
            "name": name,
            "partition": partition,
            "prompt": self.prompt,
        }
        (outcome,) = self.children.run((f"{__name__}:stage", arguments), die_at=boundary)
        assert not outcome.error or outcome.error_type in ("SubmissionStoppedError", "UnreachableError"), (
            outcome.error
        )
        self.registered()
        # Other processes would wait for these leases in real time.
        self.world.query("delete from lease where name like 'requests:%' or name like 'results:%'")

    @rule(
        partition=st.sampled_from(PARTITIONS), after=st.integers(0, 2), name=st.sampled_from(["build", "submit"])
    )
    def aborted(self, partition: str, after: int, name: str) -> None:
        remaining = after

        def hook(_: Any) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                raise Aborted

        try:
            if name == "build":
                build_requests(self.root, pipeline_over(self.folder, partition, self.prompt), partition, hook)
            else:
                submit_batches(self.root, "asked", partition, on_file=hook)
        except (Aborted, SubmissionStoppedError, UnreachableError):
            pass
        self.registered()

    @rule(partition=st.sampled_from(PARTITIONS))
    def aborted_download(self, partition: str) -> None:
        def hook(_batch: str, _size: int) -> None:
            raise Aborted

        with contextlib.suppress(Aborted):
            collect_results(self.root, "asked", partition, on_batch=hook)

    # What happens outside.

    @rule(seconds=st.sampled_from([50.0, 70.0, LONG, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.emulator.clock(advance=seconds)
        for table, columns in _TIMES.items():
            changes = ", ".join(f"{column} = {column} - {seconds}" for column in columns)
            self.world.query(f"update {table} set {changes}")

    @rule()
    def batches_end(self) -> None:
        self.emulator.end_batches()

    @rule(data=st.data())
    def one_batch(self, data: st.DataObject) -> None:
        ids = [batch["id"] for batch in self.world.accepted()]
        if ids:
            batch_id = data.draw(st.sampled_from(ids))
            step = data.draw(st.sampled_from(["end", "expire", "cancel"]))
            if step == "cancel":
                call(self.world, f"{BATCHES}/{batch_id}/cancel", "POST")
            else:
                self.emulator.control(step, {"ids": [batch_id]})

    @rule(name=st.sampled_from(sorted(FAULTS)))
    def fault(self, name: str) -> None:
        self.emulator.faults([FAULTS[name]])
        if name == "hidden for long":
            self.observer.hidden = True

    @rule()
    def faults_end(self) -> None:
        self.emulator.reset_faults()

    @rule(name=st.sampled_from(sorted(SPOILED)), times=st.integers(1, 4), data=st.data())
    def spoil(self, name: str, times: int, data: st.DataObject) -> None:
        """Spoil the results of a batch that is known to be ours."""
        ids = self.world.query(
            "select id from batch where file_id is not null and not provisional order by submitted_at"
        )
        if ids:
            (batch_id,) = data.draw(st.sampled_from(ids))
            match = {"path": f"{BATCHES}/{batch_id}/results", "times": times}
            self.emulator.faults([{"match": match, "action": SPOILED[name]}])
            self.observer.spoiled.add(batch_id)

    @rule(count=st.integers(1, 2))
    def stranger(self, count: int) -> None:
        requests = [{"custom_id": f"{STRANGER}{at}", "params": params(f"theirs {at}")} for at in range(count)]
        with contextlib.suppress(OSError):  # a fault that was meant for our batch
            call(self.world, BATCHES, "POST", {"requests": requests})

    # What must hold.

    @invariant()
    def ledger_holds(self) -> None:
        self.observer.watch_moves()
        self.observer.check_ledger()

    def table(self, partition: str, folder: str = "results") -> Any:
        return pd.read_parquet(self.world.path("asked", folder, f"partition={partition}", "results.parquet"))

    def newest_table(self, partition: str) -> Any:
        """The table of the submission in force. Users read the complete one of before until it is, too."""
        waiting = self.world.path("asked", "results_next", f"partition={partition}", "results.parquet")
        return self.table(partition, "results_next" if waiting.exists() else "results")

    def settle(self) -> None:
        """Do attended runs, then what the sensor does, until nothing is left to do."""
        for _ in range(2):
            for partition in PARTITIONS:
                self.submit(partition)
                collect_results(self.root, "asked", partition)
            self.batches_end()
            for _ in range(12):
                self.time_passes(LONG)
                steps = tick(self.root, list(PARTITIONS))
                self.ledger_holds()
                self.batches_end()
                if not steps:
                    break
            else:  # a second batch of a file may turn up for a day: a run looks for it now and then
                watched = self.world.query("select count(*) from intent where watch_until > strftime('%s', 'now')")
                looks = [step for step in steps if isinstance(step, Send) and step.why is SendReason.LATE_BATCH]
                assert steps == looks and watched != [(0,)], f"the sensor keeps finding something to do: {steps}"

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # a failed step has reported its own error
                self.judge()
        finally:
            self.root.close()
            shutil.rmtree(self.folder)

    def judge(self) -> None:
        self.emulator.reset_faults()
        self.time_passes(2000.0)
        self.settle()
        for partition in PARTITIONS:
            if (source := self.current(partition)) is not None:
                self.observer.check_table(self.newest_table(partition), source)
        for partition in PARTITIONS:
            self.build(partition)
        self.settle()
        paid = self.observer.paid()
        self.observer.check_paid(paid)
        tables = {partition: self.table(partition) for partition in PARTITIONS}
        for partition, table in tables.items():
            self.observer.check_complete(table, Source(self.rows[partition], self.prompt), paid)
        accepted = len(self.world.accepted())
        for partition in PARTITIONS:
            self.build(partition)
            self.submit(partition)
            self.collect(partition)
            assert self.table(partition).equals(tables[partition]), "a rerun changes the table"
        assert len(self.world.accepted()) == accepted, "a rerun sends something"
        states = self.world.query("select distinct state from request_file")
        assert set(states) <= {("collected",), ("superseded",), ("canceled",), ("refused",), ("ready",)}, states


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Machine]]:
    memory = Path("/dev/shm")
    scratch = tmp_path_factory.mktemp("machine") if not os.access(memory, os.W_OK) else None
    made = scratch or Path(tempfile.mkdtemp(prefix="batch-assets-machine-", dir=memory))
    try:
        with (
            Emulator(state=made / "emulator") as emulator,
            ForkServer(__name__, "anthropic", "httpx2") as children,
        ):
            yield type("Case", (Machine,), {"emulator": emulator, "children": children, "scratch": made})
    finally:
        shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(0)
def test_any_order_of_runs_crashes_edits_and_faults(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
