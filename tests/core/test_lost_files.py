"""Files under the root that are gone or damaged: they prove nothing, are named, and stop nothing else."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.errors import MissingFileError
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import collect_results

from .support import CREATE, World, texts

LOST_REPLY = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}


def part(world: World, pipeline: Pipeline, number: int = 0) -> Path:
    file = world.files(pipeline)[number]
    return world.path(pipeline.name, "requests", file.submission_id, file.name)


def garble_a_line(path: Path, number: int = 1) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = b"no line of ours " + b"x" * 50 + b"\n"
    path.write_bytes(b"".join(lines))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-150])


def flip_a_byte_of_the_prompt(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"the text of row 1", b"the text of r\xc5w 1"))


def other_prompt(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"the text of row 1", b"the text of now 1"))


def remove(path: Path) -> None:
    path.unlink()


DAMAGE = [garble_a_line, cut, flip_a_byte_of_the_prompt, other_prompt, remove]


@pytest.mark.parametrize("harm", [remove, garble_a_line, cut], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("with_index", [True, False])
def test_a_request_file_that_is_away_during_a_look_does_not_make_its_batch_foreign(
    world: World, harm: Callable[[Path], None], with_index: bool
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    lost = part(world, pipeline)
    kept, index = lost.read_bytes(), (lost.parent / "index.parquet").read_bytes()
    world.emulator.faults([LOST_REPLY, {"match": {"method": "GET", "nth": 2}, "action": {"status": 500}}])
    world.submit(pipeline)
    world.query("delete from batch")  # nothing was adopted yet
    world.query("update request_file set state = 'unresolved', batch_id = null")
    world.query("update intent set outcome = 'unresolved'")
    world.emulator.end_batches()
    harm(lost)
    if not with_index:
        (lost.parent / "index.parquet").unlink()
    reconcile(world.root)
    assert world.query("select count(*) from batch where state = 'foreign'") == [(0,)]
    lost.write_bytes(kept)
    (lost.parent / "index.parquet").write_bytes(index)
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("harm", [garble_a_line, cut])
def test_answers_to_a_damaged_request_file_are_stored_and_nothing_is_paid_again(
    world: World, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """One line of one of several files: its answer is the one that no other line has."""
    pipeline = world.pipeline(texts(12), batching={"max_requests": 4})
    world.send(pipeline)
    harm(part(world, pipeline, 1))
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 12}
    report = world.build(pipeline)
    assert (report.written, report.reused) == (0, 12)
    assert len(world.accepted_custom_ids()) == 12


def beside(path: Path) -> Path:
    return path.with_suffix(".digests")


def content_of_the_other_part(path: Path) -> None:
    (other,) = set(path.parent.glob("part-*.jsonl")) - {path}
    path.write_bytes(other.read_bytes())


def content_of_the_other_part_without_digests(path: Path) -> None:
    content_of_the_other_part(path)
    beside(path).unlink()


def garble_the_first_line_and_the_digests(path: Path) -> None:
    garble_a_line(path, 0)
    beside(path).write_bytes(b"no digests")


def in_flight(world: World, harm: Callable[[Path], None], *, is_found: bool) -> tuple[Pipeline, Path]:
    """Send the first of two files, whose reply may be lost, and damage it while its batch runs."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.build(pipeline)
    if is_found:
        world.emulator.faults([LOST_REPLY])
    world.submit(pipeline)
    world.emulator.reset_faults()
    path = part(world, pipeline)
    harm(path)
    return pipeline, path


def look(world: World, pipeline: Pipeline) -> list[str]:
    """Poll and collect, and return the problems."""
    world.query("update batch set next_poll_at = 0, next_download_at = 0")
    return world.collect(pipeline).problems


