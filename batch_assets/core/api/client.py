"""The official SDK as transport: its authentication, sockets and error classes, none of its object layer.

The SDK repeats a POST whose reply was lost, which would pay for a batch twice, and follows the server's
`results_url` with the key in hand. Neither happens here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batch_assets.core.api.errors import (
    RATE_LIMITED,
    SHORTEST_WAIT,
    GuardedBody,
    NotFoundError,
    UnknownOutcomeError,
    asked_wait,
    no_endpoint,
    translated,
)
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.settings import Settings

if TYPE_CHECKING:
    import anthropic

BATCHES = "/v1/messages/batches"
PAGE = 1000  # the most batches that one list call returns
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
CREATE_SECONDS = 600.0  # from the last byte of the upload to the answer
_READ_RETRIES = 2
_SDK_WAIT = 5.0  # seconds that the SDK may sleep before it repeats a read
_DOWNLOAD_CHUNK = 1 << 18  # several are in memory, of several downloads at a time
# A page of 1,000 batches has less than one; results are streamed and have no bound.
_ANSWER_BYTES = 64 << 20
# Shorter words than this in the place of a key are none, and may stand in any text.
_KEY_LENGTH = 8


@dataclass(frozen=True)
class Page:
    """One page of the list of batches, newest first."""

    batches: list[BatchObject]
    has_more: bool
    last_id: str | None


class ApiClient:
    """The batch endpoints of one API. Reads are repeated by the SDK, a create never.

    Attributes:
        base_url: where every call goes, the key with it.
        organization: whose key it is, as the API last said; None before the first answer.
        poll_floor: seconds the API asked to wait between looks at a batch, as it last said.
    """

    def __init__(self, settings: Settings) -> None:
        self.base_url = settings.require_endpoint()
        self._emulated = settings.emulator_url is not None
        self._has_key = settings.emulator_url is None and settings.has_credentials
        self._api_key = settings.api_key
        self.organization: str | None = None
        self.poll_floor = 0.0
        self._opening = threading.Lock()
        self._opened: anthropic.Anthropic | None = None

    @property
    def _sdk(self) -> anthropic.Anthropic:
        """One for all threads, so that they share its connections."""
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> anthropic.Anthropic:
        import anthropic  # takes over a second: only what talks to the API pays for it

        # The emulator gets no real key; a gateway without credentials of ours gets a word in its place.
        options: dict[str, Any] = {}  # the SDK finds the environment's credentials by itself
        if not self._has_key:
            options["api_key"] = "none"
        elif self._api_key is not None:
            options["api_key"] = self._api_key
        # A proxy may stand before the API, but not before the emulator.
        direct = {self.base_url: None} if self._emulated else {}
        return anthropic.Anthropic(
            base_url=self.base_url,
            max_retries=_READ_RETRIES,
            timeout=anthropic.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            http_client=anthropic.DefaultHttpxClient(
                follow_redirects=False, mounts=direct, event_hooks={"response": [_leave_waiting_to_us]}
            ),
            **options,
        )

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _within(self, seconds: float | None) -> anthropic.Anthropic:
        """The SDK with all tries of one read within that many seconds."""
        if seconds is None:
            return self._sdk
        import anthropic

        each = min(max(seconds / (_READ_RETRIES + 1), SHORTEST_WAIT), READ_SECONDS)
        return self._sdk.with_options(timeout=anthropic.Timeout(each, connect=min(each, CONNECT_SECONDS)))

    def _hide(self, text: str) -> str:
        """The text without the key: a gateway may repeat in an error what it was sent."""
        for secret in (self._sdk.api_key, self._sdk.auth_token):
            if secret and len(secret) >= _KEY_LENGTH:
                text = text.replace(secret, "[key]")
        return text

    def create(self, body: Iterable[bytes], length: int, headers: Mapping[str, str]) -> BatchObject:
        """Submits a batch, once.

        Args:
            body: the JSON body in chunks; an exception it raises ends the call unsent and comes out as it is.
            length: of the body, bytes.
            headers: that belong to the requests' identity.

        Errors:
            NotSentError, UnknownOutcomeError, RefusedError.
        """
        import anthropic

        timeout = anthropic.Timeout(CREATE_SECONDS, connect=CONNECT_SECONDS)
        sdk = self._sdk.with_options(max_retries=0, timeout=timeout)
        guarded = GuardedBody(body)
        try:
            with translated(self._hide, guarded):
                response = sdk.post(
                    BATCHES,
                    cast_to=_raw_response(),
                    stream=True,
                    content=guarded,
                    options={"headers": {**headers, "Content-Length": str(length)}},
                )
        except NotFoundError as error:
            raise no_endpoint(error) from None
        return self._batch(response, "create")

    def retrieve(self, batch_id: str, *, seconds: float | None = None) -> BatchObject:
        """One batch as it stands.

        Args:
            seconds: in which the call is to be over, its repetitions included.

        Errors:
            NotFoundError, RefusedError, UnknownOutcomeError, NotSentError.
        """
        with translated(self._hide):
            response = self._within(seconds).get(f"{BATCHES}/{batch_id}", cast_to=_raw_response(), stream=True)
        return self._batch(response, "retrieve")

    def cancel(self, batch_id: str) -> BatchObject:
        """Asks the API to end a batch; requests that are being answered may still be. Repeated freely.

        Returns:
            The batch as it stands now, in general `canceling`.

        Errors:
            As retrieve; RefusedError also for a batch that has ended.
        """
        with translated(self._hide):
            response = self._sdk.post(f"{BATCHES}/{batch_id}/cancel", cast_to=_raw_response(), stream=True)
        return self._batch(response, "cancel")

    def delete(self, batch_id: str) -> None:
        """Removes an ended batch and its results from the API for good. Errors: as retrieve."""
        with translated(self._hide):
            self._json(self._sdk.delete(f"{BATCHES}/{batch_id}", cast_to=_raw_response()), "delete")

    def page(self, limit: int = PAGE, after_id: str | None = None, *, seconds: float | None = None) -> Page:
        """One page of the workspace's batches. `seconds` and errors: as retrieve."""
        params: dict[str, Any] = {"limit": limit} | ({"after_id": after_id} if after_id else {})
        try:
            with translated(self._hide):
                response = self._within(seconds).get(
                    BATCHES, cast_to=_raw_response(), stream=True, options={"params": params}
                )
        except NotFoundError as error:
            raise no_endpoint(error) from None
        body = self._json(response, "list")
        try:
            batches = [BatchObject.parse(entry) for entry in body["data"]]
            page = Page(batches, bool(body["has_more"]), body.get("last_id"))
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownOutcomeError(f"list: the answer is not a list of batches: {error}") from None
        if page.has_more and page.last_id in (None, after_id):
            # Taken for the end of the list, it would let a batch that stands further on be sent again.
            raise UnknownOutcomeError("list: there is more, but the answer does not say where")
        return page

    def newest(self) -> BatchObject | None:
        """The workspace's newest batch, None when it has none. Errors: as retrieve."""
        batches = self.page(limit=1).batches
        return batches[0] if batches else None

    def batches_back_to(self, created_at: float | None) -> Iterator[BatchObject]:
        """Batches newest first, over as many pages as it takes, down to a creation time (None: all)."""
        after_id = None
        while True:
            page = self.page(after_id=after_id)
            for batch in page.batches:
                if created_at is not None and batch.created_at < created_at:
                    return
                yield batch
            if not page.has_more:
                return
            after_id = page.last_id

    @contextmanager
    def results(self, batch_id: str) -> Iterator[Iterator[bytes]]:
        """The raw bytes of a batch's results, from the path relative to the base URL.

        Errors: as retrieve, when opening and while reading; a break in the middle is UnknownOutcomeError.
        """
        with translated(self._hide):
            response: Any = self._sdk.get(
                f"{BATCHES}/{batch_id}/results",
                cast_to=_raw_response(),
                stream=True,
                options={"headers": {"Accept": "application/x-jsonl"}},
            )
        try:
            with translated(self._hide):
                yield response.iter_bytes(_DOWNLOAD_CHUNK)
        finally:
            response.close()

    def _batch(self, response: Any, call: str) -> BatchObject:
        body = self._json(response, call)
        try:
            return BatchObject.parse(body)
        except ValueError as error:
            raise UnknownOutcomeError(f"{call}: {error}") from None

    def _json(self, response: Any, call: str) -> Any:
        self.organization = response.headers.get("anthropic-organization-id") or self.organization
        if not self._emulated:
            self.poll_floor = asked_wait(response.headers) or 0.0
        try:
            return orjson.loads(self._whole(response, call))
        except orjson.JSONDecodeError:
            raise UnknownOutcomeError(f"{call}: the answer is not JSON (HTTP {response.status_code})") from None

    def _whole(self, response: Any, call: str) -> bytes:
        """The answer's body, which is trusted to be small only when it is."""
        content = bytearray()
        try:
            with translated(self._hide):
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _ANSWER_BYTES:
                        raise UnknownOutcomeError(f"{call}: the answer is larger than {_ANSWER_BYTES >> 20} MiB")
        finally:
            response.close()
        return bytes(content)


def _raw_response() -> Any:
    import httpx2

    return httpx2.Response


def _leave_waiting_to_us(response: Any) -> None:
    """Keeps the SDK from sleeping as long as `retry-after` says: who has to wait comes again later."""
    if response.status_code == RATE_LIMITED or (asked_wait(response.headers) or 0.0) > _SDK_WAIT:
        response.headers["x-should-retry"] = "false"
