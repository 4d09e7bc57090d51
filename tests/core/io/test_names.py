"""Names under the root: one module writes and reads them, and both directions agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.core.io.names import PartName, RequestFileId, ResponseName, SubmissionId

parts = st.builds(PartName, st.integers(0, 10**7), st.lists(st.sampled_from((1, 2)), max_size=4).map(tuple))
ids = st.builds(RequestFileId, st.builds(SubmissionId.new), parts)


def test_names_are_those_of_earlier_versions() -> None:
    part = PartName(3)
    assert (str(part), part.receipt) == ("part-00003.jsonl", "part-00003.batch.json")
    assert [str(half) for half in part.halves] == ["part-00003-1.jsonl", "part-00003-2.jsonl"]
    assert [str(half) for half in part.halves[1].halves] == ["part-00003-2-1.jsonl", "part-00003-2-2.jsonl"]
    assert str(ResponseName.of_refusal("20261128T093000-1f/part-00003-1.jsonl")) == (
        "refused.20261128T093000-1f.part-00003-1.parquet"
    )
    assert str(ResponseName.of_batch("msgbatch_1")) == "msgbatch_1.parquet"


@given(ids)
def test_a_written_name_is_read_back(file: RequestFileId) -> None:
    assert RequestFileId.parse(str(file)) == file
    assert PartName.of_file(str(file.part)) == PartName.of_file(file.part.receipt) == file.part
    refusal = ResponseName.parse(str(ResponseName.of_refusal(str(file))))
    assert refusal is not None
    assert (refusal.batch_id, refusal.refused) == (None, file)


@given(ids)
def test_a_half_knows_the_file_that_was_split(file: RequestFileId) -> None:
    assert {half.whole for half in file.halves} == {file}
    assert list(file.halves[0].wholes()) == [file, *file.wholes()]
    assert len(list(file.wholes())) == len(file.part.cuts)


@given(st.lists(parts))
def test_files_sort_in_the_order_in_which_they_are_written(some: list[PartName]) -> None:
    """A half comes after its whole and before the next file, even if there are a hundred thousand files."""
    assert sorted(some) == sorted(some, key=lambda part: (part.ordinal, part.stem))


@pytest.mark.parametrize(
    "name",
    [
        "part-0000.jsonl",
        "part-000000.jsonl",
        "part-00000-3.jsonl",
        "part-00000.batch.json",
        "../part-00000.jsonl",
        "manifest.json",
        "",
    ],
)
def test_an_invalid_name_of_a_request_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a request file"):
        PartName.parse(name)


def test_a_submission_id_has_the_time_of_its_build() -> None:
    assert SubmissionId("20261128T093000-1f2e3d4c").built_at == 1795858200.0
    assert SubmissionId("imported").built_at is None
    assert SubmissionId.new() != SubmissionId.new()


def test_the_name_of_a_response_file_names_its_batch() -> None:
    name = ResponseName.parse("msgbatch_1.parquet")
    assert name is not None
    assert (name.batch_id, name.refused) == ("msgbatch_1", None)
    assert ResponseName.parse("notes.txt") is None
