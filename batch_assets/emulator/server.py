"""The ASGI application: routing, authentication, faults and headers for all endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batch_assets.emulator import batch_endpoints, control, cost_endpoint, message_endpoints
from batch_assets.emulator.access import AllowedHosts, check_json
from batch_assets.emulator.callers import Place, authenticated
from batch_assets.emulator.calls import Call, Handler
from batch_assets.emulator.connection import Connection
from batch_assets.emulator.service import DEFAULT_WORKSPACE, Service
from batch_assets.emulator.wire import (
    ERROR_CODES,
    ERROR_TYPES,
    HttpError,
    error_body,
    error_response,
    json_response,
    new_id,
    standard_headers,
)

_BATCHES = "/v1/messages/batches"

ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", _BATCHES, batch_endpoints.create),
    ("GET", _BATCHES, batch_endpoints.list_batches),
    ("GET", f"{_BATCHES}/{{id}}", batch_endpoints.retrieve),
    ("DELETE", f"{_BATCHES}/{{id}}", batch_endpoints.delete),
    ("GET", f"{_BATCHES}/{{id}}/results", batch_endpoints.results),
    ("POST", f"{_BATCHES}/{{id}}/cancel", batch_endpoints.cancel),
    ("GET", "/v1/organizations/rate_limits", batch_endpoints.rate_limits),
    ("POST", "/v1/messages", message_endpoints.create_message),
    ("POST", "/v1/messages/count_tokens", message_endpoints.count_tokens),
    ("GET", "/v1/models", message_endpoints.list_models),
    ("GET", "/v1/models/{id}", message_endpoints.retrieve_model),
    ("GET", cost_endpoint.COST, cost_endpoint.cost),
]
"""The API: method, path template and endpoint of each route."""

CONTROL_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/_emulator/faults", control.faults),
    ("POST", "/_emulator/faults", control.faults),
    ("POST", "/_emulator/reset-faults", control.reset_faults),
    ("GET", "/_emulator/settings", control.settings),
    ("POST", "/_emulator/settings", control.settings),
    ("GET", "/_emulator/clock", control.clock),
    ("POST", "/_emulator/clock", control.clock),
    ("POST", "/_emulator/end", control.move),
    ("POST", "/_emulator/expire", control.move),
    ("POST", "/_emulator/archive", control.move),
    ("GET", "/_emulator/log", control.log),
    ("GET", "/_emulator/bill", control.bill),
    ("GET", "/_emulator/live_calls", control.live_calls),
    ("GET", "/_emulator/requests", control.requests),
    ("GET", "/_emulator/batches/{id}/requests", control.accepted_requests),
    ("GET", "/_emulator/batches/{id}/bill", control.batch_bill),
]
"""The control endpoints: method, path template and endpoint of each route."""


class EmulatorApp:
    """The ASGI application of the emulator."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._hosts = AllowedHosts(service.settings.allow_hosts)
        routes = ROUTES + (CONTROL_ROUTES if service.settings.control else [])
        self._routes = [
            (method, template, re.compile(template.replace("{id}", "(?P<id>[^/]+)") + "/?"), handler)
            for method, template, handler in routes
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP call. The server runs without lifespan events and web sockets."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request, receive)
            if response is not None:
                await response(scope, receive, send)
        except ClientDisconnect:
            pass  # the client has gone away, so there is no one to answer

    async def _respond(self, request: Request, receive: Receive) -> Response | None:
        """Make the answer; `None` if a fault closed the connection instead."""
        request_id = new_id("req")
        place = Place.of(request.url.path)
        method, path = request.method, place.path
        template, batch_id, handler = self._route(method, path)
        is_control = path.startswith("/_emulator/")
        try:
            self._hosts.check(request)
            if is_control and method != "GET":
                check_json(request)
        except HttpError as error:
            return error_response(error, request_id)
        action: Mapping[str, Any] = {}
        if not is_control:
            self._service.calls[f"{method} {template}" if handler is not None else "other"] += 1
            action = self._service.faults.take(method, path)
        connection, drop = Connection.of(request.scope), action.get("drop")
        if "delay" in action:
            await asyncio.sleep(action["delay"])
        if drop == "before_body":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        is_read = action.get("early") or action.get("late")
        if drop == "before_commit" or ("status" in action and not is_read):
            async for _ in request.stream():
                pass
        if drop == "before_commit":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        try:
            if "status" in action and not action.get("late"):
                response = _fault_response(action, request_id)
            elif handler is None:
                raise HttpError(404, "Not found")
            else:
                caller = request, DEFAULT_WORKSPACE
                if not is_control:
                    caller = authenticated(request, template, place, self._service.settings)
                response = await handler(Call(self._service, caller[0], batch_id, caller[1], action))
                if "status" in action:
                    response = _fault_response(action, request_id)
        except HttpError as error:
            response = error_response(error, request_id)
        if drop == "after_commit":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        self._add_headers(response, request_id, action)
        return response

    def _route(self, method: str, path: str) -> tuple[str, str, Handler | None]:
        for route_method, template, pattern, handler in self._routes:
            if route_method == method and (match := pattern.fullmatch(path)):
                return template, match.groupdict().get("id", ""), handler
        return "other", "", None

    def _add_headers(self, response: Response, request_id: str, action: Mapping[str, Any]) -> None:
        clock = self._service.clock
        for name, value in standard_headers(request_id, clock.now() + clock.skew).items():
            response.headers.setdefault(name, value)
        for name, value in action.get("headers", {}).items():
            response.headers[name] = str(value)


def _fault_response(action: Mapping[str, Any], request_id: str) -> Response:
    """Make the answer that a fault orders in place of the endpoint's."""
    status, code = action["status"], action.get("error_code")
    if "body" not in action:
        kind = ERROR_CODES[code][1] if code is not None else ERROR_TYPES.get(status, "api_error")
        return json_response(error_body(kind, f"Emulated {kind}", request_id, code), status)
    if isinstance(action["body"], str):
        return Response(action["body"], status, media_type="text/html")
    return json_response(action["body"], status)
