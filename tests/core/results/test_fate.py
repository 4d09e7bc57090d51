"""What becomes of requests and rows: every combination, and every root that the state machine reaches."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.fate import RowFate
from batch_assets.core.store.fate import RequestFate

from .fate_oracle import MAX_ATTEMPTS, Made, all_cases, check_join, check_retries, check_selection, old_slices

CASES = all_cases()


def submission(*, is_canceled: bool) -> Any:
    most = 0 if is_canceled else MAX_ATTEMPTS
    return SimpleNamespace(max_attempts=most, is_canceled=is_canceled, pipeline="asked", partition="", id="any")


def check(made: Made, *, is_canceled: bool) -> set[RowFate]:
    """Holds the join, a retry and a new submission against `fate`."""
    one = submission(is_canceled=is_canceled)
    slices, report = old_slices(made, one)
    seen = check_join(slices, made.standing, made.fresh, made.held, made.left, one, report.kept, made.types)
    check_retries(SimpleNamespace(storage=None), one, made.fresh, made.held, [made.rows], True)
    return {fate for fate, _ in seen}


@pytest.mark.parametrize("is_canceled", [False, True])
def test_rows_of_all_combinations_become_what_the_join_made_of_them(is_canceled: bool) -> None:
    seen = check(Made(CASES), is_canceled=is_canceled)
    pending = {RowFate.UNASKED, RowFate.LEFT_OUT, RowFate.RETRY}
    assert seen == set(RowFate) - (pending if is_canceled else {RowFate.UNSENT})


@given(st.lists(st.sampled_from(CASES), min_size=1, max_size=12), st.booleans())
def test_rows_become_the_same_in_any_company(cases: list[Any], is_canceled: bool) -> None:
    check(Made(cases), is_canceled=is_canceled)


@pytest.mark.parametrize(("retry_failed", "limit"), [*itertools.product((False, True), (None, 0, 7))])
def test_a_new_submission_asks_for_what_it_asked_for(retry_failed: bool, limit: int | None) -> None:
    made = Made(CASES)
    again = AskAgain(retry_failed=retry_failed, limit=limit)
    seen = check_selection(made.fresh, made.held, made.digests, MAX_ATTEMPTS, again)
    assert seen == set(RequestFate) - {RequestFate.LEFT_OUT}
