"""Parse one line of a batch's results, as the API sends it, into the columns of a response."""

from __future__ import annotations

import re
from types import NoneType
from typing import Any, NamedTuple

import orjson

from batch_assets.core.answers.answers import REFUSED, refusal
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.io.json_text import NestedTooDeeplyError, dump, load_exactly, load_line
from batch_assets.core.prices.money import usd
from batch_assets.core.prices.prices import Cost, Prices

_MESSAGE_MARK = re.compile(rb'"message"\s*:\s*(?={)')
BEFORE_ID, AFTER_ID = b'{"custom_id":"', b'","result":{"type":"succeeded","message":{'
"""What is before and after the custom_id in a line with an answer, as the API sends it."""
_SUCCEEDED = ResultType.SUCCEEDED.value
_FAILURES = (ResultType.ERRORED, ResultType.CANCELED, ResultType.EXPIRED)
_UNKNOWN_ERROR = "unknown_error"
_TEXTS = ("stop_reason", "response_model", "message_id")
NUMBERS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""The columns of tokens, named as in the message's usage."""
_TEXT, _NUMBER = (str, NoneType), (int, NoneType)
MOST_TOKENS = 2**53
"""The most tokens of an answer: more than any has, and exact in every column."""
ID_CHARACTERS = 64
"""The most characters of a custom_id."""


class OddLineError(ValueError):
    """A line names a request of ours, and its message has a value of a kind that no column can hold."""


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
    thinking_tokens: int | None = None
    live_cost_usd: float | None = None


def parse_line(line: bytes, prices: Prices) -> ParsedLine:
    """Parse a result line.

    Args:
        line: The line, usually with its line end.
        prices: The prices that give an answer's cost.

    Raises:
        OddLineError: When it is JSON without a result of the API, or with a message that is not one.
        ValueError: When it is not JSON, so it was cut or damaged.
    """
    try:
        entry = orjson.loads(line)  # without the call of `load_line`, for speed
    except orjson.JSONDecodeError:
        entry = _load(line)
    try:
        custom_id, result = entry["custom_id"], entry["result"]
        kind = result["type"]
    except (KeyError, TypeError, AttributeError) as error:
        raise OddLineError(f"it has no result of the API: {error!r}") from None
    if type(custom_id) is not str or len(custom_id) > ID_CHARACTERS:
        custom_id = None  # it is completed from the request file
    if kind == _SUCCEEDED:
        try:
            return _succeeded(line, entry, custom_id, result, prices)
        except OddLineError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise OddLineError(f"its message is not one of the API: {str(error)[:200]!r}") from None
    if kind not in _FAILURES:
        problem = f"the API sent the result type {_as_text(kind)[:200]!r}, which this version does not know"
        return ParsedLine(
            custom_id,
            ResultType.ERRORED,
            error_type="unknown_result_type",
            error_message=problem,
            response_json=raw_line(line),
        )
    error_type, message = _error(result) if kind == ResultType.ERRORED else (None, None)
    return ParsedLine(custom_id, kind, error_type=error_type, error_message=message)


def _load(line: bytes) -> Any:
    """Parse a line that orjson refuses."""
    try:
        return load_line(line)
    except NestedTooDeeplyError as error:  # another download of it is no different
        raise OddLineError(str(error)) from None


