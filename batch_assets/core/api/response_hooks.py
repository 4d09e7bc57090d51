"""What is done to an answer of the API before the SDK handles it."""

from __future__ import annotations

from typing import Any

from batch_assets.core.api.errors import RATE_LIMITED, asked_wait

_SDK_WAIT = 5.0  # seconds that the SDK may sleep before it repeats a read


def raw_response() -> Any:
    """Return what the SDK casts an answer to so that it is left as it is."""
    import httpx2

    return httpx2.Response


def bound(response: Any) -> None:
    """Limit what is read of an answer."""
    from batch_assets.core.api import bodies  # imports the transport, as the SDK does

    bodies.bound(response, is_download=response.request.url.path.endswith("/results"))


def leave_waiting_to_us(response: Any) -> None:
    """Keep the SDK from sleeping for a long `retry-after`. The caller tries again later instead."""
    if response.status_code == RATE_LIMITED or (asked_wait(response.headers) or 0.0) > _SDK_WAIT:
        response.headers["x-should-retry"] = "false"
