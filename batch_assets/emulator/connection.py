"""Access to the TCP connection of a call, so that faults can close it for real."""

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
    """The connection a call came in on."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport, self._flow = transport, flow

    @classmethod
    def of(cls, scope: MutableMapping[str, Any]) -> "Connection":
        """The connection of the call with this ASGI scope."""
        connection = scope["extensions"][_KEY]
        assert isinstance(connection, cls)
        return connection

    async def write(self, data: bytes) -> None:
        """Send raw bytes past the HTTP server, waiting while the client reads slowly."""
        if not self._transport.is_closing():
            self._transport.write(data)
            await self._flow.drain()

    async def drop(self, receive: Receive, *, reset: bool = False) -> None:
        """Close the connection after what was written has been sent, by a TCP reset if so wished.

        Returns when the connection is gone, so that the HTTP server does not miss an answer.
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
        # With a linger time of zero, close() sends RST. The option belongs to the socket, not to the
        # descriptor, and uvloop's socket objects do not let it be set: hence the duplicate.
        shared = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        with shared:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class EmulatorProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the connection handed to the application in the ASGI scope."""

    def on_message_begin(self) -> None:
        """Called by the HTTP parser when a request begins."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # a TypedDict, extended here
        scope["extensions"] = {_KEY: Connection(self.transport, self.flow)}
