"""Rows of the dataset as Arrow record batches, never all in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.config import Pipeline
from batch_assets.core.errors import DatasetError
from batch_assets.core.readers import READERS, FileReader, agree_on_types
from batch_assets.core.rows import Rows, plain_type

ROW_NUMBER = "row_number"
_GLOB = frozenset("*?[")


class Dataset:
    """The input table of a pipeline: its files, its columns with their types, its rows.

    Errors:
        DatasetError: no such file, an unknown format, an unreadable file, a missing column; it names
            what is wrong and what there is.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        config = pipeline.config.dataset
        self.source = pipeline.source
        self.path = config.path
        url = config.path if "://" in config.path else str(pipeline.project / config.path)
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._readers = [self._reader(name, config.types) for name in self._files()]
        agree_on_types(self._readers)
        self.schema = self._unified_schema()
        self.key = config.key or ROW_NUMBER
        if all(reader.blank for reader in self._readers):
            self.schema = _named_columns(pipeline)
        self._check_types(config.types)
        if config.key is None and ROW_NUMBER in self.schema.names:
            self._fail("key", f"the dataset has a column {ROW_NUMBER!r}: name it as the row key, or another")
        if config.key is not None:
            self.check_column(config.key, "key")
            if pa.types.is_nested(self.key_type):
                self._fail(
                    "key", f"the column {self.key!r} is of the type {self.key_type}; name one of plain values"
                )
        columns = config.columns
        if columns is None:
            columns = [name for name in self.schema.names if name != self.key]
        self.carried = dict(columns) if isinstance(columns, dict) else {name: name for name in columns}
        for name in self.carried:
            self.check_column(name, "columns")
        pipeline.template.fit(self.schema.names)

    @property
    def key_type(self) -> pa.DataType:
        return pa.int64() if self.key == ROW_NUMBER else self.schema.field(self.key).type

    def check_column(self, name: str, where: str) -> None:
        """Raises a DatasetError that names the column, the field that wants it and the columns there are."""
        if name not in self.schema.names and name != self.key:
            self._fail(where, f"{self.path} has no column {name!r}; its columns: {', '.join(self.schema.names)}")
        if where == "key" and name not in self.schema.names:
            self._fail(where, f"{self.path} has no column {name!r}; its columns: {', '.join(self.schema.names)}")

    def rows(self, columns: list[str]) -> Iterator[Rows]:
        """The rows of every file in path order, with the columns asked for in the order asked for."""
        wanted = [name for name in columns if name != ROW_NUMBER or ROW_NUMBER in self.schema.names]
        # A file is read by a column of it even where its rows are only to be counted.
        target = pa.schema([self.schema.field(name) for name in wanted or self.schema.names[:1]])
        number = 0
        for reader in self._readers:
            for rows in self._rows_of(reader, target):
                count = len(rows.table)
                numbers = pa.array(range(number, number + count), pa.int64())
                if not wanted:
                    rows = Rows(pa.RecordBatch.from_arrays([numbers], names=[ROW_NUMBER]))
                elif len(wanted) < len(columns):
                    position = columns.index(ROW_NUMBER)
                    rows.table = rows.table.add_column(position, ROW_NUMBER, numbers)
                number += count
                yield rows

    def _rows_of(self, reader: FileReader, target: pa.Schema) -> Iterator[Rows]:
        try:
            yield from reader.rows(target)
        except DatasetError as error:
            self._fail("path", str(error))

    def read_file(self, name: str) -> bytes:
        """A file within the dataset's folder, for the template filter `file_base64`."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\0" in name:
            raise ValueError(f"{name!r} lies outside the dataset's folder")
        folder = self._root if self._fs.isdir(self._root) else self._root.rsplit("/", 1)[0]
        path = f"{folder}/{relative}"
        if isinstance(self._fs, LocalFileSystem):
            resolved = Path(path).resolve()
            if not resolved.is_relative_to(Path(folder).resolve()):
                raise ValueError(f"{name!r} lies outside the dataset's folder")
        if not self._fs.isfile(path):
            raise ValueError(f"there is no file {name!r} in the dataset's folder")
        content: bytes = self._fs.cat_file(path)
        return content

    def _files(self) -> list[str]:
        if self._fs.isfile(self._root):
            return [self._root]
        if self._fs.isdir(self._root):
            found = [
                name for name in self._fs.find(self._root) if _format(name) and not _is_hidden(name, self._root)
            ]
        elif _GLOB & set(self._root):
            found = [
                name
                for name in self._fs.glob(self._root)
                if self._fs.isfile(name) and not name.rsplit("/", 1)[-1].startswith(".")
            ]
        else:
            self._fail("path", f"there is no file or folder {self.path}{self._neighbours()}")
        if not found:
            self._fail("path", f"{self.path} holds no CSV, TSV, JSON Lines or Parquet file")
        return sorted(found)

    def _neighbours(self) -> str:
        parent = self._root.rstrip("/").rsplit("/", 1)[0]
        if not self._fs.isdir(parent):
            return f"; nor is there a folder {parent}"
        names = sorted(entry.rsplit("/", 1)[-1] for entry in self._fs.ls(parent, detail=False))
        shown = ", ".join(name for name in names[:20] if not name.startswith(".")) or "nothing"
        return f"; beside it: {shown}"

    def _reader(self, name: str, types: dict[str, str]) -> FileReader:
        ending = _format(name)
        if ending is None:
            self._fail("path", f"{name}: the name must end in {', '.join(READERS)}")
        try:
            return READERS[ending](self._fs, name, types)
        except DatasetError as error:
            self._fail("path", str(error))

    def _unified_schema(self) -> pa.Schema:
        schemas = [reader.schema for reader in self._readers]
        try:
            unified = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            unified = pa.schema(_as_text_where_mixed(schemas))
        # A column without any value is text.
        nulls = [position for position, field in enumerate(unified) if pa.types.is_null(field.type)]
        for position in nulls:
            unified = unified.set(position, pa.field(unified.names[position], pa.string()))
        return unified.remove_metadata()

    def _check_types(self, types: dict[str, str]) -> None:
        for name, type_ in types.items():
            self.check_column(name, "types")
            try:
                position = self.schema.get_field_index(name)
                self.schema = self.schema.set(position, pa.field(name, parse_type(type_)))
            except ValueError as error:
                self._fail(f"types.{name}", str(error))

    def _fail(self, where: str, problem: str) -> NoReturn:
        raise DatasetError(f"{self.source}: dataset.{where}: {problem}")


def parse_type(name: str) -> pa.DataType:
    """An Arrow type by its name, as pyarrow prints it, plus `decimal(p, s)` and `timestamp[us, UTC]`."""
    text = name.strip()
    if text.startswith("timestamp[") and "," in text:
        unit, zone = text[len("timestamp[") : -1].split(",")
        return pa.timestamp(unit.strip(), zone.strip().removeprefix("tz="))
    decimal = re.fullmatch(r"decimal(?:128)?\(\s*(\d+)\s*,\s*(-?\d+)\s*\)", text)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    try:
        return plain_type(pa.type_for_alias(text))
    except ValueError:
        raise ValueError(
            f"{name!r} is not an Arrow type; examples: string, int64, double, timestamp[us], decimal(10, 2)"
        ) from None


def _named_columns(pipeline: Pipeline) -> pa.Schema:
    """The columns of a dataset without anything in it: those that the pipeline names, as text."""
    config = pipeline.config.dataset
    names = [config.key] if config.key else []
    names += [*(config.columns or []), *config.types, *sorted(pipeline.template.columns)]
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(names) if name != ROW_NUMBER or config.key])


def _format(name: str) -> str | None:
    return next((ending for ending in READERS if name.lower().endswith(ending)), None)


def _is_hidden(name: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in name[len(root) :].strip("/").split("/"))


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
