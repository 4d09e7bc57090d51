"""Downloaded results: which of the requests has which line, before a line is believed to be whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.json_text import load_line
from batch_assets.core.store.digests import DIGEST_CHARACTERS, position_in
from batch_assets.core.store.request_lines import scan


@dataclass(frozen=True)
class ResultLines:
    """Where in a downloaded file the line of each request lies.

    Attributes:
        start, end: int64, one a request in file order: the bytes of its line; -1 where there is none.
        count: lines in the download; `ours`, `foreign`, `duplicates` of them.
        missing: requests without a line.
        whole: the download ends with a line end.
        gone: why there are none and never will be.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    count: int
    ours: int
    foreign: int
    duplicates: int
    missing: int
    whole: bool
    gone: str | None = None

    @classmethod
    def read(cls, raw: Path, tails: NDArray[np.bytes_]) -> ResultLines:
        """Finds the lines of requests in a download.

        Args:
            raw: the file.
            tails: S22, one a request: the last 22 characters of its custom_id, in the order of their file.
        """
        with raw.open("rb", buffering=0) as file:
            scanned = scan(cast(BinaryIO, file), _tail)
        ends, starts, found = scanned.ends, scanned.starts, scanned.tails
        whole = not scanned.rest or _is_json(scanned.rest)
        if scanned.rest and whole:  # a last line that no newline ends
            size = raw.stat().st_size
            starts, ends = np.append(starts, size - len(scanned.rest)), np.append(ends, size)
            found = np.append(found, np.array([_tail(scanned.rest)], dtype=found.dtype))
        order = np.argsort(tails, kind="stable")
        position = position_in(tails[order], found)
        mine = position >= 0
        request = order[position[mine]]
        _, first = np.unique(request, return_index=True)
        start = np.full(len(tails), -1, dtype=np.int64)
        end = np.full(len(tails), -1, dtype=np.int64)
        start[request[first]] = starts[mine][first]
        end[request[first]] = ends[mine][first]
        return cls(
            start,
            end,
            count=len(ends),
            ours=len(first),
            foreign=int((~mine).sum()),
            duplicates=int(mine.sum()) - len(first),
            missing=len(tails) - len(first),
            whole=whole,
        )

    @classmethod
    def none(cls, requests: int, gone: str) -> ResultLines:
        """No line for any request.

        Args:
            requests: how many.
            gone: why.
        """
        nowhere = np.full(requests, -1, dtype=np.int64)
        return cls(
            nowhere, nowhere, count=0, ours=0, foreign=0, duplicates=0, missing=requests, whole=True, gone=gone
        )


def _is_json(line: bytes) -> bool:
    try:
        load_line(line)
    except ValueError:
        return False
    return True


def _tail(line: bytes) -> bytes:
    """The last 22 characters of a line's custom_id; zeros where there is none."""
    # A line that was cut or spoiled counts as absent: it is downloaded again before it is asked again.
    try:
        custom_id = str(load_line(line)["custom_id"]).encode()
    except (ValueError, KeyError, TypeError):
        custom_id = b""
    tail = custom_id[-DIGEST_CHARACTERS:]
    return tail if len(tail) == DIGEST_CHARACTERS else b"\0" * DIGEST_CHARACTERS
