"""Limits on the work and memory of templates, so that a mistake in one does not hang a run or use up all memory.

Jinja's sandbox blocks access to the interpreter and limits `range`. It does not limit nested loops, recursion,
filters in loops, or small expressions with giant values such as `'x' * 10 ** 10`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time
from functools import wraps
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batch_assets.core.template.call_bounds import bound, is_bounded_call
from batch_assets.core.template.machine_values import check_call
from batch_assets.core.template.template_rewriting import CALLED, rewrite
from batch_assets.core.template.work_budget import SCALARS, WorkBudget

_CALL_STEPS = 10
_CALL_UNITS = 128
_ARGUMENT_UNITS = 64
# The most characters or items of a value: one that is padded, and any other. A batch may have 256 MB.
_LENGTH, _BATCH = 64 << 20, 256 << 20
_BITS = 1 << 16
_OF_DICTS = frozenset(dir(dict))
# Filters that take the same time whatever their value, and return it or a part of it.
_CONSTANT = frozenset(("abs", "attr", "count", "d", "default", "first", "last", "length"))
# Filters that take the items of their value one by one as their result is read.
_LAZY = frozenset(("batch", "items", "map", "reject", "rejectattr", "select", "selectattr", "slice"))
_NO_SEQUENCES = frozenset((str, int, float, bool, type(None), dict))
# Types whose methods may take long, or make large values.
_OWNERS = frozenset((str, bytes, int, bool, list, tuple))
# Types that have methods whose value depends on the machine, and `type` for the methods of their classes.
_TIMES = (date, time, type)
# Types whose methods hash or compare their arguments, and so read all of a tuple. So may a class that is called.
_HASHING = (dict, LoopContext)
# How slowly a filter reads a character, in eighths of a unit. Others copy or look through a text.
_EIGHTHS = {
    **dict.fromkeys(
        ("e", "escape", "forceescape", "fromjson", "indent", "join", "string", "tojson", "xmlattr"), 8
    ),
    **dict.fromkeys(("dictsort", "max", "min", "sort", "sum"), 16),
    **dict.fromkeys(("groupby", "striptags", "unique", "wordcount"), 64),
    "urlencode": 128,
    **dict.fromkeys(("pprint", "title"), 512),
    "wordwrap": 1024,
    "urlize": 2048,
}
_READING_TESTS = ("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in")
_MORE_READING_TESTS = ("le", "lessthan", "lower", "lt", "ne", "upper")


class _CountedFilters(dict[str, Callable[..., Any]]):
    """Filters whose work counts. A filter is wrapped when a template first uses it: most templates use none.

    Args:
        filters: Name to filter.
        counted: Returns a filter, given by its name and itself, with its work counted.
    """

    def __init__(
        self,
        filters: Mapping[str, Callable[..., Any]],
        counted: Callable[[str, Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        super().__init__(filters)
        self._counted, self._uncounted = counted, filters.keys() - _CONSTANT

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name in self._uncounted:
            self._uncounted.remove(name)
            self[name] = self._counted(name, super().__getitem__(name))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a filter by its name."""
        try:
            return self[name]
        except KeyError:
            return default

    def add(self, name: str, filter_: Callable[..., Any]) -> None:
        """Add a filter, or replace the one of that name."""
        self[name] = filter_
        if name not in _CONSTANT:
            self._uncounted.add(name)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that limits the work for one row and the size of values.

    Raises:
        OverflowError: From rendering, when a limit is exceeded. It rejects the row.
        ValueError: From rendering, when a value depends on the machine, see `check_call`. It rejects the row.
    """

    intercepted_binops = frozenset(("*", "**", "%", "+", "-"))
    filters: _CountedFilters

    def __init__(self, **options: Any) -> None:
        self.budget = WorkBudget()
        if options.get("finalize") is not None:
            options["finalize"] = self._counting(options["finalize"])
        # Jinja's optimizer would evaluate constant expressions while it compiles, and write their values as code.
        super().__init__(**options, optimized=False)
        for name in (*_READING_TESTS, *_MORE_READING_TESTS):
            self.tests[name] = self._counted_test(name)
        self.filters = _CountedFilters(self.filters, self._counted_filter)
        for name in ("compared", "entered", "joined", "looped", "sliced"):
            self.filters[f"_{name}"] = getattr(self, f"_{name}")

    def add_filter(self, name: str, filter_: Callable[..., Any]) -> None:
        """Add a filter whose work counts.

        Args:
            name: Its name in templates.
            filter_: The filter.
        """
        self.filters.add(name, filter_)

    def begin(self, row: Mapping[str, Any] | None = None) -> None:
        """Start counting the work of a new row.

        Args:
            row: The values of the columns; `None` for work that is done for all rows.
        """
        self.budget.begin(row)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute`. Faster than Jinja for structs of the dataset, which are dicts."""
        attribute = attribute.removesuffix(CALLED)
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Make any call of a template.

        The parameters have Jinja's names with underscores, because a template may pass arguments with any name.
        """
        budget = __self.budget
        budget.step(_CALL_STEPS)
        owner = getattr(__obj, "__self__", None)
        kind = type(owner)
        if isinstance(owner, _TIMES):
            check_call(__obj, owner, args, kwargs)
        if args or kwargs:
            budget.spend(_ARGUMENT_UNITS * (len(args) + len(kwargs)))
            if kind in _OWNERS:
                args = tuple(map(budget.listed, args))
                name, values = getattr(__obj, "__name__", ""), (owner, *args, *kwargs.values())
                for value in values:
                    budget.read(value, 8 if name == "join" else 1)
                __self._check_bound(name, values)
            elif kind in _HASHING or owner is dict or isinstance(__obj, type):
                for value in args:
                    budget.read(value)
        elif kind in _OWNERS:
            budget.read(owner)
        return budget.called(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return the sandbox's replacement of `str.format`, which it makes when the attribute is read."""
        wrapped = self.formatting(value)
        if wrapped is None:
            return None
        pattern = value.__self__
        return self._counted_filter(value.__name__, lambda _, *args, **kwargs: wrapped(*args, **kwargs), pattern)

    def formatting(self, value: Any) -> Callable[..., str] | None:
        """Return what takes the place of a method `format` of a text; `None` for any other value."""
        return super().wrap_str_format(value)

    def text(self, value: Any) -> str:
        """Return the text of a value in `a ~ b`."""
        return str(value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return `left operator right` for the operators in `intercepted_binops`."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _BITS:
                raise OverflowError(f"a power of more than {_BITS} bits")
        elif operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                if left.bit_length() + right.bit_length() > _BITS:
                    raise OverflowError(f"a product of more than {_BITS} bits")
                return super().call_binop(context, operator, left, right)
            for sequence, factor in ((left, right), (right, left)):
                if isinstance(sequence, str | bytes | list | tuple) and isinstance(factor, int):
                    _check_length(len(sequence) * factor)
        elif operator == "%" and isinstance(left, str | bytes):
            self.budget.read(right)
            self._check_bound("format", (left, right))
        elif operator == "+" and isinstance(left, str | bytes | list | tuple) and hasattr(right, "__len__"):
            _check_length(len(left) + len(right))
        elif operator == "-" and hasattr(left, "__len__"):
            self.budget.read(list(left))
            self.budget.read(list(right))
        made = super().call_binop(context, operator, left, right)
        if isinstance(made, set):  # of keys of objects; the order of a set differs from process to process
            made = dict.fromkeys(item for item in left if item in made).keys()
        return self.budget.made(made)

    def _generate(self, source: nodes.Template, name: str | None, *args: Any, **kwargs: Any) -> str:
        """Rewrite a template before Jinja generates code, so that its loops and other work are counted."""
        rewrite(source, is_included=name is not None)
        return super()._generate(source, name, *args, **kwargs)

    @pass_context
    def _compared(self, _: Context, value: Any) -> Any:
        """Return an operand of a comparison, or the key of a dict."""
        self.budget.read(value)
        return value

    @pass_context
    def _entered(self, _: Context, units: int, steps: int) -> bool:
        """Count that an included file, or the round of a loop over a tree, begins."""
        self.budget.step(steps)
        self.budget.spend(units)
        return True

    @pass_context
    def _joined(self, _: Context, *parts: Any) -> str:
        """Return `a ~ b`."""
        for part in parts:
            if type(part) is not str:
                self.budget.read(part, 8)
        texts = [self.text(part) for part in parts]
        _check_length(sum(map(len, texts)))
        return str(self.budget.made("".join(texts)))

    @pass_context
    def _looped(self, _: Context, items: Iterable[Any], units: int) -> Iterator[Any]:
        """Yield the items of a loop."""
        return self.budget.looped(items, units)

    @pass_context
    def _sliced(self, _: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """Return `value[start:stop:step]`."""
        return self.budget.made(value[start:stop:step])

    def _counting(self, finalize: Callable[[Any], Any]) -> Callable[[Context, Any], Any]:
        """Return what Jinja calls for each value that is printed."""
        budget = self.budget

        @pass_context
        def printed(_: Context, value: Any) -> Any:
            if type(value) is str:
                budget.made(value)
                return value
            budget.read(value, 8)
            return finalize(value)

        return printed

    def _counted_test(self, name: str) -> Callable[..., bool]:
        budget, test, eighths = self.budget, self.tests[name], 8 if name in ("lower", "upper") else 1

        def counted(*args: Any) -> bool:
            for arg in args:
                budget.read(arg, eighths)
            return test(*args)  # type: ignore[no-any-return, operator]

        return counted

    def _counted_filter(self, name: str, filter_: Callable[..., Any], *first: Any) -> Callable[..., Any]:
        """Return a filter whose work counts, and which cannot make a value far larger than its arguments.

        Args:
            name: The name of the filter in templates.
            filter_: The filter.
            first: Arguments that come before all others.
        """
        budget, eighths = self.budget, _EIGHTHS.get(name, 1)
        passed = 1 if hasattr(filter_, "jinja_pass_arg") else 0  # Jinja's own argument, before the value
        reads, method = name not in _LAZY, "|join" if name == "join" else name
        is_bounded, only_value = is_bounded_call(method), passed + 1

        @wraps(filter_)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if first:
                args = (*first, *args)
            if len(args) == only_value and not kwargs and type(args[passed]) is str:  # as in most calls
                budget.spend(_CALL_UNITS + (len(args[passed]) * eighths >> 3))
                return budget.made(filter_(*args))
            units = _CALL_UNITS
            if len(args) > passed and type(args[passed]) not in _NO_SEQUENCES:
                value = budget.in_turn(args[passed]) if not reads else budget.listed(args[passed])
                args = (*args[:passed], value, *args[only_value:])
            values = (*args[passed:], *kwargs.values()) if kwargs else args[passed:]
            if reads:
                for value in values:
                    kind = type(value)
                    if kind is str:
                        units += len(value) * eighths >> 3
                    elif kind not in SCALARS:
                        budget.read(value, eighths)
            budget.spend(units)
            if is_bounded and len(values) > 1:
                self._check_bound(method, values)
            return budget.made(filter_(*args, **kwargs))

        return counted

    def _check_bound(self, name: str, values: tuple[Any, ...]) -> None:
        most = bound(name, values)
        if most:
            _check_length(most, _LENGTH if name in _PADDING else _BATCH)
            self.budget.check(most)


_PADDING = frozenset(("center", "ljust", "rjust", "to_bytes", "tojson", "zfill"))


def _check_length(length: int, most: int = _LENGTH) -> None:
    if length > most:
        raise OverflowError(f"a value of more than {most >> 20} million characters or items")
