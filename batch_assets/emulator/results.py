"""Make the results of an ended batch: one JSON line per request, not in the order of the requests.

The results depend only on what is stored about the batch, so they can be made at any time. The real API has done
its work before a batch ends. To be as fast, the results of a batch with a latency are written to a file before it
ends, so a download only reads that file.

The lines follow the batch guide and public recordings: `errored` lines nest the error twice
(`result.error.error.type`), `canceled` and `expired` lines have nothing else.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from batch_assets.emulator.answers import emulated_message
from batch_assets.emulator.batches import Progress
from batch_assets.emulator.outcomes import (
    CALLING,
    CANCELED,
    EXPIRED,
    FIRST_ERROR,
    INVALID,
    MALFORMED,
    MAX_TOKENS,
    MIX_ERRORS,
    PAUSED,
    REFUSAL,
)
from batch_assets.emulator.params import Refusal, check_params
from batch_assets.emulator.private import create_private
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.schema_instance import schema_instance
from batch_assets.emulator.state import Store
from batch_assets.emulator.wire import derived_id

_CHUNK = 256 * 1024
_FILE_CHUNK = 1 << 20
ALTERATIONS = ("missing", "duplicate", "unknown_type", "garbage", "broken", "foreign")
"""The ways in which a fault can corrupt result lines, in the order in which they choose their lines."""


def result_lines(store: Store, record: BatchRecord, progress: Progress) -> Iterator[bytes]:
    """Yield every line of the results, newline included. The order is shuffled with the batch id as seed."""
    order = list(range(record.requests))
    random.Random(record.id).shuffle(order)
    unfinished = {"type": progress.unfinished}
    for request, result in results(store, record, progress, order):
        line = {"custom_id": request["custom_id"], "result": result or unfinished}
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def results(
    store: Store, record: BatchRecord, progress: Progress, order: list[int] | None = None
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any] | None]]:
    """Yield each request of a batch with its `result`, or `None` if it is not processed.

    Args:
        store: The store.
        record: The batch.
        progress: Its progress.
        order: The positions in the order to read them; `None` for the submitted order.
    """
    codes, reads = store.outcomes(record.id), store.cache_reads(record.id)
    betas = parse_betas(record.betas)
    for at, raw in store.read_requests(record.id, order):
        request = orjson.loads(raw)
        if record.answered is not None:
            answer = store.answer(record.id, at)
            yield request, None if answer is None else orjson.loads(answer)
        elif at >= progress.finished:  # never processed, so its outcome code does not matter
            yield request, None
        else:
            yield request, result_of(request, codes[at], record, betas, reads[at] if reads else 0)


def parse_betas(header: str) -> list[str]:
    """Split an `anthropic-beta` header into its values."""
    return [value.strip() for value in header.split(",") if value.strip()]


def result_of(
    request: Mapping[str, Any], code: int, record: BatchRecord, betas: Collection[str], cache_read: int
) -> dict[str, Any]:
    """Make the `result` of a request that was processed.

    Args:
        request: The request, with `custom_id` and `params`.
        code: Its outcome code.
        record: Its batch.
        betas: The values of the `anthropic-beta` header of the batch.
        cache_read: The tokens of its prompt that are read from the cache.
    """
    custom_id, params = request["custom_id"], request["params"]
    if code == INVALID:
        refusal = check_params(params, version=record.version, betas=betas)
        assert refusal is not None  # the check at creation had the same result
        return errored(refusal, None)
    if code in (EXPIRED, CANCELED):
        return {"type": "expired" if code == EXPIRED else "canceled"}
    if code >= FIRST_ERROR:
        return errored(MIX_ERRORS[code - FIRST_ERROR], derived_id("workerreq", record.id, custom_id))
    message = emulated_message(params, derived_id("msg", record.id, custom_id), "batch", cache_read)
    if code == REFUSAL:
        message |= {"content": [], "stop_reason": "refusal", "stop_sequence": None}
        message["usage"]["output_tokens"] = 1
    elif code in (MAX_TOKENS, MALFORMED):
        _cut_in_half(message)
        if code == MAX_TOKENS:
            message |= {"stop_reason": "max_tokens", "stop_sequence": None}
    elif code == PAUSED:
        _pause(message)
    elif code == CALLING:
        _call_tools(message, params)
    return {"type": "succeeded", "message": message}


def _cut_in_half(message: dict[str, Any]) -> None:
    for block in message["content"]:
        if block["type"] == "text":
            block["text"] = block["text"][: len(block["text"]) // 2]
        elif block["type"] == "tool_use":
            block["input"] = {}


def _pause(message: dict[str, Any]) -> None:
    """Turn an answer into the beginning of a turn whose search has no result yet."""
    thinking = [block for block in message["content"] if block["type"] == "thinking"]
    call_id = derived_id("srvtoolu", message["id"])
    call = {"type": "server_tool_use", "id": call_id, "name": "web_search", "input": {"query": "emulated"}}
    message |= {"content": [*thinking, call], "stop_reason": "pause_turn", "stop_sequence": None}


def _call_tools(message: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Turn an answer into one call of each tool of the request; without tools of the client it stays as it is.

    The calls of server tools have no result yet: the API runs them with the next request.
    """
    calls = []
    for number, tool in enumerate(params.get("tools") or ()):
        call = {"type": "server_tool_use", "id": derived_id("srvtoolu", message["id"], str(number)), "input": {}}
        if "input_schema" in tool:
            call |= {"type": "tool_use", "id": derived_id("toolu", message["id"], str(number))}
            call["input"] = schema_instance(tool["input_schema"], number)
        calls.append(call | {"name": tool["name"]})
    if any(call["type"] == "tool_use" for call in calls):
        thinking = [block for block in message["content"] if block["type"] == "thinking"]
        message |= {"content": [*thinking, *calls], "stop_reason": "tool_use", "stop_sequence": None}


