"""Files that are too large for the API: split until they fit, without sending a request twice or losing one."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.cancel import cancel
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline

from ..support import CREATE, World, texts

TOO_LARGE = "HTTP 413 request_too_large: Request exceeds the maximum size"
POST = "POST /v1/messages/batches"
STEP = 220
"""A submission that splits a file runs some thousand lines. One in so many is tried, others in every run."""
ROWS = {"a": "short", "b": "also short", "c": "long " * 1000, "d": "short too", "e": "the last"}


def check(world: World, pipeline: Pipeline) -> None:
    """Check that every request of ROWS that fits was accepted once, and that the other one has its error."""
    table = world.table(pipeline).set_index("id")
    assert dict(table["result_type"]) == {key: "errored" if key == "c" else "succeeded" for key in ROWS}
    assert (table["error_type"]["c"], table["error_message"]["c"]) == ("request_too_large", TOO_LARGE)
    assert sorted(world.accepted_custom_ids()) == sorted(table["custom_id"].drop("c"))


def test_a_file_that_is_too_large_is_split_until_it_fits_in_the_same_run(world: World) -> None:
    world.emulator.settings(max_body_bytes=600)
    pipeline = world.pipeline(texts(9))
    report = world.send(pipeline)
    assert Counter(world.states(pipeline)) == {"superseded": 3, "submitted": 4}
    assert (len(report.submitted), report.refused) == (4, {})
    assert world.calls()[POST] == 7
    sizes = [batch["requests"] for batch in world.accepted()]
    assert sum(sizes) == 9
    assert max(sizes) <= 3
    bodies = [world.sent_body(batch["id"]) for batch in world.accepted()]
    stored = sorted((file.requests, file.bytes) for file in world.files(pipeline) if file.state == "submitted")
    assert stored == sorted(zip(sizes, map(len, bodies), strict=True))
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 9
    assert sorted(table["custom_id"]) == sorted(world.accepted_custom_ids())


def test_a_split_follows_the_bytes_and_not_the_count(world: World) -> None:
    world.emulator.settings(max_body_bytes=3000)
    pipeline = world.pipeline({"long": "x" * 2500, **texts(8)})
    world.send(pipeline)
    assert sorted(batch["requests"] for batch in world.accepted()) == [1, 8]


def test_a_single_request_that_is_too_large_is_errored_and_never_retried(world: World) -> None:
    world.emulator.settings(max_body_bytes=1000)
    pipeline = world.pipeline(ROWS)
    report = world.send(pipeline)
    assert list(report.given_up.values()) == [TOO_LARGE]
    assert world.calls()[POST] <= 2 * len(ROWS)
    world.finish(pipeline)
    check(world, pipeline)
    world.forget_calls()
    assert world.build(pipeline).written == 0
    world.submit(pipeline)
    world.collect(pipeline)
    assert world.calls()[POST] == 0
    check(world, pipeline)


def test_a_refusal_from_before_the_api_is_understood(world: World) -> None:
    """A proxy answers before it has read the body, and not with the API's error."""
    refusal = {"status": 413, "body": "<html>413 Payload Too Large</html>", "early": True}
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": refusal}])
    big = {key: text + "x" * 3_000_000 for key, text in texts(4).items()}
    pipeline = world.pipeline(big)
    assert len(world.send(pipeline).submitted) == 2
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == len(set(world.accepted_custom_ids())) == 4


def test_submissions_that_waited_on_the_file_wait_on_its_parts(world: World) -> None:
    world.emulator.settings(max_body_bytes=600)
    pipeline = world.pipeline(texts(4))
    world.build(pipeline, "A")
    world.build(pipeline, "B")
    world.submit(pipeline, "A")
    assert Counter(world.states(pipeline, "B")) == {"superseded": 1, "submitted": 2}
    world.finish(pipeline, "B")
    world.finish(pipeline, "A")
    assert len(world.accepted_custom_ids()) == 4


def test_a_late_wait_on_a_split_file_is_a_wait_on_its_parts(world: World) -> None:
    """Another partition read the ledger before the file was split, and records its wait afterwards."""
    world.emulator.settings(max_body_bytes=400)
    pipeline = world.pipeline(texts(4))
    world.build(pipeline, "A")
    (whole,) = world.files(pipeline, "A")
    world.submit(pipeline, "A")
    world.build(world.pipeline(texts(1, "other")), "B")
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, "B")
        assert newest is not None
        submissions.add_waits(tx, newest.id, [whole.id])
        waited = submissions.waited_on(tx, newest.id)
    assert sum(file.requests for file in waited) == 5
    assert "superseded" not in {file.state for file in waited}


def test_a_file_that_is_too_large_and_canceled_is_not_sent(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    world.query("update request_file set state = 'too_large'")
    cancel(world.root, pipeline.name)
    world.submit(pipeline)
    assert world.states(pipeline) == ["canceled"]
    assert world.accepted() == []


def _die_at(line: int) -> Callable[..., Any]:
    """Make a trace function that kills the process when it has run a number of lines of the code under test."""
    names = ("core/batches/split.py", "core/batches/submit.py", "core/batches/upload.py", "ledger/files.py")
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(names):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def _submit_and_die(world: World, pipeline: Pipeline, line: int) -> bool:
    """Submit in a process that is killed at a line, and return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            trace = _die_at(line)
            sys.settrace(trace)
            threading.settrace(trace)  # files go up in threads of their own
            submit_batches(open_root(world.root.settings), pipeline.name)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_any_line_no_request_is_lost_or_sent_twice(new_world: Callable[..., World]) -> None:
    world = new_world(name="first")
    pipeline = world.pipeline(ROWS)
    world.emulator.settings(max_body_bytes=1000)
    world.run(pipeline)  # what a child shares with its parent is loaded before it is forked
    line, died = random.randint(1, STEP), True
    while died:
        world = new_world(name=f"line-{line}")
        # Of other texts: what was lost is found again by its requests, and the API still has those of before.
        pipeline = world.pipeline({key: f"{text} {line}" for key, text in ROWS.items()})
        world.build(pipeline)
        died = _submit_and_die(world, pipeline, line)
        # As a minute later: its leases have run out.
        world.query("update lease set until = 0")
        world.query("update intent set started_at = started_at - 60")
        world.submit(pipeline)
        world.finish(pipeline)
        print("killed at line", line)  # for the report of a failure
        check(world, pipeline)
        line += STEP
    assert line > 500
