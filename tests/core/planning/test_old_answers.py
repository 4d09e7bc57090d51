"""What took the place of the five old answers says the same, in any state of a ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from batch_assets.core.ledger import Ledger

from .generated import fill
from .old_answers import agree

EXAMPLES = int(os.environ.get("BATCH_ASSETS_SNAPSHOTS") or 60)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")
    yield made
    made.close()


@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_old_and_new_agree_on_generated_snapshots(ledger: Ledger, data: st.DataObject) -> None:
    with ledger.write() as tx, tx.connection.begin_nested() as undone:
        try:
            fill(tx, data)
            agree(tx)
        finally:
            undone.rollback()
