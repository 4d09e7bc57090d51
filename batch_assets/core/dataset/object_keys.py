"""The keys that the objects of a dataset have, over all rows.

A template that reads a key which the object of a row lacks gets nothing if an object of another row has it. Any
other key is a mistake in the template.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_Path = tuple[str, ...]
_ITEMS = "[]"


class ObjectKeys:
    """The keys of all objects, by where they are: in which column, and under which keys within it."""

    def __init__(self) -> None:
        self._at: dict[_Path, set[str]] = {}

    @property
    def shapes(self) -> list[frozenset[str]]:
        """The keys of the objects at each location. Objects at one location need not have all of them."""
        return list({frozenset(keys) for keys in self._at.values()})

    def add(self, other: ObjectKeys) -> None:
        """Add the keys of another file's objects."""
        for path, keys in other._at.items():
            self._at.setdefault(path, set()).update(keys)

    def add_schema(self, schema: pa.Schema) -> None:
        """Add the fields of all structs in the columns."""
        for field in schema:
            self.add_type(field.name, field.type)

    def add_type(self, column: str, type_: pa.DataType) -> None:
        """Add the fields of all structs in a column of this type."""
        if pa.types.is_nested(type_):
            self._add_type((column,), type_)

    def add_values(self, column: str, values: list[Any]) -> None:
        """Add the keys of the objects in JSON values of a column."""
        for value in values:
            if isinstance(value, dict | list):
                self._add_value((column,), value)

    def _add_type(self, path: _Path, type_: pa.DataType) -> None:
        if pa.types.is_struct(type_):
            self._at.setdefault(path, set()).update(type_.names)
            for field in type_:
                self._add_type((*path, field.name), field.type)
            return
        for position in range(type_.num_fields):  # the items of a list, or the entries of a map
            self._add_type((*path, _ITEMS), type_.field(position).type)

    def _add_value(self, path: _Path, value: Any) -> None:
        if isinstance(value, dict):
            self._at.setdefault(path, set()).update(value)
            for key, item in value.items():
                if isinstance(item, dict | list):
                    self._add_value((*path, key), item)
        elif isinstance(value, list):
            for item in value:
                self._add_value((*path, _ITEMS), item)
