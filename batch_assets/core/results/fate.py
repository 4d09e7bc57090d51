"""What becomes of a row of the results table."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.store.fate import RequestFate


class RowFate(IntEnum):
    """What becomes of a row, see `row_fates`."""

    REJECTED = 0
    """The template rejected it: there is no request."""
    ANSWERED = 1
    """It has its answer."""
    IN_FLIGHT = 2
    """It waits for a request file that holds its request."""
    UNASKED = 3
    """It waits, and its request is to be sent for the first time, or for the first time of this refresh."""
    LEFT_OUT = 4
    """It waits for the next submission: a limit left its request out, which had failed before."""
    RETRY = 5
    """It waits: its request failed for a passing reason and is retried automatically."""
    KEPT = 6
    """It keeps the answer from before the refresh, which brought none."""
    FAILED = 7
    """Its request failed, was canceled or expired, and is not asked again automatically."""
    UNSENT = 8
    """It was canceled before its request was sent."""


_PENDING = (RowFate.IN_FLIGHT, RowFate.UNASKED, RowFate.LEFT_OUT, RowFate.RETRY)
# By the number of a fate.
_IS_PENDING = np.array([fate in _PENDING for fate in RowFate])
# The result_type of a fate; that of the response for all others.
_RESULT_TYPES = {
    RowFate.REJECTED: "rejected",
    **dict.fromkeys(_PENDING, "pending"),
    RowFate.UNSENT: "canceled",
}


def row_fates(
    rejected: NDArray[np.bool_],
    request: NDArray[np.int8],
    has_response: NDArray[np.bool_],
    has_answer: NDArray[np.bool_],
    *,
    is_canceled: bool,
) -> NDArray[np.int8]:
    """Decides by the first line that applies. Lines marked * apply unless the submission was canceled: then
    nothing is sent or retried any more, and only what is in flight still comes.

    | A row…                                       | Fate      | result_type                      |
    |----------------------------------------------|-----------|----------------------------------|
    | that the template rejected                   | REJECTED  | rejected                         |
    | whose request is ANSWERED                    | ANSWERED  | succeeded                        |
    | whose request is IN_FLIGHT                   | IN_FLIGHT | pending                          |
    | whose request is UNASKED *                   | UNASKED   | pending                          |
    | whose request is LEFT_OUT *                  | LEFT_OUT  | pending                          |
    | whose request is due for a RETRY *           | RETRY     | pending                          |
    | with an answer in force (an earlier one)     | KEPT      | succeeded                        |
    | with another response in force               | FAILED    | errored, expired or canceled, as |
    |                                              |           | the response says                |
    | without a response                           | UNSENT    | canceled                         |

    Args:
        rejected: whether the template rejected the row, shape (n,), like all that follow.
        request: the `RequestFate` of the row's request, by the responses that count for the submission (those of
            its refresh, where it is one); any value for a rejected row.
        has_response: whether the request has a response in force, whenever it came.
        has_answer: whether that response succeeded.
        is_canceled: whether a person canceled the submission.

    Returns:
        A `RowFate` for each row, shape (n,).
    """
    is_asked = not is_canceled
    lines = [
        (rejected, RowFate.REJECTED),
        (request == RequestFate.ANSWERED.value, RowFate.ANSWERED),
        (request == RequestFate.IN_FLIGHT.value, RowFate.IN_FLIGHT),
        ((request == RequestFate.UNASKED.value) & is_asked, RowFate.UNASKED),
        ((request == RequestFate.LEFT_OUT.value) & is_asked, RowFate.LEFT_OUT),
        ((request == RequestFate.RETRY.value) & is_asked, RowFate.RETRY),
        (has_response & has_answer, RowFate.KEPT),
        (has_response, RowFate.FAILED),
    ]
    conditions, fates = zip(*lines, strict=True)
    return np.select(conditions, [np.int8(fate) for fate in fates], np.int8(RowFate.UNSENT))


def is_pending(fates: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which rows wait for an answer.

    Args:
        fates: a `RowFate` for each row, shape (n,).

    Returns:
        Shape (n,).
    """
    pending: NDArray[np.bool_] = _IS_PENDING[fates]
    return pending


def result_types(fates: NDArray[np.int8], of_responses: Any) -> Any:
    """The table's column result_type.

    Args:
        fates: a `RowFate` for each row, shape (n,).
        of_responses: the result_type of each row's response in force, strings of length n, null without response.

    Returns:
        Strings of length n.
    """
    own = pa.array([_RESULT_TYPES.get(fate) for fate in RowFate], pa.string())
    return pc.coalesce(own.take(pa.array(fates)), of_responses)
