"""The endpoints under /v1/messages/batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from batch_assets.emulator.batches import SECOND
from batch_assets.emulator.body import index_body
from batch_assets.emulator.caching import BatchCaching
from batch_assets.emulator.calls import Call, too_large
from batch_assets.emulator.cut import CutResponse
from batch_assets.emulator.outcomes import Judge, Mix, result_type
from batch_assets.emulator.private import create_private
from batch_assets.emulator.records import BatchRecord, NewBatch
from batch_assets.emulator.results import altered, joined, parse_betas, prepared, result_lines
from batch_assets.emulator.wire import HttpError, json_response

LIST_LIMIT = 1000
"""The largest `limit` of a list call."""
POLL_SECONDS = 10
"""The `retry-after` in the answer about a batch that has not ended."""
# Faults that change the body of a download, so that a prepared file cannot be sent.
_BODY_FAULTS = frozenset({"lines", "truncate", "ending"})


async def create(call: Call) -> Response:
    """POST /v1/messages/batches: write the body to disk, check it, store the batch, then answer."""
    service = call.service
    path = service.store.incoming()
    try:
        with service.on_disk.by(call.client) as take:
            await _receive(call, path, take)
            record = await run_in_threadpool(_accept, call, path)
    finally:
        path.unlink(missing_ok=True)
    service.begin(record)
    return json_response(_not_ended(_shown(call, record), "in_progress"))


async def rate_limits(call: Call) -> Response:
    """GET /v1/organizations/rate_limits: the limit of the queue, for any key; 404 if there is none."""
    limit = call.service.settings.queue_limit
    if limit is None:
        raise HttpError(404, "Not found")
    kind = call.request.query_params.get("group_type", "batch")
    groups = [{"type": "rate_limit", "group_type": "batch", "models": None}] if kind == "batch" else []
    limits = {"limits": [{"type": "enqueued_batch_requests", "value": limit}]}
    return json_response({"data": [group | limits for group in groups], "next_page": None})


def _not_ended(shown: dict[str, Any], status: str) -> dict[str, Any]:
    """Show a batch as not ended, as it was at the instant of the call.

    With a latency or cancel delay of zero it has ended by now.
    """
    counts = dict.fromkeys(shown["request_counts"], 0)
    counts["processing"] = sum(shown["request_counts"].values())
    not_ended = {"processing_status": status, "ended_at": None, "results_url": None, "archived_at": None}
    return shown | not_ended | {"request_counts": counts}


async def _receive(call: Call, path: Path, take: Callable[[int], None]) -> None:
    limit = call.service.settings.max_body_bytes
    if int(call.request.headers.get("content-length") or 0) > limit:
        raise too_large()
    size = 0
    with create_private(path, buffering=1 << 20) as file:
        async for part in call.request.stream():
            take(len(part))
            size += len(part)
            if size > limit:
                raise too_large()
            file.write(part)


def _accept(call: Call, path: Path) -> BatchRecord:
    service, settings = call.service, call.service.settings
    if service.store.count(call.workspace) >= settings.max_batches:
        raise HttpError(429, f"This workspace has {settings.max_batches:,} batches: delete some")
    mix = Mix(call.action["error_mix"]) if "error_mix" in call.action else None
    judge = Judge(call.version, parse_betas(call.betas), mix, service.submissions)
    caching = BatchCaching(lambda prefix: service.is_warm(call.workspace, prefix))

    def outcome(custom_id: str, params: dict[str, Any]) -> int:
        code = judge(custom_id, params)
        caching.add(params, is_answered=result_type(code) == "succeeded")
        return code

    index = index_body(path, outcome, max_requests=settings.max_requests)
    if settings.queue_limit is not None and service.queued() + len(index) > settings.queue_limit:
        raise HttpError(429, "This request would exceed your organization's limit of batch requests in process")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    record = service.store.accept(
        NewBatch(
            workspace=call.workspace,
            created_at=service.clock.now(),
            latency=round(settings.latency * SECOND),
            expiry=round(settings.expiry * SECOND),
            cancel_delay=round(settings.cancel_delay * SECOND),
            version=call.version,
            betas=call.betas,
            sha256=sha256,
            body=path,
            index=index,
            caching=caching,
            is_asked=service.asking is not None,
        )
    )
    judge.commit()
    return record


def _shown(call: Call, record: BatchRecord) -> dict[str, Any]:
    return call.service.shown(record, call.base_url, call.action)


async def retrieve(call: Call) -> Response:
    """GET /v1/messages/batches/{id}"""
    shown = _shown(call, call.service.find(call.id, call.workspace, call.action))
    headers = {} if shown["processing_status"] == "ended" else {"retry-after": str(POLL_SECONDS)}
    return json_response(shown, headers=headers)


async def list_batches(call: Call) -> Response:
    """GET /v1/messages/batches: one page, newest first."""
    limit, query = call.limit(LIST_LIMIT), call.request.query_params
    cursors: dict[str, int | None] = {"after": None, "before": None}
    for name in cursors:
        batch_id = query.get(f"{name}_id")
        if batch_id:
            cursors[name] = call.service.store.cursor_of(batch_id, call.workspace)
            if cursors[name] is None:
                raise HttpError(400, f"{name}_id: Message Batch {batch_id} not found.")
    if None not in cursors.values():
        raise HttpError(400, "Only one of after_id and before_id may be given")
    hidden = round(call.action.get("hide_from_list", 0) * SECOND)
    until = call.service.clock.now() - hidden
    records = call.service.store.page(call.workspace, limit + 1, **cursors, created_until=until)
    has_more = len(records) > limit
    # One record more than the limit was fetched, to know whether there are more. It is the farthest from the
    # cursor.
    records = records[-limit:] if cursors["before"] is not None else records[:limit]
    return json_response(
        {
            "data": [_shown(call, record) for record in records],
            "has_more": has_more,
            "first_id": records[0].id if records else None,
            "last_id": records[-1].id if records else None,
        }
    )


async def cancel(call: Call) -> Response:
    """POST /v1/messages/batches/{id}/cancel

    A second call changes nothing. For a batch that has ended the answer is 400; that is an assumption, no public
    source shows it.
    """
    record = call.service.find(call.id, call.workspace, call.action)
    if call.service.progress(record).ended_at is not None:
        raise HttpError(400, f"Message Batch {call.id} has ended and cannot be canceled.")
    call.service.store.mark(call.id, "cancel_at", call.service.clock.now())
    record = call.service.find(call.id, call.workspace, {})
    return json_response(_not_ended(_shown(call, record), "canceling"))


async def delete(call: Call) -> Response:
    """DELETE /v1/messages/batches/{id}"""
    record = call.service.find(call.id, call.workspace, call.action)
    if call.service.progress(record).ended_at is None:
        raise HttpError(400, "In progress batches cannot be deleted. Consider canceling the batch instead.")
    call.service.store.mark(call.id, "deleted_at", call.service.clock.now())
    return json_response({"id": call.id, "type": "message_batch_deleted"})


async def results(call: Call) -> Response:
    """GET /v1/messages/batches/{id}/results: the lines, from the prepared file or made during the download."""
    record = call.service.find(call.id, call.workspace, call.action)
    progress = call.service.progress(record)
    if progress.ended_at is None or progress.archived_at is not None:
        raise HttpError(404, f"Message Batch {call.id} has no available results.")
    headers = _download_headers(call.id)
    file = call.service.store.results_path(call.id)
    if progress.finished == record.requests and not call.action.keys() & _BODY_FAULTS and file.exists():
        return StreamingResponse(call.service.bill.serve(record, prepared(file)), headers=headers)
    lines = result_lines(call.service.store, record, progress)
    if not call.action.keys() & _BODY_FAULTS:
        return StreamingResponse(call.service.bill.serve(record, joined(lines)), headers=headers)
    if "lines" in call.action:
        lines = altered(lines, call.action["lines"])
    truncate = call.action.get("truncate", {})
    ending = call.action.get("ending", "abort" if truncate else "chunked")

    def note(body: IO[bytes], size: int) -> None:
        intact = result_lines(call.service.store, record, progress)
        call.service.bill.note_lines(record, intact, body, size)

    return CutResponse(joined(lines), truncate, ending, headers, note)


def _download_headers(batch_id: str) -> Mapping[str, str]:
    return {
        "content-type": "application/x-jsonl",
        "content-disposition": f"attachment; filename*=utf-8''{batch_id}_results.jsonl",
    }
