"""Bounds on what one client may hold at a time: connections, bodies and batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batch_assets.emulator.wire import HttpError

MAX_CONNECTIONS = 256
"""The largest number of open connections of one address."""
MAX_HEAD_BYTES = 64 << 10
"""The largest size of the line and the headers of a call in bytes."""
IDLE_SECONDS = 600.0
"""A connection with an incomplete call is closed after this time without a byte."""
MAX_BATCHES = 100_000
"""The largest number of batches that a workspace may have and not delete."""
MAX_BODIES_IN_MEMORY = 256 << 20
"""The bytes of one address's bodies that the server has in memory while it receives and answers the calls."""
MAX_BODIES_ON_DISK = 16 << 30
"""The bytes of one address's create bodies that the server is receiving or checking."""


class Held:
    """Counts what each client holds at the moment.

    Args:
        most: The largest amount for one client.
        unit: What is counted, for the refusal, such as "bytes of bodies".
    """

    def __init__(self, most: int, unit: str) -> None:
        self._most, self._unit = most, unit
        self._amounts: Counter[str] = Counter()

    @contextmanager
    def by(self, client: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that adds to what a client holds. The client holds it until the block ends.

        The function raises an `HttpError` with status 429 when the client would hold too much.
        """
        amount = 0

        def take(more: int) -> None:
            nonlocal amount
            if self._amounts[client] + more > self._most:
                raise HttpError(429, f"This client has too many {self._unit} in progress: at most {self._most:,}")
            self._amounts[client] += more
            amount += more

        try:
            yield take
        finally:
            self._amounts[client] -= amount
            if self._amounts[client] <= 0:
                del self._amounts[client]
