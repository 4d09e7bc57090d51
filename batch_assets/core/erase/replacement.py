"""Make the replacements of erased requests: a request without content, or the custom_id of another row.

An erased request keeps its position in its request file and its batch, so that every count, receipt and digest
still agrees. A request that other rows share stays; only its custom_id, which begins with a row key, may change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch_assets.core.errors import ErrorType
from batch_assets.core.store.digests import DIGEST_BYTES, DIGEST_CHARACTERS, digester, slug, tail_of
from batch_assets.core.store.follow_up_ids import SLUG_CHARACTERS, is_follow_up, replaced_id, short_slug

ERASED = ErrorType.ERASED.value
"""The text in place of a row key or a custom_id."""

_OUTSIDE = re.compile(r"[^a-zA-Z0-9_-]")
# The longest custom_id, and the lengths to which versions of this project cut the row key in it.
_MOST_CHARACTERS, _CUTS = 64, (34, 41)


@dataclass(frozen=True)
class Blank:
    """The request that takes the place of an erased one.

    Attributes:
        digest: Its digest.
        custom_id: Its custom_id.
        params: Its params, which no API accepts.
    """

    digest: bytes
    custom_id: str
    params: bytes


class Replacements:
    """Makes the replacements of erased requests. The same request always gets the same one.

    A killed run may have replaced a request in one file and not in another, so nothing here is random.

    Args:
        salt: The salt of the pipeline's record: without it, no one finds out which request was erased.
        keys: The erased row keys.
        shared: The row key of another row with the request, by the digest of each request that others share.
    """

    def __init__(self, salt: str, keys: Sequence[str], shared: Mapping[bytes, object]) -> None:
        self._salt, self._shared = salt.encode(), shared
        self._slugs = {_OUTSIDE.sub("_", key)[:cut] or "row" for key in keys for cut in _CUTS}
        self._short_slugs = set(map(short_slug, self._slugs))

    def is_shared(self, digest: bytes) -> bool:
        """Whether another row has the request too."""
        return digest in self._shared

    def blank(self, digest: bytes, custom_id: str, headers: Mapping[str, str]) -> Blank:
        """Return the request that takes the place of one that only erased rows have.

        That of a follow-up is of the same step, so that it stays known what was paid for each answer of a chain.

        Args:
            digest: The digest of the erased request.
            custom_id: Its custom_id.
            headers: The headers of its request file, which are part of the new digest.
        """
        name = hashlib.blake2b(digest, digest_size=16, key=self._salt).hexdigest()
        params = b'{"erased":"%b"}' % name.encode()
        hash_ = digester(headers)
        hash_.update(params)
        new: bytes = hash_.digest()
        is_step = is_follow_up(custom_id)
        new_id = replaced_id(custom_id, ERASED, new) if is_step else f"{ERASED}-{tail_of(new).decode()}"
        return Blank(new, new_id, params)

    def custom_id(self, digest: bytes, custom_id: str) -> str:
        """Return the custom_id of a shared request without the erased row key."""
        before = custom_id[: -DIGEST_CHARACTERS - 1]
        if is_follow_up(custom_id):
            if custom_id[:SLUG_CHARACTERS] not in self._short_slugs:
                return custom_id
            return short_slug(self._shared[digest]) + custom_id[SLUG_CHARACTERS:]
        for end in (len(before), *(at for at in range(len(before) - 1, 0, -1) if before[at] == "-")):
            if before[:end] in self._slugs:  # the longest one
                after = custom_id[end:]
                return slug(self._shared[digest])[: _MOST_CHARACTERS - len(after)] + after
        return custom_id


def padded(digest: bytes) -> bytes:
    """Return a digest in full. NumPy drops zeros at the end."""
    return digest.ljust(DIGEST_BYTES, b"\0")
