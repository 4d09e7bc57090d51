"""A process that is frozen in the middle of a write to a ledger on PostgreSQL: the others go on without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried
from tests.core.postgres import PostgresServer, find_server
from tests.core.support import wait_for

# The server ends an idle transaction after a second, not after the usual 30.
_SHORT = "?options=-c%20idle_in_transaction_session_timeout%3D1000"
_ENDED = "What was not committed did not happen"


def cases() -> Iterator[Case]:
    if find_server()[0] is None:
        return
    for stage in ("requests", "batches", "chain"):
        yield Case("frozen in a write to PostgreSQL", f"while {stage} runs", partial(_frozen, stage=stage))


def _frozen(bench: Bench, stage: str) -> Tried:
    programs, _ = find_server()
    assert programs is not None
    with PostgresServer(programs) as server, bench.trial(bench.prepared("requests")) as trial:
        trial.use_ledger(server.new_database() + _SHORT)
        if stage == "batches":
            trial.expect_success(trial.run("requests"))
        frozen = trial.start("write and wait")
        held = trial.folder / "held"
        wait_for(held.exists, "the write")
        os.kill(frozen.pid, signal.SIGSTOP)
        trial.expect_success(trial.run(stage))
        os.kill(frozen.pid, signal.SIGCONT)
        end = frozen.wait()
        trial.expect(end.failed and _ENDED in end.log, f"the frozen process went on:\n{end.log}")
        return trial.finish(from_dataset=True), 1
