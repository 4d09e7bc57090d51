"""The custom_ids of follow-up requests, which name the request that their chain began with.

A follow-up has another text than the request that a row asked, so it has a digest of its own. But what it brings
is the answer of that row. So its custom_id ends, as that of the first request of the chain does, with the digest
of the first request, by which files and responses are matched. The rest of it is

    slug (9) - follow-ups so far (3) and a checksum (4) - own digest (16) - mark of the root (6) - digest (22)

The three digits count the follow-ups of each kind, this one included. The own digest is cut to 96 bits. Another
custom_id can have this form only if its row key has, checksum included.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.store.digests import DIGEST_CHARACTERS, slug, tail_of

_SLUG, _COUNTS, _CHECK, _OWN = 9, 3, 4, 16
_LENGTH = 64
_DASHES = [_SLUG, _SLUG + 1 + _COUNTS + _CHECK, _SLUG + 2 + _COUNTS + _CHECK + _OWN, 63 - DIGEST_CHARACTERS]
_AT_COUNTS = slice(_SLUG + 1, _SLUG + 1 + _COUNTS)
_AT_CHECK = slice(_AT_COUNTS.stop, _AT_COUNTS.stop + _CHECK)
_AT_OWN = slice(_AT_CHECK.stop + 1, _AT_CHECK.stop + 1 + _OWN)
_ZERO = ord("0")

SLUG_CHARACTERS = _SLUG
"""The length of the readable part of a follow-up's custom_id, which is filled up with underscores."""


def follow_up_id(custom_id: str, counts: NDArray[np.int8], own_digest: bytes, mark: str) -> bytes:
    """Return the custom_id of a follow-up request.

    Args:
        custom_id: That of the request whose answer it follows, which may itself be a follow-up.
        counts: The follow-ups of its chain of each kind, itself included: int8, shape (3,).
        own_digest: The digest of its headers and params.
        mark: The mark of the root.
    """
    numbers = "".join(map(str, counts.tolist()))
    own, root = tail_of(own_digest)[:_OWN].decode(), custom_id[-DIGEST_CHARACTERS:]
    name = custom_id.removesuffix(f"-{root}").removesuffix(f"-{mark}")
    return f"{short_slug(name)}-{numbers}{_check(numbers, own, root)}-{own}-{mark}-{root}".encode()


def replaced_id(custom_id: str, key: str, digest: bytes) -> str:
    """Return the custom_id of what takes the place of a follow-up: of the same step, with another key and digest.

    Args:
        custom_id: That of the follow-up.
        key: The text in place of the row key.
        digest: The digest of what takes its place, of the chain and its own.
    """
    numbers, root = custom_id[_AT_COUNTS], tail_of(digest).decode()
    own, mark = root[:_OWN], custom_id[_AT_OWN.stop + 1 : -DIGEST_CHARACTERS - 1]
    return f"{short_slug(key)}-{numbers}{_check(numbers, own, root)}-{own}-{mark}-{root}"


def short_slug(key: Any) -> str:
    """Return the readable part of a follow-up's custom_id."""
    return slug(key)[:_SLUG].ljust(_SLUG, "_")


def counts_in(custom_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int8]:
    """Return the numbers of follow-ups that custom_ids count, by kind: int8, shape (n, 3), zeros without any.

    Args:
        custom_ids: n strings, which may be null.
    """
    texts = custom_ids.combine_chunks() if isinstance(custom_ids, pa.ChunkedArray) else custom_ids
    counts = np.zeros((len(texts), _COUNTS), np.int8)
    is_long = pc.fill_null(pc.equal(pc.binary_length(texts), _LENGTH), False).to_numpy(zero_copy_only=False)
    long = np.array(texts.filter(pa.array(is_long)).to_pylist(), f"S{_LENGTH}")
    if len(long):
        numbers = np.flatnonzero(is_long)
        characters = long.view(np.uint8).reshape(len(long), _LENGTH)
        may_be = np.flatnonzero((characters[:, _DASHES] == ord("-")).all(axis=1))
        is_one = np.array([is_follow_up(long[at].decode()) for at in may_be.tolist()], bool)
        found = may_be[is_one]
        counts[numbers[found]] = characters[found, _AT_COUNTS] - _ZERO
    return counts


def is_follow_up(custom_id: str) -> bool:
    """Whether a custom_id is that of a follow-up request."""
    if len(custom_id) != _LENGTH or any(custom_id[at] != "-" for at in _DASHES):
        return False
    numbers = custom_id[_AT_COUNTS]
    check = _check(numbers, custom_id[_AT_OWN], custom_id[-DIGEST_CHARACTERS:])
    return numbers.isdecimal() and custom_id[_AT_CHECK] == check


def is_own_digest(custom_id: str, digest: bytes) -> bool:
    """Whether a custom_id is that of a follow-up request with this digest."""
    return is_follow_up(custom_id) and custom_id[_AT_OWN].encode() == tail_of(digest)[:_OWN]


def _check(numbers: str, own: str, root: str) -> str:
    return tail_of(blake2b(f"{numbers}{own}{root}".encode(), digest_size=_OWN).digest())[:_CHECK].decode()
