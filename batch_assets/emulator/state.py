"""The emulator's state on disk: batch records in SQLite, request bodies and their indexes as files.

A batch is accepted once its row is committed. Its body and index are written before that, so a process that is
killed at any moment leaves either a complete batch or none. Rows are never removed from the table `accepted`. It
is the record of every batch that the server accepted, deleted or not.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from batch_assets.emulator.caching import BatchCaching, CacheUse
from batch_assets.emulator.private import create_private, make_private, touch_private
from batch_assets.emulator.records import BatchRecord, LiveCall, NewBatch
from batch_assets.emulator.wire import new_id

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
CREATE TABLE IF NOT EXISTS cache_reads (id TEXT PRIMARY KEY, tokens BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cache_uses (
  workspace TEXT NOT NULL, prefix BLOB NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL,
  seconds INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS cache_uses_by_prefix ON cache_uses (workspace, prefix);
CREATE TABLE IF NOT EXISTS live_calls (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, workspace TEXT NOT NULL, at INTEGER NOT NULL,
  model TEXT NOT NULL, picodollars INTEGER NOT NULL, served INTEGER NOT NULL, params TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asked (
  id TEXT PRIMARY KEY, answered INTEGER NOT NULL, answered_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
  id TEXT NOT NULL, position INTEGER NOT NULL, type TEXT NOT NULL, result BLOB NOT NULL,
  PRIMARY KEY (id, position));
CREATE TABLE IF NOT EXISTS served (id TEXT PRIMARY KEY, lines BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clock (
  id INTEGER PRIMARY KEY CHECK (id = 0), shift INTEGER, frozen_at INTEGER, skew INTEGER);
"""


_RECORDS = f"{', '.join(field.name for field in fields(BatchRecord))} FROM batches LEFT JOIN asked USING (id)"


