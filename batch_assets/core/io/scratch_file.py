"""A scratch file without a name, for what a stage does not keep in memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

from batch_assets.core.io.file_errors import writing
from batch_assets.core.io.scratch import scratch_folder


class ScratchFile:
    """A file that disappears together with this object, or when the process ends, even if it is killed.

    What is read from it does not count as memory of the process, other than with a mapped file.

    Raises:
        StorageError: When the folder for scratch files is full or not writable. Also from `append`.
    """

    def __init__(self) -> None:
        folder = scratch_folder()
        self._shown = folder / "rows"  # the name that errors show
        with writing(self._shown):
            self._descriptor, name = tempfile.mkstemp(dir=folder)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        Path(name).unlink()
        self._size = 0

    def append(self, content: bytes | memoryview) -> int:
        """Write bytes at the end of the file, and return the offset of the first one."""
        offset, rest = self._size, memoryview(content).cast("B")
        with writing(self._shown):
            while len(rest):
                written = os.pwrite(self._descriptor, rest, self._size)
                self._size += written
                rest = rest[written:]
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on.

        Raises:
            OSError: When the disk cannot read them.
        """
        content = os.pread(self._descriptor, size, offset)
        while len(content) < size:  # a system reads at most 2 GiB at once
            content += os.pread(self._descriptor, size - len(content), offset + len(content))
        return content

    def close(self) -> None:
        """Remove the file."""
        self._close()
