"""The endpoint for what an organization's batches and live calls cost, by day, model and workspace.

It is made from the emulator's own bill. Only what a report about them needs is emulated: anything else is
refused with 400.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from batch_assets.emulator.batches import SECOND, Progress, processed_at
from batch_assets.emulator.calls import Call
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.service import Service
from batch_assets.emulator.wire import HttpError, json_response, timestamp

COST = "/v1/organizations/analytics/cost"
BETA = "analytics-usage-cost-2026-08-24"
"""The beta that a call has to name."""
_BATCHES, _LIVE = "message_batches_api", "messages_api"
"""The products: a live call is none of batches."""
_MOST_DAYS = 31
_LIMIT = 1000
_DAY = 86_400 * SECOND
_CENT = 10**10  # picodollars
_GROUPS = ("model", "workspace_id")
_NAMES = frozenset(
    {
        *("starting_at", "ending_at", "time_bucket_width", "limit", "page", "order", "order_by", "beta"),
        *("group_by[]", "products[]", "workspace_ids[]"),
    }
)

_Row = tuple[int, str | None, str | None]
_Charge = tuple[int, str, int]  # when, which model, picodollars


async def cost(call: Call) -> Response:
    """GET /v1/organizations/analytics/cost: what products cost, with a row for each day and group."""
    if BETA not in call.betas.split(","):
        raise HttpError(400, f"anthropic-beta: this endpoint needs {BETA}")
    query = call.request.query_params
    for name in query:
        if name not in _NAMES:
            raise HttpError(400, f"{name}: not emulated")
    start, end = _instant(call, "starting_at"), _instant(call, "ending_at")
    if not start < end <= start + _MOST_DAYS * _DAY:
        raise HttpError(400, f"ending_at: must be after starting_at, by at most {_MOST_DAYS} days")
    if query.get("time_bucket_width") != "1d" or query.get("order_by") != "time" or query.get("order") != "asc":
        raise HttpError(400, "time_bucket_width, order_by, order: only 1d, time and asc are emulated")
    groups = query.getlist("group_by[]")
    if unknown := set(groups) - set(_GROUPS):
        raise HttpError(400, f"group_by: not emulated: {', '.join(sorted(unknown))}")
    products, workspaces = query.getlist("products[]"), query.getlist("workspace_ids[]")
    charged = _charges(call.service, products or [_BATCHES, _LIVE])
    rows = await run_in_threadpool(_rows, charged, start, end, groups, workspaces)
    limit, first = call.limit(_LIMIT), _cursor(query.get("page"))
    page = rows[first : first + limit]
    has_more = first + limit < len(rows)
    return json_response(
        {
            "data": [_wire(row, amount, requests) for row, (amount, requests) in page],
            "has_more": has_more,
            "next_page": f"page_{first + limit}" if has_more else None,
            "data_refreshed_at": timestamp(call.service.clock.now()),
        }
    )


def workspace_id(name: str) -> str:
    """The tagged id of a workspace in the report."""
    return f"wrkspc_{name}"


def _instant(call: Call, name: str) -> int:
    """Read an RFC 3339 time with a time zone, in microseconds since 1970."""
    try:
        time = datetime.fromisoformat(call.request.query_params.get(name, ""))
    except ValueError:
        raise HttpError(400, f"{name}: give a time such as 2026-11-20T00:00:00Z") from None
    if time.tzinfo is None:
        raise HttpError(400, f"{name}: give a time zone")
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _cursor(page: str | None) -> int:
    if page is None:
        return 0
    number = page.removeprefix("page_")
    if not number.isdecimal():
        raise HttpError(400, "page: not a cursor of this endpoint")
    return int(number)


def _rows(
    charged: Iterable[tuple[str, Iterable[_Charge]]],
    start: int,
    end: int,
    groups: list[str],
    workspaces: list[str],
) -> list[tuple[_Row, list[int]]]:
    """Return the amounts in picodollars and the numbers of requests, by day and group."""
    rows: dict[_Row, Counter[str]] = {}
    by_model, by_workspace = "model" in groups, "workspace_id" in groups
    for name, charges in charged:
        workspace = workspace_id(name)
        if workspaces and workspace not in workspaces:
            continue  # before its charges are computed
        for at, model, amount in charges:
            if start <= at < end:
                row = (at // _DAY, model if by_model else None, workspace if by_workspace else None)
                rows.setdefault(row, Counter()).update(amount=amount, requests=1)
    return [(row, [sums["amount"], sums["requests"]]) for row, sums in sorted(rows.items(), key=_in_order)]


def _in_order(entry: tuple[_Row, Counter[str]]) -> tuple[int, int]:
    (day, *_), sums = entry
    return day, -sums["amount"]


def _charges(service: Service, products: list[str]) -> Iterator[tuple[str, Iterable[_Charge]]]:
    """Yield what each batch and each live call of some products costs, with its workspace."""
    if _BATCHES in products:
        for record in service.store.all():
            yield record.workspace, _batch_charges(service, record, service.progress(record))
    if _LIVE in products:
        for call in service.store.live_calls():
            if call.picodollars:
                yield call.workspace, [(call.at, call.model, call.picodollars)]


def _batch_charges(service: Service, record: BatchRecord, progress: Progress) -> Iterator[_Charge]:
    """Yield when each request of a batch was processed, by which model, and what it costs in picodollars."""
    for position, request in enumerate(service.bill.requests(record, progress)):
        if request.model is not None and request.picodollars:
            yield processed_at(record, progress, position), request.model, request.picodollars


def _wire(row: _Row, amount: int, requests: int) -> dict[str, Any]:
    day, model, workspace = row
    whole, rest = divmod(amount, _CENT)
    cents = f"{whole}.{rest:010d}"
    return {
        "cost": {"amount": cents, "currency": "USD", "list_amount": cents, "requests": requests},
        "starting_at": timestamp(day * _DAY),
        "ending_at": timestamp((day + 1) * _DAY),
        "group": {
            "model": model,
            "workspace_id": workspace,
            "product": None,
            "cost_type": None,
            "token_type": None,
        },
    }
