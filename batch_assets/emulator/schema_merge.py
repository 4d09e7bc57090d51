"""Resolve references in a JSON schema, and merge two schemas into one that requires both."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

_LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


class UnsatisfiableSchemaError(ValueError):
    """No value satisfies the schema, or none could be found."""


def resolve(root: Any, pointer: str) -> Any:
    """Resolve a local reference such as `#/$defs/Name`.

    Args:
        root: The whole schema.
        pointer: The reference.

    Raises:
        ValueError: When the reference points outside of the schema or at nothing.
    """
    if not pointer.startswith("#"):
        raise ValueError(f"only references inside the schema are supported: {pointer}")
    part = root
    for step in pointer[1:].split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        try:
            part = part[int(name)] if isinstance(part, list) else part[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"the schema has nothing at {pointer}") from None
    return part


def merge(left: Any, right: Any) -> Any:
    """Merge two schemas into one for values that satisfy both; False if it is clear that no value does."""
    if left is False or right is False:
        return False
    if not isinstance(left, dict):
        return right
    if not isinstance(right, dict):
        return left
    merged = dict(left)
    for word, value in right.items():
        if word not in merged:
            merged[word] = value
            continue
        combined = _combine(word, merged[word], value)
        if combined is None:
            return False
        merged[word] = combined
    return merged


def _combine(word: str, left: Any, right: Any) -> Any:
    """Combine the two values of a keyword; `None` if no value satisfies both."""
    if word == "properties":
        either = left | right
        return {
            name: merge(left[name], right[name]) if name in left and name in right else either[name]
            for name in either
        }
    if word == "required":
        return list(dict.fromkeys([*left, *right]))
    if word == "type":
        return _common_type(left, right)
    if word == "enum":
        return [value for value in left if value in right] or None
    if word in ("items", "additionalProperties"):
        return merge(left, right)
    if word in _LARGER:
        return max(left, right)
    if word in _SMALLER:
        return min(left, right)
    if word in ("anyOf", "oneOf", "allOf"):
        return [part for part in (merge(first, second) for first in left for second in right) if part is not False]
    return right


def _common_type(left: Any, right: Any) -> Any:
    lefts = left if isinstance(left, list) else [left]
    rights = right if isinstance(right, list) else [right]
    common = [kind for kind in lefts if kind in rights]
    if not common and "integer" in [*lefts, *rights] and "number" in [*lefts, *rights]:
        common = ["integer"]
    if not common:
        return None
    return common[0] if len(common) == 1 else common
