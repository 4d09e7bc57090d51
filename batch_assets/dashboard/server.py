"""Serve the page on this machine: by default for this machine only, with a token for any other."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_assets.core.errors import SettingsError
from batch_assets.dashboard.live import Live, serve_from

_PAGE = Path(__file__).with_name("page.py")
# Where marimo keeps settings and a log of its own. They are of no use here, and the user's settings do not apply.
_MARIMO_FOLDERS = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
# Nothing is loaded from elsewhere, also not an image whose address is in an answer.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)

# Names for screen readers: marimo's control that looks again has a button with an icon only, in a shadow root,
# which takes no label from the page. It is drawn again with the page.
_NAMES = """<script>
  new MutationObserver(() => {
    for (const control of document.querySelectorAll("marimo-refresh")) {
      control.shadowRoot?.querySelector("button")?.setAttribute("aria-label", "Look again now");
      control.shadowRoot?.querySelector("select")?.setAttribute("aria-label", "Look again every");
    }
  }).observe(document, {childList: true, subtree: true});
</script>"""


def is_loopback(host: str) -> bool:
    """Whether an address is only reachable from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def new_token() -> str:
    """Make a token that the page asks for."""
    return secrets.token_urlsafe(24)


class OwnPagesOnly:
    """Refuses requests that another page in the same browser makes, and sets the policy of the page.

    Without it, any page that a user opens could read the root: browsers let pages open WebSockets anywhere.

    Args:
        app: The app.
        is_local: Whether it is served on this machine only. Then it answers only to the names of this machine.
    """

    def __init__(self, app: ASGIApp, *, is_local: bool) -> None:
        self._app, self._is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        name = urlsplit(f"//{host}").hostname or ""
        is_foreign = origin is not None and urlsplit(origin).netloc != host
        if is_foreign or (self._is_local and not is_loopback(name)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await PlainTextResponse("This page is for this machine only.", 403)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: The address.
        port: The port; 0 for any that is free.

    Raises:
        SettingsError: When the address is in use or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"the dashboard cannot listen on {host}, port {port}: {error.strerror}. Name another one with --port"
        ) from None


def serve(live: Live, listening: socket.socket, token: str | None) -> NoReturn:
    """Serve the page until the process is interrupted, and end the process.

    Args:
        live: What it shows.
        listening: The socket to serve on.
        token: The token that the page asks for; `None` for none.
    """
    serve_from(live)
    with TemporaryDirectory(prefix="batch-assets-dashboard-") as own:
        os.environ.update(dict.fromkeys(_MARIMO_FOLDERS, own))
        _run(listening, token)
    # The threads of pages that were open wait for them without end. Nothing is written, so nothing is cut off.
    sys.stdout.flush()
    os._exit(0)


def _run(listening: socket.socket, token: str | None) -> None:
    import marimo  # finds its folders while it is imported

    app = marimo.create_asgi_app(quiet=True, include_code=False, token=token, html_head=_NAMES)
    built = app.with_app(path="/", root=str(_PAGE)).build()
    own = OwnPagesOnly(built, is_local=is_loopback(listening.getsockname()[0]))
    server = uvicorn.Server(
        uvicorn.Config(own, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
