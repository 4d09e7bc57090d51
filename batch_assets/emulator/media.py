"""Refuse images and PDFs as the API does, with its error texts.

The limits are from https://platform.claude.com/docs/en/build-with-claude/vision, the texts from public recordings
of refusals. That of too many images is in https://github.com/anthropics/claude-code/issues/19822; that of an empty
URL is not recorded anywhere. The emulator and the product have separate readers of the formats, so a mistake in
one shows. Pixels are not decoded, so a file that is only damaged inside is accepted, and so are bytes behind its
end. PDFs are not opened: their pages are not counted.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any, Literal

_SIGNATURES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)
_IMAGE_TYPES = "'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
_SIDE, _SIDE_OF_MANY, _MANY_IMAGES = 8000, 2000, 20
_IMAGE_BASE64 = 10 << 20
_NAMED = {"url": "url", "file": "file_id"}
# A PDF may have padding behind its end, and other bytes up to this number.
_AROUND_PDF = 1024


def media_problem(messages: Any, images_at_most: int = 600) -> str | None:
    """Return the text with which the API refuses the first image or PDF of a request; `None` if it takes all.

    Args:
        messages: The `messages` of the request, which are valid otherwise.
        images_at_most: How many images the model takes in a request.
    """
    if all(isinstance(message["content"], str) for message in messages):
        return None
    sources = list(_sources(messages))
    images = sum(kind == "image" for _, kind, _ in sources)
    if images > images_at_most:
        return f"Too much media: 0 document pages + {images} images > {images_at_most}"
    for path, kind, source in sources:
        place = f"{path}.{'image' if kind == 'image' else 'pdf'}.source"
        if source["type"] != "base64":
            name = _NAMED[source["type"]]
            if not str(source.get(name) or "").strip():
                return f"{place}.{source['type']}.{name}: String should have at least 1 character"
            continue
        problem = _image(source, images) if kind == "image" else _pdf(source)
        if problem is not None:
            field, text = problem
            return f"{place}.base64{field}: {text}" if text else field
    return None


def _sources(messages: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path of the block, its type, its source) of all images and documents with content or a name of it."""
    queue = [(f"messages.{at}.content", message["content"]) for at, message in enumerate(messages)]
    while queue:
        path, content = queue.pop(0)
        for at, block in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(block, dict):
                continue
            source = block.get("source")
            if block.get("type") == "tool_result":
                queue.append((f"{path}.{at}.tool_result.content", block.get("content")))
            elif block.get("type") in ("image", "document") and isinstance(source, dict):
                if source.get("type") in ("base64", *_NAMED):
                    yield f"{path}.{at}", block["type"], source
                elif source.get("type") == "content":
                    queue.append((f"{path}.{at}.document.source.content.content", source.get("content")))


def _decoded(source: dict[str, Any]) -> bytes | None:
    try:
        data = source["data"]
        content = base64.b64decode(data, validate=True)
    except (KeyError, TypeError, ValueError):
        return None
    # Python ignores padding after whole characters.
    return content if len(data) == len(base64.b64encode(content)) else None


def _image(source: dict[str, Any], images: int) -> tuple[str, str] | None:
    stated = source.get("media_type")
    if stated not in [name for name, _ in _SIGNATURES]:
        return ".media_type", f"Input should be {_IMAGE_TYPES}"
    data = source.get("data")
    if isinstance(data, str) and len(data) > _IMAGE_BASE64:
        return "", f"image exceeds 10 MB maximum: {len(data)} bytes > {_IMAGE_BASE64} bytes"
    content = _decoded(source)
    if content is None:
        return ".data", "Invalid base64 data"
    type_ = next((name for name, pattern in _SIGNATURES if pattern.match(content)), None)
    if type_ is not None and type_ != stated:
        text = (
            f"The image was specified using the {stated} media type, but the image appears to be a {type_} image"
        )
        return "", text
    size = _size(content, type_) if type_ is not None and _has_end(content, type_) else None
    if size is None or 0 in size:
        return "Could not process image", ""
    side, case = (_SIDE, "") if images <= _MANY_IMAGES else (_SIDE_OF_MANY, " for many-image requests")
    if max(size) > side:
        return ".data", f"At least one of the image dimensions exceed max allowed size{case}: {side} pixels"
    return None


def _pdf(source: dict[str, Any]) -> tuple[str, str] | None:
    if source.get("media_type") != "application/pdf":
        return ".media_type", "Input should be 'application/pdf'"
    content = _decoded(source)
    if content is None or not _is_pdf(content):
        return ".data", "The PDF specified was not valid."
    return None


def _is_pdf(content: bytes) -> bool:
    end = content.rstrip(b"\0\t\n\r ")[-_AROUND_PDF:]
    return b"%PDF-" in content[:_AROUND_PDF] and b"%%EOF" in end


def _has_end(content: bytes, type_: str) -> bool:
    if type_ == "image/webp":
        return len(content) + 1 >= int.from_bytes(content[4:8], "little") + 8
    if type_ == "image/gif":
        return _gif_has_end(content)
    if type_ == "image/png":
        return b"IEND\xaeB`\x82" in content
    return content.find(b"\xff\xd9", _jpeg(content)[1]) >= 0


def _gif_has_end(content: bytes) -> bool:
    """Whether a GIF's blocks lead to its trailer."""
    table = 3 * 2 ** (content[10] % 8 + 1) if content[10:11] >= b"\x80" else 0
    file = io.BytesIO(content)
    file.seek(13 + table)
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b"!":
            file.seek(1, io.SEEK_CUR)
        elif (flags := file.read(9)[8:]) >= b"\x80":
            file.seek(3 * 2 ** (flags[0] % 8 + 1) + 1, io.SEEK_CUR)
        else:
            file.seek(1, io.SEEK_CUR)
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], io.SEEK_CUR)
    return kind == b";"


def _jpeg(content: bytes) -> tuple[tuple[int, int] | None, int]:
    """Return the size of a JPEG, and where its pixels begin. A thumbnail before them does not count."""
    size, at = None, 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        marker = content[at + 1] if at + 1 < len(content) else 0
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            size = (
                int.from_bytes(content[at + 7 : at + 9], "big"),
                int.from_bytes(content[at + 5 : at + 7], "big"),
            )
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return size, at


def _size(content: bytes, type_: str) -> tuple[int, int] | None:
    """Return the width and height of an image; `None` if its header does not say them."""

    def number(at: int, length: int, order: Literal["big", "little"] = "little") -> int:
        return int.from_bytes(content[at : at + length], order)

    if type_ == "image/png":
        return number(16, 4, "big"), number(20, 4, "big")
    if type_ == "image/gif":
        return number(6, 2), number(8, 2)
    if type_ == "image/jpeg":
        return _jpeg(content)[0]
    match content[12:16]:
        case b"VP8X":
            return number(24, 3) + 1, number(27, 3) + 1
        case b"VP8L":
            bits = number(21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    return None
