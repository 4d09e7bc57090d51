"""Write request files. Lines are split into files that stay within the limits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import Digests, digests_of_tails
from batch_assets.core.store.file_division import FileDivision
from batch_assets.core.store.manifest import PartEntry
from batch_assets.core.store.open_part import OpenPart
from batch_assets.core.store.request_lines import body_bytes, own_tail


@dataclass(frozen=True)
class LastPart:
    """The last file of a kind, which may have room for more requests. It is not published yet.

    Attributes:
        attempt: The attempt of the requests.
        headers: The headers of these requests, if they differ from those of the submission.
        part: The file.
        bytes_added: See `PartWriter`.
    """

    attempt: int
    headers: dict[str, str] | None
    part: OpenPart
    bytes_added: int = 0

    @property
    def most_bytes(self) -> int:
        """The most bytes of its lines while they are sent."""
        return self.part.bytes + self.part.requests * self.bytes_added

    def publish(self) -> PartEntry:
        """Make the file visible, and return its entry in the manifest."""
        self.part.publish()
        return PartEntry(
            name=str(self.part.name),
            requests=self.part.requests,
            bytes=body_bytes(self.part.bytes),
            attempt=self.attempt,
            headers=self.headers,
            checksum=self.part.checksum,
        )


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
        keeps_last: Leaving the context manager keeps the last file as it is, for the caller.
        bytes_added: The bytes that each line may grow by while it is sent.

    Attributes:
        written: An entry for each finished file.
        digests: The digests of each of these files, S16, if the last file is kept.
    """

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        attempt: int,
        limits: tuple[int, int],
        next_name: Callable[[], PartName],
        headers: Mapping[str, str] | None = None,
        *,
        keeps_last: bool = False,
        bytes_added: int = 0,
    ) -> None:
        self._storage, self._folder, self._attempt = storage, folder, attempt
        self._division, self._bytes_added = FileDivision(limits, bytes_added), bytes_added
        self._next_name = next_name
        self._headers = dict(headers) if headers is not None else None
        self._open: OpenPart | None = None
        self._keeps_last = keeps_last
        self.written: list[PartEntry] = []
        self.digests: list[Digests] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.drop()
        elif not self._keeps_last:
            self._finish()

    def drop(self) -> None:
        """Drop the file that is being written."""
        if (last := self.take_last()) is not None:
            last.part.drop()

    def take_last(self) -> LastPart | None:
        """Return the file that is being written, for which the caller is responsible from now on."""
        part, self._open = self._open, None
        return LastPart(self._attempt, self._headers, part, self._bytes_added) if part is not None else None

    def add(self, lines: list[bytes], digests: Digests | None = None) -> None:
        """Add lines. Begins a new file when a line would exceed a limit.

        Args:
            lines: The lines.
            digests: The digests of their requests, S16, shape (lines,); `None` to take them from the lines.
        """
        if digests is None:
            digests = digests_of_tails(map(own_tail, lines))
        for span in self._division.spans([len(text) for text in lines]):
            if span.is_new:
                self._finish()
                self._open = OpenPart(self._storage, self._folder, self._next_name())
            assert self._open is not None
            self._open.write(lines[span.start : span.stop], digests[span.start : span.stop], span.bytes)

    def add_alone(self, line: bytes, digests: Digests) -> PartEntry:
        """Write a file with one line. Returns its entry.

        Args:
            line: The line.
            digests: The digest of its request, S16, shape (1,).
        """
        part = OpenPart(self._storage, self._folder, self._next_name())
        try:
            part.write([line], digests, len(line))
        except BaseException:
            part.drop()
            raise
        return self._publish(LastPart(self._attempt, self._headers, part))

    def _finish(self) -> None:
        """Publish the file that is being written."""
        if (last := self.take_last()) is not None:
            self._publish(last)

    def _publish(self, last: LastPart) -> PartEntry:
        entry = last.publish()
        self.written.append(entry)
        if self._keeps_last:
            self.digests.append(last.part.digests)
        return entry


class PartWriters:
    """The request files of a submission. Requests of different attempts or headers go to different files.

    A context manager: leaving it publishes the last file of each kind, and an error drops these files.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        limits: The most requests and the most bytes of the HTTP body in one file.
        next_name: Returns the name of the next file.
        keeps_last: See `PartWriter`.
        bytes_added: See `PartWriter`.
    """

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        limits: tuple[int, int],
        next_name: Callable[[], PartName],
        *,
        keeps_last: bool = False,
        bytes_added: int = 0,
    ) -> None:
        self._storage, self._folder, self._bytes_added = storage, folder, bytes_added
        self._limits, self._next_name, self._keeps_last = limits, next_name, keeps_last
        self._writers: dict[tuple[int, frozenset[tuple[str, str]] | None], PartWriter] = {}
        self._entered = ExitStack()
        self._is_finished = False

    def __enter__(self) -> PartWriters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    def finish(self) -> None:
        """Publish the last file of each kind. Nothing may be added after that."""
        self._is_finished = True
        self._entered.close()

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
        self._writer(attempt, headers).add(lines, digests)

    def add_alone(
        self, attempt: int, headers: Mapping[str, str] | None, line: bytes, digests: Digests
    ) -> PartEntry:
        """Write a file with one line. Returns its entry.

        Args:
            attempt: See `add`.
            headers: See `add`.
            line: The line.
            digests: The digest of its request, S16, shape (1,).
        """
        return self._writer(attempt, headers).add_alone(line, digests)

    def _writer(self, attempt: int, headers: Mapping[str, str] | None) -> PartWriter:
        assert not self._is_finished, "nothing would publish the file"
        kind = attempt, frozenset(headers.items()) if headers is not None else None
        if kind not in self._writers:
            writer = PartWriter(
                self._storage,
                self._folder,
                attempt,
                self._limits,
                self._next_name,
                headers,
                keeps_last=self._keeps_last,
                bytes_added=self._bytes_added,
            )
            self._writers[kind] = self._entered.enter_context(writer)
        return self._writers[kind]

    @property
    def written(self) -> list[PartEntry]:
        """An entry for each finished file, in the order of their names."""
        entries = [entry for writer in self._writers.values() for entry in writer.written]
        return sorted(entries, key=lambda entry: entry.part)

    @property
    def digests(self) -> list[tuple[str, Digests]]:
        """The name and the digests of each finished file, if the last file of each kind is kept."""
        return [
            (entry.name, digests)
            for writer in self._writers.values()
            for entry, digests in zip(writer.written, writer.digests, strict=True)
        ]

    def take_last(self) -> list[LastPart]:
        """Return the last file of each kind, for which the caller is responsible from now on."""
        return [last for writer in self._writers.values() if (last := writer.take_last()) is not None]

    def drop(self) -> None:
        """Drop the files that were kept."""
        for writer in self._writers.values():
            writer.drop()
