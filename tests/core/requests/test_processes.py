"""Rows that are rendered in several processes: the same requests, and nothing is lost with a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import orjson
import psutil
import pytest

from batch_assets.core.errors import SettingsError
from batch_assets.core.io.worker_processes import WorkerProcessError
from batch_assets.core.pipeline.pipeline import Hooks
from batch_assets.core.requests import parallel_rows, row_renderer
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.settings import MOST_PROCESSES, Settings
from batch_assets.core.store.digests import digests_of_tails
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail, params_of

from ..support import World, make_pipeline

_CONTENT = (
    "{% include 'start.md' %} {% if file %}{{ file | file_base64 }}{% else %}{{ text | upper }}{% endif %} "
    "{{ row | tojson }} {% for tag in tags or [] %}[{{ tag.name }}]{% endfor %} {{ at.isoformat() if at }}"
)


@pytest.fixture(autouse=True)
def _few_rows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_rows, "_LEAST_ROWS", 1)
    monkeypatch.setattr(parallel_rows, "_ROWS_AT_ONCE", 7)


def asking(world: World, rows: int, processes: int, **fields: Any) -> Any:
    """A pipeline over rows of many kinds, some of which are rejected; the root is opened for some processes."""
    (world.folder / "start.md").write_text("Read:")
    (world.folder / "note.txt").write_text("a file of the dataset's folder")
    lines = [
        {
            "id": f"r{number}",
            "text": None if number % 11 == 0 else f"text {number} é\u2028",
            "file": "note.txt" if number % 13 == 0 else "missing.txt" if number % 17 == 0 else None,
            "tags": [{"name": number}] if number % 3 else [],
            "at": "2024-01-02T03:04:05",
            "price": number / 8,
        }
        for number in range(rows)
    ]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    world.reopened(BATCH_ASSETS_PROCESSES=str(processes))
    params = {
        "model": "claude-haiku-5-5",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": _CONTENT}],
    }
    dataset = {"path": "rows.jsonl", "key": "id", "types": {"at": "timestamp[us]"}}
    return make_pipeline(world.folder, dataset, params=params, **fields)


def workers() -> list[psutil.Process]:
    """The processes that render rows for this one."""
    return [child for child in psutil.Process().children() if "worker_processes" in "".join(child.cmdline())]


def requests(world: World, pipeline: Any) -> tuple[list[tuple[bytes, bytes]], int]:
    """The digests and params of all requests in order, and the number of rejected rows."""
    report = build_requests(world.root, pipeline)
    lines = [
        line for file in world.files(pipeline) for line in StoredRequestFile.of(world.root.storage, file).lines()
    ]
    digests = digests_of_tails(map(own_tail, lines)).tolist()
    return list(zip(digests, map(params_of, lines), strict=True)), report.rejected


def test_several_processes_make_the_same_requests(world: World) -> None:
    alone = requests(world, asking(world, 200, 1))
    assert requests(world, asking(world, 200, 2)) == alone
    assert len(alone[0]) > 100 and alone[1] > 10
    assert not workers()


def _schema(name: str) -> dict[str, Any]:
    properties = {name: {"type": "string"}}
    return {"type": "object", "properties": properties, "required": [name], "additionalProperties": False}


def test_a_schema_that_is_not_sent_is_sent_by_no_process(world: World) -> None:
    hooks = Hooks(parse_message=lambda message: {"label": message["content"][0]["text"]})
    alone = requests(world, asking(world, 60, 1, output_schema=_schema("label"), hooks=hooks))
    assert requests(world, asking(world, 60, 2, output_schema=_schema("label"), hooks=hooks)) == alone
    assert len(alone[0]) > 30 and all("output_config" not in orjson.loads(params) for _, params in alone[0])


def test_all_processes_send_the_schema_that_the_run_has_loaded(world: World) -> None:
    (world.folder / "answer.json").write_bytes(orjson.dumps(_schema("before")))
    pipeline = asking(world, 60, 2, output_schema="answer.json")
    assert pipeline.output is not None
    (world.folder / "answer.json").write_bytes(orjson.dumps(_schema("after")))

    sent, _ = requests(world, pipeline)

    schemas = [orjson.loads(params)["output_config"]["format"]["schema"] for _, params in sent]
    assert len(sent) > 30 and schemas == [_schema("before")] * len(sent)


def test_rows_are_rendered_elsewhere_but_for_those_that_read_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[bytes] = []
    pipeline = asking(world, 200, 2)
    render = parallel_rows.ParallelRows.render

    def noting(*args: Any) -> Any:
        for row in render(*args):
            here.append(b"" if row is None else b"elsewhere")
            yield row

    monkeypatch.setattr(parallel_rows.ParallelRows, "render", noting)
    requests(world, pipeline)
    reading = [number % 13 == 0 or number % 17 == 0 for number in range(200)]
    assert [row == b"" for row in here] == reading


def test_a_pipelines_own_code_runs_in_the_process_of_the_run(world: World) -> None:
    processes = set()

    def note(pipeline: Any, row: Any, params: Any) -> Any:
        processes.add(os.getpid())
        return params

    assert len(requests(world, asking(world, 50, 2, hooks=Hooks(render_request=note)))[0]) > 20
    assert processes == {os.getpid()}


def test_a_killed_process_is_an_error_and_no_row_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_renderer, "_GROUP_ROWS", 10)
    pipeline = asking(world, 2000, 2)
    killed: list[int] = []

    add = RequestSample.add

    def kill(*args: Any) -> None:
        for process in workers() if not killed else []:
            process.kill()
            killed.append(process.pid)
        add(*args)

    monkeypatch.setattr(RequestSample, "add", kill)

    with pytest.raises(WorkerProcessError, match=r"ended by signal 9 \(does the machine have enough memory"):
        plan_requests(world.root, pipeline, "", AskAgain())
    assert len(killed) == 2
    assert build_requests(world.root, pipeline).rows == 2000


def test_a_file_that_changes_meanwhile_is_an_error(world: World) -> None:
    pipeline = asking(world, 50, 2)
    assert pipeline.template.files  # they are read
    (world.folder / "start.md").write_text("Read again:")
    with pytest.raises(WorkerProcessError, match=r"start\.md has changed during the run"):
        build_requests(world.root, pipeline)
    assert world.query("select count(*) from submission") == [(0,)]


_WAITING = """
import time
from functools import partial
import psutil
from batch_assets.core.io.worker_processes import WorkerProcesses
with WorkerProcesses(2, partial, time.sleep, task="sleeps", undone="It is not rested") as workers:
    list(workers.map([0.0] * 4))
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    list(workers.map([600.0] * 2))
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_their_run(by: signal.Signals) -> None:
    command = [sys.executable, "-c", _WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        processes = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        run.send_signal(by)
        run.wait()
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=30)[1] == []


@pytest.mark.parametrize("text", ["0", "two", "-1", str(MOST_PROCESSES + 1)])
def test_the_number_of_processes_is_checked(text: str) -> None:
    with pytest.raises(SettingsError, match=f"BATCH_ASSETS_PROCESSES is '{text}': set it to the number"):
        Settings.from_env({"BATCH_ASSETS_PROCESSES": text})
