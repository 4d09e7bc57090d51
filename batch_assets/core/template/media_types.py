"""Media types by the ending of a file's name, for the template filter `media_type`."""

from __future__ import annotations

# What the Messages API takes as base64 or text: Base64ImageSourceParam, Base64PDFSourceParam and
# PlainTextSourceParam of the SDK. Python's own table differs between machines and versions.
_BY_ENDING = {
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "webp": "image/webp",
}


def media_type(name: str) -> str:
    """`a/b.pdf` -> `application/pdf`, in any case of letters.

    Errors:
        ValueError: the ending is not one of those the Messages API has a media type for.
    """
    _, dot, ending = str(name).rsplit("/", 1)[-1].rpartition(".")
    found = _BY_ENDING.get(ending.lower()) if dot else None
    if found is None:
        raise ValueError(
            f"the Messages API has no media type for {str(name)!r}; it has for {', '.join(_BY_ENDING)}. Leave "
            "such files out, or write the type in the template"
        )
    return found
