"""Small JSON files under the root: they are the project's own, but anybody may have edited them since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.storage import Storage

# A manifest holds the pipeline's params and schema, a receipt a few lines.
_MOST_BYTES = 64 << 20


def read_object(
    storage: Storage, parts: tuple[str, ...], fields: Mapping[str, tuple[type, ...]]
) -> dict[str, Any]:
    """Reads a JSON object and checks it before anything in it is trusted.

    Args:
        fields: that must be there, with the types each may have.

    Errors:
        FileNotFoundError: it is not there.
        DamagedFileError: too large, no JSON object, or a field is missing or of another type.
    """
    content = storage.read_bytes(*parts, most=_MOST_BYTES + 1)
    name = storage.uri(*parts)
    if len(content) > _MOST_BYTES:
        raise damaged(name, f"it has more than {_MOST_BYTES >> 20} MiB")
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise damaged(name, f"it is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise damaged(name, "it is not a JSON object")
    for field, types in fields.items():
        if field not in found:
            raise damaged(name, f"{field!r} is missing")
        if not isinstance(found[field], types) or (isinstance(found[field], bool) and bool not in types):
            raise damaged(name, f"{field!r} is {type(found[field]).__name__}")
    return found


def damaged(name: str, what: str) -> DamagedFileError:
    """The error for a file under the root that is not as it was written."""
    return DamagedFileError(f"{name} is damaged: {what}. Restore it from a backup")
