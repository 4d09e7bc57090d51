"""Request files on disk: JSON Lines, one `{"custom_id":…,"params":…}` a line, one file the body of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.store.digests import Digests, decode_tails
from batch_assets.core.store.manifest import Receipt
from batch_assets.core.store.request_lines import HEAD, TAIL, WINDOW, Scan, custom_id_of, own_tail, scan

# Several bodies are sent at a time, and of each some chunks are in memory.
_BODY_CHUNK = 1 << 18


@dataclass(frozen=True)
class StoredRequestFile:
    """A request file on disk.

    Attributes:
        parts: its path under the root.
    """

    storage: Storage
    parts: tuple[str, ...]

    @classmethod
    def of(cls, storage: Storage, file: RequestFile) -> StoredRequestFile:
        folder = submission_parts(file.pipeline, file.partition, file.submission_id)
        return cls(storage, (*folder, file.name))

    def lines(self) -> Iterator[bytes]:
        """Its lines, newline included, in order."""
        with self.storage.open(*self.parts) as file:
            yield from file

    def digests(self) -> Digests:
        """The digests of its requests, in order: S16, one a request."""
        return decode_tails(self.tails())[0]

    def scan(self) -> Scan:
        """Where its lines lie, and the last 22 characters of its custom_ids: what results are matched by."""
        with self.storage.open(*self.parts) as file:
            return scan(file, own_tail)

    def tails(self) -> NDArray[np.bytes_]:
        """The last 22 characters of its custom_ids, in order: S22, one a request."""
        return self.scan().tails

    def custom_ids_at(self, starts: Iterable[int]) -> Iterator[str]:
        """The custom_ids of the lines at these offsets."""
        with self.storage.open(*self.parts) as file:
            for start in starts:
                file.seek(start)
                yield custom_id_of(file.read(WINDOW))

    def body(self, before_chunk: Callable[[], None]) -> Iterator[bytes]:
        """The HTTP body in chunks. `before_chunk` may raise: no server accepts an unfinished body."""
        before_chunk()
        yield HEAD
        with self.storage.open(*self.parts) as file:
            chunk = file.read(_BODY_CHUNK)
            while chunk:
                following = file.read(_BODY_CHUNK)
                before_chunk()
                # Inside a line every newline is escaped: those in the file only end lines.
                yield chunk.replace(b"\n", b",") if following else chunk[:-1].replace(b"\n", b",")
                chunk = following
        before_chunk()
        yield TAIL

    def receipt_parts(self) -> tuple[str, ...]:
        return (*self.parts[:-1], PartName.parse(self.parts[-1]).receipt)

    def remove_leftovers(self) -> None:
        """Removes what a killed process left of a receipt. The caller knows that nobody is sending the file."""
        *folder, name = self.receipt_parts()
        self.storage.remove_leftovers(*folder, name=name)

    def write_receipt(self, batch: BatchObject, attempt: int, base_url: str, organization: str | None) -> None:
        """Writes beside the file which batch it became: the ledger can be rebuilt from it."""
        receipt = Receipt.of(batch, attempt, base_url, organization)
        self.storage.write_bytes(receipt.to_json(), *self.receipt_parts())

    def receipt(self) -> Receipt | None:
        """What the receipt says; None without one.

        Raises:
            DamagedFileError: it is no receipt.
        """
        if not self.storage.exists(*self.receipt_parts()):
            return None
        return read_document(self.storage, self.receipt_parts(), Receipt)
