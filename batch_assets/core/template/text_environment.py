"""The environment of templates from rendering 3 on: whatever makes text of a value makes that of `text_of`.

Without it, Python's `str` would: null would become `None` in a filter, in `a ~ b` and in a format.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pprint import pformat
from typing import Any

import jinja2
from jinja2 import filters, nodes, pass_environment, pass_eval_context
from jinja2.sandbox import SandboxedFormatter

from batch_assets.core.template.key_access import KeyEnvironment
from batch_assets.core.template.machine_values import check_format
from batch_assets.core.template.written import as_python, is_not_finite, shown, text_of

# Filters that make text of their value, and of nothing else.
_OF_TEXT = (
    *("capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "safe", "string", "striptags"),
    *("title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"),
)


class TextEnvironment(KeyEnvironment):
    """An environment in which null is nothing wherever a template makes text of it.

    Args:
        shapes: See `KeyEnvironment`.
        columns: See `KeyEnvironment`.
        options: See jinja2.Environment.
    """

    def __init__(self, shapes: Collection[frozenset[str]], columns: Collection[str], **options: Any) -> None:
        super().__init__(shapes, columns, finalize=shown, **options)
        for name in _OF_TEXT:
            self.add_filter(name, _of_text(filters.FILTERS[name]))
        for name, own in _OWN.items():
            self.add_filter(name, own)

    def text(self, value: Any) -> str:
        """Return the text of a value."""
        return text_of(value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return `left operator right`."""
        if operator == "%" and isinstance(left, str):
            self.budget.read(right, 8)
            right = _arguments(left, right)
        return super().call_binop(context, operator, left, right)

    def formatting(self, value: Any) -> Callable[..., str] | None:
        """Return what takes the place of a method `format` of a text; `None` for any other value."""
        wrapped = super().formatting(value)
        if wrapped is None or hasattr(value.__self__, "__html__"):  # markup escapes values
            return wrapped
        pattern, formatter = value.__self__, _TextFormatter(self)
        if value.__name__ == "format_map":
            return lambda values: formatter.vformat(pattern, (), values)
        return lambda *args, **kwargs: formatter.vformat(pattern, args, kwargs)


class _TextFormatter(SandboxedFormatter):
    """Formats values as they print."""

    def format_field(self, value: Any, format_spec: str) -> str:
        check_format(value, format_spec)
        return str(super().format_field(_argument(value), format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return text_of(value) if conversion == "s" else super().convert_field(value, conversion)


def _of_text(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that takes the text of its value."""
    position = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def of_text(*args: Any, **kwargs: Any) -> Any:
        if type(args[position]) is not str:
            args = (*args[:position], text_of(args[position]), *args[position + 1 :])
        return filter_(*args, **kwargs)

    return of_text


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    texts = {name: _argument(argument) for name, argument in kwargs.items()}
    return filters.do_format(text_of(value), *map(_argument, args), **texts)


@pass_environment
def _join(environment: jinja2.Environment, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    items = value
    if attribute is not None:
        items = map(filters.make_attrgetter(environment, attribute), value)
    return text_of(d).join([text_of(item) for item in items])


def _pprint(value: Any) -> str:
    return "" if value is None else pformat(as_python(value))


@pass_eval_context
def _replace(context: nodes.EvalContext, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    return filters.do_replace(context, text_of(s), text_of(old), text_of(new), count)


def _urlencode(value: Any) -> str:
    if not isinstance(value, Mapping | list | tuple):
        return filters.do_urlencode(text_of(value))
    pairs = value.items() if isinstance(value, Mapping) else value
    return filters.do_urlencode([(text_of(name), text_of(item)) for name, item in pairs])


@pass_eval_context
def _xmlattr(context: nodes.EvalContext, d: Mapping[str, Any], autospace: bool = True) -> str:
    texts = {name: text_of(item) for name, item in d.items() if not _is_nothing(item)}
    return filters.do_xmlattr(context, texts, autospace)


def _is_nothing(value: Any) -> bool:
    return value is None or isinstance(value, jinja2.Undefined)


_OWN: dict[str, Callable[..., Any]] = {
    "format": _format,
    "join": _join,
    "pprint": _pprint,
    "replace": _replace,
    "urlencode": _urlencode,
    "xmlattr": _xmlattr,
}


def _arguments(pattern: str, values: Any) -> Any:
    """Return the values for `pattern % values` so that each is printed as in a template."""
    if isinstance(values, tuple):
        return tuple(map(_argument, values))
    if isinstance(values, Mapping) and "%(" in pattern:
        return {name: _argument(value) for name, value in values.items()}
    return _argument(values)


def _argument(value: Any) -> Any:
    """Return what a format gets for a value. Numbers and dates stay, because a format may ask for them."""
    if value is None or is_not_finite(value) or isinstance(value, list | tuple | Mapping | bytes):
        return text_of(value)
    if callable(value) and not isinstance(value, jinja2.Undefined):
        return text_of(value)  # which refuses it
    return value
