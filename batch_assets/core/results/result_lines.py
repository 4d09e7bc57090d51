"""Match the lines of a download to requests, and check that the download is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.json_text import load_line
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails, position_in
from batch_assets.core.store.request_lines import NO_TAIL, scan

# Marks a custom_id that is shorter than the end of ours. It has a character that no custom_id has.
_SHORT = b"?" * DIGEST_CHARACTERS


@dataclass(frozen=True)
class ResultLines:
    """The position of each request's line in a download.

    Attributes:
        start: The offset of each request's line, in the order of the request file, -1 without a line; int64, shape
            (requests,).
        end: The exclusive end of each line, -1 without a line; int64, shape (requests,).
        tails: The last 22 characters of each request's custom_id, zeros where it is unknown; S22, shape
            (requests,).
        count: The number of lines in the download.
        named: The number of lines with a custom_id, whoever's it is.
        ours: The number of requests that have a line.
        foreign: The number of lines that belong to no request of ours.
        duplicates: The number of lines for a request that has an earlier line. The earlier one counts.
        is_whole: Whether the download ends with a complete line.
        gone: The reason why the results no longer exist; `None` if there was a download.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    tails: NDArray[np.bytes_]
    count: int = 0
    named: int = 0
    ours: int = 0
    foreign: int = 0
    duplicates: int = 0
    is_whole: bool = True
    gone: str | None = None

    @property
    def missing(self) -> int:
        """The number of requests without a line."""
        return len(self.start) - self.ours

    @classmethod
    def none(cls, tails: NDArray[np.bytes_], gone: str) -> ResultLines:
        """Make an instance without a line for any request.

        Args:
            tails: See `find`.
            gone: Why they have no line.
        """
        nowhere = np.full(len(tails), -1, dtype=np.int64)
        return cls(nowhere, nowhere, tails, gone=gone)

    @classmethod
    def find(
        cls,
        raw: Path,
        tails: NDArray[np.bytes_],
        *,
        fill: bool = False,
        possible: Digests | None = None,
        are_certain: bool = True,
    ) -> ResultLines:
        """Find the requests' lines in a download.

        Args:
            raw: The path of the download.
            tails: The last 22 characters of the requests' custom_ids in the order of the request file, zeros for
                a line of it that was damaged; S22, shape (requests,).
            fill: Assign lines of no known request to the damaged ones, in the order of the download.
            possible: The digests that these lines may have: S16, shape (n,); `None` for any. Then the batch must
                be proved to be that of the request file.
            are_certain: The known tails are those of the request file. Otherwise a request without a line may be
                another file's, and counts as damaged if there are more lines than damaged requests.
        """
        with raw.open("rb", buffering=0) as file:
            scanned = scan(cast(BinaryIO, file), _tail)
        ends, starts, line_tails = scanned.ends, scanned.starts, scanned.tails
        is_whole = not scanned.remainder or _is_json(scanned.remainder)
        if scanned.remainder and is_whole:  # a last line without a line end
            size = raw.stat().st_size
            starts, ends = np.append(starts, size - len(scanned.remainder)), np.append(ends, size)
            line_tails = np.append(line_tails, np.array([_tail(scanned.remainder)], dtype=line_tails.dtype))
        order = np.argsort(tails, kind="stable")
        position = position_in(tails[order], line_tails)
        is_ours = (position >= 0) & (line_tails != NO_TAIL)
        request = order[position[is_ours]]
        _, first = np.unique(request, return_index=True)
        start = np.full(len(tails), -1, dtype=np.int64)
        end = np.full(len(tails), -1, dtype=np.int64)
        start[request[first]] = starts[is_ours][first]
        end[request[first]] = ends[is_ours][first]
        filled = np.empty(0, dtype=np.int64)
        blank = np.flatnonzero(~decode_tails(tails)[1])
        if fill and (len(blank) or not are_certain):
            filled = _answers_to_damaged(line_tails, is_ours, possible)
            if len(filled) > len(blank) and not are_certain:
                blank = np.flatnonzero(start < 0)
            filled = filled if len(filled) <= len(blank) else filled[:0]
            blank = blank[: len(filled)]
            start[blank], end[blank] = starts[filled], ends[filled]
            tails = tails.copy()
            tails[blank] = line_tails[filled]
        return cls(
            start,
            end,
            tails,
            count=len(ends),
            named=int((line_tails != NO_TAIL).sum()),
            ours=len(first) + len(filled),
            foreign=int((~is_ours).sum()) - len(filled),
            duplicates=int(is_ours.sum()) - len(first),
            is_whole=is_whole,
        )


def _answers_to_damaged(
    line_tails: NDArray[np.bytes_], is_ours: NDArray[np.bool_], possible: Digests | None
) -> NDArray[np.int64]:
    """Return the numbers of the lines that may answer the damaged requests, one for each tail: int64, shape (m,).

    If there are more such lines than damaged requests, some belong to no request of ours.
    """
    digests, is_digest = decode_tails(line_tails)
    spare = np.flatnonzero(~is_ours & is_digest & (True if possible is None else np.isin(digests, possible)))
    _, first = np.unique(line_tails[spare], return_index=True)
    return np.sort(spare[first])


def _is_json(line: bytes) -> bool:
    try:
        load_line(line)
    except ValueError:
        return False
    return True


def _tail(line: bytes) -> bytes:
    """Return the last 22 characters of a line's custom_id; zeros without one, `_SHORT` if it has fewer.

    A line that was cut or damaged counts as missing: it is downloaded again before its request is retried.
    """
    try:
        custom_id = str(load_line(line)["custom_id"]).encode()
    except (ValueError, KeyError, TypeError):
        return NO_TAIL
    tail = custom_id[-DIGEST_CHARACTERS:]
    return tail if len(tail) == DIGEST_CHARACTERS else _SHORT
