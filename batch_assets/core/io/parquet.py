"""Writing Parquet on a thread of its own: encoding and compressing overlap with making what comes next."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


class TableWriter:
    """Writes one Parquet file. Besides the table being made, one is being written and none waits.

    Args:
        options: of pyarrow.parquet.ParquetWriter.

    Errors:
        OSError: of a write, raised by the call that follows it.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._writer = pq.ParquetWriter(path, schema, **COMPRESSION, **options)
        self._thread = ThreadPoolExecutor(1, "parquet")
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        """Adds a row group."""
        self._wait()
        self._pending = self._thread.submit(self._writer.write_table, table)

    def close(self) -> None:
        """Finishes the file."""
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
