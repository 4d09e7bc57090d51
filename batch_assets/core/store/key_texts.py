"""Row keys as text: the form in which a user names a row on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.store.duration_texts import NANOSECONDS, duration_text, nanoseconds_of

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?", re.IGNORECASE | re.ASCII)
# Python cuts a time after the microseconds.
_NANOSECONDS = re.compile(r"\.\d{6}0*[1-9]")


def key_texts(keys: pa.Array) -> list[list[str | None]]:
    """Return the texts by which a user may name each row key, in one list or several of the keys' length.

    The text of a string or an integer is unambiguous. A time or a number has more: the one that Python prints, the
    one in JSON, and the one in the column `shared_with`. A null key has no text, so the text "null" names only a
    row with that key.

    Args:
        keys: Row keys of any type, length n.
    """
    values = keys.to_pylist()
    printed = [None if key is None else str(key) for key in values]
    if _has_one_text(keys.type):
        return [printed]
    in_json = [None if key is None else _in_json(key) for key in values]
    try:
        return [printed, in_json, keys.cast(pa.string()).to_pylist()]
    except pa.ArrowException:
        return [printed, in_json]


def _in_json(key: Any) -> str:
    if isinstance(key, float) and not math.isfinite(key):
        return str(key)  # JSON has none, and "null" must not name it
    text = orjson.dumps(key, default=str).decode().strip('"')
    return text.replace("e+", "e") if isinstance(key, float) else text


def meant_by(text: str, type_: pa.DataType) -> pa.Array | None:
    """Return the row key that a text means, as an array of length 1; `None` if no value is written so.

    Args:
        text: What a user wrote, in any form of the type.
        type_: The type of row keys.

    Raises:
        pyarrow.ArrowNotImplementedError: When texts cannot be read as values of the type.
    """
    if pa.types.is_dictionary(type_):
        return meant_by(text, type_.value_type)
    if pa.types.is_duration(type_):
        return _duration(text, type_)
    try:
        return pa.array([text], pa.string()).cast(type_)
    except pa.ArrowNotImplementedError:
        raise
    except (pa.ArrowException, ValueError, OverflowError):
        return None


def _duration(text: str, type_: pa.DataType) -> pa.Array | None:
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):  # as Arrow prints it, without a unit
        return pa.array([int(text)], type_)
    nanoseconds = nanoseconds_of(text)
    if nanoseconds is None or nanoseconds % NANOSECONDS[type_.unit]:
        return None
    try:
        return pa.array([nanoseconds // NANOSECONDS[type_.unit]], type_)
    except OverflowError:
        return None


def value_text(text: str) -> str | None:
    """Return the same text for all texts of one number, time, duration or truth value; `None` for any other text.

    A file may write a key as `2024-01-05T10:00:00Z` or `4711.50`, and a typed column shows it otherwise.
    """
    if text.lower() in ("true", "false"):
        return text.lower()
    if _NUMBER.fullmatch(text) is not None:
        sign, digits, exponent = Decimal(text).as_tuple()
        shown = "".join(map(str, digits)).rstrip("0")
        power = int(exponent) + len(digits) - len(shown)
        return f"{'-' * sign}{shown.lstrip('0')}e{power}" if shown else "0"
    if (nanoseconds := nanoseconds_of(text)) is not None:
        return duration_text(nanoseconds)
    if _NANOSECONDS.search(text) is not None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        return time.fromisoformat(text).isoformat()
    except ValueError:
        return None


def is_text(type_: pa.DataType) -> bool:
    """Whether row keys of a type are texts."""
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _has_one_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_integer(type_))


def positions_among(keys: pa.Array, named: Sequence[str]) -> NDArray[np.int64]:
    """Return for each row key the position of the text that names it: int64, shape (n,), -1 for none.

    Args:
        keys: Row keys of any type, length n.
        named: The texts that name row keys.
    """
    positions = np.full(len(keys), -1, dtype=np.int64)
    wanted = pa.array(named, pa.string())
    columns = [keys.cast(pa.string())] if _has_one_text(keys.type) else key_texts(keys)
    for texts in columns:
        matches = pc.index_in(pa.array(texts, pa.string()), value_set=wanted)
        positions = np.where(positions < 0, pc.fill_null(matches, -1).to_numpy(zero_copy_only=False), positions)
    return positions
