"""The text of a value in a prompt.

Null prints as nothing, and so do NaN and infinite numbers, which JSON cannot write. Lists and objects print in
Python's brackets, with `None`, `True` and quotes around text. The values in them look as they do alone: a decimal
with its digits, and a date, a time, a duration or a UUID as quoted text.
"""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import jinja2

from batch_assets.core.template.values import printed

_VIEWS = (KeysView, ValuesView, ItemsView)
_CONTAINERS = (list, tuple, Mapping, *_VIEWS)
_WORDS = frozenset((str, int, bool))
_AS_THEY_ARE = _WORDS | {type(None)}


class _Bare(str):
    """A text that Python prints in a list or object without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown(value: Any) -> Any:
    """Return what a template prints for a value.

    Raises:
        TypeError: When the value, or one within it, has no text form, see `printed`.
    """
    kind = type(value)
    if kind in _WORDS:
        return value
    if kind is float:
        return value if isfinite(value) else ""
    if isinstance(value, _CONTAINERS):
        return repr(as_python(value))
    return "" if is_not_finite(value) else printed(value)


def text_of(value: Any) -> str:
    """Return the text of a value wherever a template makes text of it: in filters, `a ~ b` and formats.

    Raises:
        TypeError: See `shown`.
    """
    return value if isinstance(value, str) else str(shown(value))


def is_not_finite(value: Any) -> bool:
    """Whether a value is NaN or an infinite number."""
    if isinstance(value, float):
        return not isfinite(value)
    return isinstance(value, Decimal) and not value.is_finite()


def finite(value: Any) -> Any:
    """Return a value with null in place of each NaN and infinite number in it."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is list or kind is tuple:
        return [item if type(item) in _AS_THEY_ARE else finite(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in _AS_THEY_ARE else finite(item) for key, item in value.items()}
    return None if is_not_finite(value) else value


def as_python(value: Any) -> Any:
    """Return a value that Python prints as a template does if it is in a list or object.

    Raises:
        TypeError: When the value, or one within it, has no text form.
    """
    kind = type(value)
    if kind is list:
        return [item if type(item) in _AS_THEY_ARE else as_python(item) for item in value]
    if kind is dict:
        return {
            key if type(key) is str else as_python(key): item if type(item) in _AS_THEY_ARE else as_python(item)
            for key, item in value.items()
        }
    if kind is float:
        return value if isfinite(value) else None
    return value if kind in _AS_THEY_ARE else _as_python(value)


def _as_python(value: Any) -> Any:
    """A value of any but the usual types."""
    if isinstance(value, str | date | time | timedelta | UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _Bare(value) if value.is_finite() else None
    if isinstance(value, Mapping):
        return {as_python(key): as_python(item) for key, item in value.items()}
    if isinstance(value, _VIEWS):
        return _Bare(f"{type(value).__name__}({as_python(list(value))!r})")
    if isinstance(value, list | tuple):
        items = map(as_python, value)
        return tuple(items) if isinstance(value, tuple) else list(items)
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises the error that names it, unless the row lacks a key that others have
        return None
    return None if is_not_finite(value) else printed(value)
