"""Rows of the dataset as Arrow record batches, never all in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import pyarrow as pa

from batch_assets.core.dataset.document_files import DocumentFiles
from batch_assets.core.dataset.partition_rows import PartitionRows, filled
from batch_assets.core.dataset.query_rows import QueryRows
from batch_assets.core.dataset.rows import Rows, plain_type
from batch_assets.core.dataset.sources import Source
from batch_assets.core.dataset.table_files import TableFiles
from batch_assets.core.dataset.table_rows import TableRows
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.pipeline import Pipeline


class Dataset:
    """The input table of a pipeline: its columns with their types, its rows. Close it after use.

    Args:
        table: the value of `dataset.asset`, where that is where the rows come from.
        partition: only the rows of this one; "" for all.

    Attributes:
        place: where its rows come from, for people.
        source: the pipeline file and the partition, for errors.

    Errors:
        DatasetError: no such file, an unknown format, an unreadable file, a query that fails, a missing column;
            it names what is wrong and what there is.
    """

    def __init__(self, pipeline: Pipeline, table: Any = None, partition: str = "") -> None:
        config = pipeline.config.dataset
        self.source = f"{pipeline.source}: partition {partition}" if partition else pipeline.source
        self.place = config.place
        self._picks: PartitionRows | None = None
        self._rows_from = self._open(pipeline, table, partition)
        try:
            self._settle(pipeline)
            self._pick(pipeline, partition)
        except BaseException:
            self.close()
            raise

    def _open(self, pipeline: Pipeline, table: Any, partition: str) -> Source:
        config = pipeline.config.dataset
        try:
            if config.path is not None:
                self.place = filled(config.path, partition)
                return TableFiles(self.place, pipeline)
            if config.files is not None:
                self.place = filled(config.files, partition)
                return DocumentFiles(self.place, pipeline)
            if config.asset is not None:
                return TableRows(table, self.place)
            return QueryRows(pipeline, partition)
        except DatasetError as error:
            self._fail(config.kind, str(error))

    def _settle(self, pipeline: Pipeline) -> None:
        config, source = pipeline.config.dataset, self._rows_from
        self.schema = source.schema
        self.key = config.key or config.default_key
        if source.blank:
            self.schema = _named_columns(pipeline)
        self._check_types(config.types)
        if self.key == ROW_NUMBER and config.key is None and ROW_NUMBER in self.schema.names:
            self._fail("key", f"the dataset has a column {ROW_NUMBER!r}: name it as the row key, or another")
        if config.key is not None:
            self.check_column(config.key, "key")
            if pa.types.is_nested(self.key_type):
                self._fail(
                    "key", f"the column {self.key!r} is of the type {self.key_type}; name one of plain values"
                )
        columns = config.columns
        if columns is None:
            columns = [name for name in source.columns or self.schema.names if name != self.key]
        self.carried = dict(columns) if isinstance(columns, dict) else {name: name for name in columns}
        for name in self.carried:
            self.check_column(name, "columns")

    def _pick(self, pipeline: Pipeline, partition: str) -> None:
        partitions = pipeline.config.partitions
        column = partitions.column if partitions is not None else None
        if partitions is None or column is None or not partition:
            return
        if column not in self.schema.names and self._rows_from.blank:
            self.schema = self.schema.append(pa.field(column, pa.string()))
        self.check_column(column, "columns", field="partitions.column")
        try:
            self._picks = PartitionRows(partitions, partition, self.schema.field(column).type)
        except ValueError as error:
            raise DatasetError(f"{self.source}: partitions.column: {column!r}: {error}") from None
        self._column = column

    @property
    def without_partition(self) -> int:
        """Rows read so far that belong to no partition, whatever its key."""
        return self._picks.without if self._picks is not None else 0

    def close(self) -> None:
        """Frees what it holds on disk."""
        self._rows_from.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def key_type(self) -> pa.DataType:
        return pa.int64() if self.key == ROW_NUMBER else self.schema.field(self.key).type

    def check_column(self, name: str, where: str, *, field: str | None = None) -> None:
        """Raises a DatasetError that names the column, the field that wants it and the columns there are.

        Args:
            where: the field, within `dataset`.
            field: another field of the pipeline file that names the column.
        """
        if name in self.schema.names or (name == self.key and where != "key" and field is None):
            return
        problem = f"{self.place} has no column {name!r}; its columns: {', '.join(self.schema.names)}"
        if field is not None:
            raise DatasetError(f"{self.source}: {field}: {problem}")
        self._fail(where, problem)

    def rows(self, columns: list[str]) -> Iterator[Rows]:
        """The rows in order, with the columns asked for in the order asked for. Of a partition by a column only
        its own; their numbers are those in the whole dataset.
        """
        wanted = [name for name in columns if name != ROW_NUMBER or ROW_NUMBER in self.schema.names]
        picks = self._picks
        read = wanted if picks is None else list(dict.fromkeys([*wanted, self._column]))
        if picks is not None:
            picks.without = 0
        # A file is read by a column of it even where its rows are only to be counted.
        target = pa.schema([self.schema.field(name) for name in read or self.schema.names[:1]])
        number = 0
        try:
            for rows in self._rows_from.rows(target):
                count = len(rows.table)
                if len(wanted) < len(columns):
                    numbers = pa.array(range(number, number + count), pa.int64())
                    rows.table = rows.table.append_column(ROW_NUMBER, numbers)
                number += count
                if picks is not None:
                    rows = _filtered(rows, picks.mask(rows.table.column(self._column)))
                    if not len(rows.table):
                        continue
                rows.table = rows.table.select(columns)
                yield rows
        except DatasetError as error:
            self._fail(self._rows_from.field, str(error))

    def read_file(self, name: str) -> bytes:
        """A file within the dataset's folder, for the template filter `file_base64`."""
        return self._rows_from.read_file(name)

    def _check_types(self, types: dict[str, str]) -> None:
        for name, type_ in types.items():
            self.check_column(name, "types")
            try:
                position = self.schema.get_field_index(name)
                self.schema = self.schema.set(position, pa.field(name, parse_type(type_)))
            except ValueError as error:
                self._fail(f"types.{name}", str(error))

    def _fail(self, where: str, problem: str) -> NoReturn:
        raise DatasetError(f"{self.source}: dataset.{where}: {problem}") from None


def _filtered(rows: Rows, mask: pa.Array) -> Rows:
    """The rows where the mask is true."""
    places = {old: new for new, old in enumerate(pa.compute.indices_nonzero(mask).to_pylist())}
    rejects = {places[old]: why for old, why in rows.rejects.items() if old in places}
    return replace(rows, table=rows.table.filter(mask), rejects=rejects)


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
    names += [*(config.columns or []), *config.types, *sorted(pipeline.reads)]
    return pa.schema([(name, pa.string()) for name in dict.fromkeys(names) if name != ROW_NUMBER or config.key])
