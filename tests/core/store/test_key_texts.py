"""The texts by which a user names row keys."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest

from batch_assets.core.store.key_texts import positions_among


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
