"""Limits on the work and memory of templates, so that a mistake in one does not hang a run or use up all memory.

Jinja's sandbox blocks access to the interpreter and limits `range`. It does not limit nested loops, recursion, or
small expressions with giant values such as `'x' * 10 ** 10`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

CALLED = "()"
"""Ends the name of an attribute that a template calls. No identifier contains it."""
# The limit of loop rounds and calls in all templates of one row: about one second.
_STEPS = 1_000_000
_CALL_STEPS = 10
# The most characters or items of a value. The API accepts 32 MB in one request, and 256 MB in a batch of them.
_LENGTH = 64 << 20
_BITS = 1 << 16
_OF_DICTS = frozenset(dir(dict))
_PADDING = ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "wordwrap", "tojson")
# Widths in a format that are in the millions or come from an argument.
_WIDTH = re.compile(r"\d{7}|%[^a-zA-Z%]*\*|:[^{}]*\{")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that limits the number of steps and the size of values.

    Raises:
        OverflowError: From rendering, when a limit is exceeded. It rejects the row.
    """

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._steps_left = _STEPS
        for name in ("center", "indent", "batch", "slice", "wordwrap", "tojson", "replace", "format"):
            self.filters[name] = limited(name, self.filters[name])

    def begin(self) -> None:
        """Start counting the steps of a new row."""
        self._steps_left = _STEPS

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items of a loop and count each as a step."""
        for item in items:
            self._step()
            yield item

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute`. Faster than Jinja for structs of the dataset, which are dicts."""
        attribute = attribute.removesuffix(CALLED)
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def joined(self, *parts: Any) -> str:
        """Return `a ~ b`."""
        texts = [str(part) for part in parts]
        _check_length(sum(map(len, texts)))
        return "".join(texts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Make any call of a template.

        The parameters have Jinja's names with underscores, because a template may pass arguments with any name.
        """
        __self._step(_CALL_STEPS)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes):
            _check_call(getattr(__obj, "__name__", ""), (owner, *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return the sandbox's replacement of `str.format`, which it makes when the attribute is read."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_call("format", (value.__self__,))
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return `left operator right` for the operators in `intercepted_binops`."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _BITS:
                raise OverflowError(f"a power of more than {_BITS} bits")
        elif operator == "*":
            for sequence, factor in ((left, right), (right, left)):
                if isinstance(sequence, str | bytes | list | tuple) and isinstance(factor, int):
                    _check_length(len(sequence) * factor)
        elif operator == "%" and isinstance(left, str | bytes):
            _check_call("format", (left,))
        elif operator == "+" and isinstance(left, str | bytes | list | tuple) and hasattr(right, "__len__"):
            _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Rewrite a template before Jinja generates code.

        Loops count their rounds, `~` checks the length, and attributes that are called are marked.
        """
        for loop in list(source.find_all(nodes.For)):
            loop.iter = _call("counted", [loop.iter])
        for call in source.find_all(nodes.Call):
            if isinstance(call.node, nodes.Getattr):
                call.node.attr += CALLED
        _replace_concat(source)
        return super()._generate(source, *args, **kwargs)

    def _step(self, steps: int = 1) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise OverflowError(f"more than {_STEPS:,} loop rounds and calls for one row")


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


def limited(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses arguments with which it could make a value far larger than they are.

    Args:
        name: The name of the filter in templates.
        filter_: The filter.
    """

    @wraps(filter_)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_call(name, (*args, *kwargs.values()))
        return filter_(*args, **kwargs)

    return checked


def _check_call(name: str, values: tuple[Any, ...]) -> None:
    """Check that a call of a method or filter cannot make a value far larger than its arguments.

    Raises:
        OverflowError: When it could.
    """
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
        raise OverflowError("a format with a width in the millions, or with a width from an argument")


def _check_length(length: int) -> None:
    if length > _LENGTH:
        raise OverflowError(f"a value of more than {_LENGTH >> 20} million characters or items")
