"""Request files on disk: JSON Lines with one `{"custom_id":…,"params":…}` per line. One file becomes one batch."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError, StorageError
from batch_assets.core.io.file_errors import why_no_file
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.store.breakpoints import Breakpoint, BreakpointWriter
from batch_assets.core.store.digests import Digests, decode_tails, digester, tail_of
from batch_assets.core.store.follow_up_ids import is_follow_up, is_own_digest
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_lines import (
    HEAD,
    NO_TAIL,
    TAIL,
    WINDOW,
    Scan,
    body_bytes,
    custom_id_of,
    own_tail,
    params_of,
    scan,
)

# Several bodies are sent at once, each with a few chunks in memory.
_BODY_CHUNK = 1 << 18
# How often a receipt that cannot be read is renamed, and another one written.
_TURNS = 3
# The reason that the ledger has for a request file that cannot be sent because it is missing.
MISSING = "the request file is missing: its requests have to be built again"


# Of a file that is not small some lines are read, in a few windows. Fewer large ones if the lines are long.
_SMALL_BYTES, _LEAST_WINDOW, _MOST_BYTES = 512 << 10, 8 << 10, 8 << 20


@dataclass(frozen=True)
class StoredRequestFile:
    """A request file on disk.

    Attributes:
        storage: The storage of the root.
        parts: The path under the root.
    """

    storage: Storage
    parts: tuple[str, ...]

    @classmethod
    def of(cls, storage: Storage, file: RequestFile) -> StoredRequestFile:
        folder = submission_parts(file.pipeline, file.partition, file.submission_id)
        return cls(storage, (*folder, file.name))

    def is_there(self) -> bool:
        """Whether there is a file, whatever it holds."""
        return self.storage.is_file(*self.parts)

    def version(self) -> str | None:
        """Return the version of the file, see `Storage.version`; `None` if it does not exist."""
        return self.storage.version(*self.parts)

    def _opened(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            FileNotFoundError: When it does not exist, or something else is in its place.
        """
        try:
            return self.storage.open(*self.parts)
        except OSError as error:
            if (why := why_no_file(error)) is None:
                raise
            raise FileNotFoundError(errno.ENOENT, why, self.storage.path(*self.parts)) from None

    def lines(self) -> Iterator[bytes]:
        """Yield the lines in order, each with its newline."""
        with self._opened() as file:
            yield from file

    def some_lines(self, around: Sequence[float], wanted: int, requests: int) -> list[bytes]:
        """Return some lines, each with its newline: all of a small file, else those of a few windows in it.

        Args:
            around: The middle of each window, from 0 for the start of the file to 1 for its end.
            wanted: About how many lines are wanted. Long ones are fewer, as at most 8 MB are read.
            requests: The number of lines of the file.
        """
        with self._opened() as file:
            size = file.seek(0, os.SEEK_END)
            if size <= (_MOST_BYTES if requests <= wanted else _SMALL_BYTES):
                return _whole_lines(file, 0, size)
            line = size / max(1, requests)
            middles = around[:: max(1, round(len(around) * 4 * line / _MOST_BYTES))]
            window = round((wanted / len(middles) + 1) * line)  # a window begins and ends within a line
            window = min(max(window, _LEAST_WINDOW), _MOST_BYTES // len(middles), size)
            starts = [min(max(0, int(size * middle) - window // 2), size - window) for middle in middles]
            return list(dict.fromkeys(line for start in starts for line in _whole_lines(file, start, window)))

    def digests(self) -> Digests:
        """Return the digests of the requests in order: S16, shape (n,)."""
        return decode_tails(self.tails())[0]

    def scan(self) -> Scan:
        """Find the lines and the last 22 characters of the custom_ids, by which results are matched."""
        with self._opened() as file:
            return scan(file, own_tail)

    def scan_with_checksum(self) -> tuple[Scan, str]:
        """Return `scan`, and the SHA-256 of the file in hexadecimal."""
        with self._opened() as file:
            hashing = _Hashing(file)
            return scan(hashing, own_tail), hashing.hash.hexdigest()

    def tails(self) -> NDArray[np.bytes_]:
        """Return the last 22 characters of the custom_ids in order: S22, shape (n,)."""
        return self.scan().tails

    def damage(self, requests: int, size: int, headers: Mapping[str, str]) -> str | None:
        """Check every line against its own digest, so that nothing is sent that no row asked for.

        Args:
            requests: The number of requests that were written.
            size: The size in bytes of the HTTP body that the file becomes.
            headers: The headers of its requests that are part of their identity.

        Returns:
            What is wrong with the file, as a clause; `None` if it is as it was written.

        Raises:
            FileNotFoundError: When it does not exist.
        """
        primed, count, written = digester(headers), 0, 0
        for count, line in enumerate(self.lines(), 1):
            written += len(line)
            if not is_intact(line, primed):
                return f"line {count:,} is not what was written"
        if (count, body_bytes(written)) != (requests, size):
            return f"it has {count:,} of {requests:,} lines"
        return None

    def has_follow_ups(self) -> bool:
        """Whether its requests are follow-ups: all of them are, or none. A file that is gone shows none."""
        try:
            first = next(self.custom_ids_at([0]), None)
        except FileNotFoundError:
            return False
        return first is not None and is_follow_up(first)

    def custom_ids_at(self, starts: Iterable[int]) -> Iterator[str | None]:
        """Yield the custom_ids of the lines at these offsets; `None` for a damaged line."""
        with self._opened() as file:
            for start in starts:
                file.seek(start)
                yield custom_id_of(file.read(WINDOW))

    def body(
        self,
        size: int,
        checksum: str | None,
        before_chunk: Callable[[int], None],
        before_last: Callable[[], None] = lambda: None,
        breakpoint: Breakpoint | None = None,
    ) -> Iterator[bytes]:
        """Yield the HTTP body in chunks.

        Args:
            size: The size of the body in bytes, without a breakpoint.
            checksum: The SHA-256 of the file in hexadecimal; `None` if it is unknown.
            before_chunk: Called before each chunk with the number of bytes before it. It may raise to stop
                sending, because no server accepts an unfinished body.
            before_last: Called before the last chunk, which completes the body. It may raise as well.
            breakpoint: The breakpoint that each request gets; `None` for none.

        Raises:
            DamagedFileError: When the file is not as it was written. The body stays unfinished.
        """
        hash_, room = hashlib.sha256(), size - len(HEAD) - len(TAIL)
        writer = BreakpointWriter(breakpoint) if breakpoint is not None else None
        before_chunk(0)
        yield HEAD
        with self._opened() as file:
            chunk = file.read(_BODY_CHUNK)
            while chunk:
                next_chunk = file.read(_BODY_CHUNK)
                hash_.update(chunk)
                room -= len(chunk) if next_chunk else len(chunk) - 1
                if room < 0:
                    raise DamagedFileError("it is longer than it was written")
                before_chunk(size - len(TAIL) - room - len(chunk))
                # Newlines within a line are escaped in JSON, so every newline in the file ends a line.
                if writer is not None:
                    if written := writer.written(chunk):
                        yield written
                else:
                    yield chunk.replace(b"\n", b",") if next_chunk else chunk[:-1].replace(b"\n", b",")
                chunk = next_chunk
        if room > 0:
            raise DamagedFileError("it is shorter than it was written")
        if checksum not in (None, hash_.hexdigest()):
            raise DamagedFileError("it is not what was written")
        before_last()
        before_chunk(size)  # last: a process that was frozen until now notices it here
        yield TAIL

    def receipt_parts(self) -> tuple[str, ...]:
        return (*self.parts[:-1], PartName.parse(self.parts[-1]).receipt)

    def remove_leftovers(self) -> None:
        """Remove scratch files of the receipt that a killed process left. No process may be sending the file."""
        *folder, name = self.receipt_parts()
        self.storage.remove_leftovers(*folder, name=name)

    def write_receipt(self, receipt: Receipt) -> Receipt:
        """Write the receipt beside the file: the batch that it became. The ledger can be rebuilt from it.

        A receipt is evidence of a paid batch, so it is never overwritten. One that cannot be read is renamed. The
        caller must hold the lease on the file, or another one that keeps other processes from writing it.

        Returns:
            The receipt that is beside the file now: an earlier one, if there was one.
        """
        *folder, name = self.receipt_parts()
        content = receipt.to_json()
        for _ in range(_TURNS):
            if self.storage.create_bytes(content, *folder, name):
                return receipt
            try:
                earlier = self.receipt()
            except DamagedFileError:
                self.storage.rename((*folder, name), (*folder, f"{name}.damaged"))
            else:
                if earlier is not None:
                    return earlier
        raise StorageError(
            f"{self.storage.uri(*folder, name)} cannot be written: there is something, and then there is not. "
            "Check that nothing else writes to the root, and run again; nothing is lost"
        )

    def receipt(self) -> Receipt | None:
        """Read the receipt; `None` if there is none, or a folder, which writing the receipt will report.

        Raises:
            DamagedFileError: When it is not a receipt.
        """
        if self.storage.is_blocked(*self.receipt_parts()):
            return None
        try:
            return read_document(self.storage, self.receipt_parts(), Receipt)
        except FileNotFoundError:
            return None


def _whole_lines(file: BinaryIO, start: int, size: int) -> list[bytes]:
    """Return the lines of ours that are whole in a part of a file."""
    file.seek(start)
    window = file.read(size)
    first = window.find(b"\n") + 1 if start else 0
    lines = [line + b"\n" for line in window[first : window.rfind(b"\n") + 1].split(b"\n")]
    return [line for line in lines if own_tail(line) != NO_TAIL]


class _Hashing:
    """A file that hashes what is read from it.

    Attributes:
        hash: The SHA-256 so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size)
        self.hash.update(chunk)
        return chunk


def is_intact(line: bytes, primed: Any) -> bool:
    """Whether a line of a request file holds the request that its custom_id names.

    Args:
        line: The line with its newline.
        primed: The hash of the request's headers, see `digester`.
    """
    tail = own_tail(line)
    if tail == NO_TAIL:
        return False
    hash_ = primed.copy()
    try:
        hash_.update(params_of(line))
    except ValueError:  # it has no params
        return False
    digest = hash_.digest()
    return tail_of(digest) == tail or is_own_digest(custom_id_of(line) or "", digest)
