"""Parse one line of a batch's results, as the API sends it, into the columns of a response."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.io.json_text import dump, load_exactly, load_line
from batch_assets.core.prices import Prices

_MESSAGE_MARK = re.compile(rb'"message"\s*:\s*(?={)')
_BEFORE_ID, _AFTER_ID = b'{"custom_id":"', b'","result":{"type":"succeeded","message":{'
_FAILURES = (ResultType.ERRORED, ResultType.CANCELED, ResultType.EXPIRED)


class ParsedLine(NamedTuple):
    """The columns of RESPONSE_SCHEMA that come from a result line, with what it has for each."""

    custom_id: str | None = None
    result_type: str | None = None
    response_text: str | None = None
    stop_reason: str | None = None
    response_model: str | None = None
    message_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cost_usd: float | None = None
    error_type: str | None = None
    error_message: str | None = None
    response_json: str | None = None


def parse_line(line: bytes, prices: Prices) -> ParsedLine:
    """Parse a result line.

    Args:
        line: The line, usually with its line end.
        prices: The prices that give an answer's cost.

    Raises:
        ValueError: When the line is not a result line.
    """
    entry = load_line(line)
    try:
        custom_id, result = entry["custom_id"], entry["result"]
        kind = result["type"]
        if kind == ResultType.SUCCEEDED:
            return _succeeded(line, entry, custom_id, result, prices)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a result line: {error!r}") from None
    if kind not in _FAILURES:
        problem = f"the API sent the result type {kind!r}, which this version does not know"
        return ParsedLine(custom_id, ResultType.ERRORED, error_type="unknown_result_type", error_message=problem)
    error_type, message = _error(result) if kind == ResultType.ERRORED else (None, None)
    return ParsedLine(custom_id, kind, error_type=error_type, error_message=message)


def _succeeded(line: bytes, entry: Any, custom_id: str, result: Any, prices: Prices) -> ParsedLine:
    message = result["message"]
    get = message.get
    usage, model, content = get("usage") or {}, get("model"), get("content") or ()
    texts = [block["text"] for block in content if block.get("type") == "text"]
    tokens = usage.get
    return ParsedLine(
        custom_id=custom_id,
        result_type=ResultType.SUCCEEDED,
        response_text="".join(texts) if texts else None,
        stop_reason=get("stop_reason"),
        response_model=model,
        message_id=get("id"),
        input_tokens=tokens("input_tokens"),
        output_tokens=tokens("output_tokens"),
        cache_creation_input_tokens=tokens("cache_creation_input_tokens"),
        cache_read_input_tokens=tokens("cache_read_input_tokens"),
        cost_usd=prices.cost(model, usage) if model else None,
        response_json=_raw_message(line, entry, result),
    )


def _raw_message(line: bytes, entry: Any, result: Any) -> str:
    """Return the message's own bytes if it is last in the line, as the API sends it; else serialize it again."""
    before = len(_BEFORE_ID) + len(entry["custom_id"])
    if line.startswith(_AFTER_ID, before) and len(entry) == len(result) == 2 and line.endswith(b"}}}\n"):
        try:
            return line[before + len(_AFTER_ID) - 1 : -3].decode()
        except UnicodeDecodeError:
            pass
    mark, line = _MESSAGE_MARK.search(line), line.rstrip()
    if mark is not None and line.endswith(b"}}}"):
        raw = line[mark.end() : -2]
        try:
            if load_line(raw) == result["message"]:  # the mark may have matched another "message" in the line
                return raw.decode()
        except ValueError:
            pass
    return dump(load_exactly(line)["result"]["message"])


def _error(result: Any) -> tuple[str, str | None]:
    """Return (type, message) of an errored line, from `result.error.error` as documented, or `result.error`."""
    error = result.get("error") or {}
    nested = error.get("error")
    inner = nested if isinstance(nested, dict) else error
    message = inner.get("message")
    return str(inner.get("type") or "unknown_error"), message if message is None else str(message)
