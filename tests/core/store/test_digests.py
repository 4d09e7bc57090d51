"""Digests, custom_ids, and packed sets of digests, which are compared with Python's sets."""

from __future__ import annotations

import base64
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.core.store import digest_set
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import (
    SortedDigests,
    custom_ids,
    decode_tails,
    digester,
    pack,
    position_in,
    slug,
)

# Few different bytes, so that equal digests, zeros at the end and zeros in the middle are common.
DIGEST = st.lists(st.sampled_from([0, 1, 255]), min_size=16, max_size=16).map(bytes) | st.binary(
    min_size=16, max_size=16
)
DIGESTS = st.lists(DIGEST, max_size=60)
KEYS = st.text() | st.integers() | st.floats() | st.none() | st.dates() | st.booleans()


def encode(digest: bytes) -> bytes:
    return base64.urlsafe_b64encode(digest)[:22]


def decode(custom_id: bytes) -> bytes | None:
    tail = custom_id[-22:]
    if not re.fullmatch(rb"[a-zA-Z0-9_-]{22}", tail):
        return None
    return base64.urlsafe_b64decode(tail + b"==")


@given(st.lists(st.tuples(KEYS, DIGEST)))
def test_a_custom_id_is_always_valid_and_ends_in_the_digest(requests: list[tuple[object, bytes]]) -> None:
    ids = custom_ids([key for key, _ in requests], pack([digest for _, digest in requests]), "ab2cd3")
    assert len(ids) == len(requests)
    for (key, digest), custom_id in zip(requests, ids, strict=True):
        assert re.fullmatch(rb"[a-zA-Z0-9_-]{1,64}", custom_id)
        assert custom_id == slug(key).encode() + b"-ab2cd3-" + encode(digest)
        assert decode(custom_id) == digest


@given(
    st.lists(
        st.binary(min_size=22, max_size=22)
        | st.text("ABCabcxyz0189-_+/= é", min_size=22, max_size=22).map(lambda text: text.encode()[:22])
        | DIGEST.map(encode)
    )
)
def test_tails_are_decoded_together_as_one_by_one(tails: list[bytes]) -> None:
    digests, ours = decode_tails(np.array(tails, dtype="S22"))
    expected = [decode(tail) for tail in tails]
    assert ours.tolist() == [digest is not None for digest in expected]
    assert digests.tobytes() == b"".join(digest or bytes(16) for digest in expected)


def test_the_slug_is_the_readable_part_of_the_row_key() -> None:
    assert slug("review 12/ä") == "review_12__"
    assert slug("") == "row"
    assert slug("x" * 100) == "x" * 34
    assert slug(7) == "7"


@given(st.lists(DIGESTS, max_size=12), DIGESTS)
@settings(max_examples=100)
def test_a_digest_set_behaves_like_a_set(added: list[list[bytes]], searched: list[bytes]) -> None:
    packed, expected = DigestSet(), set[bytes]()
    for group in added:
        packed.add(pack(group))
        expected |= set(group)
        assert len(packed) == len(expected)
    assert len(packed) == len(expected)
    assert packed.contains(pack(searched)).tolist() == [digest in expected for digest in searched]


@given(st.lists(DIGESTS, max_size=12), DIGESTS)
@settings(max_examples=100)
def test_a_large_digest_set_behaves_like_a_set(added: list[list[bytes]], searched: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digest_set, "_UNDIVIDED", 3)
        test_a_digest_set_behaves_like_a_set.hypothesis.inner_test(added, searched)  # type: ignore[attr-defined]


@given(st.lists(DIGESTS, max_size=12), DIGESTS)
@settings(max_examples=100)
def test_a_digest_set_in_a_scratch_file_behaves_like_a_set(
    added: list[list[bytes]], searched: list[bytes]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digest_set, "_IN_MEMORY", 5)
        patched.setattr(digest_set, "_FILTER_BITS", 8)
        test_a_digest_set_behaves_like_a_set.hypothesis.inner_test(added, searched)  # type: ignore[attr-defined]


