"""Read CSV and TSV files. Types are decided over the whole file, and a row that does not fit is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv

from batch_assets.core.dataset.column_kinds import CSV, Kinds, of_group
from batch_assets.core.dataset.csv_cells import cells_of, csv_kind, is_known
from batch_assets.core.dataset.csv_checks import GuardOptions
from batch_assets.core.dataset.csv_columns import ColumnType
from batch_assets.core.dataset.csv_dialect import Dialect
from batch_assets.core.dataset.csv_escapes import LiteralEscapes
from batch_assets.core.dataset.csv_guard import CsvGuard
from batch_assets.core.dataset.csv_lines import CsvLines, LineFinder
from batch_assets.core.dataset.csv_opening import open_csv
from batch_assets.core.dataset.csv_types import with_timestamps
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.misfits import typed_rows
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import ROWS_AT_ONCE, OwnColumn, Rows, check_distinct, rows_at_once
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.slices import SLICE_BYTES
from batch_assets.core.pipeline.dataset import CsvConfig, DatasetConfig

BLOCK_BYTES = 1 << 20  # pyarrow reads many blocks ahead
_MAX_BLOCK_BYTES = 1 << 28  # as long as the longest row that is read
_MANY_COLUMNS = 500
_NAMES_REMEDY = ", or name the columns in dataset.csv.names"


class CsvReader:
    """A CSV or TSV file. A first pass over the whole file decides the types; empty fields are null.

    Args:
        file: The file.
        config: The `dataset` of the pipeline file.

    Attributes:
        name: The name of the file.
        schema: The columns and their types.
        blank: Whether the file is empty, without even a header.
        watched: The types that remain possible for each column.
        object_keys: The keys of objects in the columns: none.

    Raises:
        DatasetError: When the file is not a table. Names the file and, if a single line is wrong, the line.
    """

    has_fixed_columns = True

    def __init__(self, file: DataFile, config: DatasetConfig) -> None:
        self._file, self.name, self._config = file, file.name, config
        self._options = config.csv or CsvConfig()
        self._rejects = config.bad_rows == "reject"
        self._declared = frozenset(config.types)
        self.object_keys = ObjectKeys()
        self._block = BLOCK_BYTES
        self.blank = self._without_rows = False
        watched: dict[str, ColumnType] | None = None
        while watched is None:
            watched = self._watch(self._declared)
        self.watched = watched
        self.schema: pa.Schema = pa.schema([(column, watcher.type) for column, watcher in watched.items()])
        self._kinds: dict[str, str] = {}

    def agree(self, agreed: dict[str, ColumnType], recorded: Kinds) -> None:
        """Adopt the types that were decided over all files, and the kinds on record.

        Args:
            agreed: The types by column, over all files.
            recorded: The kinds on record.
        """
        self.schema = pa.schema([(column, agreed[column].type) for column in self.watched])
        kinds = of_group(recorded, CSV, self._declared)
        self._kinds = {
            field.name: kinds[field.name]
            for field in self.schema
            if is_known(kinds.get(field.name)) and csv_kind(field.type) not in (None, kinds[field.name])
        }

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows with the columns and types of `target`. A column that the file lacks is null."""
        if self._without_rows:
            return
        names = frozenset(self.schema.names)
        present = [name for name in target.names if name in names]
        columns = present or self.schema.names[:1]
        number = 0
        try:
            with (
                self._open(is_checked=not self._rejects) as guard,
                self._reader(guard, columns) as reader,
                LineFinder(self.name, self._open_lines) as lines,
            ):
                for batch in _slices(reader):
                    rows = typed_rows(batch, target, self._config, lines.locations(number))
                    rows.own = self._own_columns(batch, rows.table)
                    rows.present = [self.schema.names] * len(batch)
                    if guard.rejected:
                        rows.rejects |= _taken(guard.rejected, number, len(batch))
                    number += len(batch)
                    yield rows
        except pa.ArrowInvalid as error:  # the file has changed since its types were decided
            raise self._no_table(error) from None

    def _own_columns(self, batch: pa.RecordBatch, table: pa.RecordBatch) -> dict[str, list[Any] | OwnColumn]:
        """The columns that templates see otherwise than results: as the CSV files have them.

        Args:
            batch: All columns as text.
            table: The rows with the types of the whole dataset, which may have files of other formats.
        """
        own: dict[str, list[Any] | OwnColumn] = {}
        names = frozenset(batch.schema.names) - self._declared
        for wanted in table.schema:
            if wanted.name not in names:
                continue
            field = self.schema.field(wanted.name)
            if (kind := self._kinds.get(wanted.name)) is not None:
                text = table if pa.types.is_string(field.type) else batch
                own[wanted.name] = OwnColumn(text.column(wanted.name), partial(cells_of, kind=kind))
            elif pa.types.is_string(field.type):
                own[wanted.name] = OwnColumn(table.column(wanted.name), with_timestamps)
            elif field.type != wanted.type and not pa.types.is_null(field.type):
                own[wanted.name] = OwnColumn.of(batch.column(wanted.name).cast(field.type), field)
        return own

    def locations(self, rows: Collection[int]) -> dict[int, str]:
        """Return where some rows are, for texts: the file and the line. Reads the file once.

        Args:
            rows: The numbers of the rows, from 0.
        """
        with LineFinder(self.name, self._open_lines) as lines:
            return {row: lines.locations(row)(0) for row in sorted(rows)}

    def _open(self, *, is_checked: bool = False, is_exact: bool = False) -> CsvGuard:
        return CsvGuard(*self._opened(is_checked=is_checked, is_exact=is_exact))

    def _open_lines(self) -> CsvLines:
        return CsvLines(*self._opened(is_exact=True))

    def _opened(
        self, *, is_checked: bool = False, is_exact: bool = False
    ) -> tuple[BinaryIO, Dialect, GuardOptions]:
        """Open the file, and say how a guard reads it."""
        options = self._options
        opened = open_csv(self._file, options, marks=self._rejects)
        dialect = Dialect(opened.delimiter, (options.quote or "").encode(), (options.escape or "").encode())
        checks = GuardOptions(
            name=self.name,
            encoding=options.encoding,
            first_line=opened.first_line,
            columns=len(options.header) if options.header is not None else None,
            drops_header=options.names is not None,
            is_checked=is_checked,
            # Only the exact check knows escape characters.
            is_exact=is_exact or options.escape is not None,
            rejects=self._rejects,
            allows_rows_in_quotes=options.rows_in_quotes,
        )
        return opened.file, dialect, checks

    def _watch(self, settled: frozenset[str]) -> dict[str, ColumnType] | None:
        """Read the whole file.

        Args:
            settled: Columns whose type the pipeline sets.

        Returns:
            The possible types by column; `None` if a row is longer than a block, which now is larger.
        """
        with self._open() as guard:
            if not guard.columns:
                self.blank = self._without_rows = True
                return {}
            self._check_names(guard.columns)
            try:
                with self._reader(guard, None) as reader:
                    names = list(reader.schema.names)
                    check_distinct(names, self.name, _NAMES_REMEDY if self._options.header is None else "")
                    watched = {column: ColumnType() for column in names}
                    for batch in _slices(reader):
                        for column, values in zip(names, batch.columns, strict=True):
                            if column not in settled:
                                watched[column].watch(values)
                    return watched
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    self._without_rows = True
                    return {column: ColumnType() for column in self._column_names() or []}
                # pyarrow has no other sign for a row that is longer than the block.
                if "straddl" not in str(error) or self._block >= _MAX_BLOCK_BYTES:
                    raise self._no_table(error) from None
                self._block = min(max(4 * self._block, 2 * guard.longest), _MAX_BLOCK_BYTES)
                return None

    def _check_names(self, columns: int) -> None:
        names = self._options.names
        if names is not None and len(names) != columns:
            raise DatasetError(
                f"{self.name}: dataset.csv.names has {len(names)} names, but the header has {columns} columns"
            )

    def _column_names(self) -> list[str] | None:
        """The columns that the pipeline names."""
        return self._options.header or self._options.names

    def _reader(self, guard: CsvGuard, columns: list[str] | None) -> Any:
        content = cast(BinaryIO, guard)
        return pyarrow.csv.open_csv(
            cast(Any, LiteralEscapes(content, guard.dialect) if guard.dialect.escape else content),
            read_options=pyarrow.csv.ReadOptions(
                block_size=self._block, use_threads=False, column_names=self._column_names()
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=guard.dialect.delimiter.decode(),
                quote_char=self._options.quote or False,
                escape_char=self._options.escape or False,
                newlines_in_values=True,
                # A rejected row of one column is an empty line.
                ignore_empty_lines=not self._rejects,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,  # the guard has checked it
                default_column_type=pa.string(),
                null_values=["", *self._options.null_values],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=columns,
            ),
        )

    def _no_table(self, error: object) -> DatasetError:
        """Find the line that Arrow refuses."""
        with self._open(is_exact=True) as guard:
            while guard.read(BLOCK_BYTES):
                pass
        return DatasetError(f"{self.name}: {error}")


