"""Digests, which identify requests, and packed sets of digests.

A digest has 128 bits over the exact params bytes that are sent and the headers that change their meaning. In a
packed set it takes 16 bytes; in a Python set it would take over 100.
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
_MARK_CHARACTERS = 6  # see `Root.mark`
# custom_id: ^[a-zA-Z0-9_-]{1,64}$; dashes join slug, mark and digest.
SLUG_CHARACTERS = 64 - DIGEST_CHARACTERS - _MARK_CHARACTERS - 2
_OUTSIDE = re.compile(r"[^a-zA-Z0-9_-]")
_TO_SLUG = bytes(code if re.match(rb"[a-zA-Z0-9_-]", bytes([code])) else ord("_") for code in range(256))
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_NO_VALUE = 64
_VALUES = np.full(256, _NO_VALUE, dtype=np.uint8)
_VALUES[np.frombuffer(_ALPHABET, dtype=np.uint8)] = np.arange(64, dtype=np.uint8)

Digests = NDArray[np.bytes_]


def digester(headers: Mapping[str, str]) -> Any:
    """Return a hash of the headers. For a digest of 16 bytes, copy it and update the copy with params bytes."""
    primed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    primed.update(orjson.dumps(dict(headers), option=orjson.OPT_SORT_KEYS) + b"\n")
    return primed


def decode_tails(tails: NDArray[np.bytes_]) -> tuple[Digests, NDArray[np.bool_]]:
    """Decode the digests in the last 22 characters of custom_ids.

    Args:
        tails: S22, shape (n,).

    Returns:
        The digests, S16, shape (n,), and whether each tail can be from this project, bool, shape (n,). Where it
        cannot, the digest is all zeros.
    """
    characters = np.ascontiguousarray(tails).view(np.uint8).reshape(len(tails), DIGEST_CHARACTERS)
    values = _VALUES[characters]
    is_own = (values != _NO_VALUE).all(axis=1)
    values[~is_own] = 0
    # Four characters of 6 bits are three bytes. The last group has two characters, whose last 4 bits do not count.
    groups = np.zeros((len(tails), 6, 4), dtype=np.uint8)
    groups.reshape(len(tails), 24)[:, :DIGEST_CHARACTERS] = values
    decoded = np.empty((len(tails), 6, 3), dtype=np.uint8)
    decoded[:, :, 0] = groups[:, :, 0] << 2 | groups[:, :, 1] >> 4
    decoded[:, :, 1] = groups[:, :, 1] << 4 | groups[:, :, 2] >> 2
    decoded[:, :, 2] = groups[:, :, 2] << 6 | groups[:, :, 3]
    digests = np.ascontiguousarray(decoded.reshape(len(tails), 18)[:, :DIGEST_BYTES])
    return digests.view(f"S{DIGEST_BYTES}").reshape(len(tails)), is_own


def slug(row_key: Any) -> str:
    """Return the readable part of a custom_id. Equal slugs are harmless: the digest identifies the request."""
    return _slug(row_key).decode()


def _slug(row_key: Any) -> bytes:
    text = str(row_key)
    if text.isascii():
        return text[:SLUG_CHARACTERS].encode().translate(_TO_SLUG) or b"row"
    return _OUTSIDE.sub("_", text[:SLUG_CHARACTERS]).encode()


def custom_ids(row_keys: Iterable[Any], digests: Digests, mark: str) -> list[bytes]:
    """Return the custom_ids of requests: slug, mark, and the digest as 22 characters of base64url, with dashes.

    Args:
        row_keys: The first row key of each request.
        digests: S16, shape (n,).
        mark: The mark of the root, which shows in results that the root sent the request.
    """
    middle = f"-{mark}-".encode()
    return [b"%b%b%b" % (_slug(key), middle, tail) for key, tail in zip(row_keys, _encoded(digests), strict=True)]


def _encoded(digests: Digests) -> list[bytes]:
    """Return each digest as 22 characters of base64url."""
    padded = np.zeros((len(digests), 18), dtype=np.uint8)
    padded[:, :DIGEST_BYTES] = np.ascontiguousarray(digests).view(np.uint8).reshape(-1, DIGEST_BYTES)
    encoded = binascii.b2a_base64(padded.tobytes(), newline=False).translate(_TO_URL_SAFE)
    return [encoded[start : start + DIGEST_CHARACTERS] for start in range(0, len(encoded), 24)]


def with_mark(custom_id: str, mark: str) -> str:
    """Return a custom_id with the mark of the root. Those of earlier versions have none."""
    tail = f"-{custom_id[-DIGEST_CHARACTERS:]}"
    before = custom_id.removesuffix(tail)
    if before.endswith(f"-{mark}"):
        return custom_id
    return f"{before[:SLUG_CHARACTERS]}-{mark}{tail}"


def has_mark(custom_id: str, mark: str) -> bool:
    """Whether a custom_id has the mark of a root."""
    return custom_id[:-DIGEST_CHARACTERS].endswith(f"-{mark}-")


def tail_of(digest: bytes) -> bytes:
    """Return a digest as the 22 characters of base64url at the end of a custom_id."""
    return binascii.b2a_base64(digest, newline=False).translate(_TO_URL_SAFE)[:DIGEST_CHARACTERS]


def tails_of(digests: Digests) -> NDArray[np.bytes_]:
    """Return digests as the ends of custom_ids: S22, shape (n,).

    Args:
        digests: S16, shape (n,). Their zeros at the end count.
    """
    return np.array(_encoded(digests), f"S{DIGEST_CHARACTERS}")


def digests_of(primed: Any, contents: Iterable[bytes]) -> list[bytes]:
    """Return the digest of each content.

    Args:
        primed: The hash that each digest begins with, see `digester`.
        contents: The contents.
    """
    digests = []
    for content in contents:
        hash_ = primed.copy()
        hash_.update(content)
        digests.append(hash_.digest())
    return digests


def halves_of(digests: Digests) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first and the last 8 bytes of digests as numbers: uint64, shape (n,).

    They sort like the digests, and are found several times as fast.

    Args:
        digests: S16, shape (n,).
    """
    halves = np.ascontiguousarray(digests).view(">u8").reshape(-1, 2)
    return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def digests_of_halves(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Digests:
    """Return the digests that have these halves, see `halves_of`: S16, shape (n,).

    Args:
        first: uint64, shape (n,).
        second: uint64, shape (n,).
    """
    halves = np.empty((len(first), 2), ">u8")
    halves[:, 0], halves[:, 1] = first, second
    return halves.view(f"S{DIGEST_BYTES}").reshape(len(first))


def order_of(digests: Digests) -> NDArray[np.intp]:
    """Return the positions that sort digests: intp, shape (n,). Equal digests stay in their order.

    It takes a third of the time that a comparison of their bytes takes.

    Args:
        digests: S16, shape (n,).
    """
    first, second = halves_of(digests)
    order: NDArray[np.intp] = np.argsort(first, kind="stable")
    in_order = first[order]
    same = np.flatnonzero(in_order[1:] == in_order[:-1])  # different digests may have this first half
    if (second[order[same]] > second[order[same + 1]]).any():
        return np.lexsort((second, first))
    return order


def position_of_halves(haystack: NDArray[np.uint64], needles: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the position of the first number that is not less than each needle, 0 without one: intp, shape (m,).

    Args:
        haystack: uint64, shape (n,), sorted, not empty.
        needles: uint64, shape (m,).
    """
    if (needles[1:] >= needles[:-1]).all():
        position = np.searchsorted(haystack, needles)
    else:  # in order they are found faster, in memory that was read just before
        order = np.argsort(needles)
        position = np.empty(len(needles), np.intp)
        position[order] = np.searchsorted(haystack, needles[order])
    position[position == len(haystack)] = 0
    return position


def pack(digests: Iterable[bytes]) -> Digests:
    """Return digests as one packed array: S16, shape (n,)."""
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST_BYTES}")


def digests_of_tails(tails: Iterable[bytes]) -> Digests:
    """Return the digests of tails that this project wrote: S16, shape (n,)."""
    return decode_tails(np.array([*tails], f"S{DIGEST_CHARACTERS}"))[0]


def position_in(haystack: Digests, needles: Digests) -> NDArray[np.int64]:
    """Return the position of each needle in a sorted array: int64, shape (m,), -1 for a missing one.

    Args:
        haystack: S16, shape (n,), sorted.
        needles: S16, shape (m,).
    """
    if len(haystack) == 0:
        return np.full(len(needles), -1, dtype=np.int64)
    position = np.searchsorted(haystack, needles)
    position[position == len(haystack)] = 0
    return np.where(haystack[position] == needles, position, -1)


class SortedDigests:
    """Sorted digests and their first halves, by which they are found. Takes 24 bytes per digest.

    Args:
        digests: S16, shape (n,), sorted.
    """

    def __init__(self, digests: Digests) -> None:
        self.digests = digests
        self._first = halves_of(digests)[0]

    def __len__(self) -> int:
        return len(self.digests)

    def position(self, needles: Digests) -> NDArray[np.int64]:
        """Return the position of each needle: int64, shape (m,), -1 for a missing one.

        Args:
            needles: S16, shape (m,).
        """
        if len(self) == 0:
            return np.full(len(needles), -1, np.int64)
        first = halves_of(needles)[0]
        position = position_of_halves(self._first, first)
        is_found = self.digests[position] == needles
        result: NDArray[np.int64] = np.where(is_found, position, -1)
        unsure = ~is_found & (self._first[position] == first)  # several digests may have this first half
        if unsure.any():
            result[unsure] = position_in(self.digests, needles[unsure])
        return result


class DigestOwners:
    """Digests with their owners, such as request files. Takes 20 bytes per digest.

    Args:
        owned: The digests of each owner. If several owners have a digest, it belongs to the first.

    Attributes:
        requested: Whether each owner had a digest that `contains` was called with: bool, shape (owners,).
    """

    def __init__(self, owned: Sequence[Digests]) -> None:
        owners = [np.full(len(part), number, dtype=np.int32) for number, part in enumerate(owned)]
        digests: Digests = np.concatenate(owned) if owned else np.empty(0, dtype=f"S{DIGEST_BYTES}")
        order = np.argsort(digests, kind="stable")
        self._digests = digests[order]
        self._owners = np.concatenate(owners)[order] if owners else np.empty(0, dtype=np.int32)
        self.requested = np.zeros(len(owned), dtype=bool)

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each digest has an owner: bool, shape (n,). Marks the owners in `requested`.

        Args:
            digests: S16, shape (n,).
        """
        position = position_in(self._digests, digests)
        is_owned = position >= 0
        self.requested[self._owners[position[is_owned]]] = True
        return is_owned

    def of(self, digests: Digests) -> NDArray[np.int32]:
        """Return the numbers of the owners of some digests, each once: int32, shape (owners of these digests,).

        Args:
            digests: S16, shape (n,).
        """
        position = position_in(self._digests, digests)
        return np.unique(self._owners[position[position >= 0]])
