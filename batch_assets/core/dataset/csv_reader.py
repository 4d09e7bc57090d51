"""Read CSV and TSV files. Types are decided over the whole file, and a row that does not fit is an error."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from batch_assets.core.dataset.csv_scan import find_bad_row
from batch_assets.core.dataset.csv_types import ColumnType, with_timestamps
from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import ROWS_AT_ONCE, OwnColumn, Rows, check_distinct, conform, valid_text
from batch_assets.core.dataset.transcode import as_utf8
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.dataset import CsvConfig, DatasetConfig

BLOCK_BYTES = 1 << 20  # pyarrow reads many blocks ahead
# A row longer than this is checked for an unclosed quote before the blocks grow further.
_LONG_ROW_BYTES = 64 << 20
_MAX_BLOCK_BYTES = 1 << 30  # pyarrow's limit is below 2 GiB
_TAIL_BYTES = 1 << 16


class CsvReader:
    """A CSV or TSV file. A first pass over the whole file decides the types; empty fields are null.

    Args:
        file: The file.
        config: The `dataset` of the pipeline file.

    Attributes:
        schema: The columns and their types.
        blank: Whether the file is empty, without even a header.
        watched: The types that remain possible for each column.
        object_keys: The keys of objects in the columns: none.

    Raises:
        DatasetError: When the file is not a table. Names the file and, if a single line is wrong, the line.
    """

    def __init__(self, file: DataFile, config: DatasetConfig) -> None:
        self._file, self._name = file, file.name
        self._options = config.csv or CsvConfig()
        self._delimiter = self._options.delimiter or ("\t" if file.plain_name.endswith(".tsv") else ",")
        self._declared = frozenset(config.types)
        self.object_keys = ObjectKeys()
        self._block = BLOCK_BYTES
        self.blank = self._without_rows = False
        watched: dict[str, ColumnType] = {}
        while True:
            try:
                watched = self._watch(self._declared)
                break
            except UnicodeDecodeError as error:
                problem = f"the header is not valid UTF-8: {error}; {self._remedy()}"
                raise DatasetError(f"{self._name}: {problem}") from None
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    watched = self._watch_header()
                    break
                # pyarrow has no other sign for a row that is longer than the block.
                is_long = "straddl" in str(error)
                if not is_long or self._block >= _MAX_BLOCK_BYTES:
                    raise self._no_table(error) from None
                if self._block >= _LONG_ROW_BYTES and (bad_row := self._bad_row()):
                    raise DatasetError(f"{self._name}, {bad_row}") from None
                self._block *= 4
        self.watched = watched
        self.schema: pa.Schema = pa.schema([(column, watcher.type) for column, watcher in watched.items()])

    def agree(self, agreed: dict[str, ColumnType]) -> None:
        """Adopt the types that were decided over all files.

        Args:
            agreed: The types by column, over all files.
        """
        self.schema = pa.schema([(column, agreed[column].type) for column in self.watched])

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows with the columns and types of `target`. A column that the file lacks is null."""
        if self._without_rows:
            return
        present = [name for name in target.names if name in self.schema.names]
        columns = present or self.schema.names[:1]
        try:
            with self._open() as file, self._reader(file, columns) as reader:
                for batch in _slices(reader):
                    rows = valid_text(conform(batch, target, self._name))
                    rows.own = self._own_columns(batch, rows.table)
                    rows.present = [self.schema.names] * len(batch)
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
        for wanted in table.schema:
            if wanted.name not in batch.schema.names or wanted.name in self._declared:
                continue
            field = self.schema.field(wanted.name)
            if pa.types.is_string(field.type):
                own[wanted.name] = OwnColumn(table.column(wanted.name), with_timestamps)
            elif field.type != wanted.type and not pa.types.is_null(field.type):
                own[wanted.name] = OwnColumn.of(batch.column(wanted.name).cast(field.type), field)
        return own

    def _open(self) -> BinaryIO:
        return as_utf8(self._file.open(), self._options.encoding, self._name)

    def _watch(self, settled: frozenset[str]) -> dict[str, ColumnType]:
        watched: dict[str, ColumnType] = {}
        last: pa.RecordBatch | None = None
        with self._open() as file:
            tail = _Tail(file)
            with self._reader(tail, None) as reader:
                names = list(reader.schema.names)
                check_distinct(names, self._name)
                watched = {column: ColumnType() for column in names}
                for batch in _slices(reader):
                    last = batch
                    for column, values in zip(names, batch.columns, strict=True):
                        if column not in settled:
                            watched[column].watch(values)
        if last is not None:
            self._check_end(last, tail.content)
        return watched

    def _check_end(self, last: pa.RecordBatch, tail: bytes) -> None:
        """Detect an unclosed quote, which turns all later rows into one field. pyarrow accepts that silently."""
        if self._options.quote is None:
            return
        value = last.column(last.num_columns - 1)[len(last) - 1].cast(pa.binary()).as_py()
        if _may_be_open(value, tail, self._options.quote.encode()) and (problem := self._bad_row()):
            raise DatasetError(f"{self._name}, {problem}")

    def _watch_header(self) -> dict[str, ColumnType]:
        """Read a file that pyarrow calls empty: it is empty, or a header without a line break at its end."""
        with self._open() as file:
            content = file.read()
        self._without_rows = True
        if self._options.header is not None:
            return {column: ColumnType() for column in self._options.header}
        self.blank = not content.removeprefix(b"\xef\xbb\xbf").strip()
        if self.blank:
            return {}
        with self._reader(io.BytesIO(content + b"\n"), None) as reader:
            names = list(reader.schema.names)
        check_distinct(names, self._name)
        return {column: ColumnType() for column in names}

    def _reader(self, file: Any, columns: list[str] | None) -> Any:
        return pyarrow.csv.open_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                block_size=self._block, use_threads=False, column_names=self._options.header
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._options.quote or False,
                escape_char=self._options.escape or False,
                newlines_in_values=True,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,  # invalid text rejects its row, not the file
                default_column_type=pa.string(),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=columns,
            ),
        )

    def _bad_row(self) -> str | None:
        options = self._options
        names = len(options.header) if options.header is not None else None
        with self._open() as file:
            return find_bad_row(file, self._delimiter, options.quote, options.escape, names)

    def _no_table(self, error: object) -> DatasetError:
        if (problem := self._bad_row()) is None:
            return DatasetError(f"{self._name}: {error}")
        remedy = f"; {self._remedy()}" if "\\x00" in problem else ""  # UTF-16 has one in every other byte
        return DatasetError(f"{self._name}, {problem}{remedy}")

    def _remedy(self) -> str:
        with self._open() as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return f"name its encoding, such as dataset.csv: {{encoding: {'utf-16' if is_utf16 else 'latin-1'}}}"


