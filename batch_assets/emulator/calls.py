"""A call to the API, as the endpoints see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from batch_assets.emulator.service import Service
from batch_assets.emulator.wire import HttpError

MAX_MESSAGE_BYTES = 32_000_000
"""The largest body of the Messages and token counting endpoints in bytes, from the API's list of errors."""


@dataclass(frozen=True)
class Call:
    """A call to the API.

    Attributes:
        service: The state of the server.
        request: The HTTP request.
        id: The id in the path; "" if the path has none.
        workspace: The workspace of the API key.
        action: The combined actions of the faults that apply to this call.
    """

    service: Service
    request: Request
    id: str
    workspace: str
    action: Mapping[str, Any]

    @property
    def client(self) -> str:
        """The address of the client."""
        return self.request.client.host if self.request.client is not None else ""

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
        """The values of the `anthropic-beta` headers, joined by commas."""
        return ",".join(self.request.headers.getlist("anthropic-beta"))

    def limit(self, largest: int) -> int:
        """Read the `limit` of a list call, 20 by default.

        Raises:
            HttpError: 400 when it is not an integer from 1 to `largest`.
        """
        text = self.request.query_params.get("limit", "20")
        try:
            limit = int(text)
        except ValueError:
            raise HttpError(400, "limit: Input should be a valid integer") from None
        if limit < 1:
            raise HttpError(400, "limit: Input should be greater than or equal to 1")
        if limit > largest:
            raise HttpError(400, f"limit: Input should be less than or equal to {largest}")
        return limit

    async def json(self) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises:
            HttpError: 400 when it is not a JSON object, 413 when it is too large, 429 when the client has too many
                bodies in progress.
        """
        body = await self.json_value()
        if not isinstance(body, dict):
            raise HttpError(400, "Input should be a valid dictionary or object to extract fields from")
        return body

    async def json_value(self) -> Any:
        """Read the body as JSON of any kind.

        Raises:
            HttpError: As `json`.
        """
        parts, size = [], 0
        with self.service.in_memory.by(self.client) as take:
            async for part in self.request.stream():
                take(len(part))
                parts.append(part)
                size += len(part)
                if size > MAX_MESSAGE_BYTES:
                    raise too_large()
            try:
                return orjson.loads(b"".join(parts))
            except orjson.JSONDecodeError as error:
                raise HttpError(400, f"The request body is not valid JSON: {error}") from None


Handler = Callable[[Call], Awaitable[Response]]


def too_large() -> HttpError:
    """Make the error for a body above the size limit."""
    return HttpError(413, "Request exceeds the maximum size")
