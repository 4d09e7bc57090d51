"""Which rows have an answer that can be used: the column `is_ok`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType


def ok_rows(columns: Mapping[str, Any]) -> Any:
    """Return which rows have an answer that is whole and valid.

    The others have no answer, or one that the checks `invalid_outputs_are_few` and `answers_are_whole` count: it
    does not match the output schema, was refused, cut off or paused.

    Args:
        columns: `result_type`, `error_type` and `stop_reason` of n rows, by name.

    Returns:
        n bools, none of them null.
    """
    is_invalid = pc.fill_null(pc.equal(columns["error_type"], ErrorType.INVALID_OUTPUT.value), False)
    return pc.and_(
        answered(columns["result_type"]), pc.invert(pc.or_(is_invalid, stopped(columns["stop_reason"])))
    )


def answered(result_types: Any) -> Any:
    """Return which rows have an answer, by their `result_type`: n bools, none of them null."""
    return pc.fill_null(pc.equal(result_types, ResultType.SUCCEEDED.value), False)


def stopped(stop_reasons: Any) -> Any:
    """Return which answers are not whole, by their `stop_reason`: refused, cut off or paused.

    Args:
        stop_reasons: n strings, null without an answer.

    Returns:
        n bools, none of them null.
    """
    return pc.is_in(stop_reasons, pa.array([REFUSED, *TRUNCATED], pa.string()))
