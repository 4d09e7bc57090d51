"""Messages to a webhook: JSON by POST, signed with HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from batch_assets.core.notify.sending import (
    TIMEOUT_SECONDS,
    Message,
    NotSentError,
    RefusedMessageError,
    secret,
    told,
)
from batch_assets.core.pipeline.notify import NotifyConfig

SIGNATURE = "X-Batch-Assets-Signature"
# Besides 5xx. 401 is about the secret, not about the message: a mended one may do.
_LATER = (401, 408, 425, 429)


def send_webhook(config: NotifyConfig, message: Message) -> None:
    """Posts the message.

    The standard library does it: the clients used elsewhere write every URL into the log, and that of a webhook
    is often its only secret. Proxies are those of the environment.
    """
    assert config.webhook is not None
    url, key = secret(config.webhook.url_env), secret(config.webhook.secret_env)
    body = orjson.dumps({"id": message.id, **message.content, "sent_at": _iso(message.sent_at)})
    request = _request(url, config.webhook.url_env, body, signature(key, int(message.sent_at), body))
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _LATER or error.code >= 500:
            raise NotSentError(f"HTTP {error.code}") from None
        why = f"HTTP {error.code}"
        if 300 <= error.code < 400:
            why += ": redirects are not followed, give the URL that it leads to"
        raise RefusedMessageError(why) from None
    except urllib.error.URLError as error:
        raise NotSentError(told(error, url, key)) from None
    except (
        Exception
    ) as error:  # what the answer of something that speaks no HTTP, or a URL with odd letters, raises
        raise NotSentError(f"{type(error).__name__}: {told(error, url, key)}") from None


def signature(key: str, timestamp: int, body: bytes) -> str:
    """The value of the header that says who sent the body, and when."""
    digest = hmac.new(key.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def _request(url: str, variable: str, body: bytes, signed: str) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise NotSentError(f"{variable} holds no URL such as https://example.com/hook, without user and password")
    headers = {"Content-Type": "application/json", "User-Agent": "batch-assets", SIGNATURE: signed}
    return urllib.request.Request(url, data=body, headers=headers, method="POST")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message goes where it was meant to go, or nowhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