@pytest.mark.parametrize("is_found", [True, False], ids=["found in the list", "with a receipt"])
@pytest.mark.parametrize(
    "harm",
    [
        garble_a_line,
        cut,
        content_of_the_other_part,
        content_of_the_other_part_without_digests,
        garble_the_first_line_and_the_digests,
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_damaged_request_file_is_named_and_its_answers_are_stored(
    world: World, harm: Callable[[Path], None], is_found: bool
) -> None:
    """The digests beside it or the index name its requests, also before its batch is proved to be ours."""
    pipeline, path = in_flight(world, harm, is_found=is_found)
    world.emulator.end_batches()
    problems = look(world, pipeline)
    world.emulator.settings(latency=0)
    world.submit(pipeline)
    done = world.finish(pipeline)
    assert [text for text in problems if f"{path} is damaged" in text] == problems[:1]
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 6}
    assert len(world.accepted_custom_ids()) == 6
    assert world.query("select distinct state, provisional from batch") == [("collected", 0)]


def test_a_readable_line_proves_a_batch_when_nothing_else_names_its_requests(world: World) -> None:
    pipeline, path = in_flight(world, garble_a_line, is_found=True)
    beside(path).unlink()
    index = path.parent / "index.parquet"
    content = index.read_bytes()
    index.unlink()
    world.emulator.end_batches()
    with pytest.raises(MissingFileError):
        look(world, pipeline)
    index.write_bytes(content)
    assert world.query("select state, provisional from batch where provisional = 0") == [("collected", 0)]


@pytest.mark.parametrize("is_found", [True, False], ids=["found in the list", "with a receipt"])
@pytest.mark.parametrize("harm", [garble_a_line, content_of_the_other_part], ids=lambda harm: harm.__name__)
def test_all_requests_of_a_damaged_file_are_archived_with_its_batch(
    world: World, harm: Callable[[Path], None], is_found: bool
) -> None:
    pipeline, _ = in_flight(world, harm, is_found=is_found)
    world.emulator.end_batches()
    world.emulator.archive_batches(world.accepted()[0]["id"])
    look(world, pipeline)
    assert list(world.table(pipeline)["error_type"][:3]) == ["results_archived"] * 3
    world.submit(pipeline)
    world.build(pipeline)
    world.submit(pipeline)
    assert len(world.accepted_custom_ids()) == 6


def test_an_archived_batch_waits_while_nothing_names_the_requests_of_its_damaged_file(world: World) -> None:
    """The request of the damaged line would be bought again unnoticed."""
    pipeline, path = in_flight(world, garble_a_line, is_found=False)
    first, second = [batch["id"] for batch in world.accepted()]
    world.emulator.end_batches(second)
    look(world, pipeline)  # the index now names three requests more than the files in flight have
    world.emulator.end_batches()
    content = beside(path).read_bytes()
    beside(path).unlink()
    world.emulator.archive_batches(first)
    (text,) = look(world, pipeline)
    assert f"the request file {path} is damaged: it has 2 of its 3 lines" in text
    assert world.build(pipeline).written == 0
    beside(path).write_bytes(content)
    look(world, pipeline)
    assert list(world.table(pipeline)["error_type"][:3]) == ["results_archived"] * 3


@pytest.mark.parametrize("harm", [garble_a_line, cut, remove])
def test_new_rows_are_sent_while_a_file_in_flight_is_lost(
    world: World, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What the lost file may hold counts as in flight, and nothing else does."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(12), batching={"max_requests": 4})
    world.send(pipeline)
    lost = part(world, pipeline, 1)
    kept = lost.read_bytes()
    harm(lost)
    pipeline = world.pipeline(texts(14), batching={"max_requests": 4})
    with caplog.at_level(logging.WARNING, "batch_assets"):
        report = world.build(pipeline)
    assert (report.written, report.in_flight) == (2, 12)
    assert str(lost) in caplog.text and "Restore it from a backup" in caplog.text
    world.submit(pipeline)
    lost.write_bytes(kept)
    world.emulator.end_batches()
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 14}
    assert len(world.accepted_custom_ids()) == 14


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_file_is_never_sent(world: World, harm: Callable[[Path], None]) -> None:
    """Neither a broken body nor a prompt that no row has. The other file is sent."""
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.build(pipeline)
    harm(part(world, pipeline))
    report = world.submit(pipeline)
    (why,) = report.refused.values()
    assert "the request file is" in why and "its requests have to be built again" in why
    assert len(world.accepted_custom_ids()) == 3
    world.run(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 6
    assert len(world.accepted_custom_ids()) == 6


def test_a_request_file_without_a_checksum_is_checked_line_by_line_before_it_is_sent(world: World) -> None:
    """Earlier versions recorded no checksum."""
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.build(pipeline)
    world.query("update request_file set checksum = null")
    flip_a_byte_of_the_prompt(part(world, pipeline))
    (why,) = world.submit(pipeline).refused.values()
    assert "line 2 is not what was written" in why
    assert len(world.accepted_custom_ids()) == 3
    assert world.calls()["POST /v1/messages/batches"] == 1


def test_the_halves_of_a_split_file_have_checksums(world: World) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 413}}])
    pipeline = world.pipeline(texts(6))
    world.run(pipeline)
    files = world.query("select name, checksum from request_file order by name")
    assert len(files) == 3
    for name, checksum in files:
        text = world.path(pipeline.name, "requests").glob(f"*/{name}")
        assert checksum == hashlib.sha256(next(text).read_bytes()).hexdigest()


