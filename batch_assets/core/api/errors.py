"""Errors of calls to the API, translated from those of the SDK and of its HTTP transport.

    ApiError
    ├── NotSentError            retryable: no connection, so nothing was sent
    ├── UnknownOutcomeError     reads are retryable; an upload is looked for in the list before it is sent again
    ├── NotFoundError           retryable: the object may appear, or belong to the workspace of another key
    └── RefusedError            final if `stop` is true; otherwise the caller decides by `status` and `retry_after`

The stages turn them into a `BatchAssetsError` (core/errors.py) if the user has to see them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from unicodedata import category

from batch_assets.core.api.account_refusals import (
    PASSING_ACCOUNT_CODES,
    account_remedy,
    concerns_account,
    names_requests,
)
from batch_assets.core.api.sdk import sdk

if TYPE_CHECKING:
    import anthropic

RATE_LIMITED, TOO_LARGE = 429, 413
# The API's edge sends these with any body.
_FROM_THE_EDGE = (RATE_LIMITED, TOO_LARGE)
_OVERLOADED = (503, 529)
# Bounds in seconds for the wait that the API asks for, so that there is neither a storm of calls nor an endless
# wait.
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 3600.0
# Longer texts from outside are cut in the middle.
_TEXT_LENGTH, _TEXT_END = 2000, 400
# Answers of a server that is not the API. A 404 for the list of batches means the same, see `no_endpoint`.
_ELSEWHERE = (301, 302, 303, 307, 308, 405)
_CHECK_URL = ". Is the base URL right?"


class ApiError(Exception):
    """Base of the errors of a call. The text is for the user and holds no secret.

    Every ledger can store the text, whatever the server sent: its length is bounded, and control characters and
    lone surrogates are replaced.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_writable(text))


class NotSentError(ApiError):
    """No connection could be made, so nothing was sent."""


class UnknownOutcomeError(ApiError):
    """The API may or may not have carried out the request.

    Attributes:
        is_overloaded: Whether the API itself answered that it is overloaded. It has processed nothing then, but
            for a batch another server may have accepted the body.
        retry_after: See `RefusedError`.
    """

    def __init__(self, text: str, *, is_overloaded: bool = False, retry_after: float | None = None) -> None:
        self.is_overloaded, self.retry_after = is_overloaded, retry_after
        super().__init__(text)


class NotFoundError(ApiError):
    """HTTP 404: the object is unknown, does not exist yet, or belongs to another workspace."""


class RefusedError(ApiError):
    """The API refused the request and did not carry it out.

    Attributes:
        status: The HTTP status.
        type: The API's error type; "" if the body had none.
        stop: Whether only the user can resolve it (key, billing, spend limit, workspace, base URL).
        retry_after: Seconds that the API asked to wait, limited to the range from 1 second to 1 hour; `None` if
            it did not ask.
        waits: Whether the API would answer the same to every call now, and only asks to wait.
        names_requests: Whether the API's text is about single requests of the body.
    """

    def __init__(
        self, status: int, type_: str, message: str, stop: bool, retry_after: float | None, code: str = ""
    ) -> None:
        self.status, self.type, self.stop, self.retry_after = status, _writable(type_), stop, retry_after
        self.waits = not stop and (status == RATE_LIMITED or code in PASSING_ACCOUNT_CODES)
        self.names_requests = names_requests(message)
        remedy = account_remedy(status, code) if stop or self.waits else ""
        name = " ".join(filter(None, [f"HTTP {status}", type_, f"({code})" if code else ""]))
        super().__init__(f"{name}: {message.removesuffix('.')}. {remedy}" if remedy else f"{name}: {message}")


def _writable(text: str) -> str:
    if len(text) > _TEXT_LENGTH:
        text = f"{text[: _TEXT_LENGTH - _TEXT_END]} … {text[-_TEXT_END:]}"
    return "".join("\ufffd" if category(char) in ("Cc", "Cs") and char not in "\n\t" else char for char in text)


