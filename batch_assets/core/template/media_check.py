"""Check the images and PDFs of a request before they are sent.

The API refuses such a request only after it was sent, with a result that says little. The limits are from
https://platform.claude.com/docs/en/build-with-claude/vision. A PDF's number of pages and its encryption are not
checked: they are only known once the file is unpacked. Only the API checks what is behind a URL or a `file_id`:
here such a source counts as an image, and must not be empty.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.media_formats import PDF, Media, read_media
from batch_assets.core.template.model_rules import images_at_most
from batch_assets.core.template.row_files import UNKNOWN, EncodedFile, start_of
from batch_assets.core.template.values import RowRejectedError

# The sources with content of a row. Of a text or of blocks, nothing is checked.
_SIGNS = (b'"base64"', b'"url"', b'"file_id"')
_REFERENCES = {"url": "url", "file": "file_id"}
_DATA = b'"data":"'
# A shorter value is left where it is.
_LONG = 1000
_SIDE = 8000
_MANY_IMAGES = 20
_SIDE_OF_MANY = 2000
_IMAGE_BASE64 = 10 << 20
# What the alphabet of Base64 lacks: a whole character of UTF-8.
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/=][\x80-\xbf]*")
_BLOCKS = ("image", "document")


@dataclass(frozen=True)
class _Source:
    """A source of the type base64.

    Attributes:
        field: Its field.
        block: The type of its block: image or document.
        media_type: The media type that it states.
        data: The Base64; `None` if it is not text.
    """

    field: str
    block: str
    media_type: Any
    data: bytes | None


def check_media(params: bytes, encoded: Collection[EncodedFile] = ()) -> None:
    """Check the images and PDFs in the params of one request.

    Args:
        params: The params as JSON without spaces.
        encoded: The files that templates have encoded for the request.

    Raises:
        RowRejectedError: When the API would refuse one of them. Names the field, the file and what to do.
    """
    if not any(sign in params for sign in _SIGNS):
        return
    short, values = _cut_out(params)
    parsed = orjson.loads(short)
    blocks = list(_sources(parsed))
    images = sum(block["type"] == "image" for _, block, _ in blocks)
    if images > (most := images_at_most(parsed.get("model"))):
        _reject(
            f"params.messages: {images:,} images; the API accepts {most:,} in a request to this model: send fewer"
        )
    for block_field, block, source in blocks:
        field = f"{block_field}.source"
        if source["type"] in _REFERENCES:
            problem = _empty_reference(source)
        else:
            encoded_source = _Source(
                field, block["type"], source.get("media_type"), _value(source.get("data"), values)
            )
            file = next((file for file in encoded if file.data == encoded_source.data), None)
            problem = _problem(encoded_source, file, images)
        if problem is not None:
            _reject(f"{field}: {problem}")


def _reject(text: str) -> NoReturn:
    raise RowRejectedError(ErrorType.INVALID_MEDIA, text)


def _empty_reference(source: Mapping[str, Any]) -> str | None:
    """Return why a URL or a `file_id` names nothing; `None` if it may name something."""
    name = _REFERENCES[source["type"]]
    value = source.get(name)
    if isinstance(value, str) and value.strip():
        return None
    return f"`{name}` is empty: give it a value, or leave the row out"


def _cut_out(params: bytes) -> tuple[bytes, list[bytes]]:
    """Replace each long Base64 value in JSON by its number, so that parsing does not copy them.

    Within a string, quotes are escaped, so what marks such a value can only be a key followed by its value.
    """
    pieces: list[bytes] = []
    values: list[bytes] = []
    begin = position = 0
    while (position := params.find(_DATA, position)) >= 0:
        position += len(_DATA)
        end = params.find(b'"', position)
        if end - position < _LONG or params.find(b"\\", position, end) >= 0:
            continue
        pieces += [params[begin : position - 1], str(len(values)).encode()]
        values.append(params[position:end])
        begin = position = end + 1
    return b"".join([*pieces, params[begin:]]), values


def _value(data: Any, values: list[bytes]) -> bytes | None:
    if isinstance(data, str):
        return data.encode()
    return values[data] if type(data) is int and data < len(values) else None


def _sources(params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield (field, block, source) of each image or document, also in results of tools.

    Sources of texts and of blocks are left out; the blocks are not.
    """
    messages = params.get("messages")
    queue: list[tuple[str, Any]] = []
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            queue.append((f"params.messages[{number}].content", message.get("content")))
    while queue:
        field, content = queue.pop(0)
        for number, block in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(block, dict):
                continue
            block_field = f"{field}[{number}]"
            source = block.get("source")
            queue.append((f"{block_field}.content", block.get("content")))
            if not isinstance(source, dict) or block.get("type") not in _BLOCKS:
                continue
            if source.get("type") == "base64" or source.get("type") in _REFERENCES:
                yield block_field, block, source
            else:
                queue.append((f"{block_field}.source.content", source.get("content")))


