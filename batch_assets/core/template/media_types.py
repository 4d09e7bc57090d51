"""Media types by the ending of a file name, where the content does not decide."""

from __future__ import annotations

# The types that the Messages API accepts as base64 or text, from the SDK's Base64ImageSourceParam,
# Base64PDFSourceParam and PlainTextSourceParam. Python's own table differs between machines and versions.
_BY_ENDING = {
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "webp": "image/webp",
}


def media_type_by_name(name: str) -> str:
    """Return the media type of a file by its name, such as `application/pdf` for `a/b.PDF`.

    Raises:
        ValueError: When the Messages API has no media type for the ending.
    """
    _, dot, ending = str(name).rsplit("/", 1)[-1].rpartition(".")
    type_ = _BY_ENDING.get(ending.lower()) if dot else None
    if type_ is None:
        raise ValueError(
            f"the Messages API has no media type for {str(name)!r}, only for {', '.join(_BY_ENDING)}. Leave such "
            "files out, or write the type in the template"
        )
    return type_
