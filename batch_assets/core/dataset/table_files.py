"""A dataset of table files: CSV, TSV, JSON Lines and Parquet. Several files form one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.column_kinds import (
    CONTENTS,
    CSV,
    FILES,
    PARQUET,
    Kinds,
    is_same,
    of_group,
    usual_kinds,
)
from batch_assets.core.dataset.csv_cells import csv_kind
from batch_assets.core.dataset.csv_reader import CsvReader, agree_on_types
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.folder_files import check_folder_names, shown_names, tables_in
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.moved_files import named_as_now
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.readers import FileReader, ParquetReader, known_endings, reader_class
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.dataset.table_kinds import has_keys, with_own_keys
from batch_assets.core.dataset.unified_types import holding_all
from batch_assets.core.dataset.wide_objects import unified_field
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.file_systems import is_object_store
from batch_assets.core.io.parquet import has_many_leaves
from batch_assets.core.pipeline.dataset import DatasetConfig
from batch_assets.core.pipeline.pipeline import Pipeline

# Files of an object store are read twice, for their columns and for their rows. If they are small, they are kept.
_KEPT_BYTES = 4 << 20


class TableFiles:
    """`dataset: {path: …}`: the rows of all files, in path order.

    Args:
        located: The files.
        pipeline: The pipeline.
        recorded: The kinds of its columns that are on record.

    Attributes:
        recorded: These kinds, with the files named as they are named now.

    Raises:
        DatasetError: When there is no such file, its format is unknown, it cannot be read, or its columns differ
            from those of the other files.
    """

    field = "path"
    columns: list[str] | None = None

    def __init__(self, located: LocatedFiles, pipeline: Pipeline, recorded: Kinds) -> None:
        config = pipeline.config.dataset
        self._declared = frozenset(config.types)
        self._located = located
        self._max_file_bytes = config.max_file_bytes
        self._readers = [_reader(file, config) for file in self._files(config.pattern)]
        if self._located.is_folder:
            names = {self._located.relative(reader.name): reader.schema.names for reader in self._readers}
            check_folder_names(names, config.pattern)
        if config.csv is not None and not any(isinstance(reader, CsvReader) for reader in self._readers):
            raise DatasetError(
                f"{located.path} has no CSV or TSV file, but dataset.csv applies only to those: leave it out"
            )
        if config.missing_columns is not None:
            _check_same_columns(self._readers)
            _check_related(self._readers)
        digests = {self._group(reader): reader.content_digest for reader in self._parquet_readers}
        self.recorded = named_as_now(recorded, digests)
        self._of_new_files: dict[str, dict[str, Any]] = {}
        self._read_as_recorded()
        self._csv_types = agree_on_types(self._readers, recorded)
        beyond = frozenset(name for reader in self._parquet_readers for name in reader.beyond_int64)
        self.schema = _unified([reader.schema for reader in self._readers], beyond)
        self.object_keys = ObjectKeys()
        for reader in self._readers:
            self.object_keys.add(reader.object_keys)
        self.blank = all(reader.blank for reader in self._readers)

    def _read_as_recorded(self) -> None:
        """Read each Parquet file by the kinds on record: its own, or those that most files have."""
        usual = of_group(self.recorded, PARQUET, self._declared)
        known = self.recorded.get(FILES)
        for reader in self._parquet_readers:
            group = self._group(reader)
            if known is not None and _digest(group) not in known and group not in self.recorded:
                self._of_new_files[group] = {
                    name: kind
                    for name in usual.keys() & reader.kinds.keys()
                    if has_keys(usual[name])
                    and not is_same(kind := with_own_keys(usual[name], reader.kinds[name]), usual[name])
                }
            own = of_group(self.recorded, group, self._declared) | self._of_new_files.get(group, {})
            reader.adopt(usual | own)

    @property
    def _parquet_readers(self) -> list[ParquetReader]:
        return [reader for reader in self._readers if isinstance(reader, ParquetReader)]

    def _group(self, reader: FileReader) -> str:
        return f"{PARQUET}/{self._located.relative(reader.name)}"

    @property
    def kinds(self) -> Kinds:
        """The kinds of its columns as they are inferred, for Parquet of those that are not on record."""
        csv_kinds = {column: csv_kind(column_type.type) for column, column_type in self._csv_types.items()}
        kinds: Kinds = {CSV: {column: kind for column, kind in csv_kinds.items() if kind is not None}}
        recorded = self.recorded.get(PARQUET, {})
        files = [(self._group(reader), reader.kinds) for reader in self._parquet_readers]
        kinds[PARQUET] = usual = usual_kinds([columns for _, columns in files])
        for group, columns in files:
            kinds[group] = {
                name: kind
                for name, kind in columns.items()
                if name not in recorded and not is_same(kind, usual[name])
            } | self._of_new_files.get(group, {})
        if not self._located.is_file and any(map(has_keys, usual.values())):
            kinds[FILES] = {_digest(group): True for group, _ in files}
        own = {group for group, columns in kinds.items() if columns and group != FILES} | self.recorded.keys()
        kinds[CONTENTS] = {
            group: reader.content_digest()
            for reader in self._parquet_readers
            if (group := self._group(reader)) in own
        }
        return kinds

    @property
    def mixed_columns(self) -> list[MixedColumn]:
        """The columns of CSV files that few values keep from being of a type, unless their kind is on record."""
        settled = self._declared | self.recorded.get(CSV, {}).keys()
        nearest = {
            column: column_type.almost.nearest
            for column, column_type in self._csv_types.items()
            if column not in settled and pa.types.is_string(column_type.type)
        }
        mixed = {column: type_and_odd for column, type_and_odd in nearest.items() if type_and_odd is not None}
        rows: dict[str, set[int]] = {}
        for _, odd in mixed.values():
            rows.setdefault(odd.file, set()).add(odd.row)
        readers = {reader.name: reader for reader in self._readers if isinstance(reader, CsvReader)}
        locations = {file: readers[file].locations(of_file) for file, of_file in rows.items()}
        return [
            MixedColumn(
                column,
                type_,
                self._csv_types[column].almost.values,
                odd.count,
                odd.text,
                locations[odd.file][odd.row],
            )
            for column, (type_, odd) in mixed.items()
        ]

    def _files(self, pattern: str) -> list[DataFile]:
        located = self._located
        of_names = located.sizes()
        is_kept = is_object_store(located.fs) and sum(of_names.values()) <= _KEPT_BYTES
        sizes = {DataFile(located.fs, name, is_kept): size for name, size in of_names.items()}
        files = list(sizes)
        self._kept = files if is_kept else []
        if located.is_folder:
            by_path = {located.relative(file.name): (file, size) for file, size in sizes.items()}
            files = tables_in(by_path, lambda file: reader_class(file) is not None, pattern, known_endings())
        if not files:
            raise DatasetError(f"{located.path} has no CSV, TSV, JSON Lines or Parquet file")
        return files

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows of all files."""
        for reader in self._readers:
            yield from reader.rows(target)

    def read_file(self, name: str) -> bytes:
        """Read a file within the dataset's folder."""
        return self._located.read(name, self._max_file_bytes)

    def close(self) -> None:
        """Free what is kept of the files: infos and contents."""
        self._located.forget()
        for file in self._kept:
            file.forget()


