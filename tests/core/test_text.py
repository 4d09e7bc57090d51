"""Numbers as text for users: one function for each kind."""

from __future__ import annotations

import pytest

from batch_assets.core.prices.range import Range
from batch_assets.core.text import (
    about_dollars,
    count,
    counts,
    day,
    dollars,
    duration,
    exact_dollars,
    exact_moment,
    moment,
    size,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (5370, "1 h 30 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_in_utc_and_say_so() -> None:
    seconds = 1_795_961_111.9
    assert day(seconds) == "2026-11-29"
    assert moment(seconds) == "2026-11-29 14:05 UTC"
    assert exact_moment(seconds) == "2026-11-29 14:05:11 UTC"


def test_a_count_of_one_has_the_singular() -> None:
    assert [count(number, "row") for number in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]
    assert [count(number, "batch is", "batches are") for number in (1, 2)] == ["1 batch is", "2 batches are"]


def test_counts_by_kind_leave_zeros_out() -> None:
    assert counts({"succeeded": 3000, "errored": 0, "expired": 1}) == "3,000 succeeded, 1 expired"
    assert counts({"errored": 0}) == "none"
    assert counts({}, nothing="") == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (3400, "3.4 kB"), (12_000, "12 kB"), (999_900, "1.0 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0.0000"),
        (0.00004, "less than $0.0001"),
        (0.0001, "$0.0001"),
        (0.0078, "$0.0078"),
        (1234.5, "$1,234.5000"),
    ],
)
def test_a_cost_of_zero_is_shown_differently_from_a_small_cost(usd: float, text: str) -> None:
    assert dollars(usd) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0.0000"),
        (0.000000000001, "$0.000000000001"),
        (0.0000370004, "$0.000037"),
        (0.0003711, "$0.000371"),
        (0.00099999, "$0.0010"),
        (0.5, "$0.5000"),
        (1234.5, "$1,234.5000"),
    ],
)
def test_small_costs_that_are_compared_differ(usd: float, text: str) -> None:
    assert exact_dollars(usd) == text


def test_no_range_is_about_less_than_an_amount() -> None:
    assert Range(0, 40_000_000, 400_000_000).as_text == "$0.0000 to $0.0004, about $0.00004"
    assert Range(0, 140_000_000, 400_000_000).as_text == "$0.0000 to $0.0004, about $0.0001"


def test_an_estimate_is_marked_as_one() -> None:
    assert [about_dollars(usd) for usd in (0.0078, 0.00004)] == ["about $0.0078", "less than $0.0001"]
