"""How urgent a row is: a number, from a column of the dataset or from a template."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import orjson

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.template import Template
from batch_assets.core.template.template_names import is_template
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

_BLOCK, _NAME = "batching", "priority"
PRIORITY_FIELD = f"{_BLOCK}.{_NAME}"


class Priority:
    """The compiled `batching.priority` of a pipeline.

    Args:
        entry: The entry in the pipeline file: the name of a column, or a template.
        folder: The folder of the files that the template names.
        source: The pipeline file, for errors.
        template: The template compiled for a dataset; `None` as long as there is no dataset.

    Attributes:
        column: The column; `None` for a template.

    Raises:
        ConfigError: When the template cannot be compiled.
    """

    def __init__(self, entry: str, folder: Path, source: str, template: Template | None = None) -> None:
        self._entry, self._folder, self._source = entry, folder, source
        self.column = None if is_template(entry) else entry
        self._template = template
        if self.column is None and template is None:
            self._template = Template({_NAME: entry}, folder, source, field=_BLOCK)

    @property
    def columns(self) -> set[str]:
        """The dataset columns that it reads."""
        return self._template.columns if self._template is not None else {self._entry}

    def fitted(self, dataset: Iterable[str], shapes: Collection[frozenset[str]] = ()) -> Priority:
        """Return the priority compiled for a dataset.

        Args:
            dataset: The names of the dataset's columns; see `Template.fitted`.
            shapes: See `Template.fitted`.
        """
        template = self._template.fitted(dataset, shapes=shapes) if self._template is not None else None
        return Priority(self._entry, self._folder, self._source, template)

    def of(self, row: Row, present: Collection[str] | None = None) -> float:
        """Return what the template gives for a row. It is 0 without a value, and for infinite numbers.

        Args:
            row: See `Template.render`.
            present: See `Template.render`.

        Raises:
            RowRejectedError: When it is not a number.
        """
        assert self._template is not None, "a column needs no template"
        return _number(orjson.loads(self._template.render(row, present))[_NAME])


def _number(value: Any) -> float:
    try:
        if isinstance(value, str):
            value = value.strip() or 0.0
        number = float(value if value is not None else 0.0)
    except (TypeError, ValueError, OverflowError):
        problem = f"{PRIORITY_FIELD}: {value!r:.60} is not a number: let the template give a number, true or false"
        raise RowRejectedError(ErrorType.TEMPLATE_ERROR, problem) from None
    return number if math.isfinite(number) else 0.0
