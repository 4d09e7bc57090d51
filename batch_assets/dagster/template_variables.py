"""Variables that Dagster's templates of a pipeline file name and that have no value.

Dagster writes "None" or nothing in their place if there is other text around them, as in
`path: "{{ env.DATA }}/reviews.csv"`, and the pipeline would read another path than the user meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

_ENVIRONMENT = Environment()  # parses only
_Problem = tuple[str, str]
"""(field, what is wrong)."""


def variable_without_value(fields: Mapping[str, Any], scope: Iterable[str]) -> _Problem | None:
    """Find the first variable that does not exist, or has no value and is within a longer text.

    Args:
        fields: The fields that Dagster renders, as the file has them.
        scope: The names that templates may use.

    Returns:
        The field and what is wrong with it; `None` if all variables have a value. Templates that do not parse are
        left to Dagster.
    """
    known = {*scope, *_ENVIRONMENT.globals}
    for field, text in _texts(fields, ""):
        for node, is_alone in _printed(text):
            problem = _problem(node, known, is_alone=is_alone)
            if problem is not None:
                return field, problem
    return None


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Yield each text with its field."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _texts(inner, f"{field}.{position}")


def _printed(text: str) -> Iterator[tuple[nodes.Name | nodes.Getattr, bool]]:
    """Yield variables that are printed as they are, `nowhere` or `env.NOWHERE`, and whether they are alone."""
    if "{{" not in text:
        return
    try:
        template = _ENVIRONMENT.parse(text)
    except TemplateSyntaxError:
        return
    undeclared = find_undeclared_variables(template)
    for output in template.find_all(nodes.Output):
        is_alone = len(template.body) == 1 and len(output.nodes) == 1
        for node in output.nodes:
            if isinstance(node, nodes.Getattr) or (isinstance(node, nodes.Name) and node.name in undeclared):
                yield node, is_alone


def _problem(node: nodes.Name | nodes.Getattr, known: set[str], *, is_alone: bool) -> str | None:
    if isinstance(node, nodes.Name):
        remedy = "templates over the row are in `params`, and these are Dagster's"
        return f"there is no variable {node.name!r} here: {remedy}" if node.name not in known else None
    # A variable that is alone may be missing: the field then has no value.
    is_of_env = isinstance(node.node, nodes.Name) and node.node.name == "env"
    if is_alone or not is_of_env or node.attr in os.environ:
        return None
    return (
        f"the environment variable {node.attr} is not set: set it for all processes that load the project, or "
        f"give a default, {{{{ env('{node.attr}', 'default') }}}}"
    )
