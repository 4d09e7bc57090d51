"""The limits that a schema sets for values, apart from their type: bounds, lengths, steps and patterns."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
_WORDS = {
    "integer": (*_BOUNDS, "multipleOf"),
    "number": (*_BOUNDS, "multipleOf"),
    "string": ("minLength", "maxLength", "pattern"),
    "array": ("minItems", "maxItems"),
}

_CLASSES = {"\\w": r"\p{L}\p{M}\p{Nd}_", "\\d": r"\p{Nd}", "\\s": r"\s\p{Z}"}
_OTHERS = {"\\W", "\\D", "\\S"}


def limits_in(definition: Limits, kind: str) -> Limits:
    """Collect the limits that a schema sets for values of a kind. Malformed limits are ignored.

    A pattern that RE2 cannot read, such as one with a lookaround or a back-reference, is ignored too. Engines that
    can read it may run indefinitely on a short text, and the API does not accept it either.

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
        if word == "pattern":
            if not pc.match_substring_regex(pa.scalar(value), _for_arrow(limit)).as_py():
                return f"which breaks pattern {limit!r}"
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
    pattern = limits.get("pattern")
    return pattern is None or pc.all(pc.match_substring_regex(values, _for_arrow(pattern))).as_py() is not False


def _is_limit(word: str, limit: Any) -> bool:
    if word == "pattern":
        return isinstance(limit, str) and _for_arrow(limit) is not None
    if type(limit) not in (int, float):
        return False
    return word != "multipleOf" or bool(limit > 0)


@lru_cache(maxsize=256)
def _for_arrow(pattern: str) -> str | None:
    """Translate a pattern for RE2, the engine of Arrow; `None` if RE2 cannot read it.

    In RE2 `\\w`, `\\d` and `\\s` match ASCII only. They are translated to match all letters, digits and spaces, as
    in pydantic.
    """
    parts: list[str] = []
    in_class = at_start = False  # of a class [...], in which a ] directly after [ or [^ is an ordinary character
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        opens = part == "[" and not in_class
        if part == "]" and not at_start:
            in_class = False
        at_start = opens or (at_start and part == "^")
        in_class |= opens
        if part in _CLASSES:
            part = _CLASSES[part] if in_class else f"[{_CLASSES[part]}]"
        elif part in _OTHERS and not in_class:
            part = f"[^{_CLASSES[part.lower()]}]"
        parts.append(part)
    try:
        pc.match_substring_regex(pa.scalar(""), "".join(parts))
    except pa.ArrowException:
        return None
    return "".join(parts)
