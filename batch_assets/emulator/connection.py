"""Access to the TCP connection of a call, so that faults can really close it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from batch_assets.emulator.holding import IDLE_SECONDS, MAX_CONNECTIONS, MAX_HEAD_BYTES

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_KEY = "batch_assets.connection"
# Open connections by the address of the client.
_connections: Counter[str] = Counter()
_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b"
)
_BODY = (
    b'{"type":"error","error":{"type":"rate_limit_error","message":"This client has too many open connections"}}'
)


class Connection:
    """The TCP connection of a call."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport, self._flow = transport, flow

    @classmethod
    def of(cls, scope: MutableMapping[str, Any]) -> Connection:
        """Return the connection of the call with this ASGI scope."""
        connection = scope["extensions"][_KEY]
        assert isinstance(connection, cls)
        return connection

    async def write(self, data: bytes) -> None:
        """Send raw bytes, bypassing the HTTP server. Waits while the client reads slowly."""
        if not self._transport.is_closing():
            self._transport.write(data)
            await self._flow.drain()

    async def drop(self, receive: Receive, *, reset: bool = False) -> None:
        """Close the connection once all written data has been sent.

        Returns only when the connection is closed, because the HTTP server complains about a call without an
        answer on an open connection.

        Args:
            receive: The ASGI receive function of the call.
            reset: Whether to close with a TCP reset.
        """
        if reset:
            while self._transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            self._linger_zero()
            self._transport.abort()
        else:
            self._transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass

    def _linger_zero(self) -> None:
        # With a linger time of zero, close() sends a TCP reset. The option is set on a duplicate of the
        # descriptor, because uvloop's socket objects do not allow setting it. It applies to the socket, so to both
        # descriptors.
        shared = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        with shared:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class EmulatorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol. It also passes on the connection, and limits the connections of a client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or close it if the client has too many."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        _connections[self._peer] += 1
        self._is_in_head, self._head_bytes, self._received_at = True, 0, self.loop.time()
        self._idle_timer = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)
        if _connections[self._peer] > MAX_CONNECTIONS:
            transport.write(_TOO_MANY % (len(_BODY), _BODY))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._idle_timer.cancel()
        _connections[self._peer] -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. Closes the connection if the head of a call is too long."""
        if self.transport.is_closing():
            return
        self._received_at = self.loop.time()
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.close()

    def _close_if_idle(self) -> None:
        idle = self.loop.time() - self._received_at
        owes = self.cycle is None or self.cycle.more_body
        if owes and idle >= IDLE_SECONDS:
            self.transport.close()
            return
        self._idle_timer = self.loop.call_later(max(IDLE_SECONDS - idle, 1.0), self._close_if_idle)

    def on_headers_complete(self) -> None:
        """Begin the call."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next call."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_message_begin(self) -> None:
        """Add the connection to the scope. The HTTP parser calls this when a request begins."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # a TypedDict without this key
        scope["extensions"] = {_KEY: Connection(self.transport, self.flow)}
