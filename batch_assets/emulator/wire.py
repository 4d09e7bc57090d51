"""The forms of the API's answers: identifiers, timestamps, error bodies, response headers.

They follow the public API reference (https://platform.claude.com/docs/en/api) and public recordings of the API's
traffic: RFC 3339 timestamps with microseconds and `+00:00`, error bodies with a top-level `request_id`,
`x-should-retry: false` on refusals.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import orjson
from starlette.responses import Response

ORGANIZATION_ID = "emulator"
"""The value of `anthropic-organization-id`, which shows that no real organization answered."""

_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_TO_BASE58 = bytes(_BASE58[byte % 58] for byte in range(256))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The `error.type` by HTTP status, from the API's list of errors."""

ERROR_CODES = {
    "claude_code_key_creator_not_member": (400, "invalid_request_error"),
    "cmek_context_unavailable": (503, "api_error"),
    "cmek_key_disabled": (400, "invalid_request_error"),
    "cmek_key_network_blocked": (400, "invalid_request_error"),
    "cmek_key_unreachable": (503, "api_error"),
    "contract_spend_limit_reached": (429, "rate_limit_error"),
    "enforced_spend_limit_reached": (429, "rate_limit_error"),
    "organization_on_hold": (400, "invalid_request_error"),
    "workspace_human_review_disabled": (400, "invalid_request_error"),
}
"""Codes of refusals of the whole account: status and `error.type`, from the SDK's list of error classes."""

_RETRYABLE = frozenset({408, 409, 429})


class HttpError(Exception):
    """A refusal that is sent to the client as an HTTP error.

    Attributes:
        status: The HTTP status.
        type: The `error.type` in the body; by default that of the status.
        message: The `error.message` in the body.
    """

    def __init__(self, status: int, message: str, *, type: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = type or ERROR_TYPES.get(status, "api_error")
        self.message = message


def new_id(prefix: str) -> str:
    """Make a new identifier such as `msgbatch_01…`: a prefix, an underscore, `01` and 22 base-58 characters."""
    return _id(prefix, secrets.token_bytes(22))


def derived_id(prefix: str, *parts: str) -> str:
    """Make an identifier in the form of `new_id` that depends only on `prefix` and `parts`."""
    return _id(prefix, hashlib.blake2b("\0".join(parts).encode(), digest_size=22).digest())


def _id(prefix: str, random_bytes: bytes) -> str:
    return f"{prefix}_01{random_bytes.translate(_TO_BASE58).decode()}"


def timestamp(microseconds: int) -> str:
    """Format microseconds since 1970 as the API does: `2026-05-29T22:06:31.968394+00:00`."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def error_body(error_type: str, message: str, request_id: str, code: str | None = None) -> dict[str, Any]:
    """Make the body of an HTTP error, with an `error.details.error_code` if there is one."""
    details = {"details": {"error_code": code}} if code is not None else {}
    error = {"type": error_type, "message": message, **details}
    return {"type": "error", "error": error, "request_id": request_id}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make a response with `body` as JSON."""
    return Response(orjson.dumps(body), status, headers=dict(headers or {}), media_type="application/json")


def error_response(error: HttpError, request_id: str) -> Response:
    """Make the response for an error. A header tells clients whether to retry."""
    response = json_response(error_body(error.type, error.message, request_id), error.status)
    retry = error.status in _RETRYABLE or error.status >= 500
    response.headers["x-should-retry"] = "true" if retry else "false"
    return response


def standard_headers(request_id: str, now: int) -> dict[str, str]:
    """Make the headers of every answer of the API.

    Args:
        request_id: The id of the call.
        now: The instant, in microseconds since 1970.
    """
    return {
        "date": formatdate(now / 1_000_000, usegmt=True),
        "request-id": request_id,
        "anthropic-organization-id": ORGANIZATION_ID,
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": timestamp(now)[:19] + "Z",
    }
