"""What is known of tokens without asking the API: how many a prompt has, and the least that are cached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batch_assets.core.prices.prices import undated
from batch_assets.core.requests.prompt_parts import media_tokens, prompt_characters

# 200,000 tokens are about 680,000 characters for models before Opus 4.7, and 1,000,000 tokens about 2,500,000 for
# those from then on: https://platform.claude.com/docs/en/about-claude/models/overview
_BEFORE, _FROM_4_7 = 3.4, 2.5
_VERSION = re.compile(r"^claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?:-\d{8})?$")
# https://platform.claude.com/docs/en/build-with-claude/prompt-caching
_LEAST_CACHED = {
    "claude-opus-5": 512,
    "claude-fable-5": 512,
    "claude-mythos-5": 512,
    "claude-haiku-5-5": 512,
    "claude-opus-4-8": 1024,
    "claude-sonnet-5": 1024,
    "claude-sonnet-4-6": 1024,
    "claude-sonnet-4-5": 1024,
    "claude-opus-4-7": 2048,
}
# Also of models that the page does not name: caching then looks less useful than it may be, never more.
_MOST = 4096


def characters_per_token(model: str) -> float:
    """Return about how many characters of English text make one token of a model."""
    match = _VERSION.match(model)
    if match is not None and (int(match[1]), int(match[2] or 0)) < (4, 7):
        return _BEFORE
    return _FROM_4_7


def tokens_by_characters(params: Mapping[str, Any]) -> float:
    """Return about how many tokens the prompt of a request has, by its characters, images and documents."""
    text = prompt_characters(params) / characters_per_token(str(params.get("model")))
    return text + media_tokens(params)


def least_cached_tokens(model: str) -> int:
    """Return the length in tokens of the shortest prefix of a prompt that a model caches."""
    return _LEAST_CACHED.get(undated(model), _MOST)
