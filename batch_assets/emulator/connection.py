"""Access to the TCP connection of a call, so that faults can really close it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_KEY = "batch_assets.connection"


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
    """uvicorn's HTTP protocol, which also passes the connection to the application in the ASGI scope."""

    def on_message_begin(self) -> None:
        """Add the connection to the scope. The HTTP parser calls this when a request begins."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # a TypedDict without this key
        scope["extensions"] = {_KEY: Connection(self.transport, self.flow)}
