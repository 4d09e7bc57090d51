"""Find the blocks of the prompt that all requests share: at their end the prompt cache gets a breakpoint.

The params of the requests are compared as bytes: what they all begin with, and what they all end with. That takes
far less time than the digests do. Only the params of the first request are parsed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from batch_assets.core.requests.token_rates import characters_per_token, least_cached_tokens
from batch_assets.core.store.breakpoints import (
    BLOCK_ENDS,
    BLOCK_STARTS,
    CACHE_CONTROL,
    Breakpoint,
    Insert,
    checksum_of,
)

# https://platform.claude.com/docs/en/build-with-claude/prompt-caching
_MOST_BREAKPOINTS = 4
_FIELD = b'"cache_control"'  # within a text its quotes are escaped
# Fields that may differ between requests that read the same prompt from the cache. Others must not.
_APART_FROM_PROMPT = frozenset(("max_tokens", "metadata", "stop_sequences", "service_tier"))
_MARKABLE = frozenset(("text", "image", "document", "tool_use", "tool_result", "search_result"))
_MEDIA = ("image", "document")
_MEDIA_CHARACTERS = 2_000  # an image of the usual size has more tokens than that, a page of a document too
_decoder = json.JSONDecoder()


class _Value(NamedTuple):
    """A JSON value in the params of the first request, from `start` to `end`."""

    start: int
    end: int
    value: Any


class _Block(NamedTuple):
    """A block of the prompt. A text in the place of blocks is one as well.

    Attributes:
        place: The block in the params of the first request.
        is_shared: Whether all requests have it.
        shared_from: Where its field begins, if it is in what all end with; `None` if it is in what all begin with.
        is_tool: Whether it is a tool.
    """

    place: _Value
    is_shared: bool
    shared_from: int | None
    is_tool: bool


class SharedPrompt:
    """What the requests of one set of headers share.

    Args:
        may_lack_fields: Whether requests may have different fields, so that each has to be parsed.

    Attributes:
        requests: The number of requests.
    """

    def __init__(self, *, may_lack_fields: bool) -> None:
        self._may_lack_fields = may_lack_fields
        self._first = self._start = self._end = b""
        self._fields: list[str] = []
        self._has_same_fields = True
        self._most_breakpoints = 0
        self.requests = 0

    def add(self, params: Sequence[bytes]) -> None:
        """Add requests.

        Args:
            params: Their params, as they are sent.
        """
        if not self.requests and params:
            self._first = self._start = self._end = params[0]
        self.requests += len(params)
        start, end = self._start, self._end
        for body in params:
            if not body.startswith(start):
                start = start[: _common(start, body)]
            if not body.endswith(end):
                end = end[len(end) - _common_end(end, body) :]
            if _FIELD in body:
                self._most_breakpoints = max(self._most_breakpoints, body.count(_FIELD))
        self._start, self._end = start, end
        if self._may_lack_fields and self._has_same_fields:
            self._compare_fields(params)

    def _compare_fields(self, params: Sequence[bytes]) -> None:
        for body in params:
            fields = [*orjson.loads(body)]
            self._fields = self._fields or fields
            self._has_same_fields &= fields == self._fields

    def find(self) -> Breakpoint | str:
        """Return the breakpoint, or why there is none, as a clause."""
        if not self._has_same_fields:
            return "they have different fields"
        try:
            return self._find(_members(self._first.decode("latin-1"), 0))
        except (ValueError, IndexError, KeyError, RecursionError):  # no params of the Messages API
            return "their params cannot be compared"

    def _find(self, fields: dict[str, _Value]) -> Breakpoint | str:
        differing = [name for name in fields if not self._is_shared(name, fields[name])]
        if outside := [name for name in differing if name not in _APART_FROM_PROMPT | {"system", "messages"}]:
            return f"they differ in {outside[0]}, so no request reads what another one writes"
        blocks: list[_Block] = []
        for block in self._blocks(fields, differing):
            if not block.is_shared:
                break
            blocks.append(block)
        while blocks and not _is_markable(blocks[-1]):
            blocks.pop()
        if not blocks:
            different = ", ".join(differing)
            return (
                f"no block of the prompt is the same in all, and they differ in {different}: put what they share "
                "into `system`, and fields that depend on the row after it"
            )
        return self._breakpoint_after(blocks, str(fields["model"].value))

    def _breakpoint_after(self, blocks: list[_Block], model: str) -> Breakpoint | str:
        """Return the breakpoint at the end of the last of the shared blocks."""
        tokens = int(sum(map(_characters, blocks)) / characters_per_token(model))
        least = least_cached_tokens(model)
        if tokens < least:
            return (
                f"the blocks that they share have about {tokens:,} tokens, and {model} caches {least:,} at least"
            )
        ttls = [ttl for block in blocks if (ttl := _ttl(block.place.value)) is not None]
        if _ttl(blocks[-1].place.value) is not None:
            return "params already have `cache_control` there"
        if any(ttl != "1h" for ttl in ttls):
            return "params have a `cache_control` of 5 minutes before, and the API takes none of an hour then"
        if self._most_breakpoints >= _MOST_BREAKPOINTS:
            return f"params already have {self._most_breakpoints} `cache_control`, the most that the API takes"
        return self._at(blocks[-1], tokens)

    def _at(self, block: _Block, tokens: int) -> Breakpoint:
        """Return the breakpoint at the end of a block."""
        place, is_at_end = block.place, block.shared_from is not None
        back = len(self._first) if is_at_end else 0
        if isinstance(place.value, str):
            inserts = [
                Insert(at=place.start - back, text=BLOCK_STARTS),
                Insert(at=place.end - back, text=BLOCK_ENDS),
            ]
        else:
            inserts = [Insert(at=place.end - 1 - back, text=CACHE_CONTROL)]
        shared = self._first[block.shared_from :] if is_at_end else self._first[: place.end]
        length = -len(shared) if is_at_end else len(shared)
        return Breakpoint(inserts=inserts, shared=length, checksum=checksum_of(shared), tokens=tokens)

    def _is_shared(self, name: str, field: _Value) -> bool:
        # With what comes after it: a number may have more digits.
        return field.end < len(self._start) or _begin(name, field) >= len(self._first) - len(self._end)

    def _is_at_start(self, place: _Value) -> bool:
        """Whether a block is in what all begin with. Its last character ends it."""
        return place.end <= len(self._start)

    def _blocks(self, fields: dict[str, _Value], differing: list[str]) -> Iterator[_Block]:
        """Yield the blocks of the prompt in the order in which the cache reads them."""
        text = self._first.decode("latin-1")
        for name in ("tools", "system"):
            if (field := fields.get(name)) is None or not field.value:
                continue
            is_at_end = name not in differing and not self._is_at_start(field)
            shared_from = _begin(name, field) if is_at_end else None
            places = [field] if isinstance(field.value, str) else _items(text, field.start)
            for place in places:
                is_shared = is_at_end or self._is_at_start(place)
                yield _Block(place, is_shared, shared_from, name == "tools")
        for message in _items(text, fields["messages"].start):
            members = _members(text, message.start)
            content, role = members["content"], members["role"]
            places = [content] if isinstance(content.value, str) else _items(text, content.start)
            for place in places:
                is_shared = self._is_at_start(role) and self._is_at_start(place)
                yield _Block(place, is_shared, None, False)


def _is_markable(block: _Block) -> bool:
    """Whether the API takes `cache_control` in a block."""
    value = block.place.value
    if isinstance(value, str):
        return bool(value.strip())
    if not isinstance(value, dict) or not value:
        return False
    if block.is_tool:
        return not value.get("defer_loading")
    return value.get("type") in _MARKABLE and value.get("text") != ""


def _ttl(block: Any) -> str | None:
    """Return the ttl of the `cache_control` that the author has put into a block; `None` without one."""
    control = block.get("cache_control") if isinstance(block, dict) else None
    return str(control.get("ttl") or "5m") if isinstance(control, dict) else None


def _characters(block: _Block) -> int:
    value = block.place.value
    if isinstance(value, dict) and value.get("type") in _MEDIA:
        return _MEDIA_CHARACTERS
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("latin-1", "replace").decode(errors="replace"))


def _common(first: bytes, second: bytes) -> int:
    """Return how many bytes two texts have in common at their start."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(first: bytes, second: bytes) -> int:
    """Return how many bytes two texts have in common at their end."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[len(first) - middle : len(first) - low] == second[len(second) - middle : len(second) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _begin(name: str, field: _Value) -> int:
    """Return the position of the comma or brace before the name of a field."""
    return field.start - len(f',"{name}":')


def _value(text: str, at: int) -> _Value:
    value, end = _decoder.raw_decode(text, at)
    return _Value(at, end, value)


def _members(text: str, at: int) -> dict[str, _Value]:
    """Return the members of the compact JSON object that begins at a position, by name."""
    members: dict[str, _Value] = {}
    while text[at] != "}":
        name = _value(text, at + 1)
        members[name.value] = member = _value(text, name.end + 1)
        at = member.end
    return members


def _items(text: str, at: int) -> list[_Value]:
    """Return the items of the compact JSON list that begins at a position."""
    items: list[_Value] = []
    if text[at + 1] == "]":
        return items
    while text[at] != "]":
        items.append(_value(text, at + 1))
        at = items[-1].end
    return items
