"""Values of a YAML file that Dagster, which reads more strictly than the syntax asks, cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_TEXT, _TIMESTAMP, _MERGE = f"{_STANDARD}str", f"{_STANDARD}timestamp", f"{_STANDARD}merge"
# The tags of << and =, which YAML gives them when they have no quotes.
_NOT_VALUES = (_MERGE, f"{_STANDARD}value")
YAML_LOADER: Any = type(
    "PipelineFileLoader",
    (_BASE,),
    {
        "yaml_implicit_resolvers": {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
            for first, resolvers in _BASE.yaml_implicit_resolvers.items()
        }
    },
)
"""Loads a pipeline file as Dagster does: a date without quotes is a text."""


def unreadable_value(document: yaml.Node) -> tuple[int, str] | None:
    """Return the line, from 1, of the first value of a document that cannot be read, and what is wrong with it.

    Args:
        document: The document, composed with `YAML_LOADER`.

    Returns:
        `None` if all can be read.
    """
    path, known = [(document, _inner(document))], {id(document)}  # the nodes around the one that is looked at
    problem = _problem(document)
    while path and problem is None:
        node, left = path[-1]
        inner = next(left, None)
        if inner is None:
            path.pop()
        elif any(inner is around for around, _ in path):
            problem = node, "an alias (*) is inside of the value that it names: write what it is meant to repeat"
        elif id(inner) not in known:
            known.add(id(inner))
            problem = _problem(inner)
            path.append((inner, _inner(inner)))
    return (problem[0].start_mark.line + 1, problem[1]) if problem is not None else None


def _inner(node: Any) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return (part for pair in node.value for part in pair if part.tag != _MERGE or part is not pair[0])
    return iter(node.value if isinstance(node, yaml.SequenceNode) else ())


def _problem(node: Any) -> tuple[yaml.Node, str] | None:
    """Return the node that is wrong, this one or a key of it, and why."""
    if isinstance(node, yaml.ScalarNode):
        return (node, problem) if (problem := _scalar_problem(node)) is not None else None
    if node.tag not in YAML_LOADER.yaml_constructors:
        return node, _unknown_tag(node.tag)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.SequenceNode):
            return key, "a list is the key of a map: put the key in quotes"
        merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if key.tag == _MERGE and not all(isinstance(each, yaml.MappingNode) for each in merged):
            return key, "the key << merges a map: give it a map, or an alias of one"
    return None


def _scalar_problem(node: Any) -> str | None:
    if node.tag == _TEXT:
        return None
    known = node.tag in YAML_LOADER.yaml_constructors
    if not known and node.tag not in _NOT_VALUES:
        return _unknown_tag(node.tag)
    try:
        YAML_LOADER("").construct_document(node)
    except Exception:  # the parsers of single values raise anything
        return f"{node.value!r} cannot be read as {_written(node.tag)}: if it is a text, put it in quotes"
    return None


def _unknown_tag(tag: str) -> str:
    remedy = 'write the value without it. "{{ env.NAME }}" inserts an environment variable'
    return f"there is no tag {_written(tag)} in a pipeline file: {remedy}"


def _written(tag: str) -> str:
    return f"!!{tag.removeprefix(_STANDARD)}" if tag.startswith(_STANDARD) else tag
