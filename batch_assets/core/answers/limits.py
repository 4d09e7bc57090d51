"""The limits that a schema sets for values apart from their type: bounds, lengths, steps, patterns, formats."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.json_schema import can_check_text, text_keeps, text_takes_too_long
from batch_assets.core.answers.patterns import for_arrow
from batch_assets.core.answers.schema_keywords import FORMATS
from batch_assets.core.io.json_text import FLOATS_SKIP

Limits = dict[str, Any]
"""Keywords of JSON Schema and their values, such as {"minimum": 1}."""

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_KEEPS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
    "minLength": operator.ge,
    "maxLength": operator.le,
    "minItems": operator.ge,
    "maxItems": operator.le,
}
_TEXT_WORDS = ("pattern", "format")
_WORDS = {
    "integer": (*_BOUNDS, "multipleOf"),
    "number": (*_BOUNDS, "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("minItems", "maxItems"),
}


def limits_in(definition: Limits, kind: str) -> Limits:
    """Collect the limits that a schema sets for values of a kind. Malformed limits are ignored.

    Args:
        definition: The schema.
        kind: The type of the values, as JSON Schema names it.
    """
    candidates = {word: definition[word] for word in _WORDS.get(kind, ()) if word in definition}
    return {word: limit for word, limit in candidates.items() if _is_limit(word, limit)}


def broken_limit(limits: Limits, kind: str, value: Any) -> str | None:
    """Say which limit a value breaks, as a clause such as "which breaks minimum 1".

    Returns:
        The clause, or `None` if the value breaks no limit or is of another kind.
    """
    if kind in ("integer", "number") and type(value) in (int, float):
        size, unit = value, ""
    elif kind == "string" and isinstance(value, str):
        size, unit = len(value), "characters"
    elif kind == "array" and isinstance(value, list):
        size, unit = len(value), "items"
    else:
        return None
    for word, limit in limits.items():
        if word in _TEXT_WORDS:
            if not _all_keep(word, limit, pa.array([value])):
                return f"which {_verb(word, limit, value)} {word} {limit!r}"
        elif word == "multipleOf":
            if Fraction(str(value)) % Fraction(str(limit)):
                return f"which breaks multipleOf {limit}"
        elif not _KEEPS[word](size, limit):
            return f"{f'of {size} {unit}, ' if unit else ''}which breaks {word} {limit}"
    return None


def can_check_arrays(limits: Limits) -> bool:
    """Whether `surely_kept` can check these limits."""
    return "multipleOf" not in limits


def surely_kept(limits: Limits, values: pa.Array) -> bool:
    """Whether all values certainly keep the limits. False if it is uncertain. Nulls are ignored.

    Args:
        limits: The limits, as `limits_in` returns them for the kind of the values.
        values: Numbers, texts or lists, shape (n,).
    """
    if pa.types.is_string(values.type):
        sizes = pc.utf8_length(values)
    else:
        sizes = pc.list_value_length(values) if pa.types.is_list(values.type) else values
    extremes = [extreme for extreme in pc.min_max(sizes).as_py().values() if extreme is not None]
    if any(isinstance(extreme, float) and abs(extreme) >= FLOATS_SKIP for extreme in extremes):
        return False
    bounds = [(word, limit) for word, limit in limits.items() if word in _KEEPS]
    if not all(_KEEPS[word](extreme, limit) for word, limit in bounds for extreme in extremes):
        return False
    return all(_all_keep(word, limits[word], values) for word in _TEXT_WORDS if word in limits)


def _all_keep(word: str, limit: str, texts: pa.StringArray) -> bool:
    """Whether all texts have a format or match a pattern. Nulls are ignored."""
    pattern = for_arrow(limit) if word == "pattern" else None
    if pattern is not None:
        return pc.all(pc.match_substring_regex(texts, pattern)).as_py() is not False
    return all(text is None or text_keeps(word, limit, text) for text in pc.unique(texts).to_pylist())


def _verb(word: str, limit: str, text: str) -> str:
    by_arrow = word == "pattern" and for_arrow(limit) is not None
    return "breaks" if by_arrow or not text_takes_too_long(word, limit, text) else "takes too long to compare with"


def _is_limit(word: str, limit: Any) -> bool:
    if word == "pattern":
        return isinstance(limit, str) and (for_arrow(limit) is not None or can_check_text(word, limit))
    if word == "format":
        return isinstance(limit, str) and limit in FORMATS
    if type(limit) not in (int, float) or (isinstance(limit, float) and not math.isfinite(limit)):
        return False
    return word != "multipleOf" or bool(limit > 0)
