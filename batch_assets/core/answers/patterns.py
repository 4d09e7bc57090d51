"""Translate the patterns of a schema, so that both engines that match them read them alike."""

from __future__ import annotations

import re
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

# The engines are Arrow's RE2 and that of jsonschema-rs. In both, `\w`, `\d` and `\s` would match ASCII only. They
# must match all letters, digits and spaces, as in pydantic.
_CLASSES = {"\\w": r"\p{L}\p{M}\p{Nd}_", "\\d": r"\p{Nd}", "\\s": "\\s\\v\\p{Z}\x85\ufeff"}
_OTHERS = {"\\W", "\\D", "\\S"}
# The opposites of these classes within a class [...], which cannot contain [^...]. Unassigned characters are left
# out.
_CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_OTHERS_IN_CLASS = {
    "\\W": r"\p{Nl}\p{No}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\p{S}\p{Z}\p{Cf}\p{Co}" + "\t-\r\x85‿⁀⁔" + _CONTROLS,
    "\\D": r"\P{Nd}",
    # of the formatting characters (Cf) all but U+FEFF, which is a space in ECMAScript
    "\\S": r"\p{L}\p{M}\p{N}\p{P}\p{S}\p{Co}" + "\xad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f" + _CONTROLS,
}
_PART = re.compile(r"\\.|.", re.DOTALL)
# In RE2 these look at ASCII letters only, which differs from `\w` above.
_BORDERS = {"\\b", "\\B"}


@lru_cache(maxsize=256)
def translated(pattern: str) -> str:
    """Write the classes `\\w`, `\\d` and `\\s` of a pattern, and their opposites, as Unicode categories."""
    parts: list[str] = []
    in_class = at_start = False  # of a class [...], in which a ] directly after [ or [^ is an ordinary character
    for part in _PART.findall(pattern):
        opens = part == "[" and not in_class
        if part == "]" and at_start:
            part = "\\]"
        elif part == "]":
            in_class = False
        at_start = opens or (at_start and part == "^")
        in_class |= opens
        if part in _CLASSES:
            part = _CLASSES[part] if in_class else f"[{_CLASSES[part]}]"
        elif part in _OTHERS:
            part = _OTHERS_IN_CLASS[part] if in_class else f"[^{_CLASSES[part.lower()]}]"
        parts.append(part)
    return "".join(parts)


@lru_cache(maxsize=256)
def for_arrow(pattern: str) -> str | None:
    """Translate a pattern for RE2, the engine of Arrow.

    Returns:
        The pattern, or `None` if RE2 cannot read it or reads it in another way. RE2 has no lookaround,
        back-references or `\\u` escapes. It takes linear time, while other engines may take very long for a short
        text.
    """
    if _BORDERS.intersection(_PART.findall(pattern)):
        return None
    text = translated(pattern)
    try:
        pc.match_substring_regex(pa.scalar(""), text)
    except pa.ArrowException:
        return None
    return text
