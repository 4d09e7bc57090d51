"""The files that the templates of one row read, and the filters that read them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.media_formats import Media, read_media
from batch_assets.core.template.media_types import media_type_by_name
from batch_assets.core.template.values import RowRejectedError, to_base64

ReadFile = Callable[[str], bytes]
"""Takes a path within the dataset's folder, and returns the content of the file."""


class NoDatasetError(RowRejectedError):
    """A template reads a file of the dataset's folder while there is no dataset."""


@dataclass(frozen=True)
class EncodedFile:
    """A content that a template has turned into Base64.

    Attributes:
        data: The Base64.
        name: The path of the file; `None` if the content is a value of the row.
        media: What it is.
    """

    data: bytes
    name: str | None
    media: Media | None


class RowFiles:
    """Reads files for the filters `file_base64` and `media_type`, each once for a row.

    Args:
        read_file: Reads a file of the dataset's folder; `None` as long as there is no dataset.

    Attributes:
        encoded: What was turned into Base64 for this row, and for all rows when the templates were compiled.
    """

    def __init__(self, read_file: ReadFile | None) -> None:
        self._read_file = read_file
        self._contents: dict[str, bytes] = {}
        self._kept = 0
        self.encoded: list[EncodedFile] = []

    def begin(self) -> None:
        """Forget the files of the previous row."""
        if self._contents or len(self.encoded) > self._kept:
            self._contents.clear()
            del self.encoded[self._kept :]

    def keep(self) -> None:
        """Keep what was encoded so far for all rows: it is a constant of the templates."""
        self._kept = len(self.encoded)

    def file_base64(self, path: Any) -> str:
        """Return the content of a file as Base64.

        Raises:
            TypeError: When the path is not text.
            ValueError: When there is no such file, or rows may not name it.
        """
        if not isinstance(path, str):
            raise TypeError(f"file_base64 takes the path of a file, not {'null' if path is None else path}")
        if self._read_file is None:
            raise NoDatasetError(ErrorType.TEMPLATE_ERROR, "file_base64 has no dataset folder to read from")
        return self._encode(self._content(path), path)

    def base64(self, value: Any) -> str:
        """Return bytes, or text in UTF-8, as Base64.

        Raises:
            TypeError: When the value is null or empty.
        """
        return self._encode(value, None) if isinstance(value, bytes) else to_base64(value)

    def media_type(self, value: Any) -> str:
        """Return the media type of a file of the dataset's folder, or of bytes, by its content.

        The ending of the name decides for text files, and for names that are not of a file in the folder.

        Args:
            value: The path of the file, or its content.

        Raises:
            ValueError: When the Messages API has no media type for the content or the ending.
        """
        if isinstance(value, bytes):
            media = read_media(value)
            if media is None:
                raise ValueError(f"the content {UNKNOWN.format(start=start_of(value))}")
            return media.type
        name = str(value)
        if name.lower().endswith(".txt"):
            return media_type_by_name(name)
        content = self._find(name)
        media = read_media(content) if content is not None else None
        if media is not None:
            return media.type
        by_name = media_type_by_name(name)
        if content is not None:
            raise ValueError(f"{name!r} {UNKNOWN.format(start=start_of(content))}")
        return by_name

    def _encode(self, content: bytes, name: str | None) -> str:
        if not content:
            return to_base64(content)
        data = base64.b64encode(content)
        self.encoded.append(EncodedFile(data, name, read_media(content)))
        return data.decode("ascii")

    def _find(self, name: str) -> bytes | None:
        if self._read_file is None:
            return None
        try:
            return self._content(name)
        except ValueError:
            return None

    def _content(self, path: str) -> bytes:
        assert self._read_file is not None
        if path not in self._contents:
            self._contents[path] = self._read_file(path)
        return self._contents[path]


UNKNOWN = (
    "is neither a PNG, JPEG, GIF or WebP image nor a PDF: it starts with {start}. Put the right file in its "
    "place, or leave the row out"
)
"""What is wrong with a content of another type, with a field for its first bytes."""
_SHOWN_START = 16


def start_of(content: bytes) -> str:
    """Return the first bytes of a content for texts."""
    return repr(content[:_SHOWN_START].decode("ascii", "backslashreplace")) if content else "nothing"