def _problem(source: _Source, file: EncodedFile | None, images: int) -> str | None:
    """Return why the API would refuse a source; `None` if it would not."""
    data = source.data
    if data is None:
        return "`data` is not text: give the content as Base64"
    name = f"the file {file.name!r}" if file is not None and file.name is not None else "the content"
    if file is not None:
        media = file.media
    elif data.startswith(b"data:"):
        return "`data` starts with 'data:': give the Base64 alone, the part after the comma"
    else:
        try:
            content = binascii.a2b_base64(data, strict_mode=True)
            if len(data) != (len(content) + 2) // 3 * 4:  # Python accepts any number of = after whole characters
                raise binascii.Error("Excess padding")
        except binascii.Error as error:
            return f"`data` is not Base64: {_fault(data, error)}"
        media = read_media(content)
    if media is None:
        start = start_of(binascii.a2b_base64(data[:64]) if file is not None else content)
        return f"{name} {UNKNOWN.format(start=start)}"
    return _media_problem(source, media, name, len(data), images)


def _fault(data: bytes, error: binascii.Error) -> str:
    """Say what is wrong with Base64, and what to do. The API accepts the standard alphabet with padding only."""
    match = _FOREIGN.search(data)
    unpadded = data.rstrip(b"=")
    if match is None and b"=" not in unpadded and len(data) - len(unpadded) > -len(unpadded) % 4:
        return "it has more = at its end than belong there. Remove them"
    if match is None and len(data) % 4:
        remedy = "Add the = at its end, or copy it again if it was cut off"
        return f"it has {len(data):,} characters, but the number must be a multiple of 4. {remedy}"
    if match is None:
        return f"{error}. Encode the content again"
    character = match[0].decode(errors="replace")
    if character.isspace():
        return "it has line breaks or spaces. Remove them"
    if character in "-_":
        return "it is in the alphabet for URLs. Write + in place of - and / in place of _"
    return f"it has the character {character!r} at position {match.start()}. Encode the content again"


def _media_problem(source: _Source, media: Media, name: str, size: int, images: int) -> str | None:
    if (media.type == PDF) != (source.block == "document"):
        block = "document" if media.type == PDF else "image"
        return f"{name} is {media.name}, which belongs in a block of the type {block}, not {source.block}"
    if media.type != source.media_type:
        return (
            f"{name} is {media.name}, but media_type is {source.media_type!r}: write {media.type}, or give the "
            "filter `media_type` the path or the bytes"
        )
    if not media.is_whole:
        return f"{name} is {media.name} without its end: it was cut off. Copy it again, or leave the row out"
    if media.type == PDF:
        return None
    if not (media.width and media.height):
        return f"{name} is {media.name} without pixels. Put the right file in its place, or leave the row out"
    side = _SIDE if images <= _MANY_IMAGES else _SIDE_OF_MANY
    if max(media.width, media.height) > side:
        many = f" in a request with more than {_MANY_IMAGES} images" if images > _MANY_IMAGES else ""
        pixels = f"{media.width:,} x {media.height:,} pixels"
        return f"{name} has {pixels}; the API accepts {side:,} a side{many}: make it smaller"
    if size > _IMAGE_BASE64:
        return (
            f"{name} has {size:,} bytes as Base64; the API accepts {_IMAGE_BASE64:,} for an image: make it smaller"
        )
    return None
