"""Small JSON files under the root. This project wrote them, but anyone may have edited them since."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.file_errors import why_no_file
from batch_assets.core.io.storage import Storage

_Document = TypeVar("_Document", bound=BaseModel)
# A manifest holds the pipeline's params and schema, a receipt a few lines.
_MOST_BYTES = 64 << 20


def read_document(storage: Storage, parts: tuple[str, ...], model: type[_Document]) -> _Document:
    """Reads a JSON object and checks it before anything in it is trusted.

    Args:
        storage: The root.
        parts: Path of the file, in parts.
        model: What the object must be.

    Returns:
        The object.

    Raises:
        FileNotFoundError: When there is no such file.
        DamagedFileError: When it is no file, too large, not a JSON object, or a field is missing or has another
            type.
    """
    name = storage.uri(*parts)
    try:
        content = storage.read_bytes(*parts, most=_MOST_BYTES + 1)
    except OSError as error:
        if (why := why_no_file(error)) is None:
            raise
        raise damaged(name, why) from None
    if len(content) > _MOST_BYTES:
        raise damaged(name, f"it has more than {_MOST_BYTES >> 20} MiB")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise damaged(name, f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise damaged(name, "it is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise damaged(name, _first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))
    return (
        f"{field!r} is missing" if first["type"] == "missing" else f"{field!r} is {type(first['input']).__name__}"
    )


def damaged(name: str, problem: str) -> DamagedFileError:
    """Make the error for a file under the root that no longer holds what this project wrote.

    Args:
        name: The path or URL of the file.
        problem: What is wrong with it, as a clause.
    """
    return DamagedFileError(f"{name} is damaged: {problem}. Restore it from a backup")
