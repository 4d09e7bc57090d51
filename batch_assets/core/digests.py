"""The identity of a request, and packed sets of identities.

A request is identified by 128 bits over the exact params bytes that are sent and the headers that change
their meaning. A set of them costs 16 bytes each: Python's own would cost over 100.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

DIGEST_BYTES = 16
DIGEST_CHARACTERS = 22
# custom_id: ^[a-zA-Z0-9_-]{1,64}$; one character joins slug and digest.
SLUG_CHARACTERS = 64 - DIGEST_CHARACTERS - 1
_OUTSIDE = re.compile(r"[^a-zA-Z0-9_-]")

Digests = NDArray[np.bytes_]


def digester(headers: Mapping[str, str]) -> Any:
    """A hash primed with the headers: copy it, update it with params bytes, take its digest (16 bytes)."""
    primed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    primed.update(orjson.dumps(dict(headers), option=orjson.OPT_SORT_KEYS) + b"\n")
    return primed


def encode(digest: bytes) -> str:
    """16 bytes -> the 22 characters that end a custom_id."""
    return base64.urlsafe_b64encode(digest)[:DIGEST_CHARACTERS].decode()


def decode(custom_id: str) -> bytes | None:
    """The digest at the end of a custom_id; None when it cannot be one of ours."""
    tail = custom_id[-DIGEST_CHARACTERS:]
    if len(tail) != DIGEST_CHARACTERS or _OUTSIDE.search(tail):
        return None
    return base64.urlsafe_b64decode(tail + "==")


def slug(row_key: Any) -> str:
    """The readable part of a custom_id. Equal slugs are harmless: the digest tells requests apart."""
    return _OUTSIDE.sub("_", str(row_key))[:SLUG_CHARACTERS] or "row"


def custom_id(row_key: Any, digest: bytes) -> str:
    return f"{slug(row_key)}-{encode(digest)}"


def pack(digests: Iterable[bytes]) -> Digests:
    """Digests as one packed array."""
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST_BYTES}")


def position_in(haystack: Digests, needles: Digests) -> NDArray[np.int64]:
    """For each needle its position in a sorted array, -1 where it is not there."""
    if len(haystack) == 0:
        return np.full(len(needles), -1, dtype=np.int64)
    found = np.searchsorted(haystack, needles)
    found[found == len(haystack)] = 0
    return np.where(haystack[found] == needles, found, -1)


class DigestSet:
    """A growing set of digests in sorted runs merged as they grow: 16 bytes each, no object an item."""

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of the digests are in the set."""
        found = np.zeros(len(digests), dtype=bool)
        for run in self._runs:
            found |= position_in(run, digests) >= 0
        return found

    def add(self, digests: Digests) -> None:
        """Adds digests; those already in the set change nothing."""
        fresh = np.unique(digests)
        fresh = fresh[~self.contains(fresh)]
        if len(fresh):
            self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last, before = self._runs.pop(), self._runs.pop()
            merged = np.concatenate([before, last])
            merged.sort(kind="stable")
            self._runs.append(merged)

    def discard(self, digests: Digests) -> None:
        """Takes digests out of the set."""
        doomed = np.unique(digests)
        self._runs = [run[position_in(doomed, run) < 0] for run in self._runs]
