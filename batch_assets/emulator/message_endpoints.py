"""The endpoints for messages, token counting and models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from batch_assets.emulator.answers import emulated_message
from batch_assets.emulator.calls import Call
from batch_assets.emulator.models import CATALOG, MODELS
from batch_assets.emulator.params import check_params
from batch_assets.emulator.prices import live_price
from batch_assets.emulator.records import LiveCall
from batch_assets.emulator.results import parse_betas
from batch_assets.emulator.tokens import prompt_tokens
from batch_assets.emulator.wire import HttpError, json_response, new_id

_STATUS = {"not_found_error": 404}


def _check(call: Call, params: dict[str, Any]) -> None:
    refusal = check_params(params, version=call.version, betas=parse_betas(call.betas), batch=False)
    if refusal is not None:
        raise HttpError(_STATUS.get(refusal.type, 400), refusal.message, type=refusal.type)


async def create_message(call: Call) -> Response:
    """POST /v1/messages: the same answer as in a batch, with service tier `standard`. It is billed at once."""
    params = await call.json()
    _check(call, params)
    streamed = params.pop("stream", False)  # removed because the answer does not depend on how it is sent
    asking, is_warming = call.service.asking, params["max_tokens"] == 0
    if asking is not None and not is_warming:
        message = await asking.live_message(params)
    else:
        message = emulated_message(params, new_id("msg"), "standard")
    if is_warming:  # only fills the prompt cache, and has an empty answer
        message |= {"content": [], "stop_reason": "max_tokens"}
        message["usage"]["output_tokens"] = 0
    is_lost = call.action.get("drop") == "after_commit" or bool(call.action.get("late"))
    call.service.store.note_live_call(
        LiveCall(
            id=message["id"],
            workspace=call.workspace,
            at=call.service.clock.now(),
            model=message["model"],
            picodollars=live_price(message["model"], message["usage"]),
            served=int(not is_lost),
            params=orjson.dumps(params).decode(),
        )
    )
    if streamed:
        return StreamingResponse(_events(message), media_type="text/event-stream")
    return json_response(message)


def _events(message: dict[str, Any]) -> Iterator[bytes]:
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", {"message": start})
    for index, block in enumerate(message["content"]):
        empty, delta = _opened(block)
        yield _event("content_block_start", {"index": index, "content_block": empty})
        yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _event("message_delta", {"delta": ending, "usage": message["usage"]})
    yield _event("message_stop", {})


def _opened(block: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a content block into its empty form at the start of a stream and the one delta that completes it."""
    match block["type"]:
        case "text":
            return block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        case "tool_use":
            partial = orjson.dumps(block["input"]).decode()
            return block | {"input": {}}, {"type": "input_json_delta", "partial_json": partial}
        case _:
            return block | {"thinking": ""}, {"type": "thinking_delta", "thinking": block["thinking"]}


def _event(name: str, body: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name} | body))


async def count_tokens(call: Call) -> Response:
    """POST /v1/messages/count_tokens: the same estimate as in `usage`."""
    params = await call.json()
    _check(call, {"max_tokens": 1} | params)
    return json_response({"input_tokens": prompt_tokens(params).total})


async def list_models(call: Call) -> Response:
    """GET /v1/models: one page of the catalog, newest first."""
    limit, query = call.limit(1000), call.request.query_params
    ids = list(CATALOG)
    if after := query.get("after_id"):
        ids = ids[_position(ids, after) + 1 :]
    page = ids[:limit]
    if before := query.get("before_id"):
        ids = ids[: _position(ids, before)]
        page = ids[-limit:]
    return json_response(
        {
            "data": [CATALOG[name].wire() for name in page],
            "has_more": len(ids) > len(page),
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
    )


def _position(ids: list[str], cursor: str) -> int:
    if cursor not in ids:
        raise HttpError(400, f"model {cursor} not found")
    return ids.index(cursor)


async def retrieve_model(call: Call) -> Response:
    """GET /v1/models/{id}: one model, also by its alias."""
    model = MODELS.get(call.id)
    if model is None:
        raise HttpError(404, f"model: {call.id}")
    return json_response(model.wire())
