"""What becomes of a request: one answer for who builds a submission, who retries, and who joins results."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.store.outcomes import CANCELED, PASSING, SUCCEEDED


class RequestFate(IntEnum):
    """What becomes of a request, see `request_fates`."""

    ANSWERED = 0
    """It has its answer."""
    IN_FLIGHT = 1
    """A request file that is ready, in doubt or submitted holds it."""
    NEW = 2
    """It was never asked: a submission asks it."""
    LEFT_OUT = 3
    """It failed or was canceled before, and a limit left it out: the next submission asks it."""
    RETRY = 4
    """It failed for a passing reason and has attempts left: it is retried automatically."""
    CANCELED = 5
    """It was canceled: the next submission asks it."""
    GIVEN_UP = 6
    """It failed for good: only a person has it asked again."""


def request_fates(
    has_response: NDArray[np.bool_],
    outcome: NDArray[np.int32],
    attempt: NDArray[np.int32],
    *,
    max_attempts: int,
    in_flight: NDArray[np.bool_] | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """Decides by the first line that applies:

    | A request with…                                                          | Fate      |
    |--------------------------------------------------------------------------|-----------|
    | a response that succeeded                                                | ANSWERED  |
    | a request file in flight that holds it                                   | IN_FLIGHT |
    | no response                                                              | NEW       |
    | a limit that left it out                                                 | LEFT_OUT  |
    | a response that failed for a passing reason, on one of the first attempts | RETRY     |
    | a response that was canceled                                             | CANCELED  |
    | a response that failed for any other reason, or on the last attempt      | GIVEN_UP  |

    Args:
        has_response: whether there is a response that counts, shape (n,), like all that follow.
        outcome: how that response ended (SUCCEEDED, FAILED, PASSING or CANCELED); any value where there is none.
        attempt: ordinal of the attempt that brought it, from 1; any value where there is none.
        max_attempts: after as many attempts a request is given up.
        in_flight: whether a request file in flight holds the request; None where the caller looks afterwards.
        left_out: whether a limit left the request out; None without a limit.

    Returns:
        A `RequestFate` for each request, shape (n,).
    """
    nothing = np.zeros(len(has_response), dtype=bool)
    lines = [
        (has_response & (outcome == SUCCEEDED), RequestFate.ANSWERED),
        (in_flight if in_flight is not None else nothing, RequestFate.IN_FLIGHT),
        (~has_response, RequestFate.NEW),
        (left_out if left_out is not None else nothing, RequestFate.LEFT_OUT),
        ((outcome == PASSING) & (attempt < max_attempts), RequestFate.RETRY),
        (outcome == CANCELED, RequestFate.CANCELED),
    ]
    conditions, fates = zip(*lines, strict=True)
    return np.select(conditions, [np.int8(fate) for fate in fates], np.int8(RequestFate.GIVEN_UP))
