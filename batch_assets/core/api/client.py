"""A client that uses the official SDK as transport: its authentication, sockets and errors, not its object layer.

By default the SDK repeats a POST whose reply was lost, which would pay for a batch twice. It also sends the key to
whatever `results_url` the server names. This client does neither.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from batch_assets.core.api.errors import (
    SHORTEST_WAIT,
    GuardedBody,
    NotFoundError,
    NotSentError,
    UnknownOutcomeError,
    asked_wait,
    no_endpoint,
    server_time,
    translated,
)
from batch_assets.core.api.objects import BatchObject, Page, is_message, queue_limit_in
from batch_assets.core.api.response_hooks import raw_response
from batch_assets.core.api.sdk_client import SdkClient
from batch_assets.core.settings import Settings

if TYPE_CHECKING:
    import anthropic

BATCHES = "/v1/messages/batches"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
RATE_LIMITS = "/v1/organizations/rate_limits"
# The fields that the endpoint takes, of those of a request.
_COUNTED = (
    *("model", "messages", "system", "tools", "tool_choice", "thinking"),
    *("cache_control", "output_config", "mcp_servers", "context_management"),
)
PAGE = 1000  # a list call returns at most this many batches
_DOWNLOAD_CHUNK = 1 << 18  # bytes; several downloads at a time each hold several chunks in memory


class ApiClient:
    """The endpoints of one API. The SDK retries reads; a create and a live call are never retried.

    Attributes:
        base_url: The URL that every call and the key go to.
        workspace: The workspace that the settings name; `None` for that of the credentials.
        organization: The organization of the key, from the API's latest answer; `None` before the first answer.
        server_time: The time of the API's latest answer by the server's clock; `None` if it did not show it.
        poll_floor: Seconds to wait between polls, from the API's latest answer; 0.0 if it did not ask.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = SdkClient(settings)
        self.base_url, self.workspace = self._client.base_url, self._client.workspace
        self._emulated = settings.emulator_url is not None
        self.organization: str | None = None
        self.poll_floor = 0.0
        self.server_time: float | None = None

    @property
    def signs_bodies(self) -> bool:
        """Whether `create` needs the hash of the body, because calls are signed."""
        return self._client.signs_bodies

    @property
    def _sdk(self) -> anthropic.Anthropic:
        return self._client.opened

    def close(self) -> None:
        self._client.close()

    def _hide(self, text: str) -> str:
        return self._client.hide(text)

    def key_hash(self, salt: str) -> str | None:
        """Return a salted hash by which a later process recognizes its key, see `SdkClient.key_hash`."""
        return self._client.key_hash(salt)

    def create(
        self, body: Iterable[bytes], length: int, headers: Mapping[str, str], body_hash: str | None = None
    ) -> BatchObject:
        """Create a batch. The call is never repeated.

        Args:
            body: The JSON body in chunks. If reading it raises an exception, the API gets no complete body and
                the exception is raised unchanged.
            length: The length of the body in bytes.
            headers: Headers that are part of the requests' identity.
            body_hash: The SHA-256 of the body in hexadecimal, if `signs_bodies`; else `None`.

        Raises:
            NotSentError: When no connection could be made, or it broke off before the body was complete.
            UnknownOutcomeError: When the API may or may not have accepted the batch.
            RefusedError: When the API refused the batch.
        """
        client = self._client.once()
        guarded = GuardedBody(body, length)
        all_headers = {**headers, **self._client.profile_headers, "Content-Length": str(length)}
        if body_hash is not None:
            from batch_assets.core.api.cloud_auth import BODY_HASH  # imports the transport, as the SDK does

            all_headers[BODY_HASH] = body_hash
        try:
            with translated(self._hide, guarded):
                response = client.post(
                    BATCHES,
                    cast_to=raw_response(),
                    stream=True,
                    content=guarded,
                    options={"headers": all_headers},
                )
        except NotFoundError as error:
            raise no_endpoint(error) from None
        except UnknownOutcomeError as error:
            if guarded.is_unfinished:
                raise NotSentError(f"the upload broke off before its end: {error}") from None
            raise
        return self._batch(response, "create")

    def message(self, params: bytes, headers: Mapping[str, str]) -> bytes:
        """Ask one request, whose params are JSON, by a live call. It is never repeated. Returns the message.

        Raises:
            ApiError: As `create`. An `UnknownOutcomeError` may say that the API is overloaded.
        """
        client = self._client.once()
        with translated(self._hide):
            response = client.post(
                MESSAGES,
                cast_to=raw_response(),
                stream=True,
                content=params,
                options={
                    "headers": {**headers, **self._client.profile_headers, "Content-Type": "application/json"}
                },
            )
        body = self._body_of(response, "message", None)
        if is_message(body):
            return body
        raise UnknownOutcomeError(f"message: the answer is no message (HTTP {response.status_code})")

    def count_tokens(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int:
        """Have the API count the tokens of a prompt. Nothing is asked of a model, and it costs nothing.

        Args:
            params: The params of a request.
            headers: Its headers that change its meaning.

        Raises:
            ApiError: As `retrieve`.
        """
        prompt = {name: params[name] for name in _COUNTED if name in params}
        with translated(self._hide):
            response = self._sdk.post(
                COUNT_TOKENS,
                cast_to=raw_response(),
                stream=True,
                body=prompt,
                options={"headers": {**headers, **self._client.profile_headers}},
            )
        tokens = self._json(response, "count_tokens").get("input_tokens")
        if not isinstance(tokens, int):
            raise UnknownOutcomeError("count_tokens: the answer has no number of tokens")
        return tokens

    def queue_limit(self) -> int:
        """Ask how many requests all batches of the account may have in the queue together.

        Raises:
            ApiError: As `retrieve`. Only some keys may ask.
        """
        with translated(self._hide):
            response = self._sdk.get(
                RATE_LIMITS, cast_to=raw_response(), stream=True, options={"params": {"group_type": "batch"}}
            )
        try:
            return queue_limit_in(self._json(response, "rate_limits"))
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownOutcomeError(f"rate_limits: the answer has no limit for the queue: {error}") from None

    def retrieve(self, batch_id: str, *, seconds: float | None = None) -> BatchObject:
        """Get the current state of a batch.

        Args:
            batch_id: The id of the batch.
            seconds: The time limit for the call, its retries included; `None` for the default.

        Raises:
            NotFoundError: When this workspace has no such batch.
            RefusedError: When the API refused the call.
            UnknownOutcomeError: When the answer is missing or cannot be read.
            NotSentError: When no connection could be made.
        """
        with translated(self._hide):
            response = self._client.within(seconds).get(
                f"{BATCHES}/{batch_id}", cast_to=raw_response(), stream=True
            )
        return self._batch(response, "retrieve", batch_id, seconds)

    def cancel(self, batch_id: str) -> BatchObject:
        """Cancel a batch. Requests that are already being answered may still be answered. Safe to repeat.

        Returns:
            The batch after the call, usually in the status `canceling`.

        Raises:
            RefusedError: When the API refused the call, for example because the batch has ended.
            ApiError: As `retrieve`.
        """
        with translated(self._hide):
            response = self._sdk.post(f"{BATCHES}/{batch_id}/cancel", cast_to=raw_response(), stream=True)
        return self._batch(response, "cancel", batch_id)

    def delete(self, batch_id: str) -> None:
        """Delete an ended batch and its results from the API permanently.

        The call is not repeated: a 404 to the second one would not show that the first one deleted the batch.

        Raises:
            ApiError: As `retrieve`.
        """
        client = self._sdk.with_options(max_retries=0)
        with translated(self._hide):
            response = client.delete(f"{BATCHES}/{batch_id}", cast_to=raw_response())
        self._json(response, "delete")

    def page(self, limit: int = PAGE, after_id: str | None = None, *, seconds: float | None = None) -> Page:
        """List one page of the workspace's batches.

        Args:
            limit: The largest number of batches on the page.
            after_id: The `last_id` of the page before; `None` for the first page.
            seconds: The time limit for the call, its retries included; `None` for the default.

        Raises:
            RefusedError: When the API refused the call, or the base URL is not that of the API.
            ApiError: As `retrieve`.
        """
        params: dict[str, Any] = {"limit": limit} | ({"after_id": after_id} if after_id else {})
        try:
            with translated(self._hide):
                response = self._client.within(seconds).get(
                    BATCHES, cast_to=raw_response(), stream=True, options={"params": params}
                )
        except NotFoundError as error:
            raise no_endpoint(error) from None
        try:
            page = Page.parse(self._json(response, "list", seconds))
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownOutcomeError(f"list: the answer is not a list of batches: {error}") from None
        if page.has_more and page.last_id in (None, after_id):
            # If this counted as the end of the list, a batch that comes later in the list could be sent again.
            raise UnknownOutcomeError("list: there are more batches, but the answer does not say where they begin")
        return page

    def batches_back_to(self, created_at: float | None) -> Iterator[BatchObject]:
        """Iterate over the workspace's batches, newest first, over as many pages as needed.

        Args:
            created_at: Stop at batches created before this time, in seconds since 1970; `None` for all batches.

        Raises:
            ApiError: As `page`.
        """
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
        """Stream the raw bytes of a batch's results, from a path relative to the base URL.

        Raises:
            UnknownOutcomeError: When the download broke off, also while the bytes are read.
            ApiError: As `retrieve`.
        """
        with translated(self._hide):
            response: Any = self._sdk.get(
                f"{BATCHES}/{batch_id}/results",
                cast_to=raw_response(),
                stream=True,
                options={"headers": {"Accept": "application/x-jsonl"}},
            )
        try:
            with translated(self._hide):
                yield response.iter_bytes(_DOWNLOAD_CHUNK)
        finally:
            response.close()

    def _batch(
        self, response: Any, call: str, batch_id: str | None = None, seconds: float | None = None
    ) -> BatchObject:
        body = self._json(response, call, seconds)
        try:
            batch = BatchObject.parse(body)
        except ValueError as error:
            raise UnknownOutcomeError(f"{call}: {error}") from None
        if batch_id not in (None, batch.id):
            raise UnknownOutcomeError(f"{call}: the answer is about {batch.id} instead of {batch_id}")
        return batch

    def _json(self, response: Any, call: str, seconds: float | None = None) -> Any:
        self.organization = response.headers.get("anthropic-organization-id") or self.organization
        self.server_time = server_time(response.headers)
        if not self._emulated:
            self.poll_floor = asked_wait(response.headers) or 0.0
        try:
            return orjson.loads(self._body_of(response, call, seconds))
        except orjson.JSONDecodeError:
            raise UnknownOutcomeError(f"{call}: the answer is not JSON (HTTP {response.status_code})") from None

    def _body_of(self, response: Any, call: str, seconds: float | None) -> bytes:
        """Read the answer's body, whose size `bound` limits, within some seconds."""
        end = time.monotonic() + max(seconds, SHORTEST_WAIT) if seconds is not None else math.inf
        pieces: list[bytes] = []
        try:
            with translated(self._hide):
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    if time.monotonic() > end:
                        raise UnknownOutcomeError(f"the answer did not come within {seconds:.0f} s")
            return b"".join(pieces)
        except UnknownOutcomeError as error:
            raise UnknownOutcomeError(f"{call}: {error}") from None
        finally:
            response.close()
