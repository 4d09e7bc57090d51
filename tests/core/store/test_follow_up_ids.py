"""The custom_ids of follow-ups: what they say, and that no other custom_id is taken for one."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.core.store.digests import custom_ids, pack, with_mark
from batch_assets.core.store.follow_up_ids import counts_in, follow_up_id, is_follow_up, is_own_digest

_DIGEST, _OWN = (blake2b(text, digest_size=16).digest() for text in (b"first", b"second"))
_ID = st.text("abcdefghij-_0123456789", min_size=1, max_size=70)


def ordinary(key: str) -> str:
    return custom_ids([key], pack([_DIGEST]), "marked")[0].decode()


def following(custom_id: str, *counts: int) -> str:
    return follow_up_id(custom_id, np.array(counts, np.int8), _OWN, "marked").decode()


@given(_ID, st.tuples(*[st.integers(0, 9)] * 3))
def test_it_has_counts_the_first_digest_and_its_own(key: str, counts: tuple[int, int, int]) -> None:
    first = ordinary(key)
    custom_id = following(first, *counts)
    assert len(custom_id) == 64 and custom_id[-22:] == first[-22:]
    assert custom_id[:9] == key[:9].ljust(9, "_")
    assert is_follow_up(custom_id) and is_own_digest(custom_id, _OWN) and not is_own_digest(custom_id, _DIGEST)
    assert with_mark(custom_id, "marked") == custom_id
    again = following(custom_id, 9, 9, 9)
    assert (again[:9], again[-22:]) == (custom_id[:9], custom_id[-22:])
    read = counts_in(pa.array([first, custom_id, None, again, "short"]))
    assert read.tolist() == [[0] * 3, [*counts], [0] * 3, [9] * 3, [0] * 3]


@given(_ID)
def test_another_custom_id_is_not_one(key: str) -> None:
    assert not is_follow_up(ordinary(key))
    copied = ordinary(
        following(ordinary(key), 1, 0, 0)[:34]
    )  # a row key in the form of another request's custom_id
    assert is_follow_up(copied)  # only with the checksum of the same digest
    assert not is_follow_up(copied[:11] + ("3" if copied[11] != "3" else "4") + copied[12:])
    assert not is_follow_up(copied[:-1] + ("A" if copied[-1] != "A" else "B"))
