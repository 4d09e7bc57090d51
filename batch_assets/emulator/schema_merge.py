"""Combining JSON schemas: pointers into a document and the conjunction of two schemas."""

from typing import Any
from urllib.parse import unquote

_LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def resolve(root: Any, pointer: str) -> Any:
    """The part of the document `root` that a local reference such as `#/$defs/Name` points to.

    Raises ValueError for references outside of the document or to nothing.
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
    """A schema for the values that satisfy both; False when a conflict of types leaves none."""
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
    """One keyword that both schemas have; None when nothing satisfies both."""
    if word == "properties":
        names = left | right
        return {
            name: merge(left[name], right[name]) if name in left and name in right else names[name]
            for name in names
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
        return [part for part in (merge(one, other) for one in left for other in right) if part is not False]
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
