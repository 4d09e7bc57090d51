"""Writing request files: lines are cut into files that stay within the limits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import BinaryIO

import numpy as np

from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage, writing
from batch_assets.core.settings import MOST_TRANSFERS
from batch_assets.core.store.manifest import PartEntry
from batch_assets.core.store.request_lines import body_bytes

_CHUNK = 1 << 20
# Files of equal counts do not go up at the same time. So of as many in a row as may do so, no two that are full
# have the same: each holds one request fewer than the one before. Where that would cost too much of a file it is
# left.
_FEWEST_REQUESTS, _FEWEST_LINES = 1000, 200


class PartWriter:
    """Cuts lines into request files within the limits of one batch.

    A context manager: leaving it makes the last file visible, an error drops it.

    Args:
        storage: the root.
        folder: of the submission.
        attempt: of the requests.
        limits: (requests, bytes of the HTTP body) at most in one file.
        next_name: gives the name of the next part.
        headers: of these requests, where they are not those of the whole submission.

    Attributes:
        written: one entry a finished file.
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

    def add(self, lines: list[bytes]) -> None:
        """Adds lines, in a new part where one would pass a limit."""
        ends = np.cumsum([len(text) for text in lines])
        self._lines += len(lines)
        self._all_bytes += int(ends[-1]) if len(lines) else 0
        done, size = 0, 0
        while done < len(lines):
            if self._open is None:
                self._open = _OpenPart(self._storage, self._folder, self._next_name())
            part = self._open
            max_requests, max_bytes = self._limits()
            room = max_bytes - body_bytes(part.bytes)
            stop = min(
                int(np.searchsorted(ends, size + room, side="right")),
                done + max_requests - part.requests,
            )
            if stop <= done:
                if part.requests:
                    self._finish()
                    continue
                stop = done + 1
            part.write(lines[done:stop], int(ends[stop - 1]) - size)
            done, size = stop, int(ends[stop - 1])

    def _limits(self) -> tuple[int, int]:
        """Those of the file being written."""
        fewer, line_bytes = len(self.written) % MOST_TRANSFERS, self._all_bytes // self._lines
        if self._max_requests < _FEWEST_REQUESTS:
            return self._max_requests, self._max_bytes
        if line_bytes * _FEWEST_LINES > self._max_bytes:
            return self._max_requests - fewer, self._max_bytes
        return self._max_requests - fewer, self._max_bytes - fewer * line_bytes

    def _finish(self) -> None:
        """Makes the part being written visible."""
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
        )
        self.written.append(entry)


class PartWriters:
    """The request files of a submission: requests of different attempts or headers go to different files.

    A context manager: leaving it makes the last file of each kind visible, an error drops them.

    Args:
        storage: the root.
        folder: of the submission.
        limits: (requests, bytes of the HTTP body) at most in one file.
        next_name: gives the name of the next part.
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

    def add(self, attempt: int, headers: Mapping[str, str] | None, lines: list[bytes]) -> None:
        """Adds lines to the file of their kind.

        Args:
            attempt: of the requests.
            headers: what they are sent with, where that is not what the whole submission is sent with.
            lines: of a request file.
        """
        kind = attempt, frozenset(headers.items()) if headers is not None else None
        if kind not in self._writers:
            writer = PartWriter(self._storage, self._folder, attempt, self._limits, self._next_name, headers)
            self._writers[kind] = self._entered.enter_context(writer)
        self._writers[kind].add(lines)

    @property
    def written(self) -> list[PartEntry]:
        """One entry a finished file, in the order of their names."""
        entries = [entry for writer in self._writers.values() for entry in writer.written]
        return sorted(entries, key=lambda entry: entry.part)


class _UnfinishedError(Exception):
    """The part is not to become visible."""


class _OpenPart:
    """A part that is being written; nobody sees it before it is published.

    Attributes:
        name: its name.
        requests: how many it holds so far.
        bytes: the length of its lines so far.
    """

    def __init__(self, storage: Storage, folder: tuple[str, ...], name: PartName) -> None:
        self.name, self.requests, self.bytes = name, 0, 0
        self._target = storage.path(*folder, str(name))
        with ExitStack() as made:
            scratch = made.enter_context(storage.write(*folder, str(name)))
            self._file: BinaryIO = made.enter_context(scratch.open("wb", buffering=_CHUNK))
            self._made = made.pop_all()

    def write(self, lines: list[bytes], size: int) -> None:
        """Adds lines of that many bytes together."""
        with writing(self._target):
            self._file.write(b"".join(lines))
        self.requests += len(lines)
        self.bytes += size

    def publish(self) -> None:
        """Makes it visible under its name."""
        self._made.close()

    def drop(self) -> None:
        """Removes it."""
        with suppress(OSError):  # a full disk does not take the rest either
            self._file.close()
        with suppress(_UnfinishedError), self._made:
            raise _UnfinishedError
