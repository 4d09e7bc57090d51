"""Read text in any encoding as UTF-8, block by block."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, cast

from batch_assets.core.errors import DatasetError
from batch_assets.core.io.encodings import check_encoding

# Not converted: invalid text in these rejects a row, not the file.
_UTF8 = ("utf-8", "utf-8-sig")
_SHOWN_BYTES = 20


# The error handler that turns undecodable bytes into a lone surrogate, which is not valid UTF-8 either.
_MARK = "batch_assets.mark"


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_MARK, _mark)


def as_utf8(file: BinaryIO, encoding: str, name: str, *, marks: bool = False) -> BinaryIO:
    """Return a file with the content in UTF-8: the same file if it is UTF-8 already.

    Args:
        file: The file.
        encoding: Its encoding.
        name: Its name, for errors.
        marks: Whether bytes that cannot be decoded become bytes that are not UTF-8. If not, they are an error.
    """
    encoding = check_encoding(encoding)
    return file if encoding in _UTF8 else cast(BinaryIO, _Transcoded(file, encoding, name, marks))


class _Transcoded(io.RawIOBase):
    """A file in another encoding, read as UTF-8.

    Raises:
        DatasetError: From a read, when a line cannot be decoded. Names the file and the line.
    """

    def __init__(self, file: BinaryIO, encoding: str, name: str, marks: bool) -> None:
        self._file, self._encoding, self._name = file, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)(_MARK if marks else "strict")
        self._ready = b""
        self._lines = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, by default everything; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        while not self._ready and not self._ended:
            block = self._file.read(size)
            self._ended = not block
            self._ready = self._decode(block).encode("utf-8", "surrogatepass")
        content, self._ready = self._ready[:size], self._ready[size:]
        return content

    def _decode(self, block: bytes) -> str:
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._encoding, "replace")
            line = self._lines + before.count("\n") + 1
            start = before.rsplit("\n", 1)[-1][-_SHOWN_BYTES:]
            broken = error.object[error.start : error.end].hex(" ")
            raise DatasetError(
                f"{self._name}, line {line}: not {self._encoding}, the encoding in dataset.csv.encoding: "
                f"the bytes {broken} after {start!r}"
            ) from None
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise DatasetError(
                f"{self._name}, line {self._lines + 1}: not {self._encoding}, the encoding in "
                f"dataset.csv.encoding: {error}"
            ) from None
        self._lines += text.count("\n")
        return text

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
