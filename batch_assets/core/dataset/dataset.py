"""The rows of a dataset as Arrow record batches, never all in memory at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn, assert_never

import pyarrow as pa

from batch_assets.core.dataset.bounds import check_columns
from batch_assets.core.dataset.carried_columns import add_times_before
from batch_assets.core.dataset.column_kinds import TABLE, Kinds, of_group, updated
from batch_assets.core.dataset.column_types import plain_type
from batch_assets.core.dataset.delimiters import delimiter_remedy
from batch_assets.core.dataset.document_files import DocumentFiles
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.partition_rows import PartitionRows, filled
from batch_assets.core.dataset.query_rows import QueryRows
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.dataset.sources import Source
from batch_assets.core.dataset.table_files import TableFiles
from batch_assets.core.dataset.table_rows import TableRows
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.parquet import unstorable
from batch_assets.core.pipeline.dataset import ROW_NUMBER, DatasetKind
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.text import nearest


class Dataset:
    """The input table of a pipeline: its columns with their types, and its rows. A context manager.

    Args:
        pipeline: The pipeline.
        table: The value of the asset that `dataset.asset` names. Unused for other kinds of datasets.
        partition: The partition whose rows to read; "" for all rows.
        recorded: The kinds of columns on record.
        located: Its files, if they were just looked up; `None` to do that now.

    Attributes:
        location: Where the rows come from, for texts.
        source: The pipeline file and the partition, for errors.
        schema: The columns and their types.
        key: The column of the row key.
        carried: The columns to carry into results: names in the dataset to names in results.
        delimiter_remedy: What to write if it is a CSV file that seems to have another delimiter than a comma.
        has_read_file: Whether templates have read files of the dataset's folder.

    Raises:
        DatasetError: When a file or column is missing, the format is unknown, a file cannot be read, or a query
            fails. Says what is wrong and what is available.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        table: Any = None,
        partition: str = "",
        recorded: Kinds | None = None,
        located: LocatedFiles | None = None,
    ) -> None:
        config = pipeline.config.dataset
        self._recorded = recorded or {}
        self.source = f"{pipeline.source}: partition {partition}" if partition else pipeline.source
        self.location = config.location
        self.has_read_file = False
        self._rows_from = self._open(pipeline, table, partition, located)
        try:
            self._settle(pipeline)
            self._picks = self._rows_of(pipeline, partition)
        except BaseException:
            self.close()
            raise

    def _open(self, pipeline: Pipeline, table: Any, partition: str, located: LocatedFiles | None) -> Source:
        config = pipeline.config.dataset
        try:
            match config.kind:
                case DatasetKind.PATH:
                    self.location = filled(config.pattern, partition)
                    files = TableFiles(located or self._located(pipeline), pipeline, self._recorded)
                    self._recorded = files.recorded
                    return files
                case DatasetKind.FILES:
                    self.location = filled(config.pattern, partition)
                    return DocumentFiles(located or self._located(pipeline), pipeline)
                case DatasetKind.SQL:
                    return QueryRows(pipeline, partition)
                case DatasetKind.ASSET:
                    recorded = of_group(self._recorded, TABLE, config.types)
                    return TableRows(table, self.location, config, recorded)
                case _:
                    assert_never(config.kind)
        except DatasetError as error:
            self._fail(config.kind, str(error))

    def _located(self, pipeline: Pipeline) -> LocatedFiles:
        return LocatedFiles(self.location, pipeline.project)

    def _settle(self, pipeline: Pipeline) -> None:
        config, source = pipeline.config.dataset, self._rows_from
        self.schema = source.schema
        self.delimiter_remedy = delimiter_remedy(config, self.schema.names)
        check_columns(len(self.schema.names), f"{self.source}: dataset.{config.kind}")
        self.key, self.key_name = config.key_column, config.key_name
        if source.blank:
            self.schema = _named_columns(pipeline)
        self._declared = list(config.types)
        self._check_types(config.types)
        if self.key == ROW_NUMBER and config.key is None and ROW_NUMBER in self.schema.names:
            problem = f"the dataset has a column {ROW_NUMBER!r}: name that or another column as the row key"
            self._fail("key", problem)
        if config.key is not None:
            self.check_column(self.key, "key")
            if pa.types.is_nested(self.key_type):
                problem = f"the column {self.key!r} has the type {self.key_type}; name a column with plain values"
                self._fail("key", problem)
        columns = config.columns
        if columns is None:
            columns = [name for name in source.columns or self.schema.names if name != self.key]
        self.carried = dict(columns) if isinstance(columns, dict) else {name: name for name in columns}
        for name in self.carried:
            self.check_column(name, "columns")
        self._make_storable()

    def _make_storable(self) -> None:
        """Turn columns whose type results cannot hold into text, before anything is sent.

        Nested values become their JSON. Templates still see them as they are.
        """
        for name in dict.fromkeys([self.key, *self.carried]):
            position = self.schema.get_field_index(name)
            if position >= 0 and unstorable(self.schema.field(position).type) is not None:
                self.schema = self.schema.set(position, pa.field(name, pa.string()))

    def _rows_of(self, pipeline: Pipeline, partition: str) -> tuple[str, PartitionRows] | None:
        """Return the column that partitions the rows, and what selects those of the partition; `None` for all."""
        partitions = pipeline.config.partitions
        column = partitions.column if partitions is not None else None
        if partitions is None or column is None or not partition:
            return None
        if column not in self.schema.names and self._rows_from.blank:
            self.schema = self.schema.append(pa.field(column, pa.string()))
        self.check_column(column, "columns", field="partitions.column")
        try:
            return column, PartitionRows(partitions, partition, self.schema.field(column).type)
        except ValueError as error:
            raise DatasetError(f"{self.source}: partitions.column: {column!r}: {error}") from None

    @property
    def without_partition(self) -> int:
        """The number of rows read so far that belong to no partition at all."""
        return self._picks[1].without if self._picks is not None else 0

    @property
    def without_partition_examples(self) -> list[str]:
        """The first of these rows, with their values or why they could not be read, as texts."""
        return list(self._picks[1].examples) if self._picks is not None else []

    @property
    def shapes(self) -> list[frozenset[str]]:
        """The keys that objects in the columns have, see `ObjectKeys`."""
        return self._rows_from.object_keys.shapes

    @property
    def kinds(self) -> Kinds:
        """The kinds of columns to record for the next build."""
        return updated(self._recorded, self._rows_from.kinds, self._declared)

    @property
    def mixed_columns(self) -> list[MixedColumn]:
        """Columns that are text because of a few values, unless their kind is on record or declared."""
        return self._rows_from.mixed_columns

    def close(self) -> None:
        """Delete temporary files."""
        self._rows_from.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def key_type(self) -> pa.DataType:
        return pa.int64() if self.key == ROW_NUMBER else self.schema.field(self.key).type

    def check_column(self, name: str, dataset_field: str, *, field: str | None = None) -> None:
        """Check that the dataset has a column.

        Args:
            name: The column.
            dataset_field: The field within `dataset` that names the column.
            field: The field of the pipeline file that names the column, if it is not within `dataset`.

        Raises:
            DatasetError: When the column is missing. Names the column, the field and the existing columns.
        """
        if self.schema.get_field_index(name) >= 0 or (
            name == self.key and dataset_field != "key" and field is None
        ):
            return
        columns = ", ".join(self.schema.names)
        meant = self._meant(name, dataset_field)
        remedy = f"; {self.delimiter_remedy}" if self.delimiter_remedy is not None else ""
        problem = f"{self.location} has no column {name!r}{meant}; its columns: {columns}{remedy}"
        if field is not None:
            raise DatasetError(f"{self.source}: {field}: {problem}")
        self._fail(dataset_field, problem)

    def _meant(self, name: str, dataset_field: str) -> str:
        """Return what the user may have meant by a missing column, in parentheses; "" if it is not known."""
        if name == ROW_NUMBER and dataset_field == "key":
            return " (leave out `key`: without it, the rows are numbered in a column of this name)"
        meant = nearest(name, self.schema.names) if self.delimiter_remedy is None else None
        return f" (did you mean {meant!r}?)" if meant is not None else ""

    def rows(self, columns: list[str]) -> Iterator[Rows]:
        """Yield the rows in order.

        If a column defines the partitions, only the rows of the partition. Row numbers always count all rows of
        the dataset.

        Args:
            columns: The columns to read, in the order in which they should come.

        Raises:
            DatasetError: When the rows cannot be read, or a value does not fit its type.
        """
        wanted = [name for name in columns if name != ROW_NUMBER or ROW_NUMBER in self.schema.names]
        read = wanted
        if self._picks is not None:
            column, picks = self._picks
            read = list(dict.fromkeys([*wanted, column]))
            picks.begin()
        # To only count rows, one column still has to be read. Where no row has any, one without values will do.
        target = pa.schema(
            [self.schema.field(name) for name in read or self.schema.names[:1]] or [("", pa.null())]
        )
        number = 0
        try:
            for rows in self._rows_from.rows(target):
                count = len(rows.table)
                if len(wanted) < len(columns):
                    numbers = pa.array(range(number, number + count), pa.int64())
                    rows.table = rows.table.append_column(ROW_NUMBER, numbers)
                number += count
                if self._picks is not None:
                    rows = rows.filter(picks.mask(rows.table.column(column), number - count, rows.rejects))
                    if not len(rows.table):
                        continue
                rows.table = rows.table.select(columns)
                for name in self._declared:  # its type is the user's choice, for templates too
                    rows.own.pop(name, None)
                    rows.before.pop(name, None)
                    if name in rows.carried_before:
                        rows.before[name] = rows.values_at_first(name)
                add_times_before(rows)
                yield rows
        except DatasetError as error:
            self._fail(self._rows_from.field, str(error))

    def read_file(self, name: str) -> bytes:
        """Read a file within the dataset's folder, for the template filter `file_base64`.

        Raises:
            ValueError: When there is no such file, or rows may not name it.
        """
        self.has_read_file = True
        return self._rows_from.read_file(name)

    def _check_types(self, types: dict[str, str]) -> None:
        for name, type_ in types.items():
            self.check_column(name, "types")
            try:
                position = self.schema.get_field_index(name)
                self.schema = self.schema.set(position, pa.field(name, parse_type(type_)))
            except ValueError as error:
                self._fail(f"types.{name}", str(error))

    def _fail(self, field: str, problem: str) -> NoReturn:
        raise DatasetError(f"{self.source}: dataset.{field}: {problem}") from None


def parse_type(name: str) -> pa.DataType:
    """Return an Arrow type by its name: as pyarrow prints it, or `decimal(p, s)` or `timestamp[us, UTC]`.

    Raises:
        ValueError: When there is no such type.
    """
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
    """The columns of an empty dataset: those that the pipeline names, as text."""
    config = pipeline.config.dataset
    names = [config.key_column] if config.key else []
    names += [*(config.columns or []), *config.types, *sorted(pipeline.reads)]
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(names) if name != ROW_NUMBER or config.key])
