"""Keys that are twice in one object of JSON or map of YAML. Parsers keep one value and lose the other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

# A string, and the colon after it if it is a key.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:)?', re.DOTALL)
# A space after a quote, which in most files is nowhere between a key and its colon.
_SPACED = re.compile(rb'"[ \t\r\n]')


class RepeatedKeyError(ValueError):
    """An object or map has a key twice. The text names the key, and in YAML the line."""


def checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members: the `object_pairs_hook` of Python's parser.

    Raises:
        RepeatedKeyError: When two members have the same key.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise RepeatedKeyError(
            f"the key {_shown(twice)} is twice in one object, of which only one value would be read: remove or "
            "rename one"
        )
    return made


def load_json(text: str | bytes) -> Any:
    """Parse JSON text.

    Raises:
        ValueError: When it is not JSON, or an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=checked_object)


def check_keys(text: bytes, value: Any) -> None:
    """Check that no object in JSON text has a key twice.

    A parsed object has fewer keys than its text if one is there twice. The text is parsed once more only if it may
    have more.

    Args:
        text: The text. It is valid JSON.
        value: The text parsed.

    Raises:
        RepeatedKeyError: When an object has a key twice.
    """
    if not isinstance(value, dict | list):
        return
    keys = _keys(value)
    if text.count(b":") == keys:
        return
    if _SPACED.search(text) is None:
        # The colon follows a key at once. Texts may have quotes before colons too, but these have a backslash.
        colons = text.count(b'":')
        if colons == keys or (colons - text.count(b'\\":') == keys and b"\\\\" not in text):
            return
    if sum(map(bool, _STRING.findall(text))) != keys:
        json.loads(text, object_pairs_hook=checked_object)


def _keys(value: dict[str, Any] | list[Any]) -> int:
    """The number of keys of all objects in a JSON value."""
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:
        if type(item) is dict or type(item) is list:
            count += _keys(item)
    return count


def _shown(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:39] + "…")


def check_yaml(text: str | bytes) -> None:
    """Check that no map in YAML text has a key twice.

    Raises:
        RepeatedKeyError: When a map has one. Names the line.
        yaml.YAMLError: When the text is not YAML.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    nodes: list[Any] = list(yaml.compose_all(text, Loader=loader))
    known: set[int] = set()  # aliases lead to the same node again, perhaps in a circle
    while nodes:
        node = nodes.pop()
        if id(node) in known or not isinstance(node, yaml.CollectionNode):
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_map(node)
            nodes += [part for pair in node.value for part in pair]
        else:
            nodes += node.value


def _check_map(node: yaml.MappingNode) -> None:
    seen: set[Hashable] = set()
    for key, _ in node.value:
        # Two merges (<<) are one key that is twice as well: YAML reads only the last.
        mark = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
        if mark in seen:
            raise RepeatedKeyError(
                f"line {key.start_mark.line + 1}: the key {_shown(key.value)} is twice in one map, of which only "
                "one value would be read: remove or rename one"
            )
        seen.add(mark)
