"""Shared by the tests of erasing rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from batch_assets.core.erase.report import EraseReport
from batch_assets.core.erase.run import erase
from batch_assets.core.pipeline.pipeline import Pipeline

from ..support import World, texts

GONE = "person-4711"
SECRET = "born in Ulm on a rainy day"
ROWS = texts(3) | {GONE: SECRET} | {"last": "the last text"}


def erased(world: World, pipeline: Pipeline, *keys: str) -> EraseReport:
    return erase(world.root, pipeline.name, keys or [GONE], pipeline)


def every_text(folder: Path) -> str:
    """Everything under a folder as one text: bytes as they are, Parquet decoded, and SQLite's pages."""
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parts.append(path.read_bytes().decode("latin-1"))
            if path.suffix == ".parquet":
                parts.append(str(pq.read_table(path).to_pylist()))
    return "\n".join(parts)
