"""Requests in flight in many request files: the index says the same as the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import answer_index, tables
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileState
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.store import in_flight_index
from batch_assets.core.store.answer_index import AnswerIndex
from batch_assets.core.store.digests import custom_ids
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.in_flight_index import retire_settled
from batch_assets.core.store.part_writer import PartWriter
from batch_assets.core.store.request_lines import make_lines

from ..support import environment
from .test_answer_index import count, digests_for, execute


@pytest.fixture
def root(tmp_path: Path, ledger_url: str) -> Iterator[Root]:
    variables = environment("http://localhost:1", tmp_path / "output", ledger_url)
    with open_root(Settings.from_env(variables)) as opened:
        yield opened


def write_file(root: Root, number: int, numbers: range) -> RequestFile:
    digests = digests_for(numbers)
    lines = make_lines(custom_ids(numbers, digests, "mmmmmm"), [b"{}"] * len(digests))
    folder = ("p", "requests", "s")
    with PartWriter(root.storage, folder, 1, (100, 100_000), iter([PartName(number)]).__next__) as writer:
        writer.add(lines, digests)
    (entry,) = writer.written
    return RequestFile(
        id=f"s/{entry.name}",
        submission_id="s",
        pipeline="p",
        partition="",
        name=entry.name,
        requests=entry.requests,
        bytes=entry.bytes,
        attempt=1,
        state=FileState.SUBMITTED,
        not_before=0.0,
        error=None,
        batch_id=None,
        collected_seq=None,
        headers=None,
        checksum=entry.checksum,
        hold=None,
    )


def write_files(root: Root, files: int = 6) -> list[RequestFile]:
    """Request files of one submission with 20 requests each. Each has one request of the file before it too."""
    return [write_file(root, number, range(19 * number, 19 * number + 20)) for number in range(files)]


def path_of(root: Root, file: RequestFile) -> Path:
    return Path(root.storage.path("p", "requests", "s", file.name))


def assert_equal_to_the_files(root: Root, files: list[RequestFile]) -> None:
    for numbers in (range(5), range(40, 80), range(10, 300), range(200, 300), range(0)):
        wanted = digests_for(numbers)
        indexed, read = RequestsInFlight(root, files), RequestsInFlight(root, files, rows=10_000)
        assert (indexed._index is None) == (len(files) <= 4) and read._index is None
        assert indexed.contains(wanted).tolist() == read.contains(wanted).tolist()
        assert set(indexed.waited_on) == set(read.waited_on) or len(files) > 4
        assert set(read.waited_on) <= set(indexed.waited_on)  # a request may be in two files: both are named
        assert sorted(indexed.problems) == sorted(read.problems)


def nothing(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    return files


def empty_the_index(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    execute(root, *(sa.delete(table) for table in (tables.asked, tables.indexed_file)))
    return files


def lose_all_rows(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    execute(root, sa.delete(tables.asked))
    return files


def lose_some_rows(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    execute(root, sa.delete(tables.asked).where(tables.asked.c.digest < b"\x60"))
    return files


def some_collected(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    return files[1:]


def other_content(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    """As after an erasure in a ledger that was restored: the file has other requests now."""
    return [write_file(root, 0, range(200, 220)), *files[1:]]


def unfinished_number(root: Root, files: list[RequestFile]) -> list[RequestFile]:
    empty_the_index(root, files)
    with root.ledger.write() as tx:
        number = answer_index.begin(tx, "p", files[0].id, files[0].checksum or "")
        answer_index.add_asked(tx, number, digests_for(range(250, 260)))
    return files


CHANGES = [
    nothing,
    empty_the_index,
    lose_all_rows,
    lose_some_rows,
    some_collected,
    other_content,
    unfinished_number,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_index_says_what_the_files_say(
    root: Root, change: Callable[[Root, list[RequestFile]], list[RequestFile]]
) -> None:
    files = write_files(root)
    assert_equal_to_the_files(root, files)
    assert_equal_to_the_files(root, change(root, files))


def test_files_whose_rows_were_lost_are_added_again_once(root: Root) -> None:
    files = write_files(root, 30)
    RequestsInFlight(root, files)
    lose_some_rows(root, files)
    RequestsInFlight(root, files)
    added = count(root, tables.indexed_file), count(root, tables.asked)
    RequestsInFlight(root, files)
    assert (count(root, tables.indexed_file), count(root, tables.asked)) == added


def test_a_file_in_the_index_is_not_read_again(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    files, opened = write_files(root, 30), list[object]()
    RequestsInFlight(root, files)
    for name in ("open", "read_bytes", "exists", "size"):
        original = getattr(Storage, name)
        monkeypatch.setattr(Storage, name, lambda *of, call=original: (opened.append(of), call(*of))[1])
    in_flight = RequestsInFlight(root, files)
    in_flight.contains(digests_for(range(5)))
    assert opened == []
    assert in_flight.lost() == []
    assert len(opened) == 1  # the file that is waited on


def test_a_file_that_is_lost_after_it_was_indexed_is_reported_to_those_who_wait_on_it(root: Root) -> None:
    files = write_files(root)
    RequestsInFlight(root, files)
    path_of(root, files[2]).unlink()
    path_of(root, files[2]).with_suffix(".digests").unlink()
    in_flight = RequestsInFlight(root, files)
    assert in_flight.contains(digests_for(range(200))).sum() == 19 * 6 + 1
    (text,) = in_flight.lost()
    assert str(path_of(root, files[2])) in text and "it is gone" in text
    others = RequestsInFlight(root, files)
    others.contains(digests_for(range(5)))
    assert others.lost() == []


def test_settled_files_leave_the_index_after_a_day(root: Root) -> None:
    files = write_files(root)
    RequestsInFlight(root, files)
    submission = {
        "id": "s", "pipeline": "p", "partition": "", "created_at": 0, "rows": 0, "rejected": 0, "requests": 0,
        "written": 0, "headers": "{}", "max_attempts": 1, "max_requests": 1, "max_bytes": 1,
    }  # fmt: skip
    columns = tables.request_file.c.keys()
    rows = [{name: getattr(file, name) for name in columns} for file in files]
    execute(root, sa.insert(tables.submission).values(submission))
    for row in rows:
        state = FileState.COLLECTED if row["name"] < "part-00002" else FileState.SUBMITTED
        execute(root, sa.insert(tables.request_file).values(row | {"state": state}))
    retire_settled(root, "p")
    assert count(root, tables.asked) == 120
    execute(root, sa.update(tables.indexed_file).values(indexed_at=tables.indexed_file.c.indexed_at - 90_000))
    AnswerIndex(root, "p")
    assert count(root, tables.asked) == 80 and count(root, tables.indexed_file) == 4
    assert_equal_to_the_files(root, files[2:])


@pytest.mark.parametrize("rows_at_once", [1, 7, 20, 100])
def test_requests_are_added_in_parts(root: Root, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight_index, "ROWS_AT_ONCE", rows_at_once)
    assert_equal_to_the_files(root, write_files(root, 5))
    with root.ledger.read() as tx:
        found = answer_index.find_asked(tx, np.unique(digests_for(range(96))))
    assert len(found) == 100
