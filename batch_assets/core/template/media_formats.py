"""Read the type, the size in pixels and the end of an image or a PDF from its bytes, without decoding it.

The formats are those that the Messages API accepts as Base64. Only headers and the lengths of blocks are read,
so a file is never unpacked: a small file with billions of pixels costs nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PDF = "application/pdf"
_PNG = b"\x89PNG\r\n\x1a\n"
# Viewers accept other bytes before and after a PDF, up to this number.
_AROUND_PDF = 1024
_PADDING = b"\0\r\n\t "
_SEGMENTS_OF_JPEG = 10_000


@dataclass(frozen=True)
class Media:
    """What the bytes of a file show about it.

    Attributes:
        type: The media type.
        width: Pixels from left to right; 0 for a PDF, or if the file is cut off before them.
        height: Pixels from top to bottom; 0 likewise.
        is_whole: Whether the file has its end.
    """

    type: str
    width: int = 0
    height: int = 0
    is_whole: bool = True

    @property
    def name(self) -> str:
        """The type for texts, with an article."""
        return "a PDF" if self.type == PDF else f"a {_NAMES[self.type]} image"


_NAMES = {"image/gif": "GIF", "image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP"}


def read_media(content: bytes) -> Media | None:
    """Return what a file is, by its content.

    Returns:
        `None` if it is neither a PNG, JPEG, GIF or WebP image nor a PDF.
    """
    try:
        if content.startswith(_PNG):
            return _png(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content.startswith((b"GIF87a", b"GIF89a")):
            return _gif(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp(content)
        if b"%PDF-" in content[:_AROUND_PDF]:
            end = content.rstrip(_PADDING)[-_AROUND_PDF:]
            return Media(PDF, is_whole=b"%%EOF" in end)
    except (struct.error, IndexError):
        return Media(_by_start(content), is_whole=False)
    return None


def _by_start(content: bytes) -> str:
    return {b"\x89": "image/png", b"\xff": "image/jpeg", b"G": "image/gif"}.get(content[:1], "image/webp")


def _png(content: bytes) -> Media:
    """A signature, then chunks: length, name, data, checksum. The first has the size, the last is IEND."""
    width, height = struct.unpack_from(">II", content, 16)
    position, size = 8, len(content)
    while position + 12 <= size:
        (length,) = struct.unpack_from(">I", content, position)
        if content[position + 4 : position + 8] == b"IEND":
            return Media("image/png", width, height)
        position += length + 12
    return Media("image/png", width, height, is_whole=False)


def _jpeg(content: bytes) -> Media:
    """Segments with a marker and a length up to the pixels (SOS), which the marker EOI ends.

    A thumbnail in a segment has its own EOI, so it only counts after the segments.
    """
    width = height = 0
    position = 2
    for _ in range(_SEGMENTS_OF_JPEG):
        if content[position] != 0xFF:
            break
        marker = content[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            position += 2
            continue
        if marker == 0xD9:
            break
        if marker == 0xDA:
            is_whole = content.rfind(b"\xff\xd9", position) >= 0
            return Media("image/jpeg", width, height, is_whole)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, position + 5)
        (length,) = struct.unpack_from(">H", content, position + 2)
        position += 2 + length
    return Media("image/jpeg", width, height, is_whole=False)


def _gif(content: bytes) -> Media:
    """A screen, its table of colors, extensions and frames in blocks with their lengths, and a semicolon."""
    width, height = struct.unpack_from("<HH", content, 6)
    position = 13 + _gif_colors(content[10])
    while (kind := content[position]) != 0x3B:
        if kind == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", content, position + 1)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            position += 11 + _gif_colors(content[position + 9])
        elif kind == 0x21:
            position += 2
        else:
            return Media("image/gif", width, height, is_whole=False)
        while length := content[position]:
            position += length + 1
        position += 1
    return Media("image/gif", width, height)


def _gif_colors(flags: int) -> int:
    """The bytes of a table of colors."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(content: bytes) -> Media:
    """A RIFF file, with its length in the header. The first chunk has the size of the image."""
    (length,) = struct.unpack_from("<I", content, 4)
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    is_whole = len(content) + (length & 1) >= length + 8
    return Media("image/webp", width, height, is_whole)
