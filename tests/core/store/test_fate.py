"""The truth table of what becomes of a request, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.packed_responses import CANCELED, FAILED, PASSING, SUCCEEDED

NO_RESPONSE = None
# Of three attempts: (outcome, attempt), in flight, left out, and what becomes of it.
TABLE = [
    (NO_RESPONSE, False, False, "NEW"),
    (NO_RESPONSE, False, True, "NEW"),
    (NO_RESPONSE, True, False, "IN_FLIGHT"),
    ((SUCCEEDED, 1), False, False, "ANSWERED"),
    ((SUCCEEDED, 3), False, True, "ANSWERED"),
    ((SUCCEEDED, 1), True, False, "ANSWERED"),
    ((PASSING, 1), False, False, "RETRY"),
    ((PASSING, 2), False, False, "RETRY"),
    ((PASSING, 3), False, False, "GIVEN_UP"),
    ((PASSING, 4), False, False, "GIVEN_UP"),
    ((PASSING, 1), True, False, "IN_FLIGHT"),
    ((PASSING, 3), True, False, "IN_FLIGHT"),
    ((PASSING, 1), False, True, "LEFT_OUT"),
    ((PASSING, 3), False, True, "LEFT_OUT"),
    ((PASSING, 1), True, True, "IN_FLIGHT"),
    ((CANCELED, 1), False, False, "CANCELED"),
    ((CANCELED, 3), False, False, "CANCELED"),
    ((CANCELED, 1), True, False, "IN_FLIGHT"),
    ((CANCELED, 1), False, True, "LEFT_OUT"),
    ((FAILED, 1), False, False, "GIVEN_UP"),
    ((FAILED, 1), True, False, "IN_FLIGHT"),
    ((FAILED, 1), False, True, "LEFT_OUT"),
]


def test_what_becomes_of_requests() -> None:
    responses = [response or (SUCCEEDED, 0) for response, *_ in TABLE]  # zeros where there is no response
    fates = request_fates(
        np.array([response is not None for response, *_ in TABLE]),
        np.array([outcome for outcome, _ in responses], np.int32),
        np.array([attempt for _, attempt in responses], np.int32),
        max_attempts=3,
        in_flight=np.array([in_flight for _, in_flight, _, _ in TABLE]),
        left_out=np.array([left_out for _, _, left_out, _ in TABLE]),
    )
    assert fates.dtype == np.int8
    assert [RequestFate(fate).name for fate in fates] == [fate for *_, fate in TABLE]
    assert {fate for *_, fate in TABLE} == set(RequestFate.__members__)


@pytest.mark.parametrize("outcome", [PASSING, FAILED])
def test_a_canceled_submission_has_no_attempts_and_retries_nothing(outcome: int) -> None:
    fates = request_fates(np.array([True]), np.array([outcome]), np.array([1]), max_attempts=0)
    assert fates.tolist() == [RequestFate.GIVEN_UP]


def test_no_requests() -> None:
    nothing = np.empty(0, np.int32)
    assert len(request_fates(np.empty(0, bool), nothing, nothing, max_attempts=3)) == 0
