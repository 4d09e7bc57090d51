"""State on disk: batch records in SQLite, request bodies and their indexes as files.

A batch is accepted once its row is committed; its body and index are in place before that, so a
process killed at any moment leaves either a complete batch or none. Rows of the `accepted` table are
only ever added: they are the record of what the server took on, whatever became of it later.
"""

import os
import shutil
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from .body import BodyIndex
from .wire import new_id

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, workspace TEXT NOT NULL,
  created_at INTEGER NOT NULL, requests INTEGER NOT NULL, latency INTEGER NOT NULL, expiry INTEGER NOT NULL,
  cancel_delay INTEGER NOT NULL, version TEXT NOT NULL, betas TEXT NOT NULL,
  cancel_at INTEGER, end_at INTEGER, expire_at INTEGER, archived_at INTEGER, deleted_at INTEGER,
  outcomes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batches_by_workspace ON batches (workspace, seq);
CREATE TABLE IF NOT EXISTS accepted (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, workspace TEXT NOT NULL,
  created_at INTEGER NOT NULL, requests INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
  version TEXT NOT NULL, betas TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clock (
  id INTEGER PRIMARY KEY CHECK (id = 0), shift INTEGER, frozen_at INTEGER, skew INTEGER);
"""


@dataclass(frozen=True)
class BatchRecord:
    """What is stored about a batch. Instants and durations are microseconds; None means "has not happened".

    `end_at` and `expire_at` are instants at which a control call ended or expired the batch;
    `betas` is the raw `anthropic-beta` header.
    """

    seq: int
    id: str
    workspace: str
    created_at: int
    requests: int
    latency: int
    expiry: int
    cancel_delay: int
    version: str
    betas: str
    cancel_at: int | None = None
    end_at: int | None = None
    expire_at: int | None = None
    archived_at: int | None = None
    deleted_at: int | None = None


@dataclass(frozen=True)
class NewBatch:
    """A batch about to be accepted: its body file, which is moved into the state directory, and the rest."""

    workspace: str
    created_at: int
    latency: int
    expiry: int
    cancel_delay: int
    version: str
    betas: str
    sha256: str
    body: Path
    index: BodyIndex


_COLUMNS = ", ".join(field.name for field in fields(BatchRecord))


class Store:
    """The state directory `root`; created when missing. Methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._bodies = root / "bodies"
        self._incoming = root / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)  # uploads that were never accepted
        for folder in (self._bodies, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(root / "emulator.db", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self.outcomes = lru_cache(maxsize=32)(self._read_outcomes)
        """The outcome codes of a batch's requests, one byte each, by batch id."""
        self.before_close: list[Callable[[], None]] = []
        """What must stop working on this state before it is closed."""

    def close(self) -> None:
        """Close the database; nothing is lost without it."""
        for stop in self.before_close:
            stop()
        self._db.close()

    def _query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def incoming(self) -> Path:
        """A fresh path for a file on its way into the state; what is left of it is removed at the next start."""
        return self._incoming / new_id("upload")

    def accept(self, batch: NewBatch) -> BatchRecord:
        """Store a batch; when this returns, the batch survives the end of the process."""
        batch_id, size = new_id("msgbatch"), batch.body.stat().st_size
        with (self._bodies / f"{batch_id}.idx").open("wb") as file:
            batch.index.offsets.tofile(file)
            batch.index.lengths.tofile(file)
        batch.body.replace(self.body_path(batch_id))
        row: dict[str, Any] = {
            "id": batch_id,
            "workspace": batch.workspace,
            "created_at": batch.created_at,
            "requests": len(batch.index),
            "latency": batch.latency,
            "expiry": batch.expiry,
            "cancel_delay": batch.cancel_delay,
            "version": batch.version,
            "betas": batch.betas,
            "outcomes": batch.index.outcomes,
        }
        log = {name: row[name] for name in ("id", "workspace", "created_at", "requests", "version", "betas")}
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            seq = self._insert("batches", row)
            self._insert("accepted", log | {"bytes": size, "sha256": batch.sha256})
            self._db.execute("COMMIT")
        del row["outcomes"]
        return BatchRecord(seq=seq, **row)

    def _insert(self, table: str, row: dict[str, Any]) -> int:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        cursor = self._db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def find(self, batch_id: str, workspace: str | None = None) -> BatchRecord | None:
        """The batch, unless it is unknown, deleted, or of another workspace than the one given."""
        rows = self._query(f"SELECT {_COLUMNS} FROM batches WHERE id = ? AND deleted_at IS NULL", batch_id)
        if not rows or workspace not in (None, rows[0]["workspace"]):
            return None
        return BatchRecord(**rows[0])

    def cursor_of(self, batch_id: str, workspace: str) -> int | None:
        """The place of a batch in the order of creation, deleted batches included; None when unknown."""
        rows = self._query("SELECT seq FROM batches WHERE id = ? AND workspace = ?", batch_id, workspace)
        return rows[0]["seq"] if rows else None

    def page(
        self, workspace: str, limit: int, *, after: int | None, before: int | None, created_until: int
    ) -> list[BatchRecord]:
        """Up to `limit` batches, newest first.

        `after` asks for those older than that place in the order of creation, `before` for those next
        newer than it; batches created later than `created_until` are left out.
        """
        condition, order = "seq > ?", "ASC"
        place = before if before is not None else after
        if before is None:
            condition, order = "(? IS NULL OR seq < ?)", "DESC"
        places = (place,) if before is not None else (place, place)
        rows = self._query(
            f"SELECT {_COLUMNS} FROM batches WHERE workspace = ? AND deleted_at IS NULL AND created_at <= ?"
            f" AND {condition} ORDER BY seq {order} LIMIT ?",
            *(workspace, created_until, *places, limit),
        )
        records = [BatchRecord(**row) for row in rows]
        return records if before is None else records[::-1]

    def alive(self) -> list[BatchRecord]:
        """Every batch that was not deleted, oldest first."""
        rows = self._query(f"SELECT {_COLUMNS} FROM batches WHERE deleted_at IS NULL ORDER BY seq")
        return [BatchRecord(**row) for row in rows]

    def mark(self, batch_id: str, column: str, instant: int) -> None:
        """Record the instant in one of the columns that begin as None; the first instant stays."""
        self._query(f"UPDATE batches SET {column} = ? WHERE id = ? AND {column} IS NULL", instant, batch_id)

    def log(self) -> list[dict[str, Any]]:
        """Every batch ever accepted, in order; deleted batches stay in it."""
        return [dict(row) for row in self._query("SELECT * FROM accepted ORDER BY seq")]

    def _read_outcomes(self, batch_id: str) -> bytes:
        return bytes(self._query("SELECT outcomes FROM batches WHERE id = ?", batch_id)[0]["outcomes"])

    def body_path(self, batch_id: str) -> Path:
        """The file with the create body of a batch, byte for byte; it outlives the batch's deletion."""
        return self._bodies / f"{batch_id}.json"

    def results_path(self, batch_id: str) -> Path:
        """The file with the prepared results of a batch; complete when it is there, and never needed."""
        return self._bodies / f"{batch_id}.results"

    def read_requests(self, batch_id: str, order: list[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """Position and bytes of each request of a batch, in the given order or as submitted."""
        raw = (self._bodies / f"{batch_id}.idx").read_bytes()
        count = len(raw) // 12
        offsets, lengths = array("Q", raw[: 8 * count]), array("I", raw[8 * count :])
        # pread, not mmap: pages of a mapped body would count as memory of this process.
        with self.body_path(batch_id).open("rb") as file:
            for at in range(count) if order is None else order:
                yield at, os.pread(file.fileno(), lengths[at], offsets[at])

    def load_clock(self) -> tuple[int, int | None, int]:
        """The clock's shift, frozen_at and skew as last saved."""
        rows = self._query("SELECT shift, frozen_at, skew FROM clock")
        return (rows[0]["shift"], rows[0]["frozen_at"], rows[0]["skew"]) if rows else (0, None, 0)

    def save_clock(self, shift: int, frozen_at: int | None, skew: int) -> None:
        """Keep the clock's setting, so that time does not run backwards after a restart."""
        self._query("INSERT OR REPLACE INTO clock VALUES (0, ?, ?, ?)", shift, frozen_at, skew)
