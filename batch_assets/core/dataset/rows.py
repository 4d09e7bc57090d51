"""A slice of the dataset's rows, and the conversion of values to the columns and types that are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from batch_assets.core.dataset.casts import CAST_ERRORS, cast_column
from batch_assets.core.dataset.column_types import (
    holds,
    may_hold_floats,
    plain_type,
)
from batch_assets.core.dataset.nested_values import map_leaves
from batch_assets.core.dataset.shown_values import is_stored_otherwise, shown_values
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.io.json_text import whole_number
from batch_assets.core.io.parquet import unknown_zone
from batch_assets.core.io.slices import SLICE_ROWS

ROWS_AT_ONCE = SLICE_ROWS
_VALUES_AT_ONCE = 2_000_000


def rows_at_once(columns: int) -> int:
    """Return the most rows of a slice, such that many columns need no more memory than many rows."""
    return max(1, min(ROWS_AT_ONCE, _VALUES_AT_ONCE // max(1, columns)))


class OwnColumn(NamedTuple):
    """A column with the type that it has in its own file or table.

    Attributes:
        array: The values, shape (n,).
        convert: Returns some of them as Python values for templates.
    """

    array: pa.Array
    convert: Callable[[pa.Array], list[Any]]

    @classmethod
    def of(cls, array: pa.Array, field: pa.Field) -> OwnColumn:
        """Make a column that prints by its type.

        Args:
            array: The values, shape (n,).
            field: Their type, with its metadata.
        """
        return cls(array, partial(shown_values, field=field))


@dataclass
class Rows:
    """A slice of the dataset's rows, in order.

    In `table`, all rows have the types and nested keys that fit every row of the dataset. That is what results
    carry. A template must not see what other rows or files have, so `own` has the values as the row has them.

    Attributes:
        table: The requested columns.
        rejects: Rows that cannot become a request, whatever the template: row position in `table` to (reason,
            text). Either some text is not valid Unicode, and `table` has U+FFFD in place of the invalid part, or
            the row cannot be read or is too large to be, and is null in `table`.
        has_json_numbers: Whether the numbers come from JSON, in which 1 and 1.0 are the same.
        own: Columns whose values in `table` may depend on other rows: their own values, one for each row.
        before: The columns whose values templates saw otherwise until rendering 2: those values.
        carried_before: The columns that results carried otherwise until rendering 2: those values.
        present: The columns that each row has, in its own order; `None` if every row has all of them.
    """

    table: pa.RecordBatch
    rejects: dict[int, tuple[str, str]] = field(default_factory=dict)
    has_json_numbers: bool = False
    own: dict[str, list[Any] | OwnColumn] = field(default_factory=dict)
    before: dict[str, list[Any]] = field(default_factory=dict)
    carried_before: dict[str, OwnColumn] = field(default_factory=dict)
    present: Sequence[Collection[str]] | None = None

    def values(self, name: str) -> list[Any]:
        """Return a column as Python values for templates, as each row has them. A map is an object, like a struct.

        A row with a value that Python cannot represent, such as a time in the year 12026 or a map with one key
        twice, is added to `rejects`.
        """
        own = self.own.get(name)
        if isinstance(own, list):
            return own
        if own is None:
            own = OwnColumn.of(self.table.column(name), self.table.schema.field(name))
        return self._python(name, own.array, own.convert)

    def values_before(self, name: str) -> list[Any]:
        """Return a column as templates saw it in rendering 2. See `values`."""
        return self.before[name] if name in self.before else self.values(name)

    def stored_values(self, name: str) -> list[Any]:
        """Return a column as Python values as results carry it: with the types that fit every row of the dataset.

        Row keys are these values. See `values` for rejects.
        """
        column = self.table.column(name)
        values = self._python(name, column, python_values)
        if self.has_json_numbers and may_hold_floats(column.type):
            return [map_leaves(_whole, value) for value in values]
        return values

    def values_at_first(self, name: str) -> list[Any]:
        """Return a column as templates saw it in rendering 1: as results carried it then. See `values`."""
        before = self.carried_before.get(name)
        if before is None:
            return self.stored_values(name)
        return self._python(name, before.array, before.convert)

    def _python(self, name: str, column: pa.Array, convert: Callable[[pa.Array], list[Any]]) -> list[Any]:
        try:
            return convert(column)
        except (OverflowError, ValueError, KeyError):
            return [
                self._value(name, column.slice(position, 1), position, convert) for position in range(len(column))
            ]

    def _value(self, name: str, value: pa.Array, position: int, convert: Callable[[pa.Array], list[Any]]) -> Any:
        try:
            return convert(value)[0]
        except (OverflowError, ValueError, KeyError) as error:
            self.rejects.setdefault(position, (ErrorType.TEMPLATE_ERROR, _problem(name, value.type, error)))
            return None

    def at(self, positions: Sequence[int] | NDArray[np.intp]) -> Rows:
        """Return the rows at some positions, in the order of the slice."""
        mask = np.zeros(len(self.table), bool)
        mask[positions] = True
        return self.filter(pa.array(mask))

    def filter(self, mask: pa.Array) -> Rows:
        """Return the rows where the mask is true.

        Args:
            mask: bool, shape (n,), without nulls.
        """
        kept = pa.compute.indices_nonzero(mask).to_pylist()
        positions = {old: new for new, old in enumerate(kept)}
        return replace(
            self,
            table=self.table.filter(mask),
            rejects={positions[old]: reason for old, reason in self.rejects.items() if old in positions},
            own={
                name: [own[old] for old in kept]
                if isinstance(own, list)
                else own._replace(array=own.array.filter(mask))
                for name, own in self.own.items()
            },
            before={name: [values[old] for old in kept] for name, values in self.before.items()},
            carried_before={
                name: before._replace(array=before.array.filter(mask))
                for name, before in self.carried_before.items()
            },
            present=[self.present[old] for old in kept] if self.present is not None else None,
        )


def _problem(name: str, type_: pa.DataType, error: Exception) -> str:
    """Say why Python cannot represent a value of a column."""
    if (zone := unknown_zone(type_)) is not None:
        return f"column {name!r} has times of the unknown time zone {zone!r}; convert them to UTC"
    if holds(type_, lambda inner: pa.types.is_struct(inner) and len(set(inner.names)) < inner.num_fields):
        return f"column {name!r} has objects with two fields of one name, of which a template would see one only"
    if isinstance(error, KeyError) or "duplicate" in str(error):
        return f"column {name!r} has a map with one key twice, of which a template would see one entry only"
    return f"column {name!r} has a value that Python cannot represent: {error}; cast the column to text"


def conform(
    batch: pa.RecordBatch,
    target: pa.Schema,
    name: str,
    misfit: Callable[[pa.Array, pa.Field], pa.Array] | None = None,
    declared: Collection[str] = (),
) -> pa.RecordBatch:
    """Return rows with the columns and types of `target`, in its order. A missing column is null.

    Args:
        batch: The rows.
        target: The columns and their types.
        name: The file or other origin of the rows, for errors.
        misfit: Casts a column of which a value does not fit its type; `None` if that is an error.
        declared: The columns whose type the pipeline declares: in a float, a decimal may lose digits.

    Raises:
        DatasetError: When a value does not fit its type.
    """
    arrays = []
    names = frozenset(batch.schema.names)
    for wanted in target:
        if wanted.name not in names:
            arrays.append(pa.nulls(len(batch), wanted.type))
            continue
        column = batch.column(wanted.name)
        try:
            is_cast = column.type != wanted.type
            may_round = wanted.name in declared
            arrays.append(cast_column(column, wanted.type, may_round=may_round) if is_cast else column)
        except CAST_ERRORS as error:
            if misfit is None:
                problem = f"{name}: column {wanted.name!r} is not {wanted.type} throughout: {error}"
                raise DatasetError(problem) from None
            arrays.append(misfit(column, wanted))
    return pa.RecordBatch.from_arrays(arrays, schema=target)


def with_nulls(batch: pa.RecordBatch, target: pa.Schema, rows: int) -> pa.RecordBatch:
    """Return rows with the columns of `target`. Those that `batch` lacks are null.

    Args:
        batch: The rows, with columns of `target` in its order.
        target: The columns.
        rows: The number of rows.
    """
    if batch.num_columns == len(target):
        return batch
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    nulls: dict[pa.DataType, pa.Array] = {}
    for field_ in target:
        if field_.name not in columns:
            type_ = field_.type
            if type_ not in nulls:
                nulls[type_] = pa.nulls(rows, type_)
            columns[field_.name] = nulls[type_]
    return pa.RecordBatch.from_arrays([columns[name] for name in target.names], schema=target)


def own_columns(batch: pa.RecordBatch, fields: pa.Schema, target: pa.Schema) -> dict[str, list[Any] | OwnColumn]:
    """Return the columns whose values templates must see as they are in `batch`, not as they are in `target`.

    Args:
        batch: The rows of one file or table.
        fields: The types of its columns, with their metadata.
        target: The columns and types of the whole dataset.
    """
    own: dict[str, list[Any] | OwnColumn] = {}
    names = frozenset(batch.schema.names)
    for wanted in target:
        if wanted.name not in names:
            continue
        field_ = fields.field(wanted.name)
        if plain_type(field_.type) != wanted.type or is_stored_otherwise(field_):
            own[wanted.name] = OwnColumn.of(batch.column(wanted.name), field_)
    return own


def python_values(column: pa.Array) -> list[Any]:
    """Return a column as Python values as it is stored. A map is an object."""
    if holds(column.type, pa.types.is_map):
        values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    else:
        values = column.to_pylist()
    return values


def _whole(value: Any) -> Any:
    return whole_number(value) if isinstance(value, float) else value


def invalid_text(problem: str) -> tuple[str, str]:
    """Return the (error type, text) of a row that is rejected for invalid Unicode."""
    return ErrorType.INVALID_UNICODE, problem


def check_distinct(names: Sequence[str], file: str, remedy: str = "", named_by: str = "the header") -> None:
    """Check that no two columns have the same name.

    Args:
        names: The names of the columns.
        file: The file, for errors.
        remedy: What else to do, as the end of a sentence.
        named_by: What names the columns.

    Raises:
        DatasetError: When a name occurs twice.
    """
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        problem = f"{file}: {named_by} names {duplicates[0]!r} twice: every column needs its own name"
        raise DatasetError(f"{problem}{remedy}")
