"""Errors about a remote file system do not repeat the secrets in its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from batch_assets.core.urls import hidden, secret_in

_SHORTEST_SECRET = 8


def without_options(text: str, options: Mapping[str, Any] | None) -> str:
    """Return a text with `HIDDEN` for each text in the arguments of a file system that may be secret.

    Args:
        text: The text of an error.
        options: The arguments.
    """
    secrets = set(_secrets_in(dict(options or {})))
    return hidden(text, secrets | {quote(secret, safe="") for secret in secrets})  # as a part of a URL, too


def _secrets_in(options: Any) -> Iterator[str]:
    """Yield the texts in options that errors do not repeat: all but short ones and URLs without a secret."""
    if isinstance(options, Mapping | list):
        for value in options.values() if isinstance(options, Mapping) else options:
            yield from _secrets_in(value)
    if isinstance(options, str):
        for part in options.split(";"):  # a connection string has several
            for text in {part, part.partition("=")[2]}:
                is_public = text.startswith(("http://", "https://")) and secret_in(text) is None
                if len(text) >= _SHORTEST_SECRET and not is_public:
                    yield text
