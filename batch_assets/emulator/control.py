"""The control endpoints under /_emulator: how tests steer the emulator and look at it from outside."""

from collections.abc import Iterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from .batches import SECOND
from .calls import Call
from .clock import Clock
from .results import joined
from .wire import ApiError, json_response, timestamp

_INSTANTS = {"end": "end_at", "expire": "expire_at", "archive": "archived_at"}


async def faults(call: Call) -> Response:
    """GET or POST /_emulator/faults: the rules in force with their counts; POST adds a list of rules."""
    if call.request.method == "POST":
        try:
            call.service.faults.add(orjson.loads(await call.request.body()))
        except (ValueError, TypeError, AttributeError) as error:
            raise ApiError(400, str(error)) from None
    return json_response([rule.shown() for rule in call.service.faults.rules])


async def reset_faults(call: Call) -> Response:
    """POST /_emulator/reset-faults"""
    call.service.faults.reset()
    call.service.submissions.clear()
    return json_response([])


async def settings(call: Call) -> Response:
    """GET or POST /_emulator/settings: POST changes those named in the body, for new batches."""
    current = call.service.settings
    if call.request.method == "POST":
        for name, value in (await call.json()).items():
            current.change(name, value)
    return json_response({name: getattr(current, name) for name in current.CHANGEABLE})


async def clock(call: Call) -> Response:
    """GET or POST /_emulator/clock: POST takes `reset`, `frozen` (bool), `advance`, `skew` (seconds)."""
    clock = call.service.clock
    if call.request.method == "POST":
        body = await call.json()
        if body.get("reset"):
            clock = call.service.clock = Clock()
        if "frozen" in body:
            (clock.freeze if body["frozen"] else clock.unfreeze)()
        clock.advance(round(body.get("advance", 0) * SECOND))
        clock.skew = round(body["skew"] * SECOND) if "skew" in body else clock.skew
        call.service.save_clock()
    return json_response(
        {
            "now": timestamp(clock.now()),
            "frozen": clock.frozen_at is not None,
            "shift": clock.shift / SECOND,
            "skew": clock.skew / SECOND,
        }
    )


async def move(call: Call) -> Response:
    """POST /_emulator/end, /expire or /archive: do that now to the batches in `ids`, or to all.

    Ended batches are neither ended nor expired again; only ended ones can be archived.
    """
    body = orjson.loads(await call.request.body() or b"{}")
    step = call.request.url.path.rpartition("/")[2]
    moved = []
    for record in call.service.store.alive():
        if record.id not in body.get("ids", [record.id]):
            continue
        if (call.service.progress(record).ended_at is not None) == (step == "archive"):
            call.service.store.mark(record.id, _INSTANTS[step], call.service.clock.now())
            moved.append(record.id)
    return json_response({"ids": moved})


async def log(call: Call) -> Response:
    """GET /_emulator/log: every batch accepted, in order; with ?custom_ids=true its custom_ids too."""
    entries = call.service.store.log()
    for entry in entries:
        entry["created_at"] = timestamp(entry["created_at"])
        if call.request.query_params.get("custom_ids") == "true":
            entry["custom_ids"] = list(_custom_ids(call, entry["id"]))
    return json_response(entries)


def _custom_ids(call: Call, batch_id: str) -> Iterator[Any]:
    for _, raw in call.service.store.read_requests(batch_id):
        yield orjson.loads(raw)["custom_id"]


async def accepted_requests(call: Call) -> Response:
    """GET /_emulator/batches/{id}/requests: the requests of an accepted batch as submitted, as JSON lines."""
    if not call.service.store.body_path(call.id).exists():
        raise ApiError(404, f"Message Batch {call.id} not found.")
    requests = call.service.store.read_requests(call.id)
    lines = (orjson.dumps(orjson.loads(raw)) + b"\n" for _, raw in requests)
    return StreamingResponse(joined(lines), media_type="application/x-jsonl")


async def requests(call: Call) -> Response:
    """GET /_emulator/requests: how many API calls were received, by method and path template."""
    return json_response(call.service.calls)
