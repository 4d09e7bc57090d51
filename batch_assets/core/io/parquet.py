"""Write Parquet on a separate thread, so that encoding overlaps with making the next table."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


class TableWriter:
    """Writes one Parquet file. While the caller makes a table, one more is being written; no others are queued.

    Args:
        path: The file to write.
        schema: The schema of all tables.
        options: Further options of pyarrow.parquet.ParquetWriter.

    Raises:
        OSError: When a write failed. Raised by the next call of `write` or `close`.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._writer = pq.ParquetWriter(path, schema, **COMPRESSION, **options)
        self._thread = ThreadPoolExecutor(1, "parquet")
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        """Append a table as a row group."""
        self._wait()
        self._pending = self._thread.submit(self._writer.write_table, table)

    def close(self) -> None:
        """Finish the file."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
