"""Bounds on what one row's template may do: a slip of the pen must not hang a run or eat all memory.

Jinja's sandbox keeps templates from the interpreter and bounds `range`. Nested loops, recursion, and small
expressions with giant values (`'x' * 10 ** 10`) it lets pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Rounds of loops and calls in all templates of one row: a second or so.
_STEPS = 1_000_000
_CALL_STEPS = 10
# Characters or items of a value made here; a request has 256 MB at most, with all its rows 32 MB.
_LENGTH = 64 << 20
_BITS = 1 << 16
_OF_DICTS = frozenset(dir(dict))
_PADDING = ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "wordwrap", "tojson")
# In a format: a width of millions, or one taken from an argument.
_WIDTH = re.compile(r"\d{7}|%[^a-zA-Z%]*\*|:[^{}]*\{")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that counts steps and looks at sizes. Errors: OverflowError, which rejects the row."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left = _STEPS
        for name in ("center", "indent", "batch", "slice", "wordwrap", "tojson", "replace", "format"):
            self.filters[name] = _checked(name, self.filters[name])

    def begin(self) -> None:
        """A new row begins."""
        self._left = _STEPS

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, each of which is a step."""
        for item in items:
            self._step()
            yield item

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`. For the structs of a dataset, which Jinja would find by way of an exception."""
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def joined(self, *parts: Any) -> str:
        """`a ~ b`."""
        texts = [str(part) for part in parts]
        _check_length(sum(map(len, texts)))
        return "".join(texts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Any call in a template. Jinja's own names: a template may pass arguments by any name."""
        __self._step(_CALL_STEPS)
        of = getattr(__obj, "__self__", None)
        if isinstance(of, str | bytes):
            _check_call(getattr(__obj, "__name__", ""), (of, *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, which the sandbox replaces where it is looked up."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_call("format", (value.__self__,))
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`left operator right` for the operators above."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _BITS:
                raise OverflowError(f"a power of more than {_BITS} bits")
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
                    _check_length(len(one) * other)
        elif operator == "%" and isinstance(left, str | bytes):
            _check_call("format", (left,))
        elif operator == "+" and isinstance(left, str | bytes | list | tuple) and hasattr(right, "__len__"):
            _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Jinja's hook before code is made: loops count their rounds, `~` looks at what it joins."""
        for loop in list(source.find_all(nodes.For)):
            loop.iter = _call("counted", [loop.iter])
        _replace_concat(source)
        return super()._generate(source, *args, **kwargs)

    def _step(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise OverflowError(f"more than {_STEPS:,} rounds of loops and calls for one row")


def _call(name: str, arguments: list[Any]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


def _replace_concat(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
        values = value if isinstance(value, list) else [value]
        for at, sub in enumerate(values):
            if not isinstance(sub, nodes.Node):
                continue
            _replace_concat(sub)
            if isinstance(sub, nodes.Concat):
                values[at] = _call("joined", sub.nodes)
        if not isinstance(value, list):
            setattr(node, field, values[0])


def _checked(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(filter_)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_call(name, (*args, *kwargs.values()))
        return filter_(*args, **kwargs)

    return checked


def _check_call(name: str, values: tuple[Any, ...]) -> None:
    """Whether a call of a method or filter may make something far larger than what it is given."""
    if name in _PADDING:
        _check_length(max((value for value in values if isinstance(value, int)), default=0))
    elif name == "replace":
        texts = [len(value) for value in values if isinstance(value, str | bytes)]
        _check_length((texts[0] + 1) * max(texts[1:], default=0) if texts else 0)
    elif name in ("format", "format_map") and any(
        _WIDTH.search(value if isinstance(value, str) else value.decode("latin-1"))
        for value in values[:1]
        if isinstance(value, str | bytes)
    ):
        raise OverflowError("a width of millions, or one that is not written down, in a format")


def _check_length(length: int) -> None:
    if length > _LENGTH:
        raise OverflowError(f"a value of more than {_LENGTH >> 20} million characters or items")
