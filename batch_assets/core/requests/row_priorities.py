"""How urgent the rows of a dataset are, by `batching.priority`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.template.priority import PRIORITY_FIELD, Priority
from batch_assets.core.template.values import RowRejectedError
from batch_assets.core.text import beginning

Priorities = NDArray[np.float64]
PrioritiesAt = Callable[[Sequence[int]], Priorities]
"""Takes positions of rows, and returns the priority of each: float64, shape (positions,)."""


class RowPriorities:
    """Finds the priority of rows.

    Args:
        pipeline: The pipeline.
        priority: Its priority.
        dataset: The dataset.

    Attributes:
        reads: The columns that it needs.
    """

    def __init__(self, pipeline: Pipeline, priority: Priority, dataset: Dataset) -> None:
        self._pipeline = pipeline
        self._priority = priority.fitted(dataset.schema.names, dataset.shapes)
        self.reads = sorted(self._priority.columns)

    def of(self, rows: Rows, keys: Sequence[Any]) -> PrioritiesAt:
        """Return what finds the priority of some of a slice's rows.

        Args:
            rows: The slice of n rows.
            keys: The row key of each, for errors.

        Raises:
            ConfigError: When the column has no numbers. The function that is returned raises it when the template
                gives none for a row.
        """
        if self._priority.column is not None:
            values = self._numbers(rows.table.column(self._priority.column))
            return lambda positions: values[list(positions)]
        columns = {name: rows.values(name) for name in self.reads}

        def at(positions: Sequence[int]) -> Priorities:
            return np.array([self._rendered(rows, columns, keys, position) for position in positions], np.float64)

        return at

    def _numbers(self, column: pa.Array) -> Priorities:
        type_ = column.type
        if column.null_count == len(column):
            return np.zeros(len(column))
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
        if not any(is_kind(type_) for is_kind in kinds):
            name = self._priority.column
            raise self._error(
                f"the column {name!r} has the type {type_}, which has no numbers: name a column of numbers or "
                f"booleans, or write a template, such as \"{{{{ 1 if row['{name}'] == 'urgent' else 0 }}}}\""
            )
        values = column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
        return np.where(np.isfinite(values), values, 0.0)

    def _rendered(self, rows: Rows, columns: dict[str, list[Any]], keys: Sequence[Any], position: int) -> float:
        present = rows.present[position] if rows.present is not None else None
        try:
            return self._priority.of({name: values[position] for name, values in columns.items()}, present)
        except RowRejectedError as error:
            problem = error.message.removeprefix(f"{PRIORITY_FIELD}: ")
            raise self._error(f"the row {beginning(repr(keys[position]))}: {problem}") from None

    def _error(self, problem: str) -> ConfigError:
        return self._pipeline.error(PRIORITY_FIELD, problem)
