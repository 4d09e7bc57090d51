"""A dataset of files that hold tables: CSV, TSV, JSON Lines, Parquet; several files are one table."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batch_assets.core.dataset.csv_reader import CsvReader, agree_on_types
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.readers import FileReader, known_endings, reader_class
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.dataset import DatasetConfig
from batch_assets.core.pipeline.pipeline import Pipeline


class TableFiles:
    """`dataset: {path: …}`: the rows of every file, in path order.

    Errors:
        DatasetError: no such file, an unknown format, an unreadable file.
    """

    field = "path"
    columns: list[str] | None = None

    def __init__(self, path: str, pipeline: Pipeline) -> None:
        config = pipeline.config.dataset
        self._located = LocatedFiles(path, pipeline.project)
        self._readers = [_reader(file, config) for file in self._files()]
        if config.csv is not None and not any(isinstance(reader, CsvReader) for reader in self._readers):
            raise DatasetError(f"{path} holds no CSV or TSV file, and dataset.csv says how those are written")
        agree_on_types(self._readers)
        self.schema = _unified([reader.schema for reader in self._readers])
        self.blank = all(reader.blank for reader in self._readers)

    def _files(self) -> list[DataFile]:
        located = self._located
        files = [DataFile(located.fs, name) for name in located.sizes()]
        if located.is_folder:
            files = [file for file in files if reader_class(file) and not _is_aside(located.relative(file.name))]
        if not files:
            raise DatasetError(f"{located.path} holds no CSV, TSV, JSON Lines or Parquet file")
        return files

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """The rows of every file."""
        for reader in self._readers:
            yield from reader.rows(target)

    def read_file(self, name: str) -> bytes:
        """A file within the dataset's folder."""
        return self._located.read(name)

    def close(self) -> None:
        """Holds nothing."""


def _reader(file: DataFile, config: DatasetConfig) -> FileReader:
    read = reader_class(file)
    if read is None:
        raise DatasetError(f"{file.name}: the name must end in {known_endings()}")
    return read(file, config)


def _is_aside(relative: str) -> bool:
    """What other programs leave beside tables: _SUCCESS, _logs/…"""
    return any(part.startswith("_") for part in relative.split("/"))


def _unified(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        unified = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        unified = pa.schema(_as_text_where_mixed(schemas))
    # A column without any value is text.
    nulls = [position for position, field in enumerate(unified) if pa.types.is_null(field.type)]
    for position in nulls:
        unified = unified.set(position, pa.field(unified.names[position], pa.string()))
    return unified.remove_metadata()


def _as_text_where_mixed(schemas: list[pa.Schema]) -> list[pa.Field]:
    """Files that do not agree on a column's type: the column is text."""
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    fields = []
    for name in names:
        parts = [pa.schema([schema.field(name)]) for schema in schemas if name in schema.names]
        try:
            fields.append(pa.unify_schemas(parts, promote_options="permissive").field(0))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            fields.append(pa.field(name, pa.string()))
    return fields
