"""A ledger that was restored from a backup, or failed over to an older copy: nothing is sent a second time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.cancel import cancel
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.spend.build import build_spend
from batch_assets.core.spend.spend_table import SpendTotal
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_files import StoredRequestFile

from ..batches.test_reconcile import NEVER_ARRIVED
from ..lost_ledger import LOST, add_refused_intent, check, end_grace_period, nothing_left
from ..support import CREATE, LIST, World, texts, write_rows

TWO_FILES = {"batching": {"max_requests": 3}}


def copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
        from_.backup(to)


@contextmanager
def forgotten(world: World) -> Iterator[None]:
    """What happens in the block is unknown to the ledger afterwards."""
    world.root.ledger.close()
    ledger, backup = world.path("ledger.db"), world.folder / "backup.db"
    copy(ledger, backup)
    yield
    world.root.close()
    for ending in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + ending).unlink(missing_ok=True)
    copy(backup, ledger)
    world.reopened()


def receipts(world: World) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in world.path("asked", "requests").rglob("*.batch.json")}


def end(world: World, pipeline: object) -> None:
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)  # type: ignore[arg-type]


@pytest.mark.parametrize("unattended", [False, True])
def test_a_ready_file_with_a_receipt_is_adopted(world: World, unattended: bool) -> None:
    world.emulator.settings(latency=3600, queue_limit=3)
    pipeline = world.pipeline(texts(5), **TWO_FILES)
    world.send(pipeline)
    assert world.states(pipeline) == ["submitted", "ready"]
    world.emulator.settings(queue_limit=None)
    world.query("update request_file set not_before = 0")
    world.query("delete from queue")  # the limit that the refusal taught
    with forgotten(world):
        world.submit(pipeline, unattended=True)
    before = receipts(world)
    assert len(before) == 2
    report = world.submit(pipeline, unattended=unattended)
    assert world.states(pipeline) == ["submitted", "submitted"]
    assert len(world.accepted()) == 2
    assert report.refused == {}
    assert receipts(world) == before
    end(world, pipeline)
    check(world, pipeline, 5)
    nothing_left(world, pipeline)


def test_a_submission_that_the_ledger_has_lost_is_added(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    with forgotten(world):
        world.send(world.pipeline(texts(5)))
    before = receipts(world)
    world.build(world.pipeline(texts(5)))
    world.submit(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [2, 3]
    assert receipts(world) == before
    end(world, pipeline)
    check(world, pipeline, 5)
    nothing_left(world, pipeline)


def test_an_unattended_run_adds_a_lost_submission_before_it_sends_what_that_has_replaced(world: World) -> None:
    """The first submission's unsent file was set aside by the second one, which has its requests."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), **TWO_FILES)
    world.build(pipeline)
    world.query("update submission set began_at = 1")  # its run was killed before it sent anything
    with forgotten(world):
        world.send(world.pipeline(texts(7), **TWO_FILES))
    assert len(world.accepted()) == 3
    world.submit(pipeline, unattended=True)
    world.submit(pipeline)
    assert len(world.accepted()) == 3
    end(world, pipeline)
    check(world, pipeline, 7)
    nothing_left(world, pipeline)


def test_a_file_that_was_sent_without_a_receipt_is_looked_for(new_world: Callable[..., World]) -> None:
    """Beside a file with a receipt there is one whose reply was lost and whose intent the ledger has lost."""
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(5), **TWO_FILES)
    world.build(pipeline)
    with forgotten(world):
        world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 3600}}])
        world.submit(pipeline)
        world.emulator.reset_faults()
    (first, _) = world.accepted()
    assert len(receipts(world)) == 1
    world.submit(pipeline)
    assert world.query("select count(*) from batch where id = :id", id=first["id"]) == [(1,)]
    end(world, pipeline)
    assert len(world.accepted()) == 2
    check(world, pipeline, 5)


def lost_retry(world: World) -> tuple[Pipeline, Path, Path]:
    """Collect a batch of failed requests, and send them again, which the ledger forgets.

    Returns:
        The pipeline, and the receipts of the first file and of the retry.
    """
    pipeline = world.pipeline(texts(3))
    failing = {"error_mix": {"overloaded_error": 1.0, "first": 1}}
    world.emulator.faults([{"match": CREATE, "action": failing}])
    world.send(pipeline)
    world.emulator.reset_faults()
    world.collect(pipeline)
    world.emulator.settings(latency=3600)
    assert world.query("select ask_again from submission") == [(3,)]
    with forgotten(world):
        world.submit(pipeline, unattended=True)
    first, retry = sorted(receipts(world))
    return pipeline, first, retry


def test_a_retry_that_the_ledger_has_lost_is_added(world: World) -> None:
    pipeline, *_ = lost_retry(world)
    sent = len(world.accepted())
    assert sent == 2
    world.submit(pipeline, unattended=True)
    assert len(world.accepted()) == sent
    end(world, pipeline)
    check(world, pipeline, 3, twice=3)