class _Tail(io.RawIOBase):
    """A file that remembers its last bytes.

    Attributes:
        content: The last bytes read, up to _TAIL_BYTES.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.content = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block: bytes = self._file.read(size)
        self.content = (self.content + block[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return block


def _may_be_open(value: bytes | None, tail: bytes, quote: bytes) -> bool:
    """Whether the last value may start at an unclosed quote. It would then contain the end of the file.

    Args:
        value: The last value of the file.
        tail: The last bytes of the file: more than the value has, unless the value is very long.
        quote: The quote character.
    """
    if value is None:
        return False
    if quote in value or len(value) >= len(tail):
        return tail[-1:] == value[-1:]
    is_empty_text = value == b"" and tail.endswith(quote + quote)
    return tail.endswith(quote + value) and not is_empty_text


def _slices(batches: Any) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def agree_on_types(readers: Sequence[Any]) -> None:
    """Decide the types of CSV columns over all files, because a number in one file may be text in the next.

    Args:
        readers: The readers of all files. Those of other formats are ignored.
    """
    files = [reader for reader in readers if isinstance(reader, CsvReader)]
    agreed: dict[str, ColumnType] = {}
    for file in files:
        for column, watcher in file.watched.items():
            agreed.setdefault(column, ColumnType()).join(watcher)
    for file in files:
        file.agree(agreed)
