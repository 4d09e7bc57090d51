"""A server that answers the requests in place of the emulator: usually a model on this machine.

It speaks OpenAI's chat API or the Messages API, which the path of its URL decides. The key for it is in the
environment variable `BATCH_ASSETS_ANSWERS_KEY`, and in no text.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from batch_assets.emulator.chat_api import chat_answer, chat_body
from batch_assets.emulator.tokens import prompt_tokens, text_tokens
from batch_assets.emulator.wire import HttpError

KEY_VARIABLE = "BATCH_ASSETS_ANSWERS_KEY"
"""The environment variable with the key for the server."""
_CHAT_PATH, _MESSAGES_PATH = "/v1/chat/completions", "/v1/messages"
_VERSION = "2023-06-01"
# A model on this machine may think for minutes. The SDK waits as long for an answer.
_READ_SECONDS, _CONNECT_SECONDS = 600.0, 5.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
_PASSING = frozenset({408, 429})
_MOST_TEXT = 500


def endpoint_of(url: str) -> str:
    """Return the URL to call. One without the path of an endpoint gets that of the chat API.

    Raises:
        ValueError: When it is not an HTTP URL, or has a password or a query.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.query:
        raise ValueError(f"give the URL without a key, and set the key as {KEY_VARIABLE}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is not an HTTP URL such as http://127.0.0.1:11434")
    path = parts.path.rstrip("/")
    if not path.endswith(("/chat/completions", "/messages")):
        path = path.removesuffix("/v1") + _CHAT_PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


class AnswerSource:
    """A server that answers requests. Its methods belong to one event loop.

    Args:
        url: Its URL; see `endpoint_of`.
        model: The name of its model; `None` to send the name that the request has.
        concurrency: The most calls at a time.
        patience: How many seconds a request is sent again while the server has a problem.

    Raises:
        ValueError: When the URL or the concurrency is not valid.
    """

    def __init__(self, url: str, model: str | None, concurrency: int, patience: float) -> None:
        if concurrency < 1:
            raise ValueError("ask for at least one answer at a time")
        self.url, self.concurrency = endpoint_of(url), concurrency
        self._model, self._patience = model, patience
        self._is_chat = self.url.endswith("/chat/completions")
        self._calls = asyncio.Semaphore(concurrency)
        self._failing_since: float | None = None
        self._client = httpx2.AsyncClient(
            headers=_headers(os.environ.get(KEY_VARIABLE), self._is_chat),
            timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS, pool=None),
            trust_env=False,  # no proxy: the server is on this machine or near it
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def answer(self, params: Mapping[str, Any], custom_id: str | None) -> dict[str, Any]:
        """Ask for the answer to a request.

        Args:
            params: The params of the request, which are valid.
            custom_id: Its custom_id, which the server does not get; `None` for a live call.

        Returns:
            `content`, `stop_reason`, `stop_sequence` and `usage` (its `input_tokens` and `output_tokens`) of the
            message. Tokens that the server does not count are estimated.

        Raises:
            HttpError: 400 when the server refuses the request, 500 when it cannot be reached or has a problem, 504
                when it does not answer in time.
        """
        response = await self._call(self._body(params))
        body = self._read(response)
        try:
            answer = chat_answer(body) if self._is_chat else _message_answer(body)
            answer["usage"] = _usage(params, answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            problem = _text_of(self.url, response, " in another form than its API")
            raise HttpError(500, problem) from None
        return answer

    def _body(self, params: Mapping[str, Any]) -> bytes:
        try:
            body = chat_body(params) if self._is_chat else dict(params)
        except (KeyError, TypeError, AttributeError) as error:  # not all of the params is checked before
            raise HttpError(400, f"the request has no form in OpenAI's chat API: {error!r}") from None
        return orjson.dumps(body | ({"model": self._model} if self._model is not None else {}))

    async def _call(self, body: bytes) -> httpx2.Response:
        """Call the server, again if it has a problem, and return its answer."""
        async with self._calls:
            wait, failing_since = _FIRST_WAIT, None
            while True:
                problem: HttpError
                try:
                    response = await self._client.post(self.url, content=body)
                    if response.status_code < 500 and response.status_code not in _PASSING:
                        self._failing_since = None
                        return response
                    problem = HttpError(500, _text_of(self.url, response))
                except httpx2.ReadTimeout:
                    raise HttpError(504, f"{self.url} did not answer in {_READ_SECONDS:.0f} s") from None
                except httpx2.HTTPError as error:
                    problem = HttpError(500, f"{self.url} cannot be called: {error or type(error).__name__}")
                now = time.monotonic()
                self._failing_since = now if self._failing_since is None else self._failing_since
                failing_since = now if failing_since is None else failing_since
                # When the server is away, only the first requests wait for it: a batch may have many.
                if now - min(failing_since, self._failing_since) + wait > self._patience:
                    raise problem
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def _read(self, response: httpx2.Response) -> Any:
        if response.status_code >= 400:
            raise HttpError(400, _text_of(self.url, response))
        try:
            if response.status_code == 200:
                return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            pass
        raise HttpError(500, _text_of(self.url, response, " without JSON"))


def _headers(key: str | None, is_chat: bool) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if not is_chat:
        headers["anthropic-version"] = _VERSION
    if key:
        headers |= {"authorization": f"Bearer {key}"} | ({} if is_chat else {"x-api-key": key})
    return headers


def _text_of(url: str, response: httpx2.Response, problem: str = "") -> str:
    """Return the text about an answer that is an error, or no usable answer: with the server's own text."""
    text: Any = response.text
    try:
        error = orjson.loads(response.content)["error"]
        text = (error["message"] if isinstance(error, dict) else error) or text
    except (KeyError, TypeError, ValueError):
        pass
    shown = " ".join(str(text).split())[:_MOST_TEXT]
    return f"{url} answered {response.status_code}{problem}{f': {shown}' if shown else ''}"


def _message_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    usage = body.get("usage") or {}
    read = (usage.get(f"cache_{name}_input_tokens") or 0 for name in ("creation", "read"))
    fresh = usage.get("input_tokens")
    return {
        "content": [{**block, "type": str(block["type"])} for block in body["content"]],
        "stop_reason": str(body.get("stop_reason") or "end_turn"),
        "stop_sequence": body.get("stop_sequence"),
        "usage": {
            "input_tokens": fresh if fresh is None else fresh + sum(read),
            "output_tokens": usage.get("output_tokens"),
        },
    }


def _usage(params: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, int]:
    counted = answer["usage"]
    read, written = counted["input_tokens"], counted["output_tokens"]
    if read is None:
        read = prompt_tokens(params).total
    if written is None:
        written = text_tokens(orjson.dumps(answer["content"]).decode())
    return {"input_tokens": int(read), "output_tokens": int(written)}
