"""The answer in force of a request with follow-ups, and what else belongs to its chain."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.digests import custom_ids, pack
from batch_assets.core.store.follow_up_ids import follow_up_id
from batch_assets.core.store.outcomes import Outcomes, in_force, read_responses
from batch_assets.core.store.packed_responses import Responses
from batch_assets.core.store.responses import RESPONSE_SCHEMA, file_metadata

DIGEST = b"0123456789abcdef"


class One(NamedTuple):
    """A response to the request: how many follow-ups came before it, its result, its attempt, and its refresh."""

    step: int
    result: str = "succeeded"
    attempt: int = 1
    refresh: float = 0.0


def load(folder: Path, *responses: One) -> tuple[Responses, Outcomes]:
    """Store each response in a file of its own, in the order in which their batches ended."""
    storage, refreshes = Storage(str(folder)), {}
    custom_id = custom_ids(["row"], pack([DIGEST]), "marked")[0].decode()
    for number, one in enumerate(responses):
        columns = {field.name: pa.nulls(1, field.type) for field in RESPONSE_SCHEMA}
        followed = follow_up_id(custom_id, np.array([one.step, 0, 0], np.int8), DIGEST, "marked").decode()
        columns["digest"] = pa.array([DIGEST], pa.binary(16))
        columns["custom_id"] = pa.array([followed if one.step else custom_id])
        columns["result_type"] = pa.array([one.result if one.result != "passing" else "expired"])
        columns["attempts"] = pa.array([one.attempt], pa.int32())
        schema = RESPONSE_SCHEMA.with_metadata(file_metadata(float(number), follows=one.step > 0))
        with storage.write("p", "responses", f"{number}.parquet") as scratch:
            pq.write_table(pa.table(columns, schema=schema), scratch)
        if one.refresh:
            refreshes[ResponseName.of_batch(str(number))] = one.refresh
    files, stored = read_responses(storage, "p")
    return stored, in_force(stored, files, refreshes)


FIRST, SECOND, THIRD = One(0), One(1, attempt=2), One(2, attempt=3)
OF_REFRESH = One(0, refresh=1.0)
CASES = {
    "the last answer": ([FIRST, SECOND, THIRD], 2, [0, 1]),
    "a second answer to the first request, later": ([FIRST, SECOND, FIRST], 1, [0]),
    "a failed follow-up": ([FIRST, One(1, "errored", 2)], 0, []),
    "a refresh without a follow-up": ([FIRST, SECOND, OF_REFRESH], 2, []),
    "a refresh with one": ([FIRST, SECOND, OF_REFRESH, One(1, attempt=2, refresh=1.0)], 3, [2]),
    "a follow-up of a refresh by a later submission": ([FIRST, OF_REFRESH, SECOND], 2, [1]),
    "and the refresh's answer once more": ([FIRST, OF_REFRESH, SECOND, OF_REFRESH], 2, [1]),
    "a follow-up in flight when the refresh began": ([FIRST, One(1, attempt=2, refresh=1.0)], 1, [0]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_in_force_is_the_last_of_the_chain(case: str, tmp_path: Path) -> None:
    responses, row, earlier = CASES[case]
    _, outcomes = load(tmp_path, *responses)
    assert outcomes.for_digests(pack([DIGEST])).row.tolist() == [row]
    assert (outcomes.chains.earlier.tolist() if outcomes.chains is not None else []) == earlier


def test_a_failed_follow_up_is_sent_again_or_ends_the_chain(tmp_path: Path) -> None:
    def is_over(name: str, *responses: One) -> bool:
        _, outcomes = load(tmp_path / name, *responses)
        assert outcomes.chains is not None
        return bool(outcomes.chains.is_over(np.array([0]), 2)[0])

    assert not is_over("passing", FIRST, One(1, "passing", 2))
    assert is_over("twice", FIRST, One(1, "passing", 2), One(1, "passing", 3))
    assert is_over("for good", FIRST, One(1, "errored", 2))
    assert not is_over("the next", FIRST, One(1, "errored", 2), SECOND, One(2, "passing", 3))
    assert is_over("by another clock", One(1, "errored", 2), FIRST)
    _, outcomes = load(tmp_path / "before", FIRST, One(1, "errored", 2), OF_REFRESH)
    assert outcomes.chains is None  # it was a follow-up of another answer