def test_another_partition_does_not_ask_for_the_requests_of_a_lost_submission(world: World) -> None:
    world.emulator.settings(latency=3600)
    rows = texts(3)
    for name in ("a", "b"):
        world.pipeline(rows)
        (world.folder / "rows.jsonl").rename(world.folder / f"{name}.jsonl")
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"static": ["a", "b"]})
    with forgotten(world):
        world.send(pipeline, "b")
    world.send(pipeline, "a")
    assert len(world.accepted()) == 1


def test_a_cancel_reaches_a_batch_that_the_ledger_has_lost(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    with forgotten(world):
        world.submit(pipeline)
    report = cancel(world.root, pipeline.name)
    assert (report.canceled, report.unsent) == ([world.accepted()[0]["id"]], [])


def test_a_lost_batch_that_counted_as_someone_elses_is_ours_again(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    with forgotten(world):
        world.send(world.pipeline(texts(5)))
    lost = world.accepted()[1]["id"]
    world.query(
        "insert into batch (id, state, provisional, paid_twice, processing_status, requests, counts, downloads, "
        "next_poll_at, next_download_at, next_delete_at) "
        "values (:id, 'foreign', 0, 0, 'ended', 3, '{}', 0, 0, 0, 0)",
        id=lost,
    )
    world.run(world.pipeline(texts(5)))
    assert len(world.accepted()) == 2
    check(world, pipeline, 5)


def test_an_unknown_folder_from_before_the_submission_in_force_does_not_replace_it(world: World) -> None:
    """Earlier versions left such a folder if they were killed just before they registered it."""
    pipeline = world.pipeline(texts(2, "old"))
    with forgotten(world):
        world.build(pipeline)
    world.path("asked").rename(world.folder / "kept")
    world.run(world.pipeline(texts(3)))
    (folder,) = (world.folder / "kept" / "requests").iterdir()
    world.root.close()
    folder.rename(world.path("asked", "requests", folder.name))
    world.reopened()
    world.submit(pipeline)
    end_grace_period(world)
    world.submit(pipeline)
    assert len(world.accepted()) == 1
    assert len(world.files(pipeline)) == 1
    world.run(world.pipeline(texts(3)))
    check(world, pipeline, 3)


def test_a_receipt_is_never_overwritten_by_another_id(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.send(pipeline)
    (file,) = world.files(pipeline)
    stored = StoredRequestFile.of(world.root.storage, file)
    first = stored.receipt()
    assert first is not None
    assert first.replied is True
    other = Receipt(**{**first.model_dump(), "batch_id": "msgbatch_other"})
    assert stored.write_receipt(other) == first
    assert stored.receipt() == first


def test_a_run_that_builds_many_partitions_lists_folders_in_proportion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks through all partitions once, not again for each."""
    listed: list[tuple[str, ...]] = []
    names = Storage.names
    monkeypatch.setattr(Storage, "names", lambda self, *parts: (listed.append(parts), names(self, *parts))[1])

    def listings(partitions: int) -> int:
        (world.folder / "rows.jsonl").write_bytes(
            b"".join(b'{"id":"%d","text":"t %d"}\n' % (number, number) for number in range(partitions))
        )
        pipeline = world.pipeline(partitions={"column": "id"}, name=f"of_{partitions}")
        for _ in range(2):
            world.reopened()
            listed.clear()
            for number in range(partitions):
                world.build(pipeline, str(number))
        return len(listed)

    assert listings(24) <= 2.5 * listings(12)


@pytest.mark.parametrize("sent", [1, 2])
@pytest.mark.parametrize("before", ["ready", "too_large", "unresolved", "earlier"])
def test_the_parts_of_a_file_that_was_split_since_are_sent_and_the_file_is_not(
    world: World, before: str, sent: int
) -> None:
    """The API refused the file as too large, and asked to wait with its second part."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4))
    world.build(pipeline)
    if before in ("unresolved", "earlier"):
        world.emulator.faults([NEVER_ARRIVED, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
        world.submit(pipeline)
        world.emulator.reset_faults()
    if before == "earlier":  # the upload in doubt is not the last one
        add_refused_intent(world)
        before = "unresolved"
    elif before == "too_large":
        world.query("update request_file set state = 'too_large'")
    assert world.states(pipeline) == [before]
    with forgotten(world):
        refusals = 0 if before == "too_large" else 1
        world.emulator.faults(
            [
                {"match": {**CREATE, "times": refusals}, "action": {"status": 413}},
                {"match": {**CREATE, "after": refusals + sent}, "action": {"status": 429}},
            ]
        )
        world.submit(pipeline)
        world.emulator.reset_faults()
    assert len(world.accepted()) == sent
    world.submit(pipeline)
    assert world.query("select name, state from request_file order by length(name), name") == [
        ("part-00000.jsonl", "superseded"),
        ("part-00000-1.jsonl", "submitted"),
        ("part-00000-2.jsonl", "submitted"),
    ]
    assert world.query("select id from intent where outcome in ('open', 'unresolved')") == []
    end(world, pipeline)
    check(world, pipeline, 4)
    nothing_left(world, pipeline)


def test_a_copied_receipt_beside_a_file_that_the_ledger_has_lost_stops_nothing(world: World) -> None:
    """It shows no more than a damaged one: the file was sent, and its batch is looked for."""
    pipeline, first, retry = lost_retry(world)
    retry.write_bytes(first.read_bytes())
    for _ in range(2):
        world.submit(pipeline, unattended=True)
    assert world.states(pipeline) == ["collected", "submitted"]
    assert world.query("select requests, attempt from request_file order by name") == [(3, 1), (3, 2)]
    end(world, pipeline)
    check(world, pipeline, 3, twice=3)
    assert len(world.accepted()) == 2


def test_two_files_that_the_ledger_has_lost_with_the_same_receipt_stop_nothing(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    before = receipts(world).keys()
    with forgotten(world):
        world.send(world.pipeline(texts(7), **TWO_FILES))
    first, second = sorted(receipts(world).keys() - before)
    second.write_bytes(first.read_bytes())
    for _ in range(2):
        world.submit(pipeline, unattended=True)
    end(world, pipeline)
    check(world, pipeline, 7)
    assert len(world.accepted()) == 3


def test_a_copy_of_an_answered_file_is_set_aside(world: World) -> None:
    """Its requests are in the response store, under a batch that the ledger knows as the first file's."""
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    (receipt,) = receipts(world)
    with forgotten(world):
        world.send(world.pipeline(texts(5)))
    (second,) = receipts(world).keys() - {receipt}
    receipt.unlink()
    for path in receipt.parent.glob("part-00000*"):
        copied = second.with_name(path.name.replace("part-00000", "part-00001"))
        copied.write_bytes(path.read_bytes())
    for _ in range(2):
        world.submit(pipeline)
    end(world, pipeline)
    check(world, pipeline, 5)
    assert len(world.accepted()) == 2


def test_a_receipt_that_the_ledger_has_lost_proves_more_than_a_match_by_the_count(world: World) -> None:
    """Another pipeline's file in doubt has adopted the batch before the submission was found again."""
    world.emulator.settings(latency=3600)
    write_rows(world.folder / "first.jsonl", texts(2, "first"))
    first, second = world.pipeline("first.jsonl", name="first"), world.pipeline(texts(2))
    world.build(first)
    world.emulator.faults([NEVER_ARRIVED, {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}}])
    world.submit(first)
    world.emulator.reset_faults()
    with forgotten(world):
        world.query("delete from intent")  # so that the second file is sent although it has the same count
        world.query("update request_file set state = 'canceled'")
        world.send(second)
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.submit(first)
    assert world.states(first) == ["submitted"]
    assert world.query("select provisional from batch") == [(True,)]
    world.submit(second, unattended=True)
    assert (world.states(first), world.states(second)) == (["unresolved"], ["submitted"])
    assert world.query("select provisional from batch") == [(False,)]
    end_grace_period(world)
    world.submit(first)
    end(world, second)
    check(world, second, 2)
    end(world, first)
    check(world, first, 2)
    assert len(world.accepted()) == 2


def test_receipts_of_many_partitions_take_as_many_statements_as_those_of_few(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    def counted(partitions: range) -> int:
        for number in partitions:
            world.send(world.pipeline(texts(1, f"row-{number}")), f"p{number}")
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        statements.clear()
        world.root.catch_up(pipeline.name)
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
        return len(statements)

    assert counted(range(2)) == counted(range(2, 7))


@pytest.mark.parametrize("is_known", [False, True])
def test_an_upload_counts_whose_file_was_sent_again_since(world: World, is_known: bool) -> None:
    hidden = {"match": LIST, "action": {"hide_from_list": 3600}}
    world.emulator.faults([LOST, hidden])
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    if is_known:
        world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
        world.submit(pipeline)
    assert world.states(pipeline) == (["unresolved"] if is_known else ["ready"])
    with forgotten(world):
        world.reopened()
        world.submit(pipeline)
        world.finish(pipeline)
        before = SpendTotal.of(build_spend(world.root).rows)
    world.finish(pipeline)
    after = SpendTotal.of(build_spend(world.root).rows)
    assert (after.cost, after.most, after.unknown_requests) == (before.cost, before.most, 3)
    world.emulator.reset_faults()
    for _ in range(2):  # by its receipt, then in the list
        reconcile(world.root)
    world.collect(pipeline)
    after = SpendTotal.of(build_spend(world.root).rows)
    assert (after.cost, after.unknown_requests) == (2 * before.cost, 0)
