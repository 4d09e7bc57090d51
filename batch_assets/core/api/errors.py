"""What a call to the API can end in: the SDK's and the transport's errors as ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from unicodedata import category

if TYPE_CHECKING:
    import anthropic

RATE_LIMITED = 429
# What the API asks to wait is believed within these bounds, seconds: neither a storm nor a wait for ever.
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 3600.0
# Of a longer text from elsewhere the beginning and the end are kept.
_TEXT_LENGTH, _TEXT_END = 2000, 400
# Texts and codes of refusals that only a person can mend; repeating would be refused again.
_STOP_STATUS = (401, 402, 403)
# So does whoever is not the API answer; a 404 for the collection of batches says the same.
_ELSEWHERE = (301, 302, 303, 307, 308, 405)
_WHERE = ". Is ANTHROPIC_BASE_URL right?"
_STOP_TEXTS = ("credit balance is too low", "spend limit", "usage limits")
_STOP_CODES = ("enforced_spend_limit_reached", "contract_spend_limit_reached", "organization_on_hold")


class ApiError(Exception):
    """Base of what a call can end in. The text is for people and holds no secret.

    Whatever the other side said in it, every ledger takes it: it is of bounded length, control characters and
    lone surrogates are replaced.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_writable(text))


class NotSentError(ApiError):
    """No connection came about: nothing was sent."""


class UnknownOutcomeError(ApiError):
    """The request may or may not have been carried out."""


class NotFoundError(ApiError):
    """404: unknown, not there yet, or another workspace's."""


class RefusedError(ApiError):
    """The API said no: the request was not carried out.

    Attributes:
        status: HTTP status.
        type: the API's error type, "" where the body had none.
        stop: only a person can mend it (key, billing, spend limit).
        retry_after: seconds the API asked to wait, from 1 to an hour; None where it did not ask.
    """

    def __init__(self, status: int, type_: str, message: str, stop: bool, retry_after: float | None) -> None:
        self.status, self.type, self.stop, self.retry_after = status, _writable(type_), stop, retry_after
        super().__init__(f"HTTP {status} {type_}: {message}" if type_ else f"HTTP {status}: {message}")


def _writable(text: str) -> str:
    if len(text) > _TEXT_LENGTH:
        text = f"{text[: _TEXT_LENGTH - _TEXT_END]} … {text[-_TEXT_END:]}"
    return "".join("\ufffd" if category(one) in ("Cc", "Cs") and one not in "\n\t" else one for one in text)


class GuardedBody:
    """A request body that remembers its own failure: the SDK reports every failure as a connection error."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def translated(hide: Callable[[str], str], body: GuardedBody | None = None) -> Iterator[None]:
    """Raises the SDK's and the transport's errors as ours.

    Args:
        hide: takes the key out of a text.
        body: of the call, whose own failure comes out as it is.

    Errors:
        NotSentError, UnknownOutcomeError, NotFoundError, RefusedError.
    """
    import anthropic
    import httpx2

    try:
        yield
    except anthropic.APIStatusError as error:
        raise _status_error(error, hide) from None
    except anthropic.APIConnectionError as error:
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
    message = hide(error.api_message or f"{error.response.reason_phrase or 'no text'}")
    if status == 404:
        return NotFoundError(message)
    if status in (408, 409) or status >= 500:
        return UnknownOutcomeError(f"HTTP {status} {type_}: {message}")
    lowered = message.lower()
    if status in _ELSEWHERE:
        message += _WHERE
    stop = (
        status in (*_STOP_STATUS, *_ELSEWHERE)
        or error.error_code in _STOP_CODES
        or (status in (400, 429) and any(text in lowered for text in _STOP_TEXTS))
    )
    return RefusedError(status, type_, message, stop, asked_wait(error.response.headers))


def no_endpoint(error: NotFoundError) -> RefusedError:
    """404 for the collection of batches itself: the base URL is not the API's."""
    return RefusedError(404, "not_found_error", f"{error}{_WHERE}", True, None)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after` asks to wait, given as a number or as a date; None where it says neither."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        if until is None:
            return None
        # By the server's own clock, where it tells the time.
        seconds = (until - (_date(headers.get("date")) or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
