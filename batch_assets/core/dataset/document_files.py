"""A dataset of documents: each file is a row."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import ROWS_AT_ONCE, Rows, conform, text_array, valid_text
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.pipeline.blocks import MAX_MB
from batch_assets.core.pipeline.dataset import DOCUMENT_KEY
from batch_assets.core.pipeline.pipeline import Pipeline

PATH, NAME, BYTES = DOCUMENT_KEY, "name", "bytes"
# The size of the contents in memory at once. A single file may be larger.
_BYTES_AT_ONCE = 16 << 20
# A larger file cannot fit into any batch, so it is not read.
_MAX_BYTES = int(MAX_MB * 1_000_000)


class DocumentFiles:
    """`dataset: {files: …}`: one row per file in path order, with its path, its name and its bytes.

    Args:
        path: A folder or a glob.
        pipeline: The pipeline.

    Raises:
        DatasetError: When the folder does not exist or has no files.
    """

    field = "files"
    columns: list[str] | None = [PATH, NAME]  # noqa: RUF012  never changed
    blank = False
    object_keys = ObjectKeys()  # it has none
    schema = pa.schema([(PATH, pa.string()), (NAME, pa.string()), (BYTES, pa.binary())])

    def __init__(self, path: str, pipeline: Pipeline) -> None:
        self._located = LocatedFiles(path, pipeline.project)
        self._sizes = self._located.sizes()
        if not self._sizes:
            raise DatasetError(f"there is no file {path}")

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
            size += bytes_ if bytes_ <= _MAX_BYTES else 0
        yield self._slice(names, target)

    def _slice(self, names: list[str], target: pa.Schema) -> Rows:
        columns = {
            PATH: text_array([self._located.relative(name) for name in names]),
            NAME: text_array([name.rsplit("/", 1)[-1] for name in names]),
        }
        rejects: dict[int, tuple[str, str]] = {}
        if BYTES in target.names:
            contents: list[bytes | None] = []
            for position, name in enumerate(names):
                if self._sizes[name] > _MAX_BYTES:
                    problem = f"the file has {self._sizes[name]} bytes; a batch can hold {_MAX_BYTES}"
                    rejects[position] = ErrorType.REQUEST_TOO_LARGE, problem
                contents.append(None if position in rejects else self._content(name))
            columns[BYTES] = pa.array(contents, pa.binary())
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
        """Read a file within the documents' folder."""
        return self._located.read(name)

    def close(self) -> None:
        """Do nothing: there are no temporary files."""
