"""The ASGI application: routes, authentication, faults and headers around every endpoint."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import batch_endpoints, control, message_endpoints
from .calls import Call, Handler
from .connection import Connection
from .service import DEFAULT_WORKSPACE, Service
from .wire import ERROR_TYPES, ApiError, error_body, error_response, json_response, new_id, standard_headers

_BATCHES = "/v1/messages/batches"

ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", _BATCHES, batch_endpoints.create),
    ("GET", _BATCHES, batch_endpoints.list_batches),
    ("GET", f"{_BATCHES}/{{id}}", batch_endpoints.retrieve),
    ("DELETE", f"{_BATCHES}/{{id}}", batch_endpoints.delete),
    ("GET", f"{_BATCHES}/{{id}}/results", batch_endpoints.results),
    ("POST", f"{_BATCHES}/{{id}}/cancel", batch_endpoints.cancel),
    ("POST", "/v1/messages", message_endpoints.create_message),
    ("POST", "/v1/messages/count_tokens", message_endpoints.count_tokens),
    ("GET", "/v1/models", message_endpoints.list_models),
    ("GET", "/v1/models/{id}", message_endpoints.retrieve_model),
]
"""Method, path template and endpoint of the API."""

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
    ("GET", "/_emulator/requests", control.requests),
    ("GET", "/_emulator/batches/{id}/requests", control.accepted_requests),
]
"""The same for the control endpoints."""


class EmulatorApp:
    """The ASGI application over a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        routes = ROUTES + (CONTROL_ROUTES if service.settings.control else [])
        self._routes = [
            (method, template, re.compile(template.replace("{id}", "(?P<id>[^/]+)") + "/?"), handler)
            for method, template, handler in routes
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP call; the server is started without lifespan events and web sockets."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request, receive)
            if response is not None:
                await response(scope, receive, send)
        except ClientDisconnect:
            pass  # an upload or a download given up by the client leaves nothing behind

    async def _respond(self, request: Request, receive: Receive) -> Response | None:
        """The answer, or None when the connection was dropped instead."""
        request_id = new_id("req")
        method, path = request.method, request.url.path
        template, batch_id, handler = self._route(method, path)
        is_control = path.startswith("/_emulator/")
        action: Mapping[str, Any] = {}
        if not is_control:
            self._service.calls[f"{method} {template}"] += 1
            action = self._service.faults.take(method, path)
        connection, drop = Connection.of(request.scope), action.get("drop")
        if "delay" in action:
            await asyncio.sleep(action["delay"])
        if drop == "before_body":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        if drop == "before_commit" or ("status" in action and not action.get("early")):
            async for _ in request.stream():
                pass
        if drop == "before_commit":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        try:
            if "status" in action:
                response = _ordered(action, request_id)
            elif handler is None:
                raise ApiError(404, "Not found")
            else:
                workspace = DEFAULT_WORKSPACE if is_control else self._workspace(request)
                response = await handler(Call(self._service, request, batch_id, workspace, action))
        except ApiError as error:
            response = error_response(error, request_id)
        if drop == "after_commit":
            await connection.drop(receive, reset=action.get("reset", False))
            return None
        self._add_headers(response, request_id, action)
        return response

    def _route(self, method: str, path: str) -> tuple[str, str, Handler | None]:
        for wanted, template, pattern, handler in self._routes:
            if wanted == method and (match := pattern.fullmatch(path)):
                return template, match.groupdict().get("id", ""), handler
        return "other", "", None

    def _workspace(self, request: Request) -> str:
        """The workspace of the call's key; ApiError 401 without an accepted key."""
        key = request.headers.get("x-api-key", "")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not key and scheme.lower() == "bearer":
            key = token.strip()
        keys, workspaces = self._service.settings.keys, self._service.settings.workspaces
        if not key or (keys and key not in keys and key not in workspaces):
            raise ApiError(401, "invalid x-api-key")
        return workspaces.get(key, DEFAULT_WORKSPACE)

    def _add_headers(self, response: Response, request_id: str, action: Mapping[str, Any]) -> None:
        for name, value in standard_headers(request_id, self._service.clock.now()).items():
            response.headers.setdefault(name, value)
        for name, value in action.get("headers", {}).items():
            response.headers[name] = str(value)


def _ordered(action: Mapping[str, Any], request_id: str) -> Response:
    """The answer a fault orders in place of the endpoint's."""
    status = action["status"]
    if "body" not in action:
        kind = ERROR_TYPES.get(status, "api_error")
        return json_response(error_body(kind, f"Emulated {kind}", request_id), status)
    if isinstance(action["body"], str):
        return Response(action["body"], status, media_type="text/html")
    return json_response(action["body"], status)
