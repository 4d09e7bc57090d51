"""One file of the dataset. Opening it also decompresses it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, cast

import pyarrow as pa

from batch_assets.core.dataset.bounds import EXPANSION, FREE_BYTES
from batch_assets.core.dataset.gzip_reader import GzipError, GzipReader
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.file_systems import is_object_store
from batch_assets.core.io.remote_reads import open_file

# Endings that may follow the ending of a text format, with Arrow's names for the compressions.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


@dataclass(frozen=True)
class DataFile:
    """A file of the dataset.

    Attributes:
        fs: The fsspec file system that has the file.
        name: The path as the file system spells it.
        is_kept: Whether its content is kept in memory after it was opened once, so that it is read in one call.
    """

    fs: Any
    name: str
    is_kept: bool = False

    @property
    def is_compressed(self) -> bool:
        return self._compression is not None

    @property
    def plain_name(self) -> str:
        """The name in lower case, without the ending of a compression, so that it ends with that of its format."""
        lower = self.name.lower()
        return lower.removesuffix(self._compression) if self._compression else lower

    @property
    def ending(self) -> str:
        """The ending of the plain name, such as ".csv"."""
        _, dot, ending = self.plain_name.rpartition(".")
        return dot + ending

    @property
    def _compression(self) -> str | None:
        return next((ending for ending in COMPRESSIONS if self.name.lower().endswith(ending)), None)

    def open(self) -> BinaryIO:
        """Open the file for reading, decompressed.

        Raises:
            DatasetError: When the file may not be read or is gone. From a later read, when a compressed file is
                damaged or truncated, or unpacks to far more than its size.
        """
        try:
            file = self._opened()
        except (FileNotFoundError, PermissionError) as error:
            raise DatasetError(f"{self.name} cannot be read: {error.strerror or error}") from None
        except Exception as error:
            if not is_object_store(self.fs):
                raise
            raise DatasetError(f"{self.name} cannot be read: {type(error).__name__}: {error}") from None
        if self._compression is None:
            return cast(BinaryIO, file)
        return cast(BinaryIO, _Decompressed(file, COMPRESSIONS[self._compression], self.name))

    def _opened(self) -> Any:
        if self.is_kept:
            return io.BytesIO(self._content)
        # A web server that knows no ranges would send a whole file to be kept in memory.
        return open_file(self.fs, self.name) if is_object_store(self.fs) else self.fs.open(self.name, "rb")

    def forget(self) -> None:
        """Free the content that is kept."""
        self.__dict__.pop("_content", None)

    @cached_property
    def _content(self) -> bytes:
        with open_file(self.fs, self.name) as file:
            return file.read()


class _Decompressed(io.RawIOBase):
    """The content of a compressed file, decompressed block by block."""

    def __init__(self, file: Any, codec: str, name: str) -> None:
        self._file, self._codec, self._name = file, codec, name
        self._size = 0
        is_gzip = codec == "gzip"
        self._stream: Any = (
            GzipReader(file) if is_gzip else pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
        )

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, by default everything; b"" at the end."""
        try:
            block: bytes = self._stream.read(None if size < 0 else size)
        except (GzipError, pa.ArrowException, OSError) as error:
            raise self._damaged(str(error)) from None
        if not block and self._file.tell() == 0:
            raise self._damaged("the file is empty")
        self._size += len(block)
        if self._size > FREE_BYTES and self._size > EXPANSION * self._file.tell():
            raise DatasetError(
                f"{self._name}: the file unpacks to more than {EXPANSION} times its size, as only a damaged or "
                "hostile file does. If it is right, decompress it"
            )
        return block

    def _damaged(self, reason: str) -> DatasetError:
        return DatasetError(
            f"{self._name}: not a complete {self._codec} file; it is damaged or truncated: {reason}"
        )

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
