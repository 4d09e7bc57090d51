"""Results that are parsed in several processes: the same rows, and nothing is half stored if one is killed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pytest

from batch_assets.core.io.worker_processes import WorkerProcessError
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.results import ordered_lines, parallel_lines
from batch_assets.core.results.line_parser import MISSING, LineParser, ParsedGroup
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.result_lines import ResultLines

from ..support import World, texts


@pytest.fixture(autouse=True)
def _small_groups_of_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_lines, "_LEAST_BYTES", 0)
    monkeypatch.setattr(ordered_lines, "GROUP_ROWS", 16)


def workers() -> list[psutil.Process]:
    """The processes that parse results for this one."""
    return [child for child in psutil.Process().children() if "worker_processes" in "".join(child.cmdline())]


def line(number: int) -> bytes:
    """A result line: most are answers, some long, and each kind that is parsed in a way of its own occurs."""
    usage = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_input_tokens"), number)
    usage["cache_creation_input_tokens"] = 0
    text = {"type": "text", "text": f"answer {number} é\u2028 " + "x" * (900 if number % 23 == 0 else 9)}
    message: dict[str, Any] = {"id": "m", "model": "claude-haiku-5-5", "stop_reason": "end_turn", "usage": usage}
    message["content"] = [text] * (1 + (number % 5 == 0))
    result: dict[str, Any] = {"type": "succeeded", "message": message}
    if number % 7 == 0:
        result = {"type": "errored", "error": {"error": {"type": "overloaded_error", "message": "busy"}}}
    if number % 11 == 0:
        message["usage"] = {"input_tokens": "many"}
    content = orjson.dumps({"custom_id": f"row-{number}", "result": result}) + b"\n"
    return content[: len(content) // 2] + b"\n" if number % 13 == 0 else content


def groups(count: int, raw: Path, lines: ResultLines) -> list[ParsedGroup]:
    with ParallelLines(count) as parallel:
        return list(parallel.parse(LineParser("msgbatch_1", MISSING, default_prices()), raw, lines))


def test_several_processes_read_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_lines, "_MOST_BYTES", 5000)  # some groups have more: the run parses them
    sent = [number for number in range(300) if number % 17 and not 100 < number < 140]
    random.Random(4).shuffle(sent)
    start, end = np.full(300, -1), np.full(300, -1)
    content = b"not ours\n"
    for number in sent:
        start[number] = len(content)
        content += line(number)
        end[number] = len(content)
    raw = tmp_path / "raw"
    raw.write_bytes(content)
    lines = ResultLines(start, end, np.zeros(300, "S22"))
    alone = groups(1, raw, lines)
    assert groups(2, raw, lines) == alone
    assert sum(len(group.rows) for group in alone) == 300
    assert sum(group.odd for group in alone) > 10 and sum(group.unreadable for group in alone) > 10
    assert not workers()


def test_a_killed_process_is_an_error_and_the_next_run_stores_the_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = ParallelLines.parse
    killed: list[int] = []

    def killing(*args: Any) -> Iterator[ParsedGroup]:
        for group in parse(*args):
            for process in workers() if not killed else []:
                process.kill()
                killed.append(process.pid)
            yield group

    world.reopened(BATCH_ASSETS_PROCESSES="2")
    pipeline = world.pipeline(texts(200))
    world.send(pipeline)
    monkeypatch.setattr(ParallelLines, "parse", killing)
    with pytest.raises(WorkerProcessError, match=r"parses results was ended by signal 9 .*not collected: run it"):
        world.collect(pipeline)
    assert len(killed) == 2
    assert world.query("select state from batch") == [("ended",)]
    assert not [*world.path("asked", "responses").glob("*")]
    done = world.collect(pipeline)
    assert done.results is not None and done.results.counts == {"succeeded": 200}
    assert not workers()
