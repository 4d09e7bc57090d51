"""Find the keys of objects that a template may look up, without rendering it."""

from __future__ import annotations

from jinja2 import nodes

# Filters that look up no key, as far as tests and their own arguments go. Of any other one it is unknown.
_WITHOUT_KEYS = frozenset(
    (
        *("abs", "base64", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape"),
        *("file_base64", "filesizeformat", "first", "float", "forceescape", "format", "fromjson", "indent", "int"),
        *("items", "last", "length", "list", "lower", "media_type", "pprint", "reject", "replace", "reverse"),
        *("round", "safe", "select", "slice", "string", "striptags", "title", "tojson", "trim", "truncate"),
        *("upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"),
    )
)
# Filters with an argument `attribute`, and its position.
_ATTRIBUTE = {"join": 1, "max": 1, "min": 1, "sort": 2, "sum": 0, "unique": 1}
# Methods that look up the keys that a text names, such as '{0.name}'.format(meta).
_FORMATS = frozenset(("format", "format_map"))


def keys_in(tree: nodes.Template) -> set[str] | None:
    """Return the keys that a template may look up: `meta.source` and `meta['source']` look up `source`.

    Args:
        tree: The parsed template, without the files that it includes.

    Returns:
        `None` if it may look up any key.
    """
    keys: set[str] = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        if isinstance(node, nodes.Getattr):
            keys.add(node.attr)
        elif isinstance(node, nodes.Filter):
            if _may_look_up(node):
                return None
        elif isinstance(node, nodes.Getitem):
            if isinstance(node.arg, nodes.Const):
                keys.update([node.arg.value] if isinstance(node.arg.value, str) else [])
            elif not isinstance(node.arg, nodes.Slice):
                return None
    return keys if keys.isdisjoint(_FORMATS) else None


def _may_look_up(node: nodes.Filter) -> bool:
    if node.name in _WITHOUT_KEYS:
        return False
    position = _ATTRIBUTE.get(node.name)
    if position is None or node.dyn_args is not None or node.dyn_kwargs is not None:
        return not _maps_without_keys(node)
    return len(node.args) > position or any(pair.key == "attribute" for pair in node.kwargs)


def _maps_without_keys(node: nodes.Filter) -> bool:
    """Whether a filter is `map` with the name of a filter that looks up no key."""
    if node.name != "map" or not node.args or node.kwargs or node.dyn_kwargs is not None:
        return False
    return isinstance(node.args[0], nodes.Const) and node.args[0].value in _WITHOUT_KEYS
