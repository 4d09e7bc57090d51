"""What takes the place of an erased request."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from batch_assets.core.erase.replacement import Replacements
from batch_assets.core.store.digests import DIGEST_BYTES, DIGEST_CHARACTERS

_DIGEST = b"d" * DIGEST_BYTES
_TAIL = "t" * DIGEST_CHARACTERS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a", "new"),
        ("a-b", "new"),  # the longest key
        ("a-b-c", "new-c"),
        ("a-c", "new-c"),
        ("ab", "ab"),
        ("b", "b"),
        ("-a", "-a"),
        ("a_b", "new"),
        ("row", "row"),
    ],
)
def test_the_erased_key_at_the_start_of_a_custom_id_is_replaced(before: str, after: str) -> None:
    replacements = Replacements("salt", ["a", "a-b", "a b"], {_DIGEST: "new"})
    assert replacements.custom_id(_DIGEST, f"{before}-{_TAIL}") == f"{after}-{_TAIL}"


def instructions(keys: int) -> int:
    """The instructions that it takes to replace the key in one custom_id."""
    replacements = Replacements("salt", [f"key{number}" for number in range(keys)], {_DIGEST: "new"})
    steps = 0

    def see(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        steps += event == "opcode"
        return see

    before = sys.gettrace()
    sys.settrace(see)
    try:
        replacements.custom_id(_DIGEST, f"key1-{_TAIL}")
    finally:
        sys.settrace(before)
    return steps


def test_many_erased_keys_take_no_more_work_for_each_custom_id() -> None:
    assert instructions(10) == instructions(200)