def _taken(rejected: dict[int, tuple[str, str]], start: int, count: int) -> dict[int, tuple[str, str]]:
    """Remove the rejects of some rows. Returns them by position from `start`."""
    # Arrow reads ahead in a thread of its own, and the guard adds rejects meanwhile: so not all are looked at.
    return {at: rejected.pop(start + at) for at in range(count) if start + at in rejected}


def _slices(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in _joined(batches):
        for start in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join batches of many columns, which have few rows: every column of every batch takes time."""
    some: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if batch.num_columns < _MANY_COLUMNS:
            yield batch
            continue
        some.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= rows_at_once(batch.num_columns) or size >= SLICE_BYTES:
            yield _as_one(some)
            some, rows, size = [], 0, 0
    if some:
        yield _as_one(some)


def _as_one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def agree_on_types(readers: Sequence[Any], recorded: Kinds) -> dict[str, ColumnType]:
    """Decide the types of CSV columns over all files, because a number in one file may be text in the next.

    Args:
        readers: The readers of all files. Those of other formats are ignored.
        recorded: The kinds on record.

    Returns:
        The types by column, over all files.
    """
    files = [reader for reader in readers if isinstance(reader, CsvReader)]
    agreed: dict[str, ColumnType] = {}
    for file in files:
        for column, watcher in file.watched.items():
            agreed.setdefault(column, ColumnType()).join(watcher, file.name)
    for file in files:
        file.agree(agreed, recorded)
    return agreed