def errored(refusal: Refusal, request_id: str | None) -> dict[str, Any]:
    """Make the `result` of a request that has an error.

    Args:
        refusal: The error.
        request_id: The id of the work on it; `None` for a request that is invalid.
    """
    error = {
        "details": {"error_visibility": "user_facing"},
        "type": refusal.type,
        "message": refusal.message,
    }
    return {"type": "errored", "error": {"type": "error", "error": error, "request_id": request_id}}


def altered(lines: Iterable[bytes], counts: Mapping[str, int]) -> Iterator[bytes]:
    """Corrupt some of the lines.

    `missing` lines are left out. `duplicate` lines are repeated at the end. `unknown_type` lines keep their
    custom_id. `garbage` lines are cut in half; `broken` lines are too, but still end in a brace. `foreign` lines
    are added, with a custom_id that no request has.

    Args:
        lines: The lines.
        counts: How many lines to corrupt in each way; see `ALTERATIONS`.
    """
    budget = {name: counts.get(name, 0) for name in ALTERATIONS}
    repeated: list[bytes] = []
    for number in range(budget["foreign"]):
        yield b'{"custom_id":"foreign-%d","result":{"type":"canceled"}}\n' % number
    for line in lines:
        if budget["missing"]:
            budget["missing"] -= 1
        elif budget["duplicate"]:
            budget["duplicate"] -= 1
            repeated.append(line)
            yield line
        elif budget["unknown_type"]:
            budget["unknown_type"] -= 1
            custom_id = orjson.loads(line)["custom_id"]
            yield orjson.dumps({"custom_id": custom_id, "result": {"type": "postponed"}}) + b"\n"
        elif budget["garbage"]:
            budget["garbage"] -= 1
            yield line[: len(line) // 2] + b"\n"
        elif budget["broken"]:
            budget["broken"] -= 1
            yield line[: len(line) // 2] + b"}\n"
        else:
            yield line
    yield from repeated


def joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines into pieces of about 256 KB, which the server can send with much less work."""
    parts, size = [], 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def prepared(path: Path) -> Iterator[bytes]:
    """Yield a file of prepared results in pieces."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_FILE_CHUNK):
            yield piece


class Preparation:
    """A thread that makes the results of accepted batches in advance, in the order of their creation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[BatchRecord | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, record: BatchRecord) -> None:
        """Queue a batch. Without a latency it is skipped: its results may be downloaded before they are ready."""
        if record.latency <= 0:
            return
        self._queue.put(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
            self._store.before_close.append(self._stop)

    def _stop(self) -> None:
        assert self._thread is not None
        self._stopped.set()
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (record := self._queue.get()) is not None and not self._stopped.is_set():
            with contextlib.suppress(OSError):  # such as a full disk: the results are then made at download
                self._prepare(record)

    def _prepare(self, record: BatchRecord) -> None:
        path = self._store.incoming()
        all_finished = Progress("ended", None, record.requests, "canceled", None)
        try:
            with create_private(path) as file:
                for piece in joined(result_lines(self._store, record, all_finished)):
                    if self._stopped.is_set():
                        return
                    file.write(piece)
            path.replace(self._store.results_path(record.id))
        finally:
            path.unlink(missing_ok=True)
