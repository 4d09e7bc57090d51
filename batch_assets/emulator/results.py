"""The results of an ended batch: one JSON line per request, in an order of the server's own.

They are a function of what is stored about the batch, so they can be made whenever they are asked for. As
the real API has done its work before a batch ends, those of a batch with a latency are prepared in a file
during it: a download then costs no more than reading that file.

Line shapes follow the batch guide and public captures: `errored` lines nest the error twice
(`result.error.error.type`), `canceled` and `expired` lines carry nothing else.
"""

import contextlib
import queue
import random
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from .answers import emulated_message
from .batches import Progress
from .outcomes import CANCELED, EXPIRED, FIRST_ERROR, INVALID, MAX_TOKENS, MIX_ERRORS, REFUSAL
from .params import Refusal, check_params
from .state import BatchRecord, Store
from .wire import derived_id

_CHUNK = 256 * 1024
_FILE_CHUNK = 1 << 20
ALTERATIONS = ("missing", "duplicate", "unknown_type", "garbage", "broken", "foreign")
"""Ways in which a fault can spoil lines of a result file, in the order in which they pick their lines."""


def result_lines(store: Store, record: BatchRecord, progress: Progress) -> Iterator[bytes]:
    """Every line of the results, newline included; the order is shuffled by the batch id."""
    codes = store.outcomes(record.id)
    order = list(range(record.requests))
    random.Random(record.id).shuffle(order)
    betas = parse_betas(record.betas)
    unfinished = orjson.dumps({"type": progress.unfinished})
    for at, raw in store.read_requests(record.id, order):
        request = orjson.loads(raw)
        custom_id = request["custom_id"]
        if at >= progress.finished:  # no message, whatever it would have become
            yield b'{"custom_id":"%s","result":%s}\n' % (custom_id.encode(), unfinished)
            continue
        result = _result(request, codes[at], record, betas)
        yield orjson.dumps({"custom_id": custom_id, "result": result}, option=orjson.OPT_APPEND_NEWLINE)


def parse_betas(header: str) -> list[str]:
    """The values of an `anthropic-beta` header."""
    return [value.strip() for value in header.split(",") if value.strip()]


def _result(request: Mapping[str, Any], code: int, record: BatchRecord, betas: Collection[str]) -> dict[str, Any]:
    custom_id, params = request["custom_id"], request["params"]
    if code == INVALID:
        refusal = check_params(params, version=record.version, betas=betas)
        assert refusal is not None  # the same check as at creation
        return _errored(refusal, None)
    if code in (EXPIRED, CANCELED):
        return {"type": "expired" if code == EXPIRED else "canceled"}
    if code >= FIRST_ERROR:
        return _errored(MIX_ERRORS[code - FIRST_ERROR], derived_id("workerreq", record.id, custom_id))
    message = emulated_message(params, derived_id("msg", record.id, custom_id), "batch")
    if code == REFUSAL:
        message |= {"content": [], "stop_reason": "refusal", "stop_sequence": None}
        message["usage"]["output_tokens"] = 1
    elif code == MAX_TOKENS:
        _cut_in_half(message)
    return {"type": "succeeded", "message": message}


def _cut_in_half(message: dict[str, Any]) -> None:
    for block in message["content"]:
        if block["type"] == "text":
            block["text"] = block["text"][: len(block["text"]) // 2]
        elif block["type"] == "tool_use":
            block["input"] = {}
    message |= {"stop_reason": "max_tokens", "stop_sequence": None}


def _errored(refusal: Refusal, request_id: str | None) -> dict[str, Any]:
    error = {
        "details": {"error_visibility": "user_facing"},
        "type": refusal.type,
        "message": refusal.message,
    }
    return {"type": "errored", "error": {"type": "error", "error": error, "request_id": request_id}}


def altered(lines: Iterable[bytes], counts: Mapping[str, int]) -> Iterator[bytes]:
    """The lines with faults: `counts` says how many lines to spoil, by the names in ALTERATIONS.

    Missing lines are left out, duplicates repeated at the end, lines of an unknown type keep their
    custom_id, garbage lines are cut in half, broken ones end in a brace all the same, foreign lines have
    a custom_id nobody submitted.
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
    """The lines joined to pieces of about 256 KB, which cost the server far less to send."""
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
    """The pieces of a file of prepared results."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_FILE_CHUNK):
            yield piece


class Preparation:
    """One thread that makes the results of accepted batches beforehand, in the order of their creation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.SimpleQueue[BatchRecord | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, record: BatchRecord) -> None:
        """Prepare the results of a batch soon; without a latency they are wanted before they could be ready."""
        if record.latency <= 0:
            return
        self._waiting.put(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
            self._store.before_close.append(self._stop)

    def _stop(self) -> None:
        assert self._thread is not None
        self._stopped.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (record := self._waiting.get()) is not None and not self._stopped.is_set():
            with contextlib.suppress(OSError):  # such as a full disk: the results are then made when asked for
                self._prepare(record)

    def _prepare(self, record: BatchRecord) -> None:
        path = self._store.incoming()
        everything = Progress("ended", None, record.requests, "canceled", None)
        try:
            with path.open("wb") as file:
                for piece in joined(result_lines(self._store, record, everything)):
                    if self._stopped.is_set():
                        return
                    file.write(piece)
            path.replace(self._store.results_path(record.id))
        finally:
            path.unlink(missing_ok=True)
