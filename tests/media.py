"""Small images and a PDF, byte by byte: valid as far as a reader of headers sees."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any


def png(width: int = 3, height: int = 2) -> bytes:
    """Return a PNG. Its pixels are missing if it is large."""
    pixels = (b"\0" + bytes(3 * width)) * height if width * height < 10_000 else b""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(pixels),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(width: int = 3, height: int = 2) -> bytes:
    """Return a JPEG with a thumbnail, which has its own end."""
    thumbnail = b"\xff\xd8\xff\xda\0\2thumb\xff\xd9"
    app = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 8, 8, height, width, 0)
    return b"\xff\xd8" + app + frame + b"\xff\xda\0\2" + b"pixels" * 20 + b"\xff\xd9"


def gif(width: int = 3, height: int = 2) -> bytes:
    """Return a GIF with a table of colors, an extension and a frame."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b"!\xf9\4\0\0\0\0\0"
        + frame
        + b";"
    )


def webp(width: int = 3, height: int = 2) -> bytes:
    """Return a lossy WebP."""
    frame = b"\x30\1\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(10)
    chunk = b"VP8 " + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


PDF = b"%PDF-1.4\n\x00\xff not really\n%%EOF\n"


def source(content: bytes, media_type: str) -> dict[str, Any]:
    """Return the source of a block with the content as Base64."""
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(content).decode()}


def image(content: bytes, media_type: str = "image/png") -> dict[str, Any]:
    """Return a block with an image."""
    return {"type": "image", "source": source(content, media_type)}
