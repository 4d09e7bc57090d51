"""Test made instances against their schema, where the schema has keywords that are not built into the making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Keywords that `schema_instance` ignores, or follows only in part.
_TESTED = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired"),
        *("dependentSchemas", "patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
        *("oneOf", "$dynamicRef"),
    }
)
_SIZES = frozenset({"minLength", "maxLength", "pattern"})


def trial(schema: Any) -> Callable[[Any], bool] | None:
    """Make a function that tells whether a value is an instance of a schema.

    Args:
        schema: The schema, as parsed JSON.

    Returns:
        The function; `None` if every made instance fits, or if the schema cannot be read.
    """
    if not _needs_trial(schema):
        return None
    # Imported here because it takes 0.1 s and few schemas need it.
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True).is_valid
    except ValueError:  # its ValidationError: keywords that are not JSON Schema
        return None


def _needs_trial(part: Any) -> bool:
    if isinstance(part, list):
        return any(map(_needs_trial, part))
    if not isinstance(part, dict):
        return False
    if _TESTED & part.keys() or ("format" in part and _SIZES & part.keys()):
        return True
    return any(map(_needs_trial, part.values()))
