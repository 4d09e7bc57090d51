"""Request files: JSON Lines, one `{"custom_id":…,"params":…}` a line, one file the body of one batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from batch_assets.core.digests import DIGEST_CHARACTERS, Digests, decode, pack
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root, submission_parts
from batch_assets.core.storage import Storage
from batch_assets.core.wire import COUNTS, BatchObject

_HEAD, _TAIL = b'{"requests":[', b"]}"
_LINE_START = b'{"custom_id":"'
_CHUNK = 1 << 20


def line(custom_id: str, params: bytes) -> bytes:
    """One line of a request file."""
    return b'{"custom_id":"' + custom_id.encode() + b'","params":' + params + b"}\n"


def body_bytes(file_bytes: int) -> int:
    """Size of the HTTP body that a request file becomes: its last newline is not sent."""
    return len(_HEAD) + file_bytes - 1 + len(_TAIL)


def custom_id_of(text: bytes) -> str:
    """The custom_id of a line that this project wrote."""
    end = text.index(b'"', len(_LINE_START))
    return text[len(_LINE_START) : end].decode()


class PartWriter:
    """Cuts lines into request files within the limits of one batch.

    Args:
        limits: (requests, bytes of the HTTP body) at most in one file.
        next_name: gives the name of the next part.

    Attributes:
        written: one entry a finished file: name, requests, bytes of the HTTP body, attempt.
    """

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        attempt: int,
        limits: tuple[int, int],
        next_name: Callable[[], str],
    ) -> None:
        self._storage, self._folder, self._attempt = storage, folder, attempt
        self._max_requests, self._max_bytes = limits
        self._next_name = next_name
        self._open: Any = None
        self._file: BinaryIO
        self._requests = self._bytes = 0
        self.written: list[dict[str, Any]] = []

    def add(self, text: bytes) -> None:
        """Adds one line, in a new part when it would pass a limit."""
        if self._open is not None and (
            self._requests == self._max_requests or body_bytes(self._bytes + len(text)) > self._max_bytes
        ):
            self.finish()
        if self._open is None:
            self._name = self._next_name()
            self._open = self._storage.write(*self._folder, self._name)
            self._file = self._open.__enter__().open("wb", buffering=_CHUNK)
            self._requests = self._bytes = 0
        self._file.write(text)
        self._requests += 1
        self._bytes += len(text)

    def finish(self) -> None:
        """Makes the part being written visible."""
        if self._open is None:
            return
        self._file.close()
        self._open.__exit__(None, None, None)
        self._open = None
        self.written.append(
            {
                "name": self._name,
                "requests": self._requests,
                "bytes": body_bytes(self._bytes),
                "attempt": self._attempt,
            }
        )

    def abandon(self) -> None:
        """Drops the part being written."""
        if self._open is not None:
            self._file.close()
            self._open.__exit__(RuntimeError, RuntimeError("abandoned"), None)
            self._open = None


@dataclass(frozen=True)
class StoredRequestFile:
    """A request file on disk.

    Attributes:
        parts: its path under the root.
    """

    storage: Storage
    parts: tuple[str, ...]

    @classmethod
    def of(cls, root: Root, file: RequestFile) -> StoredRequestFile:
        folder = submission_parts(file.pipeline, file.partition, file.submission_id)
        return cls(root.storage, (*folder, file.name))

    def lines(self) -> Iterator[bytes]:
        """Its lines, newline included, in order."""
        with self.storage.open(*self.parts) as file:
            yield from file

    def digests(self) -> Digests:
        """The digests of its requests, in order."""
        found = (decode(custom_id_of(text)) for text in self.lines())
        return pack(digest or b"\0" * 16 for digest in found)

    def tails(self) -> np.ndarray[Any, np.dtype[np.bytes_]]:
        """The last 22 characters of its custom_ids, in order: what results are matched by."""
        tails = b"".join([custom_id_of(text)[-DIGEST_CHARACTERS:].encode() for text in self.lines()])
        return np.frombuffer(tails, dtype=f"S{DIGEST_CHARACTERS}")

    def body(self, before_chunk: Callable[[], None]) -> Iterator[bytes]:
        """The HTTP body in chunks. `before_chunk` may raise: no server accepts an unfinished body."""
        before_chunk()
        yield _HEAD
        with self.storage.open(*self.parts) as file:
            chunk = file.read(_CHUNK)
            while chunk:
                following = file.read(_CHUNK)
                before_chunk()
                # Inside a line every newline is escaped: those in the file only end lines.
                yield chunk.replace(b"\n", b",") if following else chunk[:-1].replace(b"\n", b",")
                chunk = following
        before_chunk()
        yield _TAIL

    def receipt_parts(self) -> tuple[str, ...]:
        return (*self.parts[:-1], self.parts[-1].removesuffix(".jsonl") + ".batch.json")

    def write_receipt(self, batch: BatchObject, attempt: int, base_url: str, organization: str | None) -> None:
        """Writes beside the file which batch it became: the ledger can be rebuilt from it."""
        receipt = {
            "batch_id": batch.id,
            "requests": batch.total,
            "attempt": attempt,
            "created_at": batch.created_at,
            "expires_at": batch.expires_at,
            "base_url": base_url,
            "organization": organization,
        }
        content = json.dumps(receipt, indent=2).encode() + b"\n"
        self.storage.write_bytes(content, *self.receipt_parts())

    def receipt(self) -> BatchObject | None:
        """The batch that a receipt names, as it stood when it was created; None without a receipt."""
        if not self.storage.exists(*self.receipt_parts()):
            return None
        receipt = json.loads(self.storage.read_bytes(*self.receipt_parts()))
        return BatchObject(
            id=receipt["batch_id"],
            processing_status="in_progress",
            request_counts={**dict.fromkeys(COUNTS, 0), "processing": receipt["requests"]},
            created_at=receipt["created_at"],
            expires_at=receipt["expires_at"],
            ended_at=None,
            archived_at=None,
        )
