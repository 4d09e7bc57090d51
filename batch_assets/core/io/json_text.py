"""One result line of the API -> the columns of a response."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from batch_assets.core.prices import Prices

_MESSAGE_MARK = re.compile(rb'"message"\s*:\s*(?={)')
_BEFORE_ID, _AFTER_ID = b'{"custom_id":"', b'","result":{"type":"succeeded","message":{'
# Order of the values that `parse_line` returns; the digest and what the whole batch shares come besides.
PARSED = (
    "custom_id",
    "result_type",
    "response_text",
    "stop_reason",
    "response_model",
    "message_id",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cost_usd",
    "error_type",
    "error_message",
    "response_json",
)
_NOTHING = (None,) * 8
_KNOWN_TYPES = ("errored", "canceled", "expired")
# Whole numbers of fewer digits fit into the 64 bits that orjson keeps.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
# Python makes whole numbers of no more digits.
_MOST_DIGITS = 4000
FLOATS_SKIP = 2**53
"""From here on floats leave out whole numbers."""


def load_line(line: bytes) -> Any:
    """Parses a line; lone surrogates, which orjson refuses, become U+FFFD.

    Errors:
        ValueError: not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return _load_slowly(line)


def load_exactly(line: bytes) -> Any:
    """Like `load_line`, with every digit of whole numbers beyond 64 bits, of which orjson makes floats."""
    return _load_slowly(line) if _LONG_NUMBER.search(line) else load_line(line)


def dump(value: Any) -> str:
    """The JSON of a loaded value, in the compact form in which the API writes it."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # whole numbers beyond 64 bits; and what is deeper than orjson writes, which reads deeper
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _load_slowly(line: bytes) -> Any:
    try:
        return _mended(
            json.loads(line, parse_constant=lambda _: None, parse_int=_whole_number, parse_float=_fraction)
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _fraction(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "�", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def parse_line(line: bytes, prices: Prices) -> tuple[Any, ...]:
    """The values of a result line in the order of PARSED.

    Errors:
        ValueError: the line is not a result line.
    """
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        entry = load_line(line)
    try:
        custom_id, result = entry["custom_id"], entry["result"]
        kind = result["type"]
        if kind == "succeeded":
            return _succeeded(line, entry, custom_id, result, prices)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a result line: {error!r}") from None
    if kind not in _KNOWN_TYPES:
        problem = f"the API sent the result type {kind!r}, which this version does not know"
        return (custom_id, "errored", *_NOTHING, None, "unknown_result_type", problem, None)
    error_type, message = _error(result) if kind == "errored" else (None, None)
    return (custom_id, kind, *_NOTHING, None, error_type, message, None)


def _succeeded(line: bytes, entry: Any, custom_id: str, result: Any, prices: Prices) -> tuple[Any, ...]:
    message = result["message"]
    get = message.get
    usage, model, content = get("usage") or {}, get("model"), get("content") or ()
    texts = [block["text"] for block in content if block.get("type") == "text"]
    tokens = usage.get
    return (
        custom_id,
        "succeeded",
        "".join(texts) if texts else None,
        get("stop_reason"),
        model,
        get("id"),
        tokens("input_tokens"),
        tokens("output_tokens"),
        tokens("cache_creation_input_tokens"),
        tokens("cache_read_input_tokens"),
        prices.cost(model, usage) if model else None,
        None,
        None,
        _raw_message(line, entry, result),
    )


def _raw_message(line: bytes, entry: Any, result: Any) -> str:
    """The message's own bytes where they stand last in the line, as the API sends them; else written anew."""
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
            if load_line(raw) == result["message"]:  # not another object of that name, nor more than it
                return raw.decode()
        except ValueError:
            pass
    return dump(load_exactly(line)["result"]["message"])


def _error(result: Any) -> tuple[str, str | None]:
    """(type, message) of an errored line: `result.error.error` as documented, or flat."""
    error = result.get("error") or {}
    nested = error.get("error")
    inner = nested if isinstance(nested, dict) else error
    message = inner.get("message")
    return str(inner.get("type") or "unknown_error"), message if message is None else str(message)