class Store:
    """The state directory. Methods may be called from any thread.

    Args:
        root: The directory, created if it does not exist.

    Attributes:
        outcomes: Returns the outcome codes of a batch's requests, one byte each, by its id.
        before_close: Functions to call before the database is closed, which stop the users of this store.
    """

    def __init__(self, root: Path) -> None:
        self._bodies = root / "bodies"
        self._incoming = root / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)  # uploads of an earlier process that were never accepted
        for folder in (root, self._bodies, self._incoming):
            make_private(folder)
        touch_private(root / "emulator.db")  # SQLite gives its permissions to the files -wal and -shm
        self._lock = threading.Lock()
        self._db = sqlite3.connect(root / "emulator.db", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self.outcomes = lru_cache(maxsize=32)(self._read_outcomes)
        self.before_close: list[Callable[[], None]] = []

    def close(self) -> None:
        """Close the database. Without a call nothing is lost."""
        for stop in self.before_close:
            stop()
        self._db.close()

    def _query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def incoming(self) -> Path:
        """Make a new path for a file that is being received. Remaining files are removed at the next start."""
        return self._incoming / new_id("upload")

    def accept(self, batch: NewBatch) -> BatchRecord:
        """Store a batch. Once this returns, the batch survives the end of the process."""
        batch_id, size = new_id("msgbatch"), batch.body.stat().st_size
        with create_private(self._bodies / f"{batch_id}.idx") as file:
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
            self._insert_caching(batch_id, batch.workspace, batch.caching)
            asked = {"answered": 0, "answered_at": batch.created_at} if batch.is_asked else {}
            if asked:
                self._insert("asked", {"id": batch_id} | asked)
            self._db.execute("COMMIT")
        del row["outcomes"]
        row |= asked
        return BatchRecord(seq=seq, **row)

    def _insert_caching(self, batch_id: str, workspace: str, caching: BatchCaching) -> None:
        if any(caching.reads):
            self._insert("cache_reads", {"id": batch_id, "tokens": caching.reads.tobytes()})
        for use in caching.uses:
            row = {"workspace": workspace, "prefix": use.prefix, "id": batch_id}
            self._insert("cache_uses", row | {"position": use.position, "seconds": use.seconds})

    def cache_reads(self, batch_id: str) -> array[int]:
        """Return the tokens that each request of a batch reads from the cache, as uint32; empty if none does."""
        rows = self._query("SELECT tokens FROM cache_reads WHERE id = ?", batch_id)
        return array("I", rows[0]["tokens"] if rows else b"")

    def cache_uses(self, workspace: str, prefix: bytes) -> Iterator[tuple[BatchRecord, CacheUse]]:
        """Yield the batches that use a prefix, newest first, deleted ones too, each with its use."""
        sql = "SELECT id, position, seconds FROM cache_uses WHERE workspace = ? AND prefix = ? ORDER BY rowid DESC"
        for row in self._query(sql, workspace, prefix):
            record = self.accepted(row["id"])
            assert record is not None
            yield record, CacheUse(prefix, row["position"], row["seconds"])

    def _insert(self, table: str, row: dict[str, Any]) -> int:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        cursor = self._db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def find(self, batch_id: str, workspace: str | None = None) -> BatchRecord | None:
        """Find a batch.

        Args:
            batch_id: The id of the batch.
            workspace: The workspace it has to belong to; `None` for any.

        Returns:
            The batch, or `None` if it is unknown, deleted, or in another workspace.
        """
        rows = self._query(f"SELECT {_RECORDS} WHERE id = ? AND deleted_at IS NULL", batch_id)
        if not rows or workspace not in (None, rows[0]["workspace"]):
            return None
        return BatchRecord(**rows[0])

    def count(self, workspace: str) -> int:
        """Count the batches of a workspace that were not deleted."""
        sql = "SELECT count(*) FROM batches WHERE workspace = ? AND deleted_at IS NULL"
        return int(self._query(sql, workspace)[0][0])

    def cursor_of(self, batch_id: str, workspace: str) -> int | None:
        """Return a batch's number in the order of creation, also of a deleted batch; `None` if it is unknown."""
        rows = self._query("SELECT seq FROM batches WHERE id = ? AND workspace = ?", batch_id, workspace)
        return rows[0]["seq"] if rows else None

    def page(
        self, workspace: str, limit: int, *, after: int | None, before: int | None, created_until: int
    ) -> list[BatchRecord]:
        """List batches of a workspace, newest first.

        Args:
            workspace: The workspace.
            limit: The largest number of batches.
            after: List batches older than this one, by its number in the order of creation; `None` for no limit.
            before: List the batches that come next after this one in time, by its number; `None` for no limit.
            created_until: Leave out batches created later than this instant, in microseconds.
        """
        condition, order = "seq > ?", "ASC"
        cursor = before if before is not None else after
        if before is None:
            condition, order = "(? IS NULL OR seq < ?)", "DESC"
        cursors = (cursor,) if before is not None else (cursor, cursor)
        rows = self._query(
            f"SELECT {_RECORDS} WHERE workspace = ? AND deleted_at IS NULL AND created_at <= ?"
            f" AND {condition} ORDER BY seq {order} LIMIT ?",
            *(workspace, created_until, *cursors, limit),
        )
        records = [BatchRecord(**row) for row in rows]
        return records if before is None else records[::-1]

    def alive(self) -> list[BatchRecord]:
        """List every batch that was not deleted, oldest first."""
        rows = self._query(f"SELECT {_RECORDS} WHERE deleted_at IS NULL ORDER BY seq")
        return [BatchRecord(**row) for row in rows]

    def all(self, workspace: str | None = None) -> list[BatchRecord]:
        """List every batch ever accepted, oldest first, deleted ones included.

        Args:
            workspace: The workspace; `None` for all of them.
        """
        sql = f"SELECT {_RECORDS} WHERE ? IS NULL OR workspace = ? ORDER BY seq"
        return [BatchRecord(**row) for row in self._query(sql, workspace, workspace)]

    def accepted(self, batch_id: str) -> BatchRecord | None:
        """Return a batch that was ever accepted, deleted or not; `None` if there is none."""
        rows = self._query(f"SELECT {_RECORDS} WHERE id = ?", batch_id)
        return BatchRecord(**rows[0]) if rows else None

    def unanswered(self) -> list[BatchRecord]:
        """List the batches that lack answers of a server, oldest first; also those that have ended without."""
        sql = f"SELECT {_RECORDS} WHERE answered < requests ORDER BY seq"
        return [BatchRecord(**row) for row in self._query(sql)]

    def answered(self, batch_id: str) -> set[int]:
        """Return the positions of the requests of a batch that a server has answered."""
        return {row[0] for row in self._query("SELECT position FROM answers WHERE id = ?", batch_id)}

    def answer(self, batch_id: str, position: int) -> bytes | None:
        """Return the `result` of a request that a server was asked for, as JSON; `None` without one."""
        rows = self._query("SELECT result FROM answers WHERE id = ? AND position = ?", batch_id, position)
        return bytes(rows[0]["result"]) if rows else None

    def answer_types(self, batch_id: str) -> dict[str, int]:
        """Count the answers of a server to the requests of a batch, by their result types."""
        sql = "SELECT type, count(*) AS answers FROM answers WHERE id = ? GROUP BY type"
        return {row["type"]: row["answers"] for row in self._query(sql, batch_id)}

    def note_answer(self, batch_id: str, position: int, result_type: str, result: bytes, at: int) -> None:
        """Store the answer of a server to a request.

        Args:
            batch_id: The batch.
            position: The position of the request.
            result_type: The `type` of its `result`.
            result: The `result` as JSON.
            at: The instant, in microseconds.
        """
        row = {"id": batch_id, "position": position, "type": result_type, "result": result}
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert("answers", row)
            sql = "UPDATE asked SET answered = answered + 1, answered_at = ? WHERE id = ?"
            self._db.execute(sql, (at, batch_id))
            self._db.execute("COMMIT")

    def served(self, batch_id: str) -> bytes:
        """Return which result lines of a batch were served, one byte for each request; empty if none was."""
        rows = self._query("SELECT lines FROM served WHERE id = ?", batch_id)
        return bytes(rows[0]["lines"]) if rows else b""

    def note_served(self, batch_id: str, lines: bytes) -> None:
        """Store which result lines of a batch were served: one byte for each request."""
        self._query("INSERT OR REPLACE INTO served VALUES (?, ?)", batch_id, lines)

    def note_live_call(self, call: LiveCall) -> None:
        """Store a live call that is answered."""
        with self._lock:
            self._insert("live_calls", vars(call))

    def live_calls(self, workspace: str | None = None) -> list[LiveCall]:
        """List every live call ever answered, oldest first.

        Args:
            workspace: The workspace; `None` for all of them.
        """
        names = ", ".join(field.name for field in fields(LiveCall))
        sql = f"SELECT {names} FROM live_calls WHERE ? IS NULL OR workspace = ? ORDER BY seq"
        return [LiveCall(**row) for row in self._query(sql, workspace, workspace)]

    def mark(self, batch_id: str, column: str, instant: int) -> None:
        """Set an instant of a batch, such as `cancel_at`, unless it is already set."""
        self._query(f"UPDATE batches SET {column} = ? WHERE id = ? AND {column} IS NULL", instant, batch_id)

    def log(self) -> list[dict[str, Any]]:
        """List every batch ever accepted, in order, deleted ones included."""
        return [dict(row) for row in self._query("SELECT * FROM accepted ORDER BY seq")]

    def _read_outcomes(self, batch_id: str) -> bytes:
        return bytes(self._query("SELECT outcomes FROM batches WHERE id = ?", batch_id)[0]["outcomes"])

    def body_path(self, batch_id: str) -> Path:
        """The file with the create body of a batch, byte for byte. It is kept when the batch is deleted."""
        return self._bodies / f"{batch_id}.json"

    def results_path(self, batch_id: str) -> Path:
        """The file with the prepared results of a batch. If it exists it is complete. It is only a cache."""
        return self._bodies / f"{batch_id}.results"

    def read_requests(self, batch_id: str, order: list[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the position and the bytes of each request of a batch.

        Args:
            batch_id: The id of the batch.
            order: The positions in the order to read them; `None` for the submitted order.
        """
        raw = (self._bodies / f"{batch_id}.idx").read_bytes()
        count = len(raw) // 12
        offsets, lengths = array("Q", raw[: 8 * count]), array("I", raw[8 * count :])
        # pread instead of mmap, because the pages of a mapped body would count as memory of this process.
        with self.body_path(batch_id).open("rb") as file:
            for at in range(count) if order is None else order:
                yield at, os.pread(file.fileno(), lengths[at], offsets[at])

    def load_clock(self) -> tuple[int, int | None, int]:
        """Load the last saved shift, frozen_at and skew of the clock."""
        rows = self._query("SELECT shift, frozen_at, skew FROM clock")
        return (rows[0]["shift"], rows[0]["frozen_at"], rows[0]["skew"]) if rows else (0, None, 0)

    def save_clock(self, shift: int, frozen_at: int | None, skew: int) -> None:
        """Save the clock's settings, so that time does not go backwards after a restart."""
        self._query("INSERT OR REPLACE INTO clock VALUES (0, ?, ?, ?)", shift, frozen_at, skew)