def _succeeded(line: bytes, entry: Any, custom_id: str, result: Any, prices: Prices) -> ParsedLine:
    message = result["message"]
    get = message.get
    usage, model, content = get("usage") or {}, get("model"), get("content") or ()
    tokens = usage.get
    stop_reason, message_id = get("stop_reason"), get("id")
    read, wrote = tokens("input_tokens"), tokens("output_tokens")
    cache_wrote, cache_read = tokens("cache_creation_input_tokens"), tokens("cache_read_input_tokens")
    # Nearly all lines are as the API documents them: single expressions, for speed, spare them loops and calls.
    if not (
        type(stop_reason) is type(model) is type(message_id) is str
        and type(read) is type(wrote) is type(cache_wrote) is type(cache_read) is int
        and 0 <= read <= MOST_TOKENS
        and 0 <= wrote <= MOST_TOKENS
        and 0 <= cache_wrote <= MOST_TOKENS
        and 0 <= cache_read <= MOST_TOKENS
    ):
        _check_values((stop_reason, model, message_id), (read, wrote, cache_wrote, cache_read))
    thinking = (tokens("output_tokens_details") or {}).get("thinking_tokens")
    if thinking is not None:
        _check_number("thinking_tokens", thinking)
    cost = prices.cost(model, usage) if model else None
    if cost is not None and stop_reason == REFUSED and not content:
        cost = Cost(0, 0)  # a refusal before any output is not billed
    if cost is not None and not cost.batch >= 0:
        raise OddLineError("the numbers of tokens in its usage give no cost")
    batch_usd, live_usd = (usd(cost.batch), usd(cost.live)) if cost is not None else (None, None)
    raw, text = _raw_message(line, entry, result), _text(content)
    columns = (custom_id, _SUCCEEDED, text, stop_reason, model, message_id, read, wrote, cache_wrote, cache_read)
    refused = refusal(get("stop_details")) if stop_reason == REFUSED else None
    return tuple.__new__(ParsedLine, (*columns, batch_usd, None, refused, raw, thinking, live_usd))


def _text(content: Any) -> str | None:
    """The texts of the blocks of a message, joined; `None` without a text block."""
    if len(content) == 1 and content[0].get("type") == "text" and type(content[0]["text"]) is str:
        text: str = content[0]["text"]
        return text
    texts = [block["text"] for block in content if block.get("type") == "text"]
    return "".join(texts) if texts else None


def _check_values(texts: tuple[Any, ...], numbers: tuple[Any, ...]) -> None:
    """Check the values of the columns `_TEXTS` and `NUMBERS`, in their order.

    Raises:
        OddLineError: When a column cannot hold its value.
    """
    for name, value in zip(_TEXTS, texts, strict=True):
        if type(value) not in _TEXT:
            raise OddLineError(f"{name} is {_shown(value)}, which is no text")
    for name, value in zip(NUMBERS, numbers, strict=True):
        _check_number(name, value)


def _check_number(name: str, value: Any) -> None:
    is_number = type(value) in _NUMBER or (type(value) is float and value.is_integer())
    if not is_number or not 0 <= (value or 0) <= MOST_TOKENS:
        raise OddLineError(f"{name} is {_shown(value)}, which is no number of tokens")


def raw_line(line: bytes) -> str:
    """Return a line as it came, for a row that cannot hold it otherwise."""
    return line.decode(errors="replace").rstrip()


def _shown(value: Any) -> str:
    """Return the start of a value as the API sent it."""
    return _text_of(value)[:100]


def _text_of(value: Any) -> str:
    """Return a value as JSON."""
    try:
        return dump(value)
    except RecursionError:
        return "a value that is nested too deeply"


def _raw_message(line: bytes, entry: Any, result: Any) -> str:
    """Return the message's own bytes if it is last in the line, as the API sends it; else serialize it again."""
    before = len(BEFORE_ID) + len(str(entry["custom_id"]))
    if line.startswith(AFTER_ID, before) and len(entry) == len(result) == 2 and line.endswith(b"}}}\n"):
        try:
            return line[before + len(AFTER_ID) - 1 : -3].decode()
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
    """Return (type, message) of an errored line.

    They are in `result.error.error` as documented, or in `result.error`. A text or a list in their place is the
    message of an error of an unknown type.
    """
    error = result.get("error") or {}
    if not isinstance(error, dict):
        return _UNKNOWN_ERROR, _as_text(error)
    nested, inner = error.get("error"), error
    if isinstance(nested, dict):
        inner = nested
    elif nested and "message" not in error:
        return _UNKNOWN_ERROR, _as_text(nested)
    message = inner.get("message")
    return _as_text(inner.get("type") or _UNKNOWN_ERROR), None if message is None else _as_text(message)


def _as_text(value: Any) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else _text_of(value)
