"""The truth table of what becomes of a row, written out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batch_assets.core.results.fate import RowFate, is_pending, result_types, row_fates
from batch_assets.core.store.fate import RequestFate

NONE = None
# What becomes of the request, result_type of the response in force, what becomes of the row, its result_type.
TABLE = [
    (RequestFate.ANSWERED, "succeeded", "ANSWERED", "succeeded"),
    (RequestFate.IN_FLIGHT, NONE, "IN_FLIGHT", "pending"),
    (RequestFate.IN_FLIGHT, "errored", "IN_FLIGHT", "pending"),
    (RequestFate.IN_FLIGHT, "canceled", "IN_FLIGHT", "pending"),
    (RequestFate.IN_FLIGHT, "succeeded", "IN_FLIGHT", "pending"),
    (RequestFate.NEW, NONE, "NEW", "pending"),
    (RequestFate.NEW, "succeeded", "NEW", "pending"),
    (RequestFate.NEW, "expired", "NEW", "pending"),
    (RequestFate.LEFT_OUT, "errored", "LEFT_OUT", "pending"),
    (RequestFate.LEFT_OUT, "succeeded", "LEFT_OUT", "pending"),
    (RequestFate.RETRY, "expired", "RETRY", "pending"),
    (RequestFate.RETRY, "succeeded", "RETRY", "pending"),
    (RequestFate.CANCELED, "canceled", "FAILED", "canceled"),
    (RequestFate.CANCELED, "succeeded", "KEPT", "succeeded"),
    (RequestFate.GIVEN_UP, "errored", "FAILED", "errored"),
    (RequestFate.GIVEN_UP, "expired", "FAILED", "expired"),
    (RequestFate.GIVEN_UP, "succeeded", "KEPT", "succeeded"),
]
# As above, for a submission that a user canceled.
CANCELED = [
    (RequestFate.ANSWERED, "succeeded", "ANSWERED", "succeeded"),
    (RequestFate.IN_FLIGHT, NONE, "IN_FLIGHT", "pending"),
    (RequestFate.IN_FLIGHT, "succeeded", "IN_FLIGHT", "pending"),
    (RequestFate.NEW, NONE, "UNSENT", "canceled"),
    (RequestFate.NEW, "errored", "FAILED", "errored"),
    (RequestFate.NEW, "succeeded", "KEPT", "succeeded"),
    (RequestFate.LEFT_OUT, "expired", "FAILED", "expired"),
    (RequestFate.LEFT_OUT, "succeeded", "KEPT", "succeeded"),
    (RequestFate.RETRY, "expired", "FAILED", "expired"),
    (RequestFate.CANCELED, "canceled", "FAILED", "canceled"),
    (RequestFate.GIVEN_UP, "errored", "FAILED", "errored"),
]
Table = list[tuple[RequestFate, str | None, str, str]]


@pytest.mark.parametrize(("table", "is_canceled"), [(TABLE, False), (CANCELED, True)])
def test_what_becomes_of_rows(table: Table, is_canceled: bool) -> None:
    responses = [response for _, response, _, _ in table]
    fates = row_fates(
        np.zeros(len(table), dtype=bool),
        np.array([request for request, *_ in table], np.int8),
        np.array([response is not None for response in responses]),
        np.array([response == "succeeded" for response in responses]),
        is_canceled=is_canceled,
    )
    assert fates.dtype == np.int8
    assert [RowFate(fate).name for fate in fates] == [fate for _, _, fate, _ in table]
    types = [type_ for *_, type_ in table]
    assert result_types(fates, pa.array(responses, pa.string())).to_pylist() == types
    assert is_pending(fates).tolist() == [type_ == "pending" for type_ in types]


@pytest.mark.parametrize("is_canceled", [False, True])
@pytest.mark.parametrize("request_fate", RequestFate)
def test_a_rejected_row_is_rejected_whatever_else_holds(request_fate: RequestFate, is_canceled: bool) -> None:
    yes, no = np.array([True]), np.array([False])
    fates = row_fates(yes, np.array([request_fate], np.int8), no, no, is_canceled=is_canceled)
    assert fates.tolist() == [RowFate.REJECTED]
    assert result_types(fates, pa.nulls(1, pa.string())).to_pylist() == ["rejected"]


def test_every_fate_is_in_the_tables() -> None:
    # FOLLOW_UP follows from the answer, see `follow_ups`.
    fates = {fate for *_, fate, _ in TABLE + CANCELED} | {RowFate.REJECTED.name, RowFate.FOLLOW_UP.name}
    assert fates == set(RowFate.__members__)
