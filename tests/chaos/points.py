"""Kill positions: before every I/O call of the code under test, and after those that change what others see.

An end just after a call equals an end just before the next one. The code under test knows nothing of this: the
interpreter's profile hook sees calls of C functions from any thread. What C++ writes on its own, such as the
pages of a Parquet file, is seen as the call of the writer; kills at random times hit the inside of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.parquet as pq

# Functions by their module, methods of C classes by their qualified name.
_FUNCTIONS = {
    "posix": {"open", "close", "fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir"},
    "io": {"open"},
    "_io": {"open"},
}
_METHODS = {
    "BufferedWriter.write",
    "BufferedWriter.close",
    "FileIO.write",
    "FileIO.close",
    "socket.connect",
    "socket.send",
    "socket.sendall",
    "socket.recv",
    "socket.recv_into",
}
_EXECUTE, _COMMIT = "Cursor.execute", "Connection.commit"
_WRITES = ("BEGIN IMMEDIATE", "INSERT", "UPDATE", "DELETE", "CREATE", "PRAGMA JOURNAL_MODE")
_ALSO_AFTER = {"commit", "replace", "socket.send", "ParquetWriter.close"}
# Calls that are not C functions for the interpreter.
_CODES = {
    pq.ParquetWriter.__init__.__code__: "ParquetWriter",
    pq.ParquetWriter.write_table.__code__: "ParquetWriter.write_table",
    pq.ParquetWriter.close.__code__: "ParquetWriter.close",
}
_BEFORE = ("call", "c_call")
_LOOK_SECONDS = 0.005


class Points:
    """Counts the kill positions of this process, and kills or holds it at one of them.

    Args:
        kill_at: Number of the position, from 1; or two names: the first position of the second name that comes
            after one of the first; None: only count.
        last_words: A file that gets the position's name just before the end.
        go_on: A file. The process is not killed but waits until this file exists; its parent freezes it meanwhile.
            It waits at the next position where it holds no lock on the ledger, which would freeze with it.

    Attributes:
        names: The name of each position passed so far.
    """

    def __init__(self, kill_at: int | Sequence[str] | None, last_words: Path, go_on: Path | None = None) -> None:
        self.names: list[str] = []
        self._kill_at, self._last_words, self._go_on = kill_at, last_words, go_on
        self._writing: set[int] = set()  # threads inside a transaction that writes
        self._statement: dict[int, bool] = {}  # threads inside an execute: whether it counts

    def install(self) -> None:
        """Start counting, in this thread and in those that begin later."""
        threading.setprofile(self._in_thread)
        sys.setprofile(self._see)

    def remove(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _in_thread(self, frame: FrameType, event: str, arg: Any) -> None:
        # A lease is renewed by the clock, so its positions would be different in every run.
        renewing = threading.current_thread().name.startswith("lease ")
        sys.setprofile(None if renewing else self._see)

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" or event == "return":
            name = _CODES.get(frame.f_code)
        else:
            name = self._c_function(frame, event, arg)
        before = event in _BEFORE
        if name is None or not (before or name in _ALSO_AFTER):
            return
        self.names.append(f"{'before' if before else 'after'} {name}")
        if self._is_due():
            self._kill_at = None
            sys.setprofile(None)
            self._last_words.write_text(self.names[-1])
            if self._go_on is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                while not self._go_on.exists():
                    time.sleep(_LOOK_SECONDS)

    def _is_due(self) -> bool:
        if self._go_on is not None and self._writing:
            return False
        if self._kill_at is None:
            return False
        if isinstance(self._kill_at, int):
            return len(self.names) == self._kill_at or (
                self._go_on is not None and len(self.names) > self._kill_at
            )
        begins, ends = self._kill_at
        return self.names[-1] == ends and begins in self.names

    def _c_function(self, frame: FrameType, event: str, arg: Any) -> str | None:
        name: str = arg.__qualname__
        if name == _EXECUTE:
            return self._execute(frame, event)
        if name == _COMMIT:
            return self._commit(event)
        if name in _METHODS or name in _FUNCTIONS.get(arg.__module__ or "", ()):
            return name
        return None

    def _execute(self, frame: FrameType, event: str) -> str | None:
        thread = threading.get_ident()
        if event == "c_call":
            statement = str(frame.f_locals.get("statement", "")).lstrip().upper()
            self._statement[thread] = statement.startswith(_WRITES)
            if statement.startswith("BEGIN IMMEDIATE"):
                self._writing.add(thread)
        return "execute" if self._statement.get(thread) else None

    def _commit(self, event: str) -> str | None:
        """A commit counts if it ends a transaction that writes, and not if the transaction only reads."""
        thread = threading.get_ident()
        if thread not in self._writing:
            return None
        if event != "c_call":
            self._writing.discard(thread)
        return "commit"