def _digest(group: str) -> str:
    return sha256(group.encode()).hexdigest()[:12]


def _reader(file: DataFile, config: DatasetConfig) -> FileReader:
    make_reader = reader_class(file)
    if make_reader is None:
        raise DatasetError(f"{file.name}: the name must end in {known_endings()}")
    return make_reader(file, config)


def _check_same_columns(readers: Sequence[FileReader]) -> None:
    """Check that all files have the same columns. In JSON Lines each object may leave some out."""
    files = [reader for reader in readers if reader.has_fixed_columns and not reader.blank]
    if not files:
        return
    counts = Counter(frozenset(file.schema.names) for file in files)
    # The columns that most files have, or those of the first file.
    usual = max(counts, key=lambda names: counts[names])
    model = next(file for file in files if frozenset(file.schema.names) == usual)
    for file in files:
        names = frozenset(file.schema.names)
        lacks = [name for name in model.schema.names if name not in names]
        more = [name for name in file.schema.names if name not in usual]
        if not lacks and not more:
            continue
        differences = [f"lacks {shown_names(lacks)}"] if lacks else []
        differences += [f"has {shown_names(more)}, which the other lacks"] if more else []
        header = " Is its first line a row and not a header?" if isinstance(file, CsvReader) else ""
        raise DatasetError(
            f"{file.name} has other columns than {model.name}: it {' and '.join(differences)}.{header} If "
            "its rows do belong to the table, with null in the columns that they lack, set "
            "dataset.missing_columns: null"
        )


def _check_related(readers: Sequence[FileReader]) -> None:
    """Check that each JSON Lines file has a column that another file has: metadata beside tables has none."""
    files = [reader for reader in readers if reader.schema.names]
    counts = Counter(name for file in files for name in file.schema.names)
    for file in files if len(files) > 1 else ():
        names = file.schema.names
        if not file.has_fixed_columns and all(counts[name] == 1 for name in names):
            raise DatasetError(
                f"{file.name} has no column that another file has: its columns are {shown_names(names)}. If its "
                "rows do not belong to the table, move it away, or read a part of the folder by a pattern. If "
                "they do, set dataset.missing_columns: null"
            )


def _unified(schemas: list[pa.Schema], beyond_int64: Collection[str]) -> pa.Schema:
    try:
        unified = pa.unify_schemas(schemas, promote_options="permissive")
        unified = holding_all(unified, schemas, beyond_int64)
        if len(schemas) > 1 and any(has_many_leaves(field.type) for field in unified):
            raise pa.ArrowInvalid("the objects of a column have too many different fields")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        unified = pa.schema(_as_text_where_mixed(schemas, beyond_int64))
    # A column without values is text.
    nulls = [position for position, field in enumerate(unified) if pa.types.is_null(field.type)]
    for position in nulls:
        unified = unified.set(position, pa.field(unified.names[position], pa.string()))
    return unified.remove_metadata()


def _as_text_where_mixed(schemas: list[pa.Schema], beyond_int64: Collection[str]) -> list[pa.Field]:
    """The columns of all files. A column whose types in the files do not go together is text."""
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    fields = []
    for name in names:
        try:
            field = unified_field([schema.field(name) for schema in schemas if name in schema.names])
            fields.append(holding_all(pa.schema([field]), schemas, beyond_int64).field(0))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            fields.append(pa.field(name, pa.string()))
    return fields
