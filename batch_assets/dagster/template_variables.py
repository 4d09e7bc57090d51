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

NO_VARIABLE = "there is no variable {!r} here: templates over the row are in `params`, and these are Dagster's"
"""What is wrong with a variable that does not exist."""
_ENVIRONMENT = Environment()  # parses only
# What looks at a value, which may be none, and does not print it.
_GUARDS = (nodes.If, nodes.CondExpr, nodes.Or, nodes.And, nodes.Not, nodes.Compare, nodes.Test)
_DEFAULTS = {"default", "d"}
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
        if (problem := _problem(text, known)) is not None:
            return field, problem
    return None


def unset_variable(written: Any, locations: Iterable[tuple[int | str, ...]]) -> _Problem | None:
    """Find the first environment variable that is not set and is alone, so that its field has no value.

    Args:
        written: The fields of a pipeline, as the file has them.
        locations: Where a value is missing or wrong: names, and positions in lists.

    Returns:
        The field and what is wrong with it; `None` if all variables there are set.
    """
    for location in locations:
        value, steps = written, list[str]()
        for step in location:
            is_in_map = isinstance(value, Mapping) and step in value
            if not is_in_map and not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
                break
            value = value[step]
            steps.append(str(step))
        if len(steps) < len(location) and not isinstance(value, str):  # the field is missing
            continue
        for field, text in _texts(value, ".".join(steps)):
            template = _parsed(text)
            if template is not None and (name := _unset(_alone(template))) is not None:
                return field, _not_set(name)
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


def _parsed(text: str) -> nodes.Template | None:
    if "{{" not in text:
        return None
    try:
        return _ENVIRONMENT.parse(text)
    except TemplateSyntaxError:
        return None


def _problem(text: str, known: set[str]) -> str | None:
    template = _parsed(text)
    if template is None or _is_guarded(template):
        return None
    try:
        undeclared = find_undeclared_variables(template)
    except TemplateSyntaxError:  # a filter or test that does not exist
        return None
    names = [node.name for node in template.find_all(nodes.Name) if node.name in undeclared - known]
    if names:
        return NO_VARIABLE.format(names[0])
    if _unset(_alone(template)) is not None:  # it may be missing: the field then has no value
        return None
    unset = [name for node in template.find_all(nodes.Getattr) if (name := _unset(node)) is not None]
    return _not_set(unset[0]) if unset else None


def _is_guarded(template: nodes.Template) -> bool:
    """Return whether a template says what to do without a variable."""
    filters = template.find_all(nodes.Filter)
    return next(template.find_all(_GUARDS), None) is not None or any(each.name in _DEFAULTS for each in filters)


def _alone(template: nodes.Template) -> nodes.Node | None:
    """Return what a template prints if that is all there is."""
    outputs = [output for output in template.body if isinstance(output, nodes.Output) and len(output.nodes) == 1]
    return outputs[0].nodes[0] if len(outputs) == len(template.body) == 1 else None


def _unset(node: nodes.Node | None) -> str | None:
    """Return the environment variable that a node names and that is not set; `None` if it is another node."""
    if not isinstance(node, nodes.Getattr) or not isinstance(node.node, nodes.Name) or node.node.name != "env":
        return None
    return node.attr if node.attr not in os.environ else None


def _not_set(name: str) -> str:
    return (
        f"the environment variable {name} is not set: set it for all processes that load the project, or "
        f"give a default, {{{{ env('{name}', 'default') }}}}"
    )