class GuardedBody:
    """A request body that keeps the exception it raised. The SDK reports every failure as a connection error.

    Args:
        chunks: The body in chunks.
        length: The length of the body in bytes.

    Attributes:
        failure: The exception raised while the body was read; `None` so far.
    """

    def __init__(self, chunks: Iterable[bytes], length: int) -> None:
        self._chunks = chunks
        self._length, self._given = length, 0
        self.failure: Exception | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether the last bytes were not even handed to the connection. No server accepts such a body."""
        return self._given < self._length

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self._given += len(chunk)  # first: a chunk that was handed over may have arrived
                yield chunk
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def translated(hide: Callable[[str], str], body: GuardedBody | None = None) -> Iterator[None]:
    """Translate the errors of the SDK and of its transport.

    Args:
        hide: Removes the key from a text.
        body: The body of the call. An exception that it raised is raised unchanged.

    Raises:
        NotSentError: When no connection could be made.
        UnknownOutcomeError: When the answer is missing or broken, its status is 408, 409, or 500 or higher without
            a code that says that the request was refused, or its body is no error of the API, which has an
            `error.type`. The bodies of 413 and 429 do not matter.
        NotFoundError: When the status is 404.
        RefusedError: When the API answered with any other error status.
    """
    import httpx2

    try:
        yield
    except sdk().status_error as error:
        raise _status_error(error, hide) from None
    except sdk().connection_error as error:
        if body is not None and body.failure is not None:
            raise body.failure from None
        cause = error.__cause__
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            raise NotSentError(f"no connection: {cause or type(cause).__name__}") from None
        raise UnknownOutcomeError(f"no answer: {type(cause or error).__name__} {cause or error}".strip()) from None
    except httpx2.HTTPError as error:
        raise UnknownOutcomeError(f"the answer broke off: {type(error).__name__} {error}".strip()) from None


def _status_error(error: anthropic.APIStatusError, hide: Callable[[str], str]) -> ApiError:
    status, type_ = error.status_code, hide(str(error.type or ""))
    message = hide(str(error.api_message or error.response.reason_phrase or "no text"))
    if not type_ and status not in _FROM_THE_EDGE:
        # A firewall, a captive portal or another server on the way. What the API did, if anything, is unknown.
        hint = _CHECK_URL if status in (*_ELSEWHERE, 404) else ""
        return UnknownOutcomeError(f"HTTP {status}, which is no answer of the API: {message}{hint}")
    if status == 404:
        return NotFoundError(message)
    code = hide(error.error_code or "")
    if (status in (408, 409) or status >= 500) and code not in PASSING_ACCOUNT_CODES:
        wait = asked_wait(error.response.headers)
        is_overloaded = status in _OVERLOADED
        return UnknownOutcomeError(
            f"HTTP {status} {type_}: {message}", is_overloaded=is_overloaded, retry_after=wait
        )
    if status in _ELSEWHERE:
        message += _CHECK_URL
    stop = status in _ELSEWHERE or concerns_account(status, type_, code, message)
    return RefusedError(status, type_, message, stop, asked_wait(error.response.headers), code)


def no_endpoint(error: NotFoundError) -> RefusedError:
    """Make the error for a 404 on the list of batches itself: the base URL is not that of the API."""
    return RefusedError(404, "not_found_error", f"{error}{_CHECK_URL}", True, None)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Read the header `retry-after`, which holds a number of seconds or a date.

    Returns:
        Seconds to wait, within `SHORTEST_WAIT` and `LONGEST_WAIT`; `None` if the header is absent or unreadable.
    """
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        if until is None:
            return None
        # The server's own clock, if the answer has a date.
        seconds = (until - (_date(headers.get("date")) or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)


def server_time(headers: Mapping[str, str]) -> float | None:
    """Read the header `date`: seconds since 1970 by the server's clock; `None` if it is absent or unreadable."""
    date = _date(headers.get("date"))
    return date.timestamp() if date is not None else None


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