def test_a_damaged_receipt_keeps_its_file_from_being_sent_again(world: World) -> None:
    """It was written because the API accepted the file, whatever it says now. Other pipelines go on."""
    pipeline = world.pipeline(texts(3))
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="900")
    world.send(pipeline)
    receipt = part(world, pipeline).with_name("part-00000.batch.json")
    receipt.write_bytes(b"{")
    world.query("update intent set last_byte_at = last_byte_at - 2000")
    other = world.pipeline(texts(2, "other"), name="other")
    world.run(other)
    assert len(world.accepted_custom_ids()) == 2
    report = world.submit(pipeline)
    assert "part-00000.batch.json is damaged" in report.waiting[world.files(pipeline)[0].id]
    receipt.unlink()
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == 5


@pytest.mark.parametrize("harm", [remove, lambda path: path.write_bytes(b"PAR1")], ids=["gone", "damaged"])
def test_a_lost_index_stops_only_its_own_table(world: World, harm: Callable[[Path], None]) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"expired": 1.0}}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    world.collect(pipeline)
    harm(part(world, pipeline).with_name("index.parquet"))
    report = world.submit(pipeline)
    assert "index.parquet is" in report.waiting["retries"]
    world.run(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3


@pytest.mark.parametrize("harm", [remove, lambda path: path.write_bytes(b"PAR1")], ids=["gone", "damaged"])
def test_answers_that_only_we_had_are_not_bought_again_when_they_are_lost(
    world: World, harm: Callable[[Path], None]
) -> None:
    """Retention has deleted the batch at the API. The rows wait for a backup, and nothing is sent for them."""
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    world.run(pipeline)
    collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))
    assert world.query("select distinct state from batch") == [("deleted",)]
    stored = world.path(pipeline.name, "responses", f"{world.accepted()[0]['id']}.parquet")
    kept = stored.read_bytes()
    harm(stored)
    done = world.collect(pipeline)
    assert any("Restore the file from a backup" in problem for problem in done.problems)
    assert done.results is not None and dict(done.results.counts) == {"pending": 2, "succeeded": 2}
    assert world.build(pipeline).written == 0
    stored.write_bytes(kept)
    world.query("update batch set next_download_at = 0")
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 4}
    assert len(world.accepted_custom_ids()) == 4


def test_a_damaged_response_file_is_downloaded_again_without_its_request_file(world: World) -> None:
    """The results name the requests. Meanwhile nothing is sent for them."""
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    collect_results(world.root, pipeline.name, retention=RetentionConfig(request_files_days=0))
    pipeline = world.pipeline(texts(5))
    world.run(pipeline)
    name = f"{world.accepted()[0]['id']}.parquet"
    stored = world.path(pipeline.name, "responses", name)
    kept = stored.read_bytes()
    stored.write_bytes(kept[:100] + b"garbage" + kept[107:])
    done = world.collect(pipeline)
    assert any(f"renamed to {name}.damaged" in problem for problem in done.problems)
    assert done.results is not None and dict(done.results.counts) == {"pending": 3, "succeeded": 2}
    pipeline = world.pipeline(texts(6))
    assert world.build(pipeline).written == 1
    assert len(world.submit(pipeline).submitted) == 1
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 6}
    assert [batch["requests"] for batch in world.accepted()] == [3, 2, 1]
