"""What a kind of dataset must offer: the dataset itself picks one and adds row key, carried columns and types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from batch_assets.core.dataset.rows import Rows


class Source(Protocol):
    """Where the rows of a dataset come from.

    Attributes:
        field: of `dataset`, the one that asks for this kind; errors name it.
        schema: its columns and their types; none is null.
        blank: whether there is nothing in it, not even names of columns.
        columns: carried where the pipeline names none; None for all.
    """

    field: str
    schema: pa.Schema
    blank: bool
    columns: list[str] | None

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Its rows in order, with the columns and types of `target`; may be asked for again.

        Errors:
            DatasetError: the rows cannot be read, or a value does not fit its type.
        """

    def read_file(self, name: str) -> bytes:
        """A file that a row names, for the template filter `file_base64`.

        Errors:
            ValueError: there is no such file, or rows may not name it.
        """

    def close(self) -> None:
        """Frees what it holds on disk."""
