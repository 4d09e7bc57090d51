"""Outcomes in force, compared with a loop over the responses one by one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store import parts
from batch_assets.core.store.digests import pack
from batch_assets.core.store.outcomes import Outcomes, in_force, read_responses
from batch_assets.core.store.packed_responses import CANCELED, FAILED, PASSING, SUCCEEDED
from batch_assets.core.store.parted_responses import PartedResponses
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.responses import RESPONSE_SCHEMA
from batch_assets.core.store.stored_outcomes import StoredOutcomes

# Some are in one part, and some begin with the same bytes.
DIGESTS = [bytes([number // 2 * 40]) * 8 + bytes([number + 1]) * 8 for number in range(6)]
KINDS = {
    ("succeeded", None): SUCCEEDED,
    ("errored", "invalid_request_error"): FAILED,
    ("errored", "overloaded_error"): PASSING,
    ("expired", None): PASSING,
    ("canceled", None): CANCELED,
}


@dataclass(frozen=True)
class Answers:
    """One response file: the outcomes of requests by the number of their digest, the attempt, and the refresh."""

    kinds: dict[int, tuple[str, str | None]]
    attempt: int
    refresh: float
    untried: int | None


FILES = st.lists(
    st.builds(
        Answers,
        st.dictionaries(st.integers(0, len(DIGESTS) - 2), st.sampled_from(list(KINDS)), min_size=1),
        st.integers(1, 3),
        st.sampled_from([0.0, 1.0, 2.0]),
        st.none() | st.integers(0, 2),
    ),
    max_size=4,
)


def load(folder: str, files: list[Answers], fresh_after: float | None) -> tuple[Outcomes, StoredOutcomes]:
    storage = Storage(folder)
    for number, answers in enumerate(files):
        columns = {field.name: pa.nulls(len(answers.kinds), field.type) for field in RESPONSE_SCHEMA}
        columns["digest"] = pa.array([DIGESTS[at] for at in answers.kinds], pa.binary(16))
        columns["result_type"] = pa.array([result for result, _ in answers.kinds.values()])
        columns["error_type"] = pa.array([error for _, error in answers.kinds.values()], pa.string())
        columns["attempts"] = pa.array([answers.attempt] * len(answers.kinds), pa.int32())
        schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": b"%d" % number})
        with storage.write("p", "responses", f"{number}.parquet") as scratch:
            pq.write_table(pa.table(columns, schema=schema), scratch)
    names = [ResponseName.of_batch(str(number)) for number in range(len(files))]
    refreshes = {name: file.refresh for name, file in zip(names, files, strict=True) if file.refresh}
    untried = {name: file.untried for name, file in zip(names, files, strict=True) if file.untried is not None}
    opened, responses = read_responses(storage, "p")
    rules = refreshes, fresh_after, untried
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "_PART_ROWS", 1)
        divided = Parts(len(DIGESTS))
        parted = PartedResponses(storage, "p", divided)
    in_parts = [in_force(parted.of_part(number), parted.files, *rules) for number in range(divided.count)]
    return in_force(responses, opened, *rules), StoredOutcomes(in_parts, parted.files.rows)


def one_by_one(files: list[Answers], fresh_after: float | None) -> dict[int, tuple[int, int, int]]:
    """(row number, kind, attempt) of the response in force, by the number of the digest."""
    in_force: dict[int, tuple[int, int, int, Answers]] = {}
    start = 0
    for answers in files:
        for row, (digest, result) in enumerate(answers.kinds.items()):
            now = (start + row, KINDS[result], answers.attempt, answers)
            if fresh_after is not None and answers.refresh < fresh_after:
                continue
            if digest in in_force:
                _, kind, attempt, before = in_force[digest]
                newer = answers.refresh > before.refresh
                if kind == SUCCEEDED and not (now[1] == SUCCEEDED and newer):
                    continue
                if kind != SUCCEEDED and now[1] != SUCCEEDED and not newer and now[2] < attempt:
                    continue
            in_force[digest] = now
        start += len(answers.kinds)
    outcomes = {}
    for digest, (row_number, kind, attempt, answers) in in_force.items():
        if kind == CANCELED and answers.untried is not None:
            kind, attempt = PASSING, min(attempt, answers.untried)
        outcomes[digest] = row_number, kind, attempt
    return outcomes


@given(FILES, st.none() | st.sampled_from([1.0, 2.0]))
def test_outcomes_equal_those_of_a_loop(files: list[Answers], fresh_after: float | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcomes, stored = load(folder, files, fresh_after)
    expected = one_by_one(files, fresh_after)
    for unpacked in (outcomes.for_digests(pack(DIGESTS)), stored.for_digests(pack(DIGESTS))):
        for digest in range(len(DIGESTS)):
            outcome = tuple(int(array[digest]) for array in unpacked)
            assert outcome == expected.get(digest, (-1, 0, 0))
            assert unpacked.is_known[digest] == (digest in expected)
            assert unpacked.is_answered[digest] == (digest in expected and expected[digest][1] == SUCCEEDED)
    for kind in (SUCCEEDED, FAILED, PASSING, CANCELED):
        of_kind = sorted(row_number for row_number, other_kind, _ in expected.values() if other_kind == kind)
        assert outcomes.rows_of(kind).tolist() == of_kind


def test_row_numbers_are_split_by_file(tmp_path: object) -> None:
    kind = ("succeeded", None)
    files = [Answers(dict.fromkeys(range(size), kind), 1, 0.0, None) for size in (3, 1, 5)]
    opened = load(str(tmp_path), files, None)[0].files
    assert [opened.first_row(number) for number in range(4)] == [0, 3, 4, 9]
    row_numbers = np.array([1, 2, 4, 8])
    assert opened.number_of(row_numbers).tolist() == [0, 0, 2, 2]
    parts = [
        (number, row_numbers[slice_].tolist(), rows.tolist())
        for number, slice_, rows in opened.by_file(row_numbers)
    ]
    assert parts == [(0, [1, 2], [1, 2]), (2, [4, 8], [0, 4])]


@pytest.mark.parametrize("attempt", [1, 60_000])
def test_an_outcome_takes_24_bytes(tmp_path: object, attempt: int) -> None:
    outcomes = load(str(tmp_path), [Answers({0: ("succeeded", None)}, attempt, 0.0, None)], None)[0]
    arrays = [array for array in vars(outcomes).values() if isinstance(array, np.ndarray)]
    assert sum(array.itemsize for array in arrays) == 24
    assert outcomes.for_digests(pack(DIGESTS[:1])).attempt.tolist() == [attempt]
