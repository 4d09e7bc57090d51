"""Columns of Python objects in the value of an asset, as Arrow arrays.

A column becomes text, JSON as in JSON Lines, if Arrow has no type for it because its values are of several kinds,
or if its objects have too many different keys. Templates see the objects.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.rows import json_text, text_array
from batch_assets.core.dataset.shown_values import plain_decimal
from batch_assets.core.dataset.wide_objects import are_wide
from batch_assets.core.errors import DatasetError

ARROW_ERRORS = (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError)
"""What Arrow raises for Python objects that it cannot convert."""


def object_array(values: Sequence[Any], subject: str) -> tuple[pa.Array, bool]:
    """Convert a column of Python objects.

    Args:
        values: The values.
        subject: The column, for errors.

    Returns:
        The values, shape (n,), and whether values of other kinds than text became text.

    Raises:
        DatasetError: When values are of several kinds and one has no JSON form, or a number is too long.
    """
    try:
        if not are_wide(values):
            return pa.array(values), False
    except ARROW_ERRORS:
        pass  # several kinds, a number beyond 64 bits, or text that is not Unicode
    plain = [plain_object(value) for value in values]
    kinds = {kind for value in plain for kind in _kinds_without_json(value)}
    if kinds:
        raise DatasetError(
            f"{subject} holds Python objects of the type {', '.join(sorted(kinds))}, for which or with "
            "whose other values there is no type of a column: make them all of one kind in the asset, such as text"
        )
    try:
        return text_array([json_text(value) for value in plain]), True
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise DatasetError(
            f"{subject} has a whole number of more than {digits} digits: make it text in the asset"
        ) from None


def _kinds_without_json(value: Any) -> set[str]:
    if isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        return {kind for item in items for kind in _kinds_without_json(item)}
    return set() if value is None or isinstance(value, bool | int | float | str) else {type(value).__name__}


def plain_object(value: Any) -> Any:
    """Return a Python object in the types that Arrow returns: numpy's become Python's, NaN and NaT null."""
    if isinstance(value, dict):
        return {str(key): plain_object(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain_object(item) for item in value]
    if isinstance(value, set | frozenset):  # its order differs from process to process
        return sorted(map(plain_object, value), key=repr)
    if isinstance(value, np.generic):
        value = pa.scalar(value).as_py()
    if isinstance(value, Decimal):
        return plain_decimal(value) if value == value else None
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, UUID):
        return str(value)
    is_missing = value is None or type(value).__name__ == "NAType" or value != value  # NaN differs from itself
    return None if is_missing else value