@pytest.mark.parametrize("in_memory", [1, 30, 1 << 20])
@pytest.mark.parametrize("first", [b"samehalf", b"same"])
def test_digests_that_begin_alike_are_told_apart(
    first: bytes, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_set, "_IN_MEMORY", in_memory)
    packed = DigestSet()
    digests = pack([(first + number.to_bytes(1)).ljust(15, b"-") + number.to_bytes(1) for number in range(250)])
    packed.add(digests[::2])
    packed.add(digests[::5])
    assert packed.contains(digests).tolist() == [number % 2 == 0 or number % 5 == 0 for number in range(250)]


def memory_of(packed: DigestSet, times: int) -> tuple[int, int]:
    """Add 4,096 digests so many times, and return the memory that this takes, at the end and at most."""
    random = np.random.default_rng(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            packed.add(np.frombuffer(random.bytes(16 * 4096), "S16"))
        held, most = (traced - before for traced in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    return held, most


def test_a_digest_set_holds_16_bytes_for_each_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_set, "_UNDIVIDED", 10_000)
    packed = DigestSet()
    held, most = memory_of(packed, 50)
    assert len(packed) == 50 * 4096
    assert held < 17 * len(packed)
    assert most < 24 * len(packed)


def test_a_large_digest_set_holds_4_bytes_for_each_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_set, "_IN_MEMORY", 10_000)
    monkeypatch.setattr(digest_set, "_FILTER_BITS", 16)
    packed, random = DigestSet(), np.random.default_rng(0)
    packed.add(np.frombuffer(random.bytes(16 * 20_000), "S16"))  # begins the scratch file
    held, most = memory_of(packed, 120)
    assert len(packed) == 20_000 + 120 * 4096
    assert held < 4 * len(packed) + 16 * 10_000
    assert most < 4 * len(packed) + 64 * 10_000


@given(DIGESTS, DIGESTS)
def test_positions_are_those_of_a_linear_search(haystack: list[bytes], needles: list[bytes]) -> None:
    ordered = sorted(set(haystack))
    positions = position_in(pack(ordered), pack(needles)).tolist()
    assert positions == [ordered.index(needle) if needle in ordered else -1 for needle in needles]


@given(DIGESTS)
def test_numpy_orders_packed_digests_as_bytes(digests: list[bytes]) -> None:
    order = np.argsort(pack(digests), kind="stable")
    assert [digests[position] for position in order] == sorted(digests)


def _digest(headers: dict[str, str], params: bytes) -> bytes:
    hash_ = digester(headers)
    hash_.update(params)
    return bytes(hash_.digest())


def test_the_digest_depends_on_headers_and_every_byte_of_the_params() -> None:
    plain = _digest({}, b'{"a":1,"b":2}')
    assert plain == _digest({}, b'{"a":1,"b":2}')
    others = [
        _digest({}, b'{"b":2,"a":1}'),
        _digest({"anthropic-beta": "x"}, b'{"a":1,"b":2}'),
        _digest({"anthropic-beta": "y"}, b'{"a":1,"b":2}'),
        _digest({"anthropic-version": "x"}, b'{"a":1,"b":2}'),
    ]
    assert len({plain, *others}) == 5
    both = {"anthropic-beta": "x", "anthropic-version": "y"}
    assert _digest(both, b"{}") == _digest(dict(reversed(both.items())), b"{}")


@given(DIGESTS, DIGESTS)
def test_digests_are_found_by_their_halves_as_by_all_their_bytes(held: list[bytes], wanted: list[bytes]) -> None:
    haystack, needles = np.unique(pack(held)), pack([*wanted, *held])

    position = SortedDigests(haystack).position(needles)

    assert position.tolist() == position_in(haystack, needles).tolist()
