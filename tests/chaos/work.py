"""What the processes under test do: one stage, or everything that is left until the last row is final."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_assets.core.api.rescue_rule import RescueRule
from batch_assets.core.batches.consent import begin_all
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.later import collect_and_erase
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import BusyError, LeaseLostError, UnreachableError
from batch_assets.core.ledger import batches, leases, rescues, submissions
from batch_assets.core.ledger.states import BatchState, EntityKind
from batch_assets.core.pipeline.blocks import KEEP_EVERYTHING, RetentionConfig
from batch_assets.core.pipeline.hooks import ToolCall
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.rename import rename
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.collect import downloaded
from batch_assets.core.results.run import collect_results
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.spend.build import build_spend
from tests.core.support import make_pipeline, params

NAME = "asked"
# A file in the dataset's folder: the requests have a tool.
WITH_TOOL = "with_tool"
# The row that is erased.
ERASED = "row-1"
# The first final table of a trial, kept beside its root to be compared with the table after the rerun.
FIRST_TABLE = "first.parquet"
_DEADLINE = 90.0
_BUSY_SECONDS = 10.0
_WRITE_SECONDS = 3.0
# A poll that gets no answer ends after about this many seconds.
_LOOK_SECONDS = 3.0
_AT_ONCE = RetentionConfig(batches_days=0, request_files_days=0, history_days=0)


def pipeline_in(folder: Path, max_requests: int) -> Pipeline:
    """The pipeline over the dataset in a folder, with a tool if the folder asks for it."""
    dataset, batching = {"path": "rows.jsonl", "key": "id"}, {"max_requests": max_requests}
    if not (folder / WITH_TOOL).exists():
        return make_pipeline(folder, dataset, name=NAME, batching=batching)
    asked = params(tools=[{"name": "look_up", "input_schema": {"type": "object"}}])
    hooks = Hooks(tool_functions={"look_up": _question})
    return make_pipeline(
        folder, dataset, name=NAME, batching=batching, params=asked, hooks=hooks, retry={"paused": 2}
    )


def _question(call: ToolCall) -> str:
    """The result of the tool is the text of the row, so that the answer is the one that the judge expects."""
    return str(call.params["messages"][0]["content"])


def requests(root: Root, pipeline: Pipeline) -> None:
    build_requests(root, pipeline)


def submit(root: Root, pipeline: Pipeline) -> None:
    submit_batches(root, pipeline.name, tools=pipeline.hooks.tool_functions)


def collection(root: Root, pipeline: Pipeline) -> None:
    poll(root, now=True)
    with root.ledger.read() as tx:
        ended = batches.in_state(tx, BatchState.ENDED, pipeline=pipeline.name)
    for batch in ended:
        with downloaded(root, batch) as answers:
            if answers is not None:
                answers.store()


def results(root: Root, pipeline: Pipeline) -> None:
    write_results(root, pipeline.name)


def look(root: Root, pipeline: Pipeline) -> None:
    """Poll the batches like a tick of the sensor, which has little time for it."""
    for problem in poll(root, now=True, budget=_LOOK_SECONDS).problems:
        print(problem)


def tick(root: Root, pipeline: Pipeline) -> None:
    """Do what the sensor asks for, once."""
    submit_batches(root, pipeline.name, unattended=True)
    look(root, pipeline)
    for problem in collect_results(root, pipeline.name).problems:
        print(problem)


def cancel_all(root: Root, pipeline: Pipeline) -> None:
    """Cancel the pipeline, as a user does."""
    print(cancel(root, pipeline.name))


def clear_files(root: Root, pipeline: Pipeline) -> None:
    """Let retention remove the request files."""
    collect_results(root, pipeline.name, retention=RetentionConfig(request_files_days=0))


def rescue(root: Root, pipeline: Pipeline) -> None:
    """Make live calls for the rows without an answer, as runs do when the deadline has passed.

    A killed process may have left its lease. The runs go on until the answers of all calls are stored.
    """
    with root.ledger.write() as tx:
        rescues.record_rule(tx, pipeline.name, RescueRule(seconds=0.0, max_in_flight=2))
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        submit_batches(root, pipeline.name, unattended=True)
        for problem in collect_results(root, pipeline.name).problems:
            print(problem)
        with root.ledger.read() as tx:
            is_busy = leases.is_held(tx, rescues.lease_name(pipeline.name))
            if not (is_busy or rescues.groups(tx, [pipeline.name])) or time.monotonic() > end:
                return
        time.sleep(0.02)


def write_and_wait(root: Root, pipeline: Pipeline) -> None:
    """Begin to write to the ledger, say so, and go on a little later. The process is frozen meanwhile."""
    with root.ledger.write() as tx:
        tx.record(EntityKind.ROUND, "held", None, "held", "")
        (Path(root.settings.root).parent / "held").touch()
        time.sleep(_WRITE_SECONDS)


def rename_pipeline(old: str, new: str) -> Callable[[Root, Pipeline], None]:
    """Rename the pipeline, unless a killed process has done it."""

    def run(root: Root, pipeline: Pipeline) -> None:
        with root.ledger.read() as tx:
            is_done = not submissions.known_ids(tx, old) and submissions.known_ids(tx, new)
        end = time.monotonic() + _BUSY_SECONDS
        while not is_done:
            try:
                is_done = bool(rename(root, old, new))
            except BusyError:  # a killed process left its leases
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    return run


def erase_row(root: Root, pipeline: Pipeline) -> None:
    """Erase a row, as a user does."""
    print(erase(root, pipeline.name, [ERASED], pipeline))


def spend(root: Root, pipeline: Pipeline) -> None:
    """Write the table of what was spent."""
    for problem in build_spend(root).problems:
        print(problem)


def as_a_user(root: Root, pipeline: Pipeline) -> None:
    """Do everything that is left, as a user would."""
    unattended(root, pipeline, by_user=True)


def chain(root: Root, pipeline: Pipeline) -> None:
    """Do everything from the dataset on, as a user would."""
    build_requests(root, pipeline)
    as_a_user(root, pipeline)


def clearing(root: Root, pipeline: Pipeline) -> None:
    """Run all stages of a pipeline that keeps nothing it does not need: no batch at the API, no request file."""
    build_requests(root, pipeline)
    unattended(root, pipeline, by_user=True, retention=_AT_ONCE)


def unattended(
    root: Root, pipeline: Pipeline, *, by_user: bool = False, retention: RetentionConfig = KEEP_EVERYTHING
) -> None:
    """Do what the sensor asks for, until every row has its final type."""
    end = time.monotonic() + _DEADLINE
    while True:
        trouble: object = "rows are pending"
        try:
            begin_all(root, pipeline.name, [""])  # a user has asked for the run that was killed or failed
            submit_batches(root, pipeline.name, unattended=not by_user, tools=pipeline.hooks.tool_functions)
            poll(root, now=True)
            done = collect_and_erase(root, pipeline.name, pipeline=pipeline, retention=retention)
            with root.ledger.read() as tx:
                under_way = batches.in_state(tx, BatchState.OPEN, BatchState.ENDED, pipeline=pipeline.name)
            if done.results is not None and done.results.final and not under_way:
                return
            trouble = done.problems or trouble
        except (BusyError, LeaseLostError, UnreachableError) as error:
            trouble = error  # the next run does it
        if time.monotonic() > end:
            raise TimeoutError(f"not final after {_DEADLINE:.0f} s: {trouble}")
        time.sleep(0.02)


def _and_again(work: Callable[[Root, Pipeline], None]) -> Callable[[Root, Pipeline], None]:
    """Wrap a task: keep its table, and run everything once more, which must change nothing."""

    def run(root: Root, pipeline: Pipeline) -> None:
        work(root, pipeline)
        table = root.storage.path(pipeline.name, "results", "results.parquet")
        shutil.copyfile(table, Path(root.settings.root).parent / FIRST_TABLE)
        chain(root, pipeline)

    return run


TASKS: dict[str, Callable[[Root, Pipeline], Any]] = {
    "requests": requests,
    "batches": submit,
    "collection": collection,
    "results": results,
    "retry": submit,
    "follow-up": submit,
    "look": look,
    "tick": tick,
    "rescue": rescue,
    "cancel": cancel_all,
    "spend": spend,
    "chain": chain,
    "clearing": clearing,
    "clear files": clear_files,
    "write and wait": write_and_wait,
    "rename": rename_pipeline(NAME, "renamed"),
    "rename back": rename_pipeline("renamed", NAME),
    "erase": erase_row,
    "unattended": unattended,
    "finish": _and_again(unattended),
    "finish by a user": _and_again(as_a_user),
    "finish from the dataset": _and_again(chain),
}
