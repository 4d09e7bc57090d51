"""The texts by which a user names row keys."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest

from batch_assets.core.store.key_texts import positions_among, value_text


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([float("nan"), float("inf"), float("-inf"), 2.0, None]),
        pa.array([date(2024, 1, 5), None]),
        pa.array([Decimal("1.50"), None]),
        pa.array([7, None]),
        pa.array(["none", "", None]),
    ],
    ids=lambda keys: str(keys.type),
)
def test_null_names_no_key_but_the_text(keys: pa.Array) -> None:
    assert positions_among(keys, ["null"]).tolist() == [-1] * len(keys)


def test_a_number_that_json_has_not_is_named_as_python_prints_it() -> None:
    keys = pa.array([float("nan"), 2.0, float("-inf")])
    assert positions_among(keys, ["-inf", "nan"]).tolist() == [1, -1, 0]


LENGTHS = [
    ("1 day, 2:00:00", "1 days 02:00:00", "26:00:00", "PT26H", "P1DT2H0M0S"),
    ("3:00:00", "03:00:00", "0 days 03:00:00", "PT3H", "PT10800S"),
    ("-1 day, 21:00:00", "-1 days +21:00:00", "-PT3H"),
    ("1 day", "1 days", "P1D", "1 day, 0:00:00"),
    ("1 days 00:00:00.000000789", "P1DT0.000000789S"),
    ("0:00:00.500000", "0 days 00:00:00.5", "PT0.5S"),
]


@pytest.mark.parametrize("texts", LENGTHS, ids=str)
def test_all_texts_of_a_duration_are_one(texts: tuple[str, ...]) -> None:
    of_others = {value_text(text) for others in LENGTHS if others != texts for text in others}
    assert len(set(map(value_text, texts))) == 1
    assert value_text(texts[0]) not in {None, *of_others}


@pytest.mark.parametrize("text", ["", "P", "PT", "days", "1 day,", "1:2:3", "-", "P1Y", "3 hours"])
def test_other_texts_are_no_durations(text: str) -> None:
    assert value_text(text) is None
