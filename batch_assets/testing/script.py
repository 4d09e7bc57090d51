"""The answers that a test makes, by row key or by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.core.store.digests import DIGEST_CHARACTERS, SLUG_CHARACTERS, slug
from batch_assets.emulator.answers import emulated_answer, last_user_text
from batch_assets.emulator.tokens import prompt_tokens, text_tokens
from batch_assets.emulator.wire import ERROR_TYPES, HttpError, derived_id

_STATUSES = {name: status for status, name in ERROR_TYPES.items()}
# Of the 64 characters of a custom_id, those that follow the slug.
_AFTER_SLUG = 64 - SLUG_CHARACTERS


@dataclass(frozen=True)
class AskedRequest:
    """A request that a function of a test answers.

    Attributes:
        row: The row key in the characters of a custom_id: its first 34, with `_` for all but letters, digits, `_`
            and `-`. "" for a live call.
        params: The params.
        text: The text of the last user message.
    """

    row: str
    params: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer that did not end as usual.

    Attributes:
        value: Text, or a value that is sent as JSON.
        stop_reason: Why the model stopped, such as `max_tokens` or `refusal`.
    """

    value: Any
    stop_reason: str


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool in place of an answer.

    Attributes:
        name: The name of the tool.
        input: Its input.
    """

    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """An error in place of an answer.

    Attributes:
        type: The API's error type, such as `overloaded_error` or `invalid_request_error`.
        message: Its text.

    Raises:
        ValueError: When the API has no such error type.
    """

    type: str
    message: str = "This error is from a test."

    def __post_init__(self) -> None:
        if self.type not in _STATUSES:
            raise ValueError(f"{self.type!r} is not an error type of the API: {', '.join(_STATUSES)}")


Script = Mapping[Any, Any] | Callable[[AskedRequest], Any]
"""Answers by row key, or a function that returns the answer to a request. With `None` the answer is emulated."""


class ScriptedAnswers:
    """Answers requests by the scripts of a test, the newest first, and otherwise as the emulator does.

    Attributes:
        concurrency: One request at a time, so that a function is never called twice at once.
        problem: The first exception that a function raised; `None` if there was none.
    """

    concurrency = 1

    def __init__(self) -> None:
        self._functions: list[Callable[[AskedRequest], Any]] = []
        self._unused: dict[str, Any] = {}
        self._rows: dict[str, str] = {}
        self._seen: set[str] = set()  # since the last script: the next one may be for another pipeline
        self._unclear: dict[str, Any] = {}
        self.problem: Exception | None = None

    @property
    def unused(self) -> list[Any]:
        """The row keys for whose answers no request has asked."""
        return list(self._unused.values())

    def add(self, script: Script) -> None:
        """Add a script.

        Raises:
            ValueError: When two of its row keys are the same in a custom_id.
        """
        self._seen.clear()
        if callable(script):
            self._functions.insert(0, script)
            return
        by_slug: dict[str, Any] = {}
        for key in script:
            if (other := by_slug.setdefault(slug(key), key)) is not key:
                raise ValueError(f"the row keys {other!r} and {key!r} look the same in a request: use a function")
        answers = {name: script[key] for name, key in by_slug.items()}
        self._unused |= by_slug
        self._unclear |= {name: key for name, key in by_slug.items() if name != str(key)}

        def answer(request: AskedRequest) -> Any:
            self._unused.pop(request.row, None)
            return answers.get(request.row)

        self._functions.insert(0, answer)

    async def answer(self, params: Mapping[str, Any], custom_id: str | None) -> dict[str, Any]:
        """Answer a request; see `batch_assets.emulator.asking.Source`."""
        __tracebackhide__ = True  # pytest shows the line of the test's function
        try:
            request = AskedRequest(self._row_of(custom_id), params, last_user_text(params))
            for function in self._functions:
                if (value := function(request)) is not None:
                    return _message(params, value)
            return emulated_answer(params)
        except HttpError:
            raise
        except Exception as error:  # the test's own code may raise anything, and its thread is not the test's
            self.problem = self.problem or error
            raise HttpError(400, f"the answer that the test makes raised {error!r}") from None

    async def close(self) -> None:
        """Release nothing: there is nothing to release."""

    def _row_of(self, custom_id: str | None) -> str:
        """Return the row key that a request belongs to. Follow-ups have the digest of their first request.

        Raises:
            ValueError: When a row key of a map may be meant, and so may the key of another row.
        """
        __tracebackhide__ = True
        if custom_id is None:
            return ""
        digest = custom_id[-DIGEST_CHARACTERS:]
        if digest not in self._rows:
            row = custom_id[:-_AFTER_SLUG]
            if row in self._unclear and row in self._seen:
                key = self._unclear[row]
                raise ValueError(
                    f"two requests look like that of the row key {key!r} of the answers: use a function"
                )
            self._rows[digest] = row
            self._seen.add(row)
        return self._rows[digest]


def _message(params: Mapping[str, Any], value: Any) -> dict[str, Any]:
    if isinstance(value, Failure):
        raise HttpError(_STATUSES[value.type], value.message, type=value.type)
    stop_reason = None
    if isinstance(value, Answer):
        value, stop_reason = value.value, value.stop_reason
    forced = (params.get("tool_choice") or {}).get("name")
    if forced is not None and isinstance(value, Mapping):
        value = ToolCall(forced, value)
    content: list[dict[str, Any]]
    if isinstance(value, ToolCall):
        call_id = derived_id("toolu", orjson.dumps(params).decode())
        content = [{"type": "tool_use", "id": call_id, "name": value.name, "input": dict(value.input)}]
        reason = "tool_use"
    else:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        content, reason = [{"type": "text", "text": text}], "end_turn"
    return {
        "content": content,
        "stop_reason": stop_reason or reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt_tokens(params).total,
            "output_tokens": text_tokens(orjson.dumps(content).decode()),
        },
    }
