"""How templates read the keys of objects, such as `meta.source` or `order['items']`.

An object has the keys of its own row. A key that it lacks, and that an object of another row has, is absent: it
prints as nothing, as null does. Any other name is a mistake in the template, and rejects the row.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn

import jinja2

from batch_assets.core.template.template_limits import LimitedEnvironment
from batch_assets.core.template.template_rewriting import CALLED

_METHODS = frozenset(dir(dict))


class Absent(jinja2.Undefined):
    """A key that the object of this row lacks. It equals null, but is not `defined`: `default` replaces it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, jinja2.Undefined)

    __hash__ = jinja2.Undefined.__hash__

    def _is_no_number(self) -> NoReturn:
        raise TypeError(f"the key {self._undefined_name!r} is absent, and no number")

    __int__ = __float__ = _is_no_number


class WholeRow(dict[str, Any]):
    """The value of `row`: the columns that the row has, in its own order."""


class KeyEnvironment(LimitedEnvironment):
    """An environment in which an object's key comes before a method of that name, unless the template calls it.

    A value of the dataset is never a function. So `order.items` is a key, and `order.items()` the method.

    Args:
        shapes: The keys that objects of the dataset have, for each of their locations.
        columns: The columns of the dataset.
        options: See jinja2.Environment.
    """

    def __init__(self, shapes: Collection[frozenset[str]], columns: Collection[str], **options: Any) -> None:
        super().__init__(**options)
        self._shapes, self._columns = shapes, columns

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute`. An attribute that is called ends in CALLED."""
        if isinstance(obj, Absent):
            return self.undefined(obj=None, name=attribute)
        if not isinstance(obj, dict) or attribute.endswith(CALLED):
            return super().getattr(obj, attribute)
        if attribute in obj:
            return obj[attribute]
        if attribute in _METHODS or self._is_absent(obj, attribute):
            return self._missing(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return `obj[argument]`."""
        if isinstance(obj, Absent):
            return self.undefined(obj=None, name=argument)
        if isinstance(obj, dict) and isinstance(argument, str) and argument not in obj:
            return self._missing(obj, argument)
        return super().getitem(obj, argument)

    def _missing(self, obj: dict[str, Any], key: str) -> jinja2.Undefined:
        return Absent(obj=obj, name=key) if self._is_absent(obj, key) else self.undefined(obj=obj, name=key)

    def _is_absent(self, obj: dict[str, Any], key: str) -> bool:
        """Whether other rows have the key in objects like this one, or the column if it is `row`."""
        if isinstance(obj, WholeRow):
            return key in self._columns
        return any(key in shape and shape >= obj.keys() for shape in self._shapes)
