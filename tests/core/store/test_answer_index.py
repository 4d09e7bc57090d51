"""The index of answers: equal to the response files at any time, whatever happens to either of them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Ledger, Transaction, answer_index, index_removal, tables
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.store import indexing
from batch_assets.core.store.answer_index import AnswerIndex
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.indexing import WrittenAnswers
from batch_assets.core.store.outcomes import Outcomes, in_force
from batch_assets.core.store.pipeline_outcomes import AllAnswers, responses_to
from batch_assets.core.store.responses import RESPONSE_SCHEMA

from ..support import environment

KINDS = [
    ("succeeded", None), ("errored", "invalid_request_error"), ("errored", "overloaded_error"),
    ("expired", None), ("canceled", None),
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, ledger_url: str) -> Iterator[Root]:
    variables = environment("http://localhost:1", tmp_path / "output", ledger_url)
    with open_root(Settings.from_env(variables)) as opened:
        yield opened


def digests_for(numbers: range) -> Digests:
    """Digests that are spread evenly and may end with zero bytes, as real ones may."""
    chosen = random.Random(1)
    everything = [chosen.randbytes(15) + bytes([number % 3]) for number in range(1, 700)]
    return pack(everything[number] for number in numbers)


def write(root: Root, name: str, numbers: range, *, seed: int = 0, ended_at: int = 0, attempt: int = 1) -> Path:
    """Write a response file with a response to each of some requests."""
    chosen = random.Random(seed)
    kinds = [chosen.choice(KINDS) for _ in numbers]
    columns = {field.name: pa.nulls(len(numbers), field.type) for field in RESPONSE_SCHEMA}
    digests = digests_for(numbers)
    texts = [digests[at : at + 1].tobytes() for at in range(len(digests))]
    columns["digest"] = pa.array([*texts[:-1], None], pa.binary(16))  # one that a damaged file no longer names
    columns["result_type"] = pa.array([kind for kind, _ in kinds], pa.string())
    columns["error_type"] = pa.array([error for _, error in kinds], pa.string())
    columns["attempts"] = pa.array([attempt] * len(numbers), pa.int32())
    schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": b"%d" % ended_at})
    with root.storage.write("p", "responses", f"{name}.parquet") as scratch:
        pq.write_table(pa.table(columns, schema=schema), scratch, row_group_size=7)
    return Path(root.storage.path("p", "responses", f"{name}.parquet"))


def history(root: Root, batches: int = 5) -> None:
    """Batches, some with requests of earlier ones. Only the second and the fourth are of a refresh."""
    for number in range(batches):
        numbers = range(20 * number, 20 * number + 60)
        write(root, f"b{number}", numbers, seed=number, ended_at=100 - number // 2, attempt=1 + number % 3)


def shown(outcomes: Outcomes, digests: Digests) -> list[tuple[object, ...]]:
    """(file, row of the file, kind, attempt) of each request's response in force."""
    found = outcomes.for_digests(digests)
    places: list[tuple[object, object]] = [(None, None)] * len(digests)
    for at in np.flatnonzero(found.is_known).tolist():
        number = int(outcomes.files.number_of(found.row[at : at + 1])[0])
        places[at] = str(outcomes.files.names[number]), int(found.row[at]) - outcomes.files.first_row(number)
    return [
        (*place, *rest) for place, *rest in zip(places, found.kind.tolist(), found.attempt.tolist(), strict=True)
    ]


REFRESHES = {ResponseName("b1"): 1.0, ResponseName("b3"): 2.0}
UNTRIED = {ResponseName("b0"): 1, ResponseName("b2"): 0}


def assert_equal_to_the_files(root: Root) -> None:
    index, everything = AnswerIndex(root, "p"), AllAnswers(root, "p", 0)
    wanted = digests_for(range(5, 300))
    responses = responses_to(index, [wanted[:100], wanted[50:]])
    for fresh_after, untried in [(None, None), (None, UNTRIED), (1.0, UNTRIED), (2.0, None)]:
        ours = in_force(responses, index.files, REFRESHES, fresh_after, untried)
        read = in_force(everything.responses, everything.files, REFRESHES, fresh_after, untried)
        assert shown(ours, wanted) == shown(read, wanted)
    facts = dict(zip(everything.files.names, everything.files.group_rows, strict=True))
    assert index.files.group_rows == [facts[name] for name in index.files.names]


