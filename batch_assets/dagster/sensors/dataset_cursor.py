"""What a sensor that watches a dataset remembers from look to look."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

import orjson

from batch_assets.core.io.storage import Storage

# Dagster keeps the cursor with every tick, for days: a long one lies in the root, and its name stands for it.
_LONGEST = 1000
_FOLDER = "watch"


@dataclass(frozen=True)
class DatasetCursor:
    """Fingerprints of files by partition.

    Attributes:
        seen: those that were new at the last look, and are run when they stay as they are.
        asked: those of the newest run.
    """

    seen: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None, storage: Storage, pipeline: str) -> Self:
        """What the cursor says; nothing if it is not to be read."""
        try:
            if cursor and not cursor.startswith("{"):
                cursor = storage.read_bytes(pipeline, _FOLDER, cursor).decode()
            given = orjson.loads(cursor or "{}")
            return cls(dict(given["seen"]), dict(given["asked"])) if given else cls()
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, before: str | None, storage: Storage, pipeline: str) -> str:
        """The cursor for Dagster.

        Args:
            before: the one that is in force until Dagster has taken the new one.
        """
        content = orjson.dumps({"seen": self.seen, "asked": self.asked}, option=orjson.OPT_SORT_KEYS)
        if len(content) <= _LONGEST:
            return content.decode()
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.json"
        if name != before:
            storage.write_bytes(content, pipeline, _FOLDER, name)
            for other in storage.names(pipeline, _FOLDER):
                if other not in (name, before):
                    storage.remove(pipeline, _FOLDER, other)
        return name
