"""The emulator's bill: what each accepted request costs, and which result lines were served.

As in the API, a request costs money once it is answered, whether or not anyone downloads the answer. A request
that is errored, canceled, expired or refused before any output costs nothing. The answers follow from what is
stored about a batch, and so does its bill. Which lines are served is stored when they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import orjson

from batch_assets.emulator.batches import Progress
from batch_assets.emulator.prices import batch_price
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.results import results
from batch_assets.emulator.state import Store


@dataclass(frozen=True)
class BilledRequest:
    """An accepted request.

    Attributes:
        custom_id: Its custom_id.
        model: The model that answered it; `None` if none did, or it is not processed yet.
        usage: The usage of the answer; `None` without one.
        picodollars: What it costs.
    """

    custom_id: str
    model: str | None
    usage: dict[str, Any] | None
    picodollars: int


class Bill:
    """The bill of a store.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._amounts = lru_cache(maxsize=4096)(self._compute_amounts)

    def requests(self, record: BatchRecord, progress: Progress) -> Iterator[BilledRequest]:
        """Yield the bill of each request of a batch, in their order."""
        for request, result in results(self._store, record, progress):
            if result is None or result["type"] != "succeeded":
                yield BilledRequest(request["custom_id"], None, None, 0)
                continue
            message = result["message"]
            yield BilledRequest(request["custom_id"], message["model"], message["usage"], _price(message))

    def of_batch(self, record: BatchRecord, progress: Progress) -> dict[str, Any]:
        """Make the bill of a batch as JSON: the numbers of its requests, and the amounts in picodollars."""
        amounts = self._amounts(record, progress)
        served = [amount for amount, is_served in zip(amounts, self.served(record), strict=True) if is_served]
        return {
            "id": record.id,
            "workspace": record.workspace,
            "requests": record.requests,
            "billed": sum(amount > 0 for amount in amounts),
            "served": len(served),
            "picodollars": sum(amounts),
            "served_picodollars": sum(served),
        }

    def _compute_amounts(self, record: BatchRecord, progress: Progress) -> list[int]:
        return [request.picodollars for request in self.requests(record, progress)]

    def served(self, record: BatchRecord) -> bytes:
        """Return whether the result line of each request was ever served whole: one byte each, 0 or 1."""
        return self._store.served(record.id) or bytes(record.requests)

    def serve(self, record: BatchRecord, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a whole download, then note that every line was served.

        A client takes a download for whole only after its end, which is sent after that.
        """
        yield from pieces
        self._store.note_served(record.id, bytes([1]) * record.requests)

    def note_lines(self, record: BatchRecord, lines: Iterable[bytes], sent: IO[bytes], size: int) -> None:
        """Note which lines are served by a download that a fault changes.

        Args:
            record: The batch.
            lines: Its result lines.
            sent: A file with the body of the download.
            size: How many of its bytes are sent.
        """
        sent.seek(0)
        whole = {line.rstrip() for line in sent.read(size).split(b"\n")}
        positions = {custom_id: at for at, custom_id in enumerate(self._custom_ids(record))}
        noted = bytearray(self.served(record))
        for line in lines:
            if line.rstrip() in whole:
                noted[positions[orjson.loads(line)["custom_id"]]] = 1
        self._store.note_served(record.id, bytes(noted))

    def _custom_ids(self, record: BatchRecord) -> Iterator[str]:
        for _, raw in self._store.read_requests(record.id):
            yield orjson.loads(raw)["custom_id"]


def _price(message: dict[str, Any]) -> int:
    if message["stop_reason"] == "refusal" and not message["content"]:
        return 0
    return batch_price(message["model"], message["usage"])
