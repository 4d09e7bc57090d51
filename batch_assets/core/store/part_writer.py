"""Write request files. Lines are split into files that stay within the limits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from hashlib import sha256
from types import TracebackType
from typing import BinaryIO

import numpy as np

from batch_assets.core.io.file_errors import writing
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.settings import MOST_TRANSFERS
from batch_assets.core.store.digest_files import write_digests
from batch_assets.core.store.digests import Digests, digests_of_tails
from batch_assets.core.store.manifest import PartEntry
from batch_assets.core.store.request_lines import body_bytes, own_tail

_CHUNK = 1 << 20
# Two files with the same number of requests are never uploaded at the same time. So among as many consecutive full
# files as can be uploaded at once, no two have the same number: each has one request fewer than the one before.
# This is not done if it would make files too small.
_FEWEST_REQUESTS, _FEWEST_LINES = 1000, 200


class PartWriter:
    """Splits lines into request files within the limits of one batch.

    A context manager: leaving it publishes the last file, and an error drops that file.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        attempt: The attempt of the requests.
        limits: The most requests and the most bytes of the HTTP body in one file.
        next_name: Returns the name of the next file.
        headers: The headers of these requests, if they differ from those of the submission.

    Attributes:
        written: An entry for each finished file.
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
        self._headers = dict(headers) if headers is not None else None
        self._open: _OpenPart | None = None
        self._lines = self._all_bytes = 0
        self.written: list[PartEntry] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        elif self._open is not None:
            self._open.drop()

    def add(self, lines: list[bytes], digests: Digests | None = None) -> None:
        """Add lines. Begins a new file when a line would exceed a limit.

        Args:
            lines: The lines.
            digests: The digests of their requests, S16, shape (lines,); `None` to take them from the lines.
        """
        if digests is None:
            digests = digests_of_tails(map(own_tail, lines))
        ends = np.cumsum([len(text) for text in lines])
        self._lines += len(lines)
        self._all_bytes += int(ends[-1]) if len(lines) else 0
        start, size = 0, 0
        while start < len(lines):
            if self._open is None:
                self._open = _OpenPart(self._storage, self._folder, self._next_name())
            part = self._open
            max_requests, max_bytes = self._limits()
            room = max_bytes - body_bytes(part.bytes)
            stop = min(
                int(np.searchsorted(ends, size + room, side="right")),
                start + max_requests - part.requests,
            )
            if stop <= start:
                if part.requests:
                    self._finish()
                    continue
                stop = start + 1
            part.write(lines[start:stop], digests[start:stop], int(ends[stop - 1]) - size)
            start, size = stop, int(ends[stop - 1])

    def _limits(self) -> tuple[int, int]:
        """Return the largest number of requests and of bytes in the file that is being written."""
        fewer, line_bytes = len(self.written) % MOST_TRANSFERS, self._all_bytes // self._lines
        if self._max_requests < _FEWEST_REQUESTS:
            return self._max_requests, self._max_bytes
        if line_bytes * _FEWEST_LINES > self._max_bytes:
            return self._max_requests - fewer, self._max_bytes
        return self._max_requests - fewer, self._max_bytes - fewer * line_bytes

    def _finish(self) -> None:
        """Publish the file that is being written."""
        part, self._open = self._open, None
        if part is None:
            return
        part.publish()
        entry = PartEntry(
            name=str(part.name),
            requests=part.requests,
            bytes=body_bytes(part.bytes),
            attempt=self._attempt,
            headers=self._headers,
            checksum=part.checksum,
        )
        self.written.append(entry)


class PartWriters:
    """The request files of a submission. Requests of different attempts or headers go to different files.

    A context manager: leaving it publishes the last file of each kind, and an error drops these files.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        limits: The most requests and the most bytes of the HTTP body in one file.
        next_name: Returns the name of the next file.
    """

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        limits: tuple[int, int],
        next_name: Callable[[], PartName],
    ) -> None:
        self._storage, self._folder = storage, folder
        self._limits, self._next_name = limits, next_name
        self._writers: dict[tuple[int, frozenset[tuple[str, str]] | None], PartWriter] = {}
        self._entered = ExitStack()

    def __enter__(self) -> PartWriters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    def add(
        self,
        attempt: int,
        headers: Mapping[str, str] | None,
        lines: list[bytes],
        digests: Digests | None = None,
    ) -> None:
        """Add lines to the file of their kind.

        Args:
            attempt: The attempt of the requests.
            headers: The headers of the requests, if they differ from those of the submission.
            lines: The lines of the request file.
            digests: The digests of their requests, S16, shape (lines,); `None` to take them from the lines.
        """
        kind = attempt, frozenset(headers.items()) if headers is not None else None
        if kind not in self._writers:
            writer = PartWriter(self._storage, self._folder, attempt, self._limits, self._next_name, headers)
            self._writers[kind] = self._entered.enter_context(writer)
        self._writers[kind].add(lines, digests)

    @property
    def written(self) -> list[PartEntry]:
        """An entry for each finished file, in the order of their names."""
        entries = [entry for writer in self._writers.values() for entry in writer.written]
        return sorted(entries, key=lambda entry: entry.part)


class _UnfinishedError(Exception):
    """Raised to drop a file instead of publishing it."""


class _OpenPart:
    """A request file that is being written. It is invisible until it is published.

    Attributes:
        name: The name of the file.
        requests: The number of its requests so far.
        bytes: The size of its lines so far.
    """

    def __init__(self, storage: Storage, folder: tuple[str, ...], name: PartName) -> None:
        self.name, self.requests, self.bytes = name, 0, 0
        self._hash = sha256()
        self._storage, self._folder = storage, folder
        self._digests: list[Digests] = []
        self._target = storage.path(*folder, str(name))
        with ExitStack() as stack:
            scratch = stack.enter_context(storage.write(*folder, str(name)))
            self._file: BinaryIO = stack.enter_context(scratch.open("wb", buffering=_CHUNK))
            self._resources = stack.pop_all()

    def write(self, lines: list[bytes], digests: Digests, size: int) -> None:
        """Append lines.

        Args:
            lines: The lines.
            digests: The digests of their requests, S16, shape (lines,).
            size: Their total size in bytes.
        """
        text = b"".join(lines)
        self._hash.update(text)
        with writing(self._target):
            self._file.write(text)
        self._digests.append(digests)
        self.requests += len(lines)
        self.bytes += size

    @property
    def checksum(self) -> str:
        """The SHA-256 of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Make the file visible under its name, and its digests beside it."""
        digests, checksum = np.concatenate(self._digests), self.checksum
        write_beside = partial(write_digests, self._storage, self._folder, self.name, digests, checksum)
        self._storage.both(self._resources.close, write_beside)

    def drop(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # if the disk is full, flushing the buffer fails too
            self._file.close()
        with suppress(_UnfinishedError), self._resources:
            raise _UnfinishedError
