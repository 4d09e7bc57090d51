"""What Dagster raises when it renders a template of a YAML file or applies `post_processing`, as a fault of it.

Dagster's own errors quote the file and a traceback, and those of `post_processing` name no field. The field is the
path of the resolution context that was in use.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import dagster as dg
import jinja2
from dagster.components.resolved.errors import ResolutionException

from batch_assets.core.pipeline.faults import Fault, field_line, readable_part
from batch_assets.core.quoting import printable
from batch_assets.core.text import nearest
from batch_assets.dagster.broken.model_faults import POST_PROCESSING, WANTED
from batch_assets.dagster.template_variables import NO_VARIABLE

_NOT_DEFINED = re.compile(r"UndefinedError: (.*)")
_NOT_IN_SCOPE = re.compile(r"'?(\w+)'? (?:not found in scope|is undefined)")
_OBJECT = re.compile(r"'[\w.]*\.(\w+) object'")
_OPERATIONS = ("merge", "replace")


def _cause(error: ResolutionException) -> BaseException | None:
    """Return the error that Dagster turned into another one, of which it keeps only the text."""
    cause = error.__context__
    if cause is None or cause.__traceback__ is None:
        return None
    # The context of an error may have nothing to do with it. This one was handled where the error was raised.
    raised_in = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    return cause if raised_in == [cause.__traceback__.tb_frame] else None


def template_fault(error: BaseException, text: str, source: str, document: int = 0) -> Fault | None:
    """Return what is wrong with a template or with `post_processing`.

    Args:
        error: What the loading of the file raised.
        text: The text of the file.
        source: The file, as the user would open it.
        document: The position of the pipeline among the documents of the file.

    Returns:
        `None` if Dagster was doing something else.
    """
    frames = [frame.f_locals for each in _chain(error) for frame, _ in traceback.walk_tb(each.__traceback__)]
    steps = next((steps for names in reversed(frames) if (steps := _path(names)) is not None), None)
    if not steps:
        return None
    *_, inner = _chain(error)
    if not isinstance(inner, Exception):
        return None
    if isinstance(inner, ResolutionException | jinja2.TemplateError) or _is_rendering(frames):
        field = steps
        problem = _template_problem(inner, _value(readable_part(text, document), field))
    elif steps[0] == POST_PROCESSING:
        field, problem = _post_processing_problem(steps, inner, frames)
    else:
        field, problem = steps, _resolver_problem(inner)
    name = ".".join(field)
    return Fault(source, field_line(text, name, document), name, problem)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that began it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        inner = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        if inner is None and isinstance(current, ResolutionException):
            inner = _cause(current)
        current = inner


def _path(names: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the field that a function of Dagster was looking at, by its local variables."""
    context = next((names[name] for name in ("context", "self") if _is_context(names.get(name))), None)
    if context is None:
        return None
    steps = tuple(map(str, context.path))
    return steps[1:] if steps[:1] == ("attributes",) else (POST_PROCESSING, *steps)


def _is_context(value: Any) -> bool:
    return isinstance(value, dg.ResolutionContext) and bool(value.path)


def _is_rendering(frames: list[dict[str, Any]]) -> bool:
    """Whether the error was raised while a template was rendered: the last context is then that of a method."""
    last = next((names for names in reversed(frames) if _path(names) is not None), None)
    return last is not None and isinstance(last.get("self"), dg.ResolutionContext)


def _template_problem(inner: Exception, written: str | None) -> str:
    template = f"the template {written}" if written is not None else "the template"
    if isinstance(inner, jinja2.TemplateSyntaxError):
        reason = (inner.message or "").rstrip(".")
        return f"{template} cannot be read ({reason}): correct its braces, names and tags"
    undefined = _NOT_DEFINED.search(str(inner)) if isinstance(inner, ResolutionException) else None
    reason = (
        undefined[1] if undefined else str(inner) if isinstance(inner, jinja2.TemplateError) else _named(inner)
    )
    if missing := _NOT_IN_SCOPE.match(reason):
        return NO_VARIABLE.format(missing[1])
    reason = _OBJECT.sub(r"\1", reason)
    return printable(f"{template} cannot be rendered ({reason}): correct it")


def _named(error: Exception) -> str:
    """Return the text of an error with its class, without which `KeyError` and others say nothing."""
    return f"{type(error).__name__}: {str(error).strip()}"


def _resolver_problem(inner: Exception) -> str:
    text = str(inner).strip() if isinstance(inner, ValueError) else _named(inner)
    return printable(f"its value is refused ({text}): correct it", lines=True)


def _post_processing_problem(
    steps: tuple[str, ...], inner: Exception, frames: list[dict[str, Any]]
) -> tuple[tuple[str, ...], str]:
    """Return the field of `post_processing` that is wrong, and why."""
    applied = next((names for names in reversed(frames) if isinstance(names.get("spec"), dg.AssetSpec)), None)
    if applied is None:
        is_entry = len(steps) == len((POST_PROCESSING, "assets", "0"))
        if is_entry and any(isinstance(names.get("model"), str) for names in frames):  # Dagster takes a text apart
            return steps[:-1], WANTED["assets"]
        return ((*steps, "target"), _target_problem(inner)) if is_entry else (steps, _wanted(steps[-1], inner))
    attributes = applied.get("attributes")
    if not isinstance(attributes, Mapping):
        is_entry = steps[-1].isdigit()
        field = (*steps, "attributes") if is_entry else steps
        return field, _wanted(field[-1], inner)
    for name, value in attributes.items():
        if (refused := _refused(name, value)) is not None:
            return (*steps, "attributes", name), _wanted(name, refused)
    operation = getattr(applied.get("model"), "operation", "")
    if operation not in _OPERATIONS:
        meant = nearest(str(operation), _OPERATIONS)
        hint = f": did you mean `{meant}`?" if meant else ""
        return (*steps, "operation"), f"give merge or replace, not {operation}{hint}"
    return steps, printable(_named(inner))


def _refused(name: str, value: Any) -> Exception | None:
    """Return why Dagster refuses a value of an attribute of assets; `None` if it takes it."""
    spec = dg.AssetSpec("asset")
    change = spec.merge_attributes if name in ("metadata", "tags") else spec.replace_attributes
    try:
        change(**{name: value})
    except Exception as error:  # checks of Dagster, and what Python raises for values of other types
        return error
    return None


def _wanted(name: str, error: Exception) -> str:
    """Return what a field takes, or why Dagster refuses its value."""
    if name in WANTED and not isinstance(error, dg.DagsterError):
        return WANTED[name]
    return printable(str(error).strip() if isinstance(error, dg.DagsterError) else _named(error))


def _target_problem(error: Exception) -> str:
    remedy = "give the key of an asset of this file, such as name/results, or a selection, such as key:name/*"
    if isinstance(error, dg.DagsterInvalidSubsetError):
        return f"no asset of this file has this key: {remedy}"
    return printable(f"it selects no asset ({' '.join(str(error).split())}): {remedy}")


def _value(content: Any, steps: tuple[str, ...]) -> str | None:
    """Return the text of a field as the file has it, in quotes; `None` if it has none."""
    if POST_PROCESSING not in steps[:1]:
        content = content.get("attributes")
    with suppress(KeyError, IndexError, TypeError, ValueError):
        for step in steps:
            content = content[int(step)] if isinstance(content, list) else content[step]
        if isinstance(content, str) and len(content) <= 100:
            return f'"{" ".join(content.split())}"'
    return None
