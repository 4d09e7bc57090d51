"""The prompt cache: which requests write and read which prefixes of prompts.

A request with `cache_control` marks reads the longest prefix that an earlier request of the workspace has written
or read, up to one of its marks or one of the 20 blocks before, and writes the rest up to its last mark. A prefix
can be read once the request that has written it is processed, for 5 minutes or an hour after its last use. The
requests of a batch are processed at the same time, so they do not read what the others of the batch write. A
prefix that is too short for its model is neither written nor read.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from batch_assets.emulator.models import MODELS
from batch_assets.emulator.tokens import (
    block_tokens,
    framing_tokens,
    has_texts_only,
    prompt_blocks,
    prompt_tokens,
    ttl_of,
)

TTL_SECONDS = {"5m": 300, "1h": 3600}
"""How long a prefix can be read after its last use."""
_MOST_MARKS = 4
_LOOKBACK = 20
# Params that change what the model sees before or beside the blocks. Others, such as max_tokens, do not matter.
_OUTSIDE = ("model", "output_config", "output_format", "thinking", "tool_choice", "inference_geo")


class Prefix(NamedTuple):
    """The beginning of a prompt, up to the end of a block.

    Attributes:
        digest: What identifies it.
        tokens: Its tokens.
        ttl: The ttl of the mark at its end; `None` without one.
    """

    digest: bytes
    tokens: int
    ttl: str | None


@dataclass(frozen=True)
class CacheUse:
    """A prefix that a request of a batch writes or reads.

    Attributes:
        prefix: What identifies the prefix.
        position: The position of the first such request.
        seconds: How long the prefix can be read after that.
    """

    prefix: bytes
    position: int
    seconds: int


class BatchCaching:
    """What the requests of one batch read and write.

    Args:
        is_warm: Whether a prefix can be read.

    Attributes:
        reads: The tokens that each request reads, as uint32.
    """

    def __init__(self, is_warm: Callable[[bytes], bool]) -> None:
        self._is_warm, self._known = is_warm, dict[bytes, bool]()
        self._uses: dict[bytes, CacheUse] = {}
        self.reads = array("I")

    @property
    def uses(self) -> list[CacheUse]:
        """The prefixes that its requests use, each once."""
        return [*self._uses.values()]

    def add(self, params: Mapping[str, Any], *, is_answered: bool) -> None:
        """Add the next request.

        Args:
            params: Its params.
            is_answered: Whether it is going to be answered. Otherwise its params may be invalid.
        """
        prefixes = marked_prefixes(params) if is_answered else []
        if not prefixes:
            self.reads.append(0)
            return
        read = next((prefix for prefix in reversed(_readable(prefixes)) if self._can_be_read(prefix.digest)), None)
        position = len(self.reads)
        self.reads.append(read.tokens if read is not None else 0)
        used = [prefix for prefix in prefixes if prefix.ttl is not None]
        for prefix in used:
            self._use(prefix.digest, position, TTL_SECONDS[prefix.ttl or "5m"])
        if read is not None and read.ttl is None:  # a block before a mark, which reading keeps warm
            self._use(read.digest, position, TTL_SECONDS["5m"])

    def _can_be_read(self, prefix: bytes) -> bool:
        if prefix not in self._known:
            self._known[prefix] = self._is_warm(prefix)
        return self._known[prefix]

    def _use(self, prefix: bytes, position: int, seconds: int) -> None:
        self._uses.setdefault(prefix, CacheUse(prefix, position, seconds))


def _readable(prefixes: list[Prefix]) -> list[Prefix]:
    """The prefixes that end at a mark or at most 20 blocks before one."""
    marks = [number for number, prefix in enumerate(prefixes) if prefix.ttl is not None]
    return [
        prefix
        for number, prefix in enumerate(prefixes)
        if any(number <= mark <= number + _LOOKBACK for mark in marks)
    ]


def marked_prefixes(params: Mapping[str, Any]) -> list[Prefix]:
    """Return the prefixes of a prompt up to its last mark that are long enough; empty without a mark."""
    if "cache_control" not in params and has_texts_only(params):
        return []
    blocks = [*prompt_blocks(params)]
    has_mark = any(not isinstance(block, str) and ttl_of(block) is not None for _, block in blocks)
    automatic = ttl_of(params)
    if not has_mark and automatic is None:
        return []
    outside = {name: params.get(name) for name in _OUTSIDE}
    hash_ = hashlib.blake2b(orjson.dumps(outside, option=orjson.OPT_SORT_KEYS), digest_size=16)
    least = MODELS[params["model"]].min_cache_tokens
    prefixes, tokens = list[Prefix](), framing_tokens(params)
    for number, (role, block) in enumerate(blocks):
        form = {"type": "text", "text": block} if isinstance(block, str) else block
        hash_.update(orjson.dumps([role, {key: form[key] for key in form if key != "cache_control"}]))
        tokens += block_tokens(block)
        ttl = ttl_of(form)
        if number == len(blocks) - 1 and ttl is None:
            ttl = automatic
        if tokens >= least:
            prefixes.append(Prefix(hash_.digest(), tokens, ttl))
    marks = [number for number, prefix in enumerate(prefixes, 1) if prefix.ttl is not None]
    return prefixes[: marks[-1]] if marks else []


def cache_usage(params: Mapping[str, Any], read: int) -> dict[str, Any]:
    """Return the tokens of a prompt by what the cache does with them, as in `usage`.

    Args:
        params: The params of the request.
        read: The tokens that it reads.
    """
    prompt = prompt_tokens(params)
    model = MODELS.get(params["model"])
    written = dict.fromkeys(TTL_SECONDS, 0)
    until = read
    for mark in prompt.marks:
        if model is not None and mark.tokens < model.min_cache_tokens:
            continue
        written[mark.ttl] += max(0, mark.tokens - until)
        until = max(until, mark.tokens)
    return {
        "input_tokens": prompt.total - until,
        "cache_creation_input_tokens": sum(written.values()),
        "cache_read_input_tokens": read,
        "cache_creation": {f"ephemeral_{ttl}_input_tokens": tokens for ttl, tokens in written.items()},
    }


def marks_problem(params: Mapping[str, Any]) -> str | None:
    """Return the API's text about marks that it refuses; `None` if it accepts all."""
    if "cache_control" not in params and has_texts_only(params):
        return None
    ttls = [ttl for _, block in prompt_blocks(params) if isinstance(block, dict) and (ttl := ttl_of(block))]
    if (automatic := ttl_of(params)) is not None:
        ttls.append(automatic)
    if unknown := [ttl for ttl in ttls if ttl not in TTL_SECONDS]:
        return f"cache_control.ttl: Input should be '5m' or '1h', not {unknown[0]!r}"
    if len(ttls) > _MOST_MARKS:
        return f"A maximum of {_MOST_MARKS} blocks with cache_control may be provided. Found {len(ttls)}."
    if "1h" in ttls and "5m" in ttls[: len(ttls) - ttls[::-1].index("1h")]:
        return (
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note that blocks "
            "are processed in the following order: `tools`, `system`, `messages`."
        )
    return None
