"""What requests share, and where the breakpoint of the prompt cache goes."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.requests.shared_prompt import SharedPrompt
from batch_assets.core.store.breakpoints import MOST_BYTES_ADDED, Breakpoint, BreakpointWriter
from batch_assets.core.store.request_lines import make_lines

MODEL = "claude-haiku-5-5"
LONG = "Shared by all rows, é€. " * 100  # 2,400 characters: about 960 tokens, and the model caches 512
HOUR = {"type": "ephemeral", "ttl": "1h"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def request(row: int, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 10, **fields, "messages": [user(f"row {row}")]}


def find(*requests: dict[str, Any], may_lack_fields: bool = False) -> Breakpoint | str:
    shared = SharedPrompt(may_lack_fields=may_lack_fields)
    for params in requests:
        shared.add([orjson.dumps(params)])
    return shared.find()


def written(breakpoint: Breakpoint, *requests: dict[str, Any], chunk: int = 1 << 18) -> list[dict[str, Any]]:
    """The params with the breakpoint, as they are sent."""
    ids = [f"row-{number}".encode() for number in range(len(requests))]
    content = b"".join(make_lines(ids, map(orjson.dumps, requests)))
    writer = BreakpointWriter(breakpoint)
    body = b"".join(writer.written(content[at : at + chunk]) for at in range(0, len(content), chunk))
    assert len(body) == len(content) - 1 + breakpoint.bytes_added * len(requests)
    return [each["params"] for each in orjson.loads(b"[" + body + b"]")]


def without_marks(value: Any) -> Any:
    """Params without `cache_control`, with texts in the place of lists of one text."""
    if isinstance(value, list):
        items = [without_marks(item) for item in value]
        is_text = len(items) == 1 and isinstance(items[0], dict) and items[0].keys() == {"type", "text"}
        return items[0]["text"] if is_text else items
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != "cache_control"}
    return value


SHAPES: dict[str, tuple[Any, list[Any]]] = {
    "a system prompt": (lambda row: request(row, system=LONG), ["system", 0]),
    "blocks of a system prompt": (lambda row: request(row, system=[text("a"), text(LONG)]), ["system", 1]),
    "a system prompt after the messages": (
        lambda row: {"model": MODEL, "messages": [user(f"row {row}")], "system": LONG, "max_tokens": 10},
        ["system", 0],
    ),
    "a system prompt whose end depends on the row": (
        lambda row: request(row, system=[text(LONG), text(f"language {row}")]),
        ["system", 0],
    ),
    "tools, and a system prompt that depends on the row": (
        lambda row: request(row, tools=[{"name": "t", "description": LONG}], system=f"row {row}"),
        ["tools", 0],
    ),
    "tools after the messages": (
        lambda row: {**request(row, system="s"), "tools": [{"name": "t", "description": LONG}]},
        ["system", 0],
    ),
    "a block before the row's": (
        lambda row: {"model": MODEL, "max_tokens": 10, "messages": [user([text(LONG), text(f"row {row}")])]},
        ["messages", 0, "content", 0],
    ),
    "messages before the row's": (
        lambda row: {
            "model": MODEL,
            "max_tokens": 10,
            "messages": [user(LONG), {"role": "assistant", "content": "Yes."}, user(f"row {row}")],
        },
        ["messages", 1, "content", 0],
    ),
    "a max_tokens that depends on the row": (
        lambda row: {"model": MODEL, "system": LONG, "max_tokens": 10**row, "messages": [user(f"row {row}")]},
        ["system", 0],
    ),
    "a breakpoint of the author after it": (
        lambda row: {
            "model": MODEL,
            "max_tokens": 10,
            "system": LONG,
            "messages": [user([text(f"row {row}", cache_control={"type": "ephemeral"})])],
        },
        ["system", 0],
    ),
    "a breakpoint of the author before it": (
        lambda row: request(row, system=[text(LONG, cache_control=HOUR), text("more")]),
        ["system", 1],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_the_breakpoint_is_at_the_end_of_the_last_shared_block(shape: str, chunk: int) -> None:
    make, path = SHAPES[shape]
    requests = [make(row) for row in range(1, 5)]
    breakpoint = find(*requests)
    assert isinstance(breakpoint, Breakpoint), breakpoint
    assert breakpoint.bytes_added <= MOST_BYTES_ADDED
    for before, after in zip(requests, written(breakpoint, *requests, chunk=chunk), strict=True):
        block = after
        for key in path:
            block = block[key]
        assert block["cache_control"] == HOUR
        added = str(after).count("cache_control") - str(before).count("cache_control")
        assert added == 1
        assert without_marks(after) == without_marks(before)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda row: request(row, system="short"), "haiku-5-5 caches 512 at least"),
        (lambda row: request(row, system=f"{row} {LONG}"), "differ in system, messages"),
        (lambda row: {**request(row, system=LONG), "model": f"claude-opus-4-{row}"}, "they differ in model"),
        (lambda row: request(row, system=LONG, tool_choice={"type": ["any", "auto"][row % 2]}), "tool_choice"),
        (lambda row: request(row, system=[text(LONG, cache_control=HOUR)]), "already have `cache_control` there"),
        (
            lambda row: request(row, system=[text(LONG, cache_control={"type": "ephemeral"}), text("more")]),
            "of 5 minutes before",
        ),
        (
            lambda row: request(row, system=[*[text("x", cache_control=HOUR)] * 4, text(LONG)]),
            "already have 4 `cache_control`",
        ),
    ],
)
def test_there_is_none_and_the_reason_is_told(make: Any, why: str) -> None:
    found = find(*map(make, range(1, 5)))
    assert isinstance(found, str) and why in found


def test_requests_whose_fields_code_changes_are_compared_one_by_one() -> None:
    tools = [{"name": "t", "description": "d"}]
    first, other = request(1, system=LONG), request(2, system=LONG, tools=tools)
    assert find(first, other, may_lack_fields=True) == "they have different fields"
    assert isinstance(find(first, request(2, system=LONG), may_lack_fields=True), Breakpoint)


def test_a_request_that_does_not_share_it_is_refused() -> None:
    breakpoint = find(*(request(row, system=LONG) for row in range(3)))
    assert isinstance(breakpoint, Breakpoint)
    with pytest.raises(DamagedFileError):
        written(breakpoint, request(1, system=LONG), request(2, system=LONG + "."))
    with pytest.raises(DamagedFileError):
        written(breakpoint, request(1, system="." + LONG))


words = st.text(max_size=8) | st.just(LONG)
blocks = st.lists(st.builds(text, words), min_size=1, max_size=3)


@given(st.lists(st.tuples(words | blocks, words | blocks, st.booleans()), min_size=2, max_size=4))
def test_whatever_requests_look_like_a_breakpoint_changes_nothing_else(rows: list[Any]) -> None:
    requests = []
    for system, content, is_first in rows:
        fields = {"model": MODEL, "max_tokens": 1}
        asked = {"messages": [user(content)]}
        requests.append(
            {**fields, **asked, "system": system} if is_first else {**fields, "system": system, **asked}
        )
    requests = [each for each in requests if list(each) == list(requests[0])]
    breakpoint = find(*copy.deepcopy(requests))
    if isinstance(breakpoint, Breakpoint):
        for before, after in zip(requests, written(breakpoint, *requests), strict=True):
            assert str(after).count("cache_control") == 1
            assert without_marks(after) == without_marks(before)
