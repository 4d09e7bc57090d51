"""The parts that all ways of sending a notification share: the notice, the errors, secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from batch_assets.core.client_settings import SECRETS
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.urls import hidden

TIMEOUT_SECONDS = 5.0
"""The time limit for connecting, and for each answer of a server."""
_MAX_TEXT = 200


@dataclass(frozen=True)
class OutgoingNotice:
    """A notification that is being sent.

    Attributes:
        id: The same at every try, so that the receiver can recognize a duplicate.
        content: The JSON content; see `content_of`.
        sent_at: Seconds since 1970.
    """

    id: str
    content: dict[str, Any]
    sent_at: float

    @property
    def subject(self) -> str:
        """The first line of the text."""
        return str(self.content["message"]).splitlines()[0]

    @property
    def text(self) -> str:
        """The text for people."""
        return str(self.content["message"])


Send = Callable[[NotifyConfig, OutgoingNotice], None]
"""A function that sends a notice to its target. Raises NoticeNotSentError or NoticeRefusedError."""


class NoticeNotSentError(BatchAssetsError):
    """A notification could not be sent now. Another try may succeed."""


class NoticeRefusedError(BatchAssetsError):
    """The receiver refused a notification. Another try would be refused as well."""


def secret(name: str) -> str:
    """Read a secret from an environment variable.

    Raises:
        NoticeNotSentError: When the variable is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise NoticeNotSentError(f"the environment variable {name} is not set")
    return value


def keep_credentials(config: NotifyConfig, api_key: str | None) -> None:
    """Check that no variable of a target holds a key of the API, under whatever name.

    Args:
        config: The target.
        api_key: The key that the root's settings have; `None` if it is that of the environment.

    Raises:
        NoticeNotSentError: When a variable does. It is not sent anywhere.
    """
    keys = {value for value in (api_key, *map(os.environ.get, SECRETS)) if value}
    for name in config.variables:
        if os.environ.get(name) in keys:
            raise NoticeNotSentError(
                f"the environment variable {name} holds a key of the API, which goes to the API alone: name "
                "another one"
            )


def error_text(error: BaseException, *secrets: str) -> str:
    """Return the text of an error as one short line without secrets.

    Args:
        error: The error.
        secrets: Secrets, and URLs that contain secrets. Each, and the secret parts of each URL, is replaced by
            `***`.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    forms = (
        form
        for value in secrets
        for part in _secret_parts(value)
        for form in (part, quote(part), quote_plus(part))
    )
    text = hidden(text, forms)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def _secret_parts(value: str) -> list[str]:
    """The value itself and, if it is a URL, those of its parts that may be secret."""
    parts = [value]
    if "://" in value:
        url = urlsplit(value)
        parts += [
            url.path,
            url.query,
            url.netloc.rpartition("@")[0],
            url.password or "",
            unquote(url.password or ""),
        ]
    return [part for part in parts if len(part) > 3]
