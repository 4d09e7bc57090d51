"""Give the results of tools that answers call, by a pipeline's own functions.

A function is called again when a run was interrupted before it had registered the next requests. Until then
nothing is sent, and from then on the request file has what the function returned. So each answer is followed once,
also if a function returns something else the second time. A request that failed is made again, as all follow-ups
are, and so with a new result.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

import orjson

from batch_assets.core.answers.parsed_answers import as_text
from batch_assets.core.answers.tool_calls import calls_to_answer
from batch_assets.core.batches.stored_lines import LostTexts
from batch_assets.core.io.json_text import load_exactly
from batch_assets.core.pipeline.hooks import ToolCall, ToolFailed, ToolFunctions
from batch_assets.core.template.params_check import check_params
from batch_assets.core.text import count, size

_log = logging.getLogger("batch_assets")


class ToolResults:
    """Calls the functions of tools, one after the other.

    What a function raises, apart from `ToolFailed`, does not go to the model: a function whose database cannot be
    reached would otherwise be paid for with answers that lack its results. The answer waits, and the functions are
    called again by the next run.

    Args:
        functions: The pipeline's functions, by the names of the tools.
        most_bytes: The most bytes of a request.
        until: The time by `time.monotonic` from which on no function is called; `None` for no limit.
    """

    def __init__(self, functions: ToolFunctions, most_bytes: int, until: float | None = None) -> None:
        self._functions, self._most_bytes, self._until = functions, most_bytes, until
        self._waiting: Counter[str] = Counter()
        self._why: dict[str, str] = {}
        self._postponed = 0

    def of(self, message: str, params: bytes, tools: tuple[str, ...]) -> list[dict[str, Any]] | None:
        """Return the `tool_result` blocks for the calls of an answer, in their order.

        Args:
            message: The answer, as the API sent it.
            params: The params of the request that it answers.
            tools: The names of the tools whose calls are answered.

        Returns:
            An empty list if the answer waits for no results; `None` if they cannot be given now.
        """
        calls = calls_to_answer(load_exactly(message.encode()), tools)
        if calls and self._until is not None and time.monotonic() >= self._until:
            self._postponed += 1
            return None
        results, room = [], self._most_bytes - len(message) - len(params)
        for call in calls:
            name = call["name"]
            try:
                result = self._result(call, params)
            except _UnusableError as problem:
                self._waits(name, str(problem))
                return None
            room -= len(orjson.dumps(result))
            if room < 0:
                self._waits(name, f"the request would be larger than {size(self._most_bytes)}. {_CORRECT}")
                return None
            results.append(result)
        return results

    def note_waiting(self, lost: LostTexts) -> None:
        """Note the answers whose results could not be given.

        Args:
            lost: Where to note them.
        """
        for name, answers in self._waiting.items():
            cannot = f"{count(answers, 'answer')} that called the tool {name!r} cannot be followed"
            lost.add(answers, f"{cannot}: {self._why[name]}")
        lost.postponed += self._postponed

    def _waits(self, name: str, why: str) -> None:
        self._waiting[name] += 1
        self._why.setdefault(name, why)

    def _result(self, call: dict[str, Any], params: bytes) -> dict[str, Any]:
        """Return the `tool_result` for a call.

        Raises:
            _UnusableError: When there is no function, or it fails, or returns something else than a content.
        """
        name = call["name"]
        function = self._functions.get(name)
        if function is None:
            raise _UnusableError(
                "the pipeline has no function for it any more. Add it to `tool_functions`, or build the requests "
                "again, which leaves these answers as they are"
            )
        result = {"type": "tool_result", "tool_use_id": call["id"]}
        try:
            content: Any = function(ToolCall(call["id"], name, call["input"], load_exactly(params)))
        except ToolFailed as failure:
            content, result["is_error"] = str(failure) or "The call failed.", True
        except Exception as error:  # a pipeline's own code may raise anything
            if name not in self._why:
                _log.warning(f"the function of the tool {name!r} failed", exc_info=error)
            raise _UnusableError(f"its function failed with {as_text(error)}. {_CORRECT}") from None
        if not isinstance(content, str | list):
            raise _UnusableError(f"its function returned a {type(content).__name__}. {_RETURN}")
        return _checked(result | ({"content": content} if content else {}))


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """Return a `tool_result` as JSON has it, if the API takes it.

    Raises:
        _UnusableError: When the API would refuse it.
    """
    try:
        # Only values that JSON has: any other might be written differently by another process.
        as_json: dict[str, Any] = orjson.loads(orjson.dumps(result))
    except TypeError as error:
        raise _UnusableError(f"what its function returned has no JSON form: {error}. {_RETURN}") from None
    if isinstance(as_json.get("content"), list):
        asked = {"model": "", "max_tokens": 1, "messages": [{"role": "user", "content": [as_json]}]}
        if (problem := check_params(asked, betas=True)) is not None:
            field, text = problem
            field = field.removeprefix("params.messages[0].content[0].")
            raise _UnusableError(f"what its function returned is no content: {field}: {text}. {_RETURN}")
    return as_json


_LEAVE = "or leave it out of `tool_functions`, and build the requests again"
_CORRECT = f"Correct it, or have it raise ToolFailed with a text for the model; {_LEAVE}"
_RETURN = f"It has to return a text or a list of content blocks. Correct it; {_LEAVE}"


class _UnusableError(Exception):
    """There is no result for a call of a tool. Says why, and what to do."""
