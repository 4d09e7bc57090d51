"""What the ways to send a message have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.notify import NotifyConfig

TIMEOUT_SECONDS = 5.0
"""Of connecting, and of each answer of a server."""
_SHOWN = 200


@dataclass(frozen=True)
class Message:
    """A message on its way.

    Attributes:
        id: the same at every try, so that who gets it twice can tell.
        content: see `content_of`.
        sent_at: seconds since 1970.
    """

    id: str
    content: dict[str, Any]
    sent_at: float

    @property
    def subject(self) -> str:
        return str(self.content["message"]).splitlines()[0]

    @property
    def text(self) -> str:
        return str(self.content["message"])


Send = Callable[[NotifyConfig, Message], None]
"""Sends a message to its target. Errors: NotSentError, RefusedMessageError."""


class NotSentError(BatchAssetsError):
    """A message could not be sent now; another try may do it."""


class RefusedMessageError(BatchAssetsError):
    """The other side refused a message: another try would come to the same."""


def secret(name: str) -> str:
    """The value of an environment variable.

    Errors:
        NotSentError: it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise NotSentError(f"the environment variable {name} is not set")
    return value


def told(error: BaseException, *secrets: str) -> str:
    """What an error says, in one short line without the secrets or parts of the URLs among them."""
    text = " ".join(str(error).split()) or type(error).__name__
    hidden = {
        form for given in secrets for part in _parts(given) for form in (part, quote(part), quote_plus(part))
    }
    for part in sorted(hidden, key=len, reverse=True):
        text = text.replace(part, "***")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _parts(given: str) -> list[str]:
    """A secret, and what of a URL may be one."""
    found = [given]
    if "://" in given:
        url = urlsplit(given)
        found += [
            url.path,
            url.query,
            url.netloc.rpartition("@")[0],
            url.password or "",
            unquote(url.password or ""),
        ]
    return [part for part in found if len(part) > 3]
