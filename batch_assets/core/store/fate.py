"""What becomes of a request, decided in one function for builds, retries and joins."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.packed_responses import CANCELED, PASSING, SUCCEEDED


class RequestFate(IntEnum):
    """What becomes of a request, see `request_fates`."""

    ANSWERED = 0
    """The request has its answer."""
    IN_FLIGHT = 1
    """A request file in flight contains the request, see `FileState.in_flight`."""
    NEW = 2
    """The request was never sent: the next submission sends it."""
    LEFT_OUT = 3
    """The request failed or was canceled, and a limit left it out: the next submission sends it."""
    RETRY = 4
    """The request failed for a passing reason and has attempts left: it is retried automatically."""
    CANCELED = 5
    """The request was canceled: the next submission sends it."""
    GIVEN_UP = 6
    """The request failed permanently: it is sent again only if the user asks for it."""


def request_fates(
    has_response: NDArray[np.bool_],
    outcome: NDArray[np.int32],
    attempt: NDArray[np.int32],
    *,
    max_attempts: int,
    in_flight: NDArray[np.bool_] | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """Decide what becomes of each request. The first line that applies decides.

    | A request with…                                                       | Fate      |
    |-----------------------------------------------------------------------|-----------|
    | a response that succeeded                                             | ANSWERED  |
    | a request file in flight that contains it                             | IN_FLIGHT |
    | no response                                                           | NEW       |
    | a limit that left it out                                              | LEFT_OUT  |
    | a response that failed for a passing reason, before the last attempt  | RETRY     |
    | a response that was canceled                                          | CANCELED  |
    | a response that failed for another reason, or on the last attempt     | GIVEN_UP  |

    Args:
        has_response: Whether there is a response that counts; bool, shape (n,).
        outcome: SUCCEEDED, FAILED, PASSING or CANCELED, any value without a response; int32, shape (n,).
        attempt: The attempt that the response came from, from 1, any value without one; int32, shape (n,).
        max_attempts: The number of attempts after which a request is given up.
        in_flight: Whether a request file in flight contains the request; bool, shape (n,). None if the caller
            checks that afterwards.
        left_out: Whether a limit left the request out; bool, shape (n,). None without a limit.

    Returns:
        A `RequestFate` for each request; int8, shape (n,).
    """
    no_request = np.zeros(len(has_response), dtype=bool)
    lines = [
        (has_response & (outcome == SUCCEEDED), RequestFate.ANSWERED),
        (in_flight if in_flight is not None else no_request, RequestFate.IN_FLIGHT),
        (~has_response, RequestFate.NEW),
        (left_out if left_out is not None else no_request, RequestFate.LEFT_OUT),
        ((outcome == PASSING) & (attempt < max_attempts), RequestFate.RETRY),
        (outcome == CANCELED, RequestFate.CANCELED),
    ]
    conditions, fates = zip(*lines, strict=True)
    return np.select(conditions, [np.int8(fate) for fate in fates], np.int8(RequestFate.GIVEN_UP))
