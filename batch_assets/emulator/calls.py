"""One call to the API, as the endpoints see it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from .service import Service
from .wire import ApiError

MAX_MESSAGE_BYTES = 32_000_000
"""Largest body of the Messages and token counting endpoints, in bytes, from the list of API errors."""


@dataclass(frozen=True)
class Call:
    """A call: the server's parts, the request, the id in its path (or ""), its workspace and its faults."""

    service: Service
    request: Request
    id: str
    workspace: str
    action: Mapping[str, Any]

    @property
    def base_url(self) -> str:
        """The URL by which the client reached the server, without a path."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}"

    @property
    def version(self) -> str:
        """The `anthropic-version` header."""
        return self.request.headers.get("anthropic-version", "")

    @property
    def betas(self) -> str:
        """The `anthropic-beta` headers, joined."""
        return ",".join(self.request.headers.getlist("anthropic-beta"))

    def limit(self, largest: int) -> int:
        """The `limit` of a list call: 20 when absent; ApiError 400 when not from 1 to `largest`."""
        text = self.request.query_params.get("limit", "20")
        try:
            limit = int(text)
        except ValueError:
            raise ApiError(400, "limit: Input should be a valid integer") from None
        if limit < 1:
            raise ApiError(400, "limit: Input should be greater than or equal to 1")
        if limit > largest:
            raise ApiError(400, f"limit: Input should be less than or equal to {largest}")
        return limit

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; ApiError 400 when it is not one, 413 when it is too large."""
        parts, size = [], 0
        async for part in self.request.stream():
            parts.append(part)
            size += len(part)
            if size > MAX_MESSAGE_BYTES:
                raise too_large()
        try:
            body = orjson.loads(b"".join(parts))
        except orjson.JSONDecodeError as error:
            raise ApiError(400, f"The request body is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise ApiError(400, "Input should be a valid dictionary or object to extract fields from")
        return body


Handler = Callable[[Call], Awaitable[Response]]


def too_large() -> ApiError:
    """The refusal of a body above the size limit."""
    return ApiError(413, "Request exceeds the maximum size")
