"""Finding lines and custom_ids in large blocks, compared with reading line by line."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.core.store import request_lines
from batch_assets.core.store.request_lines import scan

IDS = st.text("ab-_09", min_size=1, max_size=64) | st.text(max_size=30) | st.text("x", min_size=60, max_size=90)
ENTRIES = st.fixed_dictionaries({"custom_id": IDS, "result": st.fixed_dictionaries({"x": st.text(max_size=40)})})
LINES = (
    ENTRIES.map(orjson.dumps)
    | ENTRIES.map(lambda entry: orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)[:-5])
    | ENTRIES.map(lambda entry: orjson.dumps({"first": 1, **entry}))
    | st.binary(max_size=90).map(lambda raw: raw.replace(b"\n", b""))
)


def marked(line: bytes) -> bytes:
    """The tail that the caller gives to a line without the usual form."""
    return b"?" * 20 + b"%02d" % (len(line) % 100)


def one_by_one(line: bytes) -> bytes:
    quote = line.find(b'"', 14)
    is_usual = line.startswith(b'{"custom_id":"') and line.endswith(b"}\n") and 14 + 22 <= quote <= 14 + 64
    return line[quote - 22 : quote] if is_usual else marked(line)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@given(lines=st.lists(LINES, max_size=12), rest=LINES | st.just(b""))
def test_a_scan_finds_the_same_as_a_loop_over_the_lines(chunk: int, lines: list[bytes], rest: bytes) -> None:
    content = b"".join(line + b"\n" for line in lines) + rest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_lines, "_CHUNK", chunk)
        result = scan(io.BytesIO(content), marked)
    with_newlines = [line + b"\n" for line in lines]
    sizes = [len(line) for line in with_newlines]
    assert result.ends.tolist() == np.cumsum(sizes, dtype=np.int64).tolist()
    assert result.starts.tolist() == [end - size for end, size in zip(result.ends.tolist(), sizes, strict=True)]
    expected: Any = np.array([one_by_one(line) for line in with_newlines], dtype="S22")
    assert result.tails.tolist() == expected.tolist()
    assert result.remainder == rest
