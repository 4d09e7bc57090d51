"""The ways of a row, a request file and a batch in docs/architecture.md are in the order of a real run."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# The client imports it at the first call. Here it is imported before anything is traced.
import anthropic.resources.messages.batches  # noqa: F401
import pytest

import batch_assets
from batch_assets.cli.headless import run_pipeline
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.sink.write import write_sink
from tests.documentation import page

from .support import World

PACKAGE = Path(batch_assets.__file__).parent
WAYS = ("The way of one row", "The way of one request file", "The way of one batch")
# A module, and the function of it that counts. Without a function, the first call of any counts.
_ENTRY = re.compile(r"`((?:core|cli|dagster)/[a-z_/]+\.py)`(?:\s+\(`([\w.]+)`\))?")
# What a run of one row in a table file does not need.
UNUSED = {
    "core/batches/follow_up_lines.py",
    "core/batches/split.py",
    "core/dataset/document_files.py",
    "core/dataset/query_rows.py",
    "core/dataset/table_rows.py",
    "core/requests/gather.py",
    "core/requests/gathered_files.py",
    "core/requests/priority_order.py",
    "core/requests/row_hasher.py",
    "core/results/message_line.py",
    "core/results/reorder.py",
    "core/template/flat_template.py",
    "dagster/assets/requests.py",
    "dagster/sensors/tick.py",
}

Call = tuple[str, str]


@contextmanager
def tracing(calls: dict[Call, None]) -> Iterator[None]:
    """Note every function of the package at its first call, in all threads. Constructors do not count."""
    prefix = f"{PACKAGE}/"

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        # Bodies of modules and classes are not functions: they run when something is imported.
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith(("__", "<"))
        if is_function and code.co_filename.startswith(prefix):
            calls.setdefault((code.co_filename.removeprefix(prefix), code.co_qualname))

    before = sys.gettrace(), threading.gettrace()
    threading.settrace(note)
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]


class _Silent:
    """A watcher that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _asks_politely(pipeline: Pipeline, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    return params | {"system": "Be polite."}


@pytest.fixture
def calls(new_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The functions that a run of one row calls, in the order of their first calls."""
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path}/warehouse.db")
    world = new_world()
    world.emulator.settings(latency=0.0)
    first_calls: dict[Call, None] = {}
    with tracing(first_calls):
        pipeline = world.pipeline(
            {"a": "hello"},
            hooks=Hooks(render_request=_asks_politely),
            sink={"url_env": "WAREHOUSE_URL", "table": "answers"},
        )
        results = run_pipeline(world.root, pipeline, "", _Silent())
        write_sink(world.root, pipeline, "", results.submission_id)
    return list(first_calls)


def _position(calls: list[Call], path: str, function: str) -> int | None:
    """Where a module, or a function of it, is called first."""
    for position, (module, name) in enumerate(calls):
        if module == path and (not function or name == function or name.endswith(f".{function}")):
            return position
    return None


def test_the_ways_are_in_the_order_of_a_run(calls: list[Call]) -> None:
    text = page("docs/architecture.md").text
    unused = set()
    for way in WAYS:
        section = text.split(f"\n## {way}\n")[1].split("\n## ")[0].split("\n\nIts states")[0]
        entries = [entry for entry in _ENTRY.findall(section) if not entry[1].isupper()]
        assert len(entries) > 10, way
        positions = [(_position(calls, *entry), entry) for entry in entries]
        unused |= {path for position, (path, _) in positions if position is None}
        called = [(position, entry) for position, entry in positions if position is not None]
        assert [entry for _, entry in called] == [entry for _, entry in sorted(called)], way
    assert unused == UNUSED
