"""The identity of a request, and packed sets of identities.

A request is identified by 128 bits over the exact params bytes that are sent and the headers that change
their meaning. A set of them costs 16 bytes each: Python's own would cost over 100.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

DIGEST_BYTES = 16
DIGEST_CHARACTERS = 22
# custom_id: ^[a-zA-Z0-9_-]{1,64}$; one character joins slug and digest.
SLUG_CHARACTERS = 64 - DIGEST_CHARACTERS - 1
_OUTSIDE = re.compile(r"[^a-zA-Z0-9_-]")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_NO_VALUE = 64
_VALUES = np.full(256, _NO_VALUE, dtype=np.uint8)
_VALUES[np.frombuffer(_ALPHABET, dtype=np.uint8)] = np.arange(64, dtype=np.uint8)

Digests = NDArray[np.bytes_]


def digester(headers: Mapping[str, str]) -> Any:
    """A hash primed with the headers: copy it, update it with params bytes, take its digest (16 bytes)."""
    primed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    primed.update(orjson.dumps(dict(headers), option=orjson.OPT_SORT_KEYS) + b"\n")
    return primed


def decode_tails(tails: NDArray[np.bytes_]) -> tuple[Digests, NDArray[np.bool_]]:
    """The digests in the last 22 characters of many custom_ids: (digests, which of them can be ours).

    The digest of one that cannot be ours is all zeros.
    """
    characters = np.ascontiguousarray(tails).view(np.uint8).reshape(len(tails), DIGEST_CHARACTERS)
    values = _VALUES[characters]
    ours = (values != _NO_VALUE).all(axis=1)
    values[~ours] = 0
    # Four characters of 6 bits are three bytes; the last group has two characters, whose last 4 bits count not.
    groups = np.zeros((len(tails), 6, 4), dtype=np.uint8)
    groups.reshape(len(tails), 24)[:, :DIGEST_CHARACTERS] = values
    decoded = np.empty((len(tails), 6, 3), dtype=np.uint8)
    decoded[:, :, 0] = groups[:, :, 0] << 2 | groups[:, :, 1] >> 4
    decoded[:, :, 1] = groups[:, :, 1] << 4 | groups[:, :, 2] >> 2
    decoded[:, :, 2] = groups[:, :, 2] << 6 | groups[:, :, 3]
    digests = np.ascontiguousarray(decoded.reshape(len(tails), 18)[:, :DIGEST_BYTES])
    return digests.view(f"S{DIGEST_BYTES}").reshape(len(tails)), ours


def slug(row_key: Any) -> str:
    """The readable part of a custom_id. Equal slugs are harmless: the digest tells requests apart."""
    return _OUTSIDE.sub("_", str(row_key))[:SLUG_CHARACTERS] or "row"


def custom_ids(row_keys: Iterable[Any], digests: Digests) -> list[bytes]:
    """The custom_ids of requests: a readable part, a dash, the digest as 22 characters of base64url."""
    padded = np.zeros((len(digests), 18), dtype=np.uint8)
    padded[:, :DIGEST_BYTES] = np.ascontiguousarray(digests).view(np.uint8).reshape(-1, DIGEST_BYTES)
    encoded = binascii.b2a_base64(padded.tobytes(), newline=False).translate(_TO_URL_SAFE)
    tails = (encoded[start : start + DIGEST_CHARACTERS] for start in range(0, len(encoded), 24))
    return [b"%b-%b" % (slug(key).encode(), tail) for key, tail in zip(row_keys, tails, strict=True)]


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


class DigestOwners:
    """Whose a digest is, of several that have some: 20 bytes each.

    Args:
        owned: the digests of each owner. Of several with the same digest it is the first one's.

    Attributes:
        asked: which owners had a digest that was asked for.
    """

    def __init__(self, owned: Sequence[Digests]) -> None:
        owners = [np.full(len(part), number, dtype=np.int32) for number, part in enumerate(owned)]
        digests: Digests = np.concatenate(owned) if owned else np.empty(0, dtype=f"S{DIGEST_BYTES}")
        order = np.argsort(digests, kind="stable")
        self._digests = digests[order]
        self._owners = np.concatenate(owners)[order] if owners else np.empty(0, dtype=np.int32)
        self.asked = np.zeros(len(owned), dtype=bool)

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of the digests have an owner."""
        position = position_in(self._digests, digests)
        found = position >= 0
        self.asked[self._owners[position[found]]] = True
        return found
