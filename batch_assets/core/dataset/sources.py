"""The interface of each kind of dataset. `Dataset` picks one and adds the row key, carried columns and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import Rows


class Source(Protocol):
    """The source of a dataset's rows.

    Attributes:
        field: The field of `dataset` that selects this kind, for errors.
        schema: The columns and their types. No type is null.
        blank: Whether the source has no column names and no row that can be read.
        columns: The columns to carry if the pipeline names none; `None` for all columns.
        object_keys: The keys that the objects in the columns have.
        kinds: The kinds of its columns as they are inferred, if they may depend on other rows than a value's own.
        mixed_columns: Columns that are text because of a few values, unless their kind is on record.
    """

    field: str
    schema: pa.Schema
    blank: bool
    columns: list[str] | None
    object_keys: ObjectKeys

    @property
    def kinds(self) -> Kinds: ...

    @property
    def mixed_columns(self) -> list[MixedColumn]: ...

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows in order, with the columns and types of `target`. May be called more than once.

        Raises:
            DatasetError: When the rows cannot be read, or a value does not fit its type.
        """

    def read_file(self, name: str) -> bytes:
        """Read a file that a row names, for the template filter `file_base64`.

        Raises:
            ValueError: When there is no such file, or rows may not name it.
        """

    def close(self) -> None:
        """Delete temporary files."""
