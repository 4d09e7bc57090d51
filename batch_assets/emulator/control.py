"""The control endpoints under /_emulator, with which tests control and inspect the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from batch_assets.emulator.batches import SECOND
from batch_assets.emulator.calls import Call
from batch_assets.emulator.clock import Clock
from batch_assets.emulator.results import joined
from batch_assets.emulator.wire import HttpError, json_response, timestamp

_INSTANTS = {"end": "end_at", "expire": "expire_at", "archive": "archived_at"}


async def faults(call: Call) -> Response:
    """GET or POST /_emulator/faults: list the active rules with their counts; POST adds a list of rules first."""
    if call.request.method == "POST":
        try:
            call.service.faults.add(await call.json_value())
        except (ValueError, TypeError, AttributeError) as error:
            raise HttpError(400, str(error)) from None
    return json_response([rule.shown() for rule in call.service.faults.rules])


async def reset_faults(call: Call) -> Response:
    """POST /_emulator/reset-faults: remove all rules."""
    call.service.faults.reset()
    call.service.submissions.clear()
    return json_response([])


async def settings(call: Call) -> Response:
    """GET or POST /_emulator/settings: show the settings; POST first changes some of them, for new batches."""
    current = call.service.settings
    if call.request.method == "POST":
        for name, value in (await call.json()).items():
            current.change(name, value)
    return json_response({name: getattr(current, name) for name in current.CHANGEABLE})


async def clock(call: Call) -> Response:
    """GET or POST /_emulator/clock: show the clock; POST first applies `reset`, `frozen`, `advance` and `skew`.

    `reset` and `frozen` are booleans, `advance` and `skew` are seconds.
    """
    clock = call.service.clock
    if call.request.method == "POST":
        body = await call.json()
        if body.get("reset"):
            clock = call.service.clock = Clock()
        if "frozen" in body:
            (clock.freeze if body["frozen"] else clock.unfreeze)()
        clock.advance(_microseconds(body, "advance"))
        clock.skew = _microseconds(body, "skew") if "skew" in body else clock.skew
        call.service.save_clock()
    return json_response(
        {
            "now": timestamp(clock.now()),
            "frozen": clock.frozen_at is not None,
            "shift": clock.shift / SECOND,
            "skew": clock.skew / SECOND,
        }
    )


def _microseconds(body: dict[str, Any], name: str) -> int:
    try:
        return round(float(body.get(name, 0)) * SECOND)
    except (TypeError, ValueError, OverflowError):
        raise HttpError(400, f"{name}: give a number of seconds") from None


async def move(call: Call) -> Response:
    """POST /_emulator/end, /expire or /archive: do this now to the batches in `ids`, or to all batches.

    Only batches that have not ended are ended or expired, and only ended batches are archived.
    """
    body = await call.json()
    step = call.request.url.path.rpartition("/")[2]
    ids = _ids_in(body)
    moved = []
    for record in call.service.store.alive():
        if ids is not None and record.id not in ids:
            continue
        if (call.service.progress(record).ended_at is not None) == (step == "archive"):
            call.service.store.mark(record.id, _INSTANTS[step], call.service.clock.now())
            moved.append(record.id)
    return json_response({"ids": moved})


def _ids_in(body: dict[str, Any]) -> set[str] | None:
    if "ids" not in body:
        return None
    if not isinstance(body["ids"], list) or not all(isinstance(batch_id, str) for batch_id in body["ids"]):
        raise HttpError(400, "ids: give a list of batch ids")
    return set(body["ids"])


async def log(call: Call) -> Response:
    """GET /_emulator/log: list every accepted batch, in order; with ?custom_ids=true also its custom_ids."""
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
    """GET /_emulator/batches/{id}/requests: the requests of an accepted batch as JSON lines, in their order."""
    if not call.service.store.body_path(call.id).exists():
        raise HttpError(404, f"Message Batch {call.id} not found.")
    requests = call.service.store.read_requests(call.id)
    lines = (orjson.dumps(orjson.loads(raw)) + b"\n" for _, raw in requests)
    return StreamingResponse(joined(lines), media_type="application/x-jsonl")


async def bill(call: Call) -> Response:
    """GET /_emulator/bill: what batches and live calls cost; with ?workspace=NAME only those of a workspace.

    Amounts are in picodollars. `served` counts the result lines, and the answers to live calls, that were ever
    sent whole.
    """
    service, workspace = call.service, call.request.query_params.get("workspace")
    records, calls = service.store.all(workspace), service.store.live_calls(workspace)
    batches = await run_in_threadpool(
        lambda: [service.bill.of_batch(record, service.progress(record)) for record in records]
    )
    totals = {
        name: sum(batch[name] for batch in batches)
        for name in ("requests", "billed", "served", "picodollars", "served_picodollars")
    }
    of_calls = {
        "requests": len(calls),
        "billed": sum(each.picodollars > 0 for each in calls),
        "served": sum(each.served for each in calls),
        "picodollars": sum(each.picodollars for each in calls),
        "served_picodollars": sum(each.picodollars for each in calls if each.served),
    }
    totals = {name: total + of_calls[name] for name, total in totals.items()}
    return json_response({"batches": batches, **totals})


async def live_calls(call: Call) -> Response:
    """GET /_emulator/live_calls: list every live call that was answered, in order, with what it costs."""
    return json_response([vars(each) for each in call.service.store.live_calls()])


async def batch_bill(call: Call) -> Response:
    """GET /_emulator/batches/{id}/bill: what each request of an accepted batch costs, as JSON lines, in order."""
    service = call.service
    record = service.store.accepted(call.id)
    if record is None:
        raise HttpError(404, f"Message Batch {call.id} not found.")
    served = service.bill.served(record)
    lines = (
        orjson.dumps({**vars(request), "served": bool(is_served)}) + b"\n"
        for request, is_served in zip(service.bill.requests(record, service.progress(record)), served, strict=True)
    )
    return StreamingResponse(joined(lines), media_type="application/x-jsonl")


async def requests(call: Call) -> Response:
    """GET /_emulator/requests: count the API calls received, by method and path template."""
    return json_response(call.service.calls)
