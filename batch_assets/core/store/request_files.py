"""Request files: JSON Lines, one `{"custom_id":…,"params":…}` a line, one file the body of one batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.api.objects import COUNTS, BatchObject
from batch_assets.core.io.json_files import read_object
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage, writing
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.settings import MOST_TRANSFERS
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails

_HEAD, _TAIL = b'{"requests":[', b"]}"
_LINE_START, _LINE_MIDDLE, _LINE_END = b'{"custom_id":"', b'","params":', b"}\n"
_CHUNK = 1 << 20
# Several bodies are sent at a time, and of each some chunks are in memory.
_BODY_CHUNK = 1 << 18
# A custom_id has 64 characters at most; a quote ends it.
_WINDOW = len(_LINE_START) + 64 + 1
_QUOTE, _NEWLINE, _BRACE = b'"\n}'


def make_lines(custom_ids: Iterable[bytes], params: Iterable[bytes]) -> list[bytes]:
    """The lines of a request file."""
    return [
        b'{"custom_id":"%b","params":%b}\n' % (custom_id, body)
        for custom_id, body in zip(custom_ids, params, strict=True)
    ]


def params_of(text: bytes) -> bytes:
    """The params of a line that this project wrote, as they are sent."""
    return text[text.index(_LINE_MIDDLE) + len(_LINE_MIDDLE) :].removesuffix(_LINE_END)


def body_bytes(file_bytes: int) -> int:
    """Size of the HTTP body that a request file becomes: its last newline is not sent."""
    return len(_HEAD) + file_bytes - 1 + len(_TAIL)


def custom_id_of(text: bytes) -> str:
    """The custom_id of a line that this project wrote."""
    end = text.index(b'"', len(_LINE_START))
    return text[len(_LINE_START) : end].decode()


@dataclass(frozen=True)
class Scan:
    """The lines of a file that begin with their custom_id.

    Attributes:
        ends: offset behind each line, its newline included. Only `\\n` ends a line: U+2028 and its like
            stand inside strings.
        tails: the last 22 characters of each line's custom_id; zeros where there is none.
        rest: what follows the last newline.
    """

    ends: NDArray[np.int64]
    tails: NDArray[np.bytes_]
    rest: bytes

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]]) if len(self.ends) else self.ends


def scan(file: BinaryIO, tail_of: Callable[[bytes], bytes]) -> Scan:
    """Finds the lines of a file and their custom_ids.

    Args:
        tail_of: gives the tail of a line that is not written as this project and the API write it.
    """
    ends: list[NDArray[np.int64]] = []
    tails: list[NDArray[np.bytes_]] = []
    offset = 0
    rest: list[bytes] = []
    while chunk := file.read(_CHUNK):
        last = chunk.rfind(b"\n") + 1
        if not last:
            rest.append(chunk)
            continue
        block, rest = b"".join([*rest, chunk[:last]]), [chunk[last:]]
        found = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + 1
        tails.append(_tails(block, found, tail_of))
        ends.append(found + offset)
        offset += len(block)
    if not ends:
        return Scan(np.empty(0, dtype=np.int64), np.empty(0, dtype=f"S{DIGEST_CHARACTERS}"), b"".join(rest))
    return Scan(np.concatenate(ends), np.concatenate(tails), b"".join(rest))


def _tails(block: bytes, ends: NDArray[np.int64], tail_of: Callable[[bytes], bytes]) -> NDArray[np.bytes_]:
    """The tails of the lines in a block that ends with a newline."""
    starts = np.concatenate([[0], ends[:-1]])
    padded = np.frombuffer(block + bytes(_WINDOW), dtype=np.uint8)
    heads = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[starts]
    size = len(_LINE_START)
    usual = (heads[:, :size] == np.frombuffer(_LINE_START, dtype=np.uint8)).all(axis=1)
    usual &= padded[np.maximum(ends - 2, starts)] == _BRACE
    quotes = heads[:, size:] == _QUOTE
    quote = quotes.argmax(axis=1)
    usual &= quotes.any(axis=1) & (quote >= DIGEST_CHARACTERS)
    # Where the tail begins; at 0, and replaced below, in a line that is not the usual one.
    first = starts + np.where(usual, size + quote - DIGEST_CHARACTERS, 0)
    found = np.lib.stride_tricks.sliding_window_view(padded, DIGEST_CHARACTERS)[first]
    tails: NDArray[np.bytes_] = found.view(f"S{DIGEST_CHARACTERS}").reshape(len(ends))
    for line_ in np.flatnonzero(~usual).tolist():
        tails[line_] = tail_of(block[starts[line_] : ends[line_]])
    return tails


def _own_tail(text: bytes) -> bytes:
    return custom_id_of(text)[-DIGEST_CHARACTERS:].encode()


# Files of equal counts do not go up at the same time. So of as many in a row as may do so, no two that are full
# have the same: each holds one request fewer than the one before. Where that would cost too much of a file it is
# left.
_FEWEST_REQUESTS, _FEWEST_LINES = 1000, 200


class PartWriter:
    """Cuts lines into request files within the limits of one batch.

    Args:
        limits: (requests, bytes of the HTTP body) at most in one file.
        next_name: gives the name of the next part.
        headers: of these requests, where they are not those of the whole submission.

    Attributes:
        written: one entry a finished file: name, requests, bytes of the HTTP body, attempt, and headers if
            they were given.
    """

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        attempt: int,
        limits: tuple[int, int],
        next_name: Callable[[], PartName],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._storage, self._folder, self._attempt = storage, folder, attempt
        self._max_requests, self._max_bytes = limits
        self._next_name = next_name
        self._own: dict[str, Any] = {"headers": dict(headers)} if headers is not None else {}
        self._open: Any = None
        self._file: BinaryIO
        self._requests = self._bytes = 0
        self._lines = self._all_bytes = 0
        self.written: list[dict[str, Any]] = []

    def add(self, lines: list[bytes]) -> None:
        """Adds lines, in a new part where one would pass a limit."""
        ends = np.cumsum([len(text) for text in lines])
        self._lines += len(lines)
        self._all_bytes += int(ends[-1]) if len(lines) else 0
        done, size = 0, 0
        while done < len(lines):
            if self._open is None:
                self._begin()
            max_requests, max_bytes = self._limits()
            room = max_bytes - body_bytes(self._bytes)
            stop = min(
                int(np.searchsorted(ends, size + room, side="right")),
                done + max_requests - self._requests,
            )
            if stop <= done:
                if self._requests:
                    self.finish()
                    continue
                stop = done + 1
            with writing(self._target):
                self._file.write(b"".join(lines[done:stop]))
            self._requests += stop - done
            self._bytes += int(ends[stop - 1]) - size
            done, size = stop, int(ends[stop - 1])

    def _limits(self) -> tuple[int, int]:
        """Those of the file being written."""
        fewer, line_bytes = len(self.written) % MOST_TRANSFERS, self._all_bytes // self._lines
        if self._max_requests < _FEWEST_REQUESTS:
            return self._max_requests, self._max_bytes
        if line_bytes * _FEWEST_LINES > self._max_bytes:
            return self._max_requests - fewer, self._max_bytes
        return self._max_requests - fewer, self._max_bytes - fewer * line_bytes

    def _begin(self) -> None:
        self._name = str(self._next_name())
        self._target = self._storage.path(*self._folder, self._name)
        self._open = self._storage.write(*self._folder, self._name)
        self._file = self._open.__enter__().open("wb", buffering=_CHUNK)
        self._requests = self._bytes = 0

    def finish(self) -> None:
        """Makes the part being written visible."""
        if self._open is None:
            return
        with writing(self._target):
            self._file.close()
        self._open.__exit__(None, None, None)
        self._open = None
        self.written.append(
            {
                "name": self._name,
                "requests": self._requests,
                "bytes": body_bytes(self._bytes),
                "attempt": self._attempt,
                **self._own,
            }
        )

    def abandon(self) -> None:
        """Drops the part being written."""
        if self._open is not None:
            with suppress(OSError):  # a full disk does not take the rest either
                self._file.close()
            self._open.__exit__(RuntimeError, RuntimeError("abandoned"), None)
            self._open = None


@dataclass(frozen=True)
class Receipt:
    """Which batch a request file became.

    Attributes:
        batch: as it stood when it was created.
        base_url: the endpoint it was submitted to.
        organization: whose key it was, None where the API did not say.
    """

    batch: BatchObject
    attempt: int
    base_url: str
    organization: str | None


_RECEIPT: dict[str, tuple[type, ...]] = {
    "batch_id": (str,),
    "requests": (int,),
    "attempt": (int,),
    "created_at": (int, float),
    "expires_at": (int, float, type(None)),
    "base_url": (str,),
    "organization": (str, type(None)),
}


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
        """The digests of its requests, in order."""
        return decode_tails(self.tails())[0]

    def scan(self) -> Scan:
        """Where its lines lie, and the last 22 characters of its custom_ids: what results are matched by."""
        with self.storage.open(*self.parts) as file:
            return scan(file, _own_tail)

    def tails(self) -> NDArray[np.bytes_]:
        """The last 22 characters of its custom_ids, in order."""
        return self.scan().tails

    def custom_ids_at(self, starts: Iterable[int]) -> Iterator[str]:
        """The custom_ids of the lines at these offsets."""
        with self.storage.open(*self.parts) as file:
            for start in starts:
                file.seek(start)
                yield custom_id_of(file.read(_WINDOW))

    def body(self, before_chunk: Callable[[], None]) -> Iterator[bytes]:
        """The HTTP body in chunks. `before_chunk` may raise: no server accepts an unfinished body."""
        before_chunk()
        yield _HEAD
        with self.storage.open(*self.parts) as file:
            chunk = file.read(_BODY_CHUNK)
            while chunk:
                following = file.read(_BODY_CHUNK)
                before_chunk()
                # Inside a line every newline is escaped: those in the file only end lines.
                yield chunk.replace(b"\n", b",") if following else chunk[:-1].replace(b"\n", b",")
                chunk = following
        before_chunk()
        yield _TAIL

    def receipt_parts(self) -> tuple[str, ...]:
        return (*self.parts[:-1], PartName.parse(self.parts[-1]).receipt)

    def remove_leftovers(self) -> None:
        """Removes what a killed process left of a receipt. The caller knows that nobody is sending the file."""
        *folder, name = self.receipt_parts()
        self.storage.remove_leftovers(*folder, name=name)

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

    def receipt(self) -> Receipt | None:
        """What the receipt says; None without one.

        Errors:
            DamagedFileError: it is no receipt.
        """
        if not self.storage.exists(*self.receipt_parts()):
            return None
        receipt = read_object(self.storage, self.receipt_parts(), _RECEIPT)
        batch = BatchObject(
            id=receipt["batch_id"],
            processing_status="in_progress",
            request_counts={**dict.fromkeys(COUNTS, 0), "processing": receipt["requests"]},
            created_at=receipt["created_at"],
            expires_at=receipt["expires_at"],
            ended_at=None,
            archived_at=None,
        )
        return Receipt(batch, receipt["attempt"], receipt["base_url"], receipt["organization"])
