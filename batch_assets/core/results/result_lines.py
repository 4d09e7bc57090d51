"""Downloaded results: which of the requests has which line, before a line is believed to be whole."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.json_text import load_line
from batch_assets.core.store.digests import DIGEST_CHARACTERS, position_in
from batch_assets.core.store.request_lines import scan


class ResultLines:
    """Where in a downloaded file the line of each request lies.

    Args:
        raw: the file.
        tails: the last 22 characters of the requests' custom_ids, in the order of their file.

    Attributes:
        start, end: for each request in file order the bytes of its line; -1 where there is none.
        count: lines in the download; `ours`, `foreign`, `duplicates`, `missing` of them.
        whole: the download ends with a line end.
        gone: why there are none and never will be.
    """

    def __init__(self, raw: Path, tails: NDArray[np.bytes_]) -> None:
        with raw.open("rb", buffering=0) as file:
            scanned = scan(cast(BinaryIO, file), _tail)
        self.gone: str | None = None
        ends, starts, found = scanned.ends, scanned.starts, scanned.tails
        self.whole = not scanned.rest or _is_json(scanned.rest)
        if scanned.rest and self.whole:  # a last line that no newline ends
            size = raw.stat().st_size
            starts, ends = np.append(starts, size - len(scanned.rest)), np.append(ends, size)
            found = np.append(found, np.array([_tail(scanned.rest)], dtype=found.dtype))
        order = np.argsort(tails, kind="stable")
        position = position_in(tails[order], found)
        mine = position >= 0
        request = order[position[mine]]
        _, first = np.unique(request, return_index=True)
        self.start = np.full(len(tails), -1, dtype=np.int64)
        self.end = np.full(len(tails), -1, dtype=np.int64)
        self.start[request[first]] = starts[mine][first]
        self.end[request[first]] = ends[mine][first]
        self.count = len(ends)
        self.ours = len(first)
        self.foreign = int((~mine).sum())
        self.duplicates = int(mine.sum()) - self.ours
        self.missing = len(tails) - self.ours

    @classmethod
    def none(cls, requests: int, gone: str) -> ResultLines:
        """No line for any request. Args: requests: how many; gone: why."""
        lines = cls.__new__(cls)
        lines.start = lines.end = np.full(requests, -1, dtype=np.int64)
        lines.count = lines.ours = lines.foreign = lines.duplicates = 0
        lines.missing, lines.whole, lines.gone = requests, True, gone
        return lines


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