@contextmanager
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record the response files that the index reads."""
    names: list[str] = []
    with monkeypatch.context() as patched:
        original = indexing.open_responses
        patched.setattr(indexing, "open_responses", lambda *of: (names.append(str(of[2])), original(*of))[1])
        yield names


def no_change(root: Root) -> None:
    pass


def remove_a_file(root: Root) -> None:
    root.storage.remove("p", "responses", "b2.parquet")


def add_a_file(root: Root) -> None:
    write(root, "b9", range(30, 90), seed=9, ended_at=99)


def write_again(root: Root) -> None:
    """With other content of the same size, as a batch that is collected again."""
    write(root, "b1", range(20, 80), seed=77, ended_at=100, attempt=2)


def change_in_place(root: Root) -> None:
    path = Path(root.storage.path("p", "responses", "b1.parquet"))
    content = path.read_bytes()
    write(root, "other", range(100, 140), seed=3)
    path.write_bytes(Path(root.storage.path("p", "responses", "other.parquet")).read_bytes())
    assert content != path.read_bytes()
    root.storage.remove("p", "responses", "other.parquet")


def swap_files(root: Root) -> None:
    for old, new in [("b0", "x"), ("b1", "b0"), ("x", "b1")]:
        root.storage.rename(("p", "responses", f"{old}.parquet"), ("p", "responses", f"{new}.parquet"))


def restore_an_older_one(root: Root) -> None:
    path = Path(root.storage.path("p", "responses", "b1.parquet"))
    content, stat = path.read_bytes(), path.stat()
    write_again(root)
    AnswerIndex(root, "p")
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def empty_the_index(root: Root) -> None:
    execute(root, *(sa.delete(table) for table in (tables.answer, tables.asked, tables.indexed_file)))


def lose_all_rows(root: Root) -> None:
    """As a database that was restored without the largest table, or without its content."""
    execute(root, sa.delete(tables.answer))


def lose_some_rows(root: Root) -> None:
    """As a database that was repaired."""
    execute(root, sa.delete(tables.answer).where(tables.answer.c.digest < b"\x60"))


def add_answers(tx: Transaction, number: int, numbers: range) -> None:
    """Add responses under a number, as another process would."""
    rows = np.arange(len(numbers))
    answer_index.add_answers(tx, rows * 0 + number, digests_for(numbers), rows, rows * 0 + 1)


def unfinished_number(root: Root) -> None:
    """A process was killed before it had added all of a newer content."""
    write_again(root)
    with root.ledger.write() as tx:
        number = answer_index.begin(tx, "p", "b1.parquet", "any", row_groups=[(60, 1)])
        add_answers(tx, number, range(200, 210))


def two_processes_at_once(root: Root) -> None:
    with root.ledger.read() as tx:
        file = next(file for file in answer_index.response_files(tx, "p") if file.name == "b1.parquet")
    execute(
        root, sa.update(tables.indexed_file).where(tables.indexed_file.c.name == file.name).values(version="x")
    )
    AnswerIndex(root, "p")
    values = {"version": file.version}
    execute(root, sa.update(tables.indexed_file).where(tables.indexed_file.c.number == file.number).values(values))


def of_another_pipeline(root: Root) -> None:
    """It asks the same requests, and has a file of the same name."""
    with root.ledger.write() as tx:
        number = answer_index.begin(tx, "q", "b1.parquet", "any", row_groups=[(60, 1)])
        add_answers(tx, number, range(60))
        answer_index.complete(tx, {number: 60})


ALL = ["b0", "b1", "b2", "b3", "b4"]
CHANGES: dict[Callable[[Root], None], list[str]] = {
    no_change: [], remove_a_file: [], add_a_file: ["b9"], write_again: ["b1"], change_in_place: ["b1"],
    swap_files: ["b0", "b1"], restore_an_older_one: ["b1"], unfinished_number: ["b1"], two_processes_at_once: [],
    empty_the_index: ALL, lose_all_rows: ALL, lose_some_rows: ALL, of_another_pipeline: [],
}  # fmt: skip


def execute(root: Root, *statements: sa.Executable) -> None:
    with root.ledger.write() as tx:
        for statement in statements:
            tx.execute(statement)


def count(root: Root, table: sa.Table) -> int:
    with root.ledger.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_index_follows_the_files(
    root: Root, change: Callable[[Root], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    history(root)
    assert_equal_to_the_files(root)
    change(root)
    with reading(monkeypatch) as names:
        assert_equal_to_the_files(root)
        assert [name.removesuffix(".parquet") for name in names] == CHANGES[change]
        assert_equal_to_the_files(root)
    assert len(names) == len(CHANGES[change])  # what was read once is not read again


def test_a_damaged_file_is_an_error_and_hides_no_other(root: Root) -> None:
    history(root)
    assert_equal_to_the_files(root)
    path = Path(root.storage.path("p", "responses", "b3.parquet"))
    path.write_bytes(path.read_bytes()[:-4] + b"XXXX")
    for wanted in (range(100), range(60, 70)):
        with pytest.raises(DamagedFileError, match=r"b3\.parquet"):
            AnswerIndex(root, "p").responses_to(np.unique(digests_for(wanted)))
    path.unlink()
    assert_equal_to_the_files(root)


def test_a_request_that_a_file_has_twice_does_not_stop_the_index(root: Root) -> None:
    path = write(root, "b0", range(5))
    table = pq.read_table(path)
    with root.storage.write("p", "responses", "b0.parquet") as scratch:
        pq.write_table(pa.concat_tables([table, table]), scratch)
    assert len(AnswerIndex(root, "p").responses_to(np.unique(digests_for(range(5)))).digests) == 4


def test_a_file_that_no_request_hits_is_compared_after_ten_minutes(root: Root) -> None:
    """Such as one that someone replaced by a file with other answers."""
    history(root)
    AnswerIndex(root, "p")
    change_in_place(root)
    before = AnswerIndex(root, "p").responses_to(np.unique(digests_for(range(130, 139))))
    execute(root, sa.update(tables.index_check).values(checked_at=tables.index_check.c.checked_at - 601))
    after = AnswerIndex(root, "p").responses_to(np.unique(digests_for(range(130, 139))))
    assert len(after.digests) == len(before.digests) + 9
    assert_equal_to_the_files(root)


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> Iterator[None]:
    """Kill the process at one of its write transactions, before it is committed or just after."""
    begun: list[int] = []
    original = Ledger.write

    @contextmanager
    def write_transaction(ledger: Ledger, pipeline: str) -> Iterator[Transaction]:
        begun.append(1)
        with original(ledger, pipeline) as tx:
            yield tx
            if len(begun) == number and not after:
                raise Killed
        if len(begun) == number:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", write_transaction)
        try:
            yield
        except Killed:
            return
    raise StopIteration


@pytest.mark.parametrize("after", [False, True])
def test_a_process_may_be_killed_while_it_adds_files(
    root: Root, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "ROWS_AT_ONCE", 25)
    for number in range(1, 100):
        empty_the_index(root)
        history(root, 2)
        try:
            with killed_at(monkeypatch, number, after=after):
                AnswerIndex(root, "p")
        except (StopIteration, RuntimeError):
            assert number >= 7
            return
        assert_equal_to_the_files(root)
    raise AssertionError


@pytest.mark.parametrize("publish", [True, False])
def test_a_collection_adds_what_it_writes(root: Root, publish: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    history(root)
    assert_equal_to_the_files(root)
    target = write(root, "new", range(40, 100), seed=5, ended_at=50)
    scratch = target.with_name("scratch")
    target.rename(scratch)
    answers = WrittenAnswers(root, "p", ResponseName("new"), scratch)
    if publish:
        scratch.rename(target)
        answers.add()
    else:
        scratch.unlink()  # killed before it was published
    with reading(monkeypatch) as names:
        assert_equal_to_the_files(root)
    assert names == []


def test_a_collection_leaves_the_index_alone_until_a_stage_needs_it(root: Root) -> None:
    path = write(root, "b0", range(5))
    WrittenAnswers(root, "p", ResponseName("b0"), path).add()
    assert count(root, tables.indexed_file) == 0


def test_the_version_of_a_file_is_that_of_its_newest_content(root: Root) -> None:
    with root.ledger.read() as tx:
        assert answer_index.response_versions(tx, "p") == {}
    for name, version in (("b.parquet", "2:7"), ("a.parquet", "1:9"), ("b.parquet", "2:3")):
        with root.ledger.write("p") as tx:
            number = answer_index.begin(tx, "p", name, version)
            assert name not in answer_index.response_versions(tx, "p") or version == "2:3"
            answer_index.complete(tx, {number: 1})
    with root.ledger.read() as tx:
        assert answer_index.response_versions(tx, "p") == {"a.parquet": "1:9", "b.parquet": "2:3"}
        assert answer_index.response_versions(tx, "q") == {}


def test_what_is_not_used_any_more_is_removed_after_a_day(root: Root) -> None:
    history(root)
    AnswerIndex(root, "p")
    before = count(root, tables.answer)
    root.storage.remove("p", "responses", "b0.parquet")
    write_again(root)
    early = AnswerIndex(root, "p")
    assert count(root, tables.answer) == before + 59  # processes may still ask for the numbers that they know
    assert_equal_to_the_files(root)
    age = tables.indexed_file.c.indexed_at - 90_000
    execute(root, sa.update(tables.indexed_file).values(indexed_at=age), sa.delete(tables.index_check))
    assert_equal_to_the_files(root)
    assert count(root, tables.answer) == before - 59
    assert count(root, tables.indexed_file) == 4
    assert len(early.responses_to(np.unique(digests_for(range(300)))).digests) == before - 59


def test_an_erased_request_leaves_the_index_of_its_pipeline(root: Root) -> None:
    history(root)
    of_another_pipeline(root)
    AnswerIndex(root, "p")
    erased = digests_for(range(45, 47))
    with root.ledger.write() as tx:
        index_removal.erase(tx, "p", erased)
        left = answer_index.find_answers(tx, erased)
        assert len(left) == 2 and set(left[:, 1].tolist()) == {1}
        assert len(answer_index.find_answers(tx, digests_for(range(47, 48)))) > 1
