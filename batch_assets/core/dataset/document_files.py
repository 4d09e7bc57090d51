"""A dataset of documents: each file is a row."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batch_assets.core.dataset.column_kinds import Kinds
from batch_assets.core.dataset.column_texts import text_array
from batch_assets.core.dataset.located_files import LocatedFiles, too_large
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import ROWS_AT_ONCE, Rows, conform
from batch_assets.core.dataset.valid_text import valid_text
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.pipeline.dataset import DOCUMENT_KEY
from batch_assets.core.pipeline.pipeline import Pipeline

PATH, NAME, BYTES = DOCUMENT_KEY, "name", "bytes"
# The size of the contents in memory at once. A single file may be larger.
_BYTES_AT_ONCE = 16 << 20


class DocumentFiles:
    """`dataset: {files: …}`: one row per file in path order, with its path, its name and its bytes.

    Args:
        located: The files.
        pipeline: The pipeline.

    Raises:
        DatasetError: When the folder does not exist or has no files.
    """

    field = "files"
    columns: list[str] | None = [PATH, NAME]  # noqa: RUF012  never changed
    blank = False
    object_keys = ObjectKeys()  # it has none
    kinds: Kinds = {}  # noqa: RUF012  never changed
    mixed_columns: list[MixedColumn] = []  # noqa: RUF012
    schema = pa.schema([(PATH, pa.string()), (NAME, pa.string()), (BYTES, pa.binary())])

    def __init__(self, located: LocatedFiles, pipeline: Pipeline) -> None:
        self._located = located
        self._max_bytes = pipeline.config.dataset.max_file_bytes
        self._sizes = self._located.sizes()
        self._positions: dict[str, int] = {}
        self._contents = pa.array([], pa.binary())
        if not self._sizes:
            raise DatasetError(f"there is no file {located.path}")

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the files in slices. Their contents are read only if `target` has the column `bytes`."""
        wants_bytes = BYTES in target.names
        names: list[str] = []
        size = 0
        for name, bytes_ in self._sizes.items():
            if len(names) == ROWS_AT_ONCE or (wants_bytes and names and size + bytes_ > _BYTES_AT_ONCE):
                yield self._slice(names, target)
                names, size = [], 0
            names.append(name)
            size += bytes_ if bytes_ <= self._max_bytes else 0
        yield self._slice(names, target)

    def _slice(self, names: list[str], target: pa.Schema) -> Rows:
        paths = [self._located.relative(name) for name in names]
        columns = {PATH: text_array(paths), NAME: text_array([name.rsplit("/", 1)[-1] for name in names])}
        rejects: dict[int, tuple[str, str]] = {}
        if BYTES in target.names:
            contents: list[bytes | None] = [None] * len(names)
            for position, (path, name) in enumerate(zip(paths, names, strict=True)):
                if self._sizes[name] > self._max_bytes:
                    problem = too_large(path, self._sizes[name], self._max_bytes)
                    rejects[position] = ErrorType.REQUEST_TOO_LARGE, problem
                else:
                    contents[position] = self._content(name)
            columns[BYTES] = self._contents = pa.array(contents, pa.binary())
            self._positions = {path: at for at, path in enumerate(paths) if at not in rejects}
        rows = valid_text(conform(pa.RecordBatch.from_pydict(columns), target, self._located.path))
        rows.rejects = rejects | rows.rejects
        return rows

    def _content(self, name: str) -> bytes:
        try:
            content: bytes = self._located.fs.cat_file(name)
        except OSError as error:
            raise DatasetError(f"{name} cannot be read: {error.strerror or error}") from None
        return content

    def read_file(self, name: str) -> bytes:
        """Read a file within the documents' folder. The documents of the latest slice are in memory."""
        position = self._positions.get(name)
        if position is None:
            return self._located.read(name, self._max_bytes)
        content: bytes = self._contents[position].as_py()
        return content

    def close(self) -> None:
        """Free what is kept of the files: their infos."""
        self._located.forget()
