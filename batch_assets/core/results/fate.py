"""Decide what becomes of each row of the results table."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.store.fate import RequestFate


class RowFate(IntEnum):
    """What becomes of a row, see `row_fates`."""

    REJECTED = 0
    """The template rejected the row: there is no request."""
    ANSWERED = 1
    """The row has its answer."""
    IN_FLIGHT = 2
    """The row waits for a request file that contains its request."""
    NEW = 3
    """The row waits: its request is to be sent for the first time, or for the first time in this refresh."""
    LEFT_OUT = 4
    """The row waits for the next submission: its request had failed, and a limit left it out."""
    RETRY = 5
    """The row waits: its request failed for a passing reason and is retried automatically."""
    KEPT = 6
    """The row keeps its answer from before the refresh, which brought no new one."""
    FAILED = 7
    """The row's request failed, was canceled or expired, and is not retried automatically."""
    UNSENT = 8
    """The row was canceled before its request was sent."""
    FOLLOW_UP = 9
    """The row waits: its answer is followed by another request, which is sent automatically."""


_PENDING = (RowFate.IN_FLIGHT, RowFate.NEW, RowFate.LEFT_OUT, RowFate.RETRY, RowFate.FOLLOW_UP)
# Indexed by the number of a fate.
_IS_PENDING = np.array([fate in _PENDING for fate in RowFate])
# The result_type of these fates. All others have the result_type of the response.
_RESULT_TYPES = {
    RowFate.REJECTED: ResultType.REJECTED,
    **dict.fromkeys(_PENDING, ResultType.PENDING),
    RowFate.UNSENT: ResultType.CANCELED,
}


def row_fates(
    rejected: NDArray[np.bool_],
    request: NDArray[np.int8],
    has_response: NDArray[np.bool_],
    has_answer: NDArray[np.bool_],
    *,
    is_canceled: bool,
) -> NDArray[np.int8]:
    """Decide what becomes of each row. The first line that applies decides.

    An ANSWERED row whose answer is followed by another request waits for that. `FollowUps` decides it, which reads
    the answers.

    Lines marked * do not apply if the submission was canceled: then nothing is sent or retried, and only what is
    in flight can still bring answers.

    | A row…                                       | Fate      | result_type                      |
    |----------------------------------------------|-----------|----------------------------------|
    | that the template rejected                   | REJECTED  | rejected                         |
    | whose request is ANSWERED                    | ANSWERED  | succeeded                        |
    | whose request is IN_FLIGHT                   | IN_FLIGHT | pending                          |
    | whose request is NEW *                       | NEW       | pending                          |
    | whose request is LEFT_OUT *                  | LEFT_OUT  | pending                          |
    | whose request is due for a RETRY *           | RETRY     | pending                          |
    | with an answer in force (an earlier one)     | KEPT      | succeeded                        |
    | with another response in force               | FAILED    | errored, expired or canceled, as |
    |                                              |           | the response says                |
    | without a response                           | UNSENT    | canceled                         |

    Args:
        rejected: Whether the template rejected each row; bool, shape (n,).
        request: The `RequestFate` of each row's request, by the responses that count for the submission (for a
            refresh, only its own). Any value for a rejected row; int8, shape (n,).
        has_response: Whether the request has a response in force, from any time; bool, shape (n,).
        has_answer: Whether that response succeeded; bool, shape (n,).
        is_canceled: Whether a user canceled the submission.

    Returns:
        A `RowFate` for each row; int8, shape (n,).
    """
    is_asked = not is_canceled
    lines = [
        (rejected, RowFate.REJECTED),
        (request == RequestFate.ANSWERED.value, RowFate.ANSWERED),
        (request == RequestFate.IN_FLIGHT.value, RowFate.IN_FLIGHT),
        ((request == RequestFate.NEW.value) & is_asked, RowFate.NEW),
        ((request == RequestFate.LEFT_OUT.value) & is_asked, RowFate.LEFT_OUT),
        ((request == RequestFate.RETRY.value) & is_asked, RowFate.RETRY),
        (has_response & has_answer, RowFate.KEPT),
        (has_response, RowFate.FAILED),
    ]
    conditions, fates = zip(*lines, strict=True)
    return np.select(conditions, [np.int8(fate) for fate in fates], np.int8(RowFate.UNSENT))


def is_pending(fates: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return which rows wait for an answer.

    Args:
        fates: A `RowFate` for each row; int8, shape (n,).

    Returns:
        bool, shape (n,).
    """
    pending: NDArray[np.bool_] = _IS_PENDING[fates]
    return pending


def result_types(fates: NDArray[np.int8], of_responses: Any) -> Any:
    """Return the table's column result_type.

    Args:
        fates: A `RowFate` for each row; int8, shape (n,).
        of_responses: The result_type of each row's response in force, null without response; n strings.

    Returns:
        n strings.
    """
    type_of_fate = pa.array([_RESULT_TYPES.get(fate) for fate in RowFate], pa.string())
    return pc.coalesce(type_of_fate.take(pa.array(fates)), of_responses)
