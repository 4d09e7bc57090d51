"""The cursor of a sensor that watches a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

import orjson

from batch_assets.core.io.storage import Storage

# Dagster keeps the cursor of every tick for days, so a long one is a file in the root, and Dagster keeps its name.
_LONGEST = 1000
_FOLDER = "watch"


@dataclass(frozen=True)
class DatasetCursor:
    """The fingerprints of a dataset's files, by partition.

    Attributes:
        seen: Fingerprints that were new at the last tick. Their partitions run if they are the same at the next.
        asked: Fingerprints of the newest run of each partition.
    """

    seen: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None, storage: Storage, pipeline: str) -> Self:
        """Read a cursor. The result is empty if there is none or it cannot be read."""
        try:
            if cursor and not cursor.startswith("{"):
                cursor = storage.read_bytes(pipeline, _FOLDER, cursor).decode()
            fields = orjson.loads(cursor or "{}")
            return cls(dict(fields["seen"]), dict(fields["asked"])) if fields else cls()
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, before: str | None, storage: Storage, pipeline: str) -> str:
        """Return the cursor for Dagster, and store a long one as a file.

        Args:
            before: The cursor in force until Dagster has stored the new one. Its file is kept.
            storage: The root's storage.
            pipeline: The name of the pipeline.
        """
        content = orjson.dumps({"seen": self.seen, "asked": self.asked}, option=orjson.OPT_SORT_KEYS)
        if len(content) <= _LONGEST:
            return content.decode()
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.json"
        if name != before:
            storage.write_bytes(content, pipeline, _FOLDER, name)
            for stored in storage.names(pipeline, _FOLDER):
                if stored not in (name, before):
                    storage.remove(pipeline, _FOLDER, stored)
        return name
