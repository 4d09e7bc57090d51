"""Send notifications to a webhook: JSON by POST, signed with HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from batch_assets.core.notify.delivery import (
    TIMEOUT_SECONDS,
    NoticeNotSentError,
    NoticeRefusedError,
    OutgoingNotice,
    error_text,
    secret,
)
from batch_assets.core.pipeline.notify import NotifyConfig

SIGNATURE = "X-Batch-Assets-Signature"
# Statuses, apart from 5xx, after which the notice is sent again. 401 concerns the secret, which may be corrected.
_RETRIED = (401, 408, 425, 429)


def send_webhook(config: NotifyConfig, notice: OutgoingNotice) -> None:
    """Post the notice, through the proxies that the environment names.

    This uses the standard library, because the HTTP clients used elsewhere log every URL, and the URL of a webhook
    is often its only secret.

    Raises:
        NoticeNotSentError: When another try may succeed.
        NoticeRefusedError: When the receiver refused the notice.
    """
    assert config.webhook is not None
    url, key = secret(config.webhook.url_env), secret(config.webhook.secret_env)
    body = orjson.dumps({"id": notice.id, **notice.content, "sent_at": _iso(notice.sent_at)})
    request = _request(url, config.webhook.url_env, body, signature(key, int(notice.sent_at), body))
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _RETRIED or error.code >= 500:
            raise NoticeNotSentError(f"HTTP {error.code}") from None
        reason = f"HTTP {error.code}"
        if 300 <= error.code < 400:
            reason += ": redirects are not followed; use the URL that this one redirects to"
        raise NoticeRefusedError(reason) from None
    except urllib.error.URLError as error:
        raise NoticeNotSentError(error_text(error, url, key)) from None
    except Exception as error:  # such as those of an answer that is not HTTP, or of a URL with invalid characters
        raise NoticeNotSentError(f"{type(error).__name__}: {error_text(error, url, key)}") from None


def signature(key: str, timestamp: int, body: bytes) -> str:
    """Make the value of the header that proves who sent the body, and when.

    Args:
        key: The secret shared with the receiver.
        timestamp: Seconds since 1970.
        body: The body of the POST.
    """
    digest = hmac.new(key.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def _request(url: str, variable: str, body: bytes, signed: str) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise NoticeNotSentError(
            f"{variable} is not valid: set it to a URL such as https://example.com/hook, without user and password"
        )
    headers = {"Content-Type": "application/json", "User-Agent": "batch-assets", SIGNATURE: signed}
    return urllib.request.Request(url, data=body, headers=headers, method="POST")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, so that a notice only goes to the configured URL."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
