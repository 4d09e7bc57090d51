"""A request file that is being written."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from hashlib import sha256
from typing import BinaryIO

import numpy as np

from batch_assets.core.io.file_errors import writing
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digest_files import write_digests
from batch_assets.core.store.digests import Digests

_CHUNK = 1 << 20


class _UnfinishedError(Exception):
    """Raised to drop a file instead of publishing it."""


class OpenPart:
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
            self._scratch = stack.enter_context(storage.write(*folder, str(name)))
            self._file: BinaryIO = stack.enter_context(self._scratch.open("wb", buffering=_CHUNK))
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

    def append(self, other: OpenPart) -> None:
        """Append the lines of another file that is being written, which stays as it is.

        Args:
            other: The file.
        """
        with writing(self._target):
            other._file.flush()
            with other._scratch.open("rb") as lines:
                while chunk := lines.read(_CHUNK):
                    self._hash.update(chunk)
                    self._file.write(chunk)
        self._digests += other._digests
        self.requests += other.requests
        self.bytes += other.bytes

    @property
    def digests(self) -> Digests:
        """The digests of its requests so far, in order: S16, shape (requests,)."""
        return np.concatenate(self._digests)

    @property
    def checksum(self) -> str:
        """The SHA-256 of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Make the file visible under its name, and its digests beside it."""
        digests, checksum = self.digests, self.checksum
        write_beside = partial(write_digests, self._storage, self._folder, self.name, digests, checksum)
        self._storage.both(self._resources.close, write_beside)

    def drop(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # if the disk is full, flushing the buffer fails too
            self._file.close()
        with suppress(_UnfinishedError), self._resources:
            raise _UnfinishedError
