"""What happens to gathered requests once they are registered: replaced, retried, canceled, erased or lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import LeaseLostError
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.planning.steps import Collect, Join
from batch_assets.core.requests import gather
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.run import collect_results
from batch_assets.core.store.in_flight import digests_of_submission
from batch_assets.core.store.open_part import OpenPart

from ..lost_ledger import delete_ledger
from ..support import CREATE, LIST, World, round_for, texts, wait_for, write_rows
from .gathering import NAME, Gathering
from .test_gather_killed import Copies

KEYS = ["a", "b", "c"]


def small(world: World, **attributes: Any) -> Gathering:
    return Gathering.of(world, dict.fromkeys(KEYS, 3), **attributes)


def request_file(gathering: Gathering) -> Any:
    """The path of the only request file."""
    (path,) = gathering.world.path(NAME, "requests").rglob("part-*.jsonl")
    return path


def test_what_was_not_sent_is_replaced_with_the_last_partition_that_needs_it(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.build(prompt="again: {{ text }}")
    assert gathering.files() == [("a", 9, "superseded"), ("a", 9, "ready")]
    gathering.build(["a", "b"], prompt="once more: {{ text }}")
    assert gathering.files()[1:] == [("a", 9, "ready"), ("a", 6, "ready")]
    gathering.build(["c"], prompt="once more: {{ text }}")
    assert [state for _, _, state in gathering.files()] == ["superseded", "superseded", "ready", "ready"]
    gathering.submit()
    assert len(world.accepted_custom_ids()) == 9


def test_a_file_stays_that_a_failed_partition_needs(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.write("a", texts(4, "a row"))
    (world.folder / "c.jsonl").unlink()
    outcomes = gathering.build()
    assert gathering.written(outcomes) == {"a": 1, "b": 0, "c": -1}
    assert gathering.files() == [("a", 9, "ready"), ("a", 1, "ready")]
    gathering.write("c", texts(3, "c row"))
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_a_group_goes_on_until_nothing_else_needs_what_it_replaces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering = small(world)
    gathering.build()
    monkeypatch.setattr(gather, "_REQUESTS", 4)
    gathering.write("a", texts(4, "a row"))
    assert gathering.written(gathering.build()) == {"a": 4, "b": 3, "c": 3}
    assert gathering.files() == [("a", 9, "superseded"), ("a", 10, "ready")]


def test_a_run_of_many_requests_is_registered_in_groups(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_REQUESTS", 6)
    gathering = small(world)
    assert gathering.written(gathering.build()) == dict.fromkeys(KEYS, 3)
    assert gathering.files() == [("a", 6, "ready"), ("c", 3, "ready")]
    monkeypatch.setattr(gather, "_PARTITIONS", 1)
    gathering.build(prompt="again: {{ text }}")
    assert [requests for _, requests, state in gathering.files() if state == "ready"] == [3, 3, 3]


@pytest.mark.parametrize("error", ["overloaded_error", "expired"])
def test_failed_requests_are_retried_by_their_own_partition(world: World, error: str) -> None:
    gathering = small(world)
    world.emulator.faults([{"match": {**CREATE, "nth": [1]}, "action": {"error_mix": {error: 1.0}}}])
    gathering.run()
    ids = [custom_id[-22:] for custom_id in world.accepted_custom_ids()]
    assert (len(ids), len(set(ids))) == (18, 9)
    for key in KEYS:
        assert list(gathering.table(key)["attempts"]) == [2, 2, 2]


def test_requests_that_fail_for_good_are_in_their_own_table(world: World) -> None:
    gathering = Gathering(world, {"a": {"a1": "fine", "a2": ""}, "b": {"b1": "good"}}, retry={"max_attempts": 1})
    outcomes = gathering.build()
    assert (outcomes["a"].rejected, outcomes["a"].written) == (1, 1)
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"api_error": 1.0}}}])
    gathering.submit()
    gathering.finish()
    assert list(gathering.table("a")["result_type"]) == ["errored", "rejected"]
    assert list(gathering.table("b")["result_type"]) == ["errored"]
    assert gathering.written(gathering.build(retry_failed=True)) == {"a": 1, "b": 1}
    assert gathering.files()[-1] == ("a", 2, "ready")


def test_the_sensor_finds_work_in_every_partition_once_the_batch_has_ended(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit()
    world.emulator.end_batches()
    poll(world.root, now=True)

    def steps() -> list[type[object]]:
        with world.root.ledger.read() as tx:
            return [type(round_for(tx, each)) for each in submissions.all_newest(tx, NAME)]

    assert steps() == [Collect] * 3
    assert collect_results(world.root, NAME, "b").results is not None
    assert steps()[0] is steps()[2] is Join
    gathering.finish()
    gathering.check()


def test_nothing_is_sent_unattended_before_a_user_has_begun_to_send(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit(unattended=True)
    assert world.accepted() == []
    gathering.submit(["b"])
    assert [batch["requests"] for batch in world.accepted()] == [9]
    gathering.finish()
    gathering.check()


def test_a_refresh_of_many_partitions_sends_each_request_once(world: World) -> None:
    shared = texts(2, "shared")
    gathering = Gathering(world, {"a": shared | texts(1, "a"), "b": shared | texts(1, "b"), "c": texts(1, "c")})
    gathering.run()
    outcomes = gathering.build(refresh=True)
    assert gathering.written(outcomes) == {"a": 3, "b": 1, "c": 1}
    assert world.query("select count(distinct fresh_after) from submission where fresh_after > 0") == [(1,)]
    gathering.submit()
    waits = gathering.waits()
    gathering.finish()
    delete_ledger(world)
    world.reopened()
    assert gathering.waits() == waits
    gathering.check(accepted=10)
    gathering.run()
    assert len(world.accepted_custom_ids()) == 10


def test_a_limit_is_for_each_partition(world: World) -> None:
    gathering = small(world)
    outcomes = gathering.build(limit=2)
    assert [(each.written, each.left_out) for each in outcomes.values()] == [(2, 1)] * 3
    assert gathering.files() == [("a", 6, "ready")]
    gathering.submit()
    gathering.build()
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_a_canceled_partition_leaves_the_batch_that_others_wait_on(world: World) -> None:
    world.emulator.settings(latency=3600)
    gathering = small(world)
    gathering.build()
    assert cancel(world.root, NAME, "b").shared == [
        f"{file.id}" for file in world.files(gathering.pipeline(), "b")
    ]
    gathering.submit(["a", "c"])
    for key in ("a", "b"):
        report = cancel(world.root, NAME, key)
        assert (report.canceled, len(report.shared)) == ([], 1)
    report = cancel(world.root, NAME)
    assert (len(report.canceled), report.shared) == (1, [])
    gathering.finish()
    for key in KEYS:
        assert list(gathering.table(key)["result_type"]) == ["canceled"] * 3
    assert gathering.written(gathering.build()) == dict.fromkeys(KEYS, 3)


@pytest.mark.parametrize(
    ("stage", "key"), [("unsent", "a"), ("unsent", "b"), ("sent", "b"), ("collected", "a"), ("collected", "c")]
)
def test_an_erased_row_is_found_in_the_file_of_another_partition(world: World, stage: str, key: str) -> None:
    secret = "born in Ulm on a rainy day"
    gathering = small(world)
    gathering.write(key, gathering.rows[key] | {"person-4711": secret})
    gathering.build()
    if stage != "unsent":
        gathering.submit()
    if stage == "collected":
        gathering.finish()
    report = erase(world.root, NAME, ["person-4711"], gathering.pipeline())
    if stage == "sent":
        assert [*report.waiting] == ["person-4711"]
        gathering.finish()
        report = erase(world.root, NAME, ["person-4711"], gathering.pipeline())
    assert (report.left, report.problems, report.requests) == ([], [], 1)
    for path in world.path(NAME).rglob("part-*.jsonl"):
        assert stage == "unsent" or secret not in path.read_text()
    gathering.rows[key] = {name: text for name, text in gathering.rows[key].items() if text != secret}
    write_rows(world.folder / f"{key}.jsonl", gathering.rows[key])
    gathering.run()
    gathering.check(accepted=9 if stage == "unsent" else 10)


@pytest.mark.parametrize(("known", "key"), [("by digests", "b"), ("by indexes", "a"), ("by indexes", "c")])
def test_the_requests_of_a_lost_file_are_in_flight_for_every_partition(
    world: World, known: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit()
    path = request_file(gathering)
    path.unlink()
    if known == "by indexes":
        path.with_suffix(".digests").unlink()
    (file,) = world.files(gathering.pipeline(), key)
    digests = digests_of_submission(world.root, file)
    assert digests is not None
    assert len(digests) == 9
    assert gathering.written(gathering.build([key, *(each for each in KEYS if each != key)])) == dict.fromkeys(
        KEYS, 0
    )
    assert "is gone" in caplog.text
    gathering.finish()
    gathering.check()


@pytest.mark.parametrize("known", ["by digests", "by indexes"])
def test_the_file_and_the_ledger_are_lost_after_it_was_sent(world: World, known: str) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit()
    path = request_file(gathering)
    path.unlink()
    if known == "by indexes":
        path.with_suffix(".digests").unlink()
    delete_ledger(world)
    world.reopened()
    world.root.ledger.read().__enter__()
    assert gathering.waits() == dict.fromkeys(KEYS, 1)
    gathering.finish()
    gathering.check()
    gathering.run()
    assert len(world.accepted()) == 1


def test_a_file_that_is_lost_before_it_is_sent_is_built_again(world: World) -> None:
    gathering = small(world)
    gathering.build()
    request_file(gathering).unlink()
    assert all(outcome.refused for outcome in gathering.submit().values())
    gathering.run()
    gathering.check()
    assert [requests for _, requests, _ in gathering.files()] == [9, 9]


def test_a_lost_manifest_holds_back_rather_than_pays_twice(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit()
    path = request_file(gathering)
    for name in (path.name, path.with_suffix(".digests").name, "manifest.json"):
        (path.parent / name).unlink()
    assert gathering.written(gathering.build(["b", "c"])) == {"b": -1, "c": -1}
    assert len(world.accepted()) == 1


def test_a_file_that_was_split_since_the_ledger_was_copied_is_not_sent_whole(world: World) -> None:
    gathering, copies = small(world), Copies(world)
    gathering.build()
    copies.make("registered")
    world.emulator.faults([{"match": {**CREATE, "nth": [1]}, "action": {"status": 413}}])
    gathering.submit()
    assert len(world.accepted()) == 2
    copies.restore("registered")
    gathering.submit(["b"])
    gathering.finish()
    gathering.check()


def test_a_lost_reply_is_found_by_any_partition(world: World) -> None:
    gathering = small(world)
    gathering.build()
    world.emulator.faults(
        [
            {"match": {**CREATE, "nth": [1]}, "action": {"drop": "after_commit"}},
            {"match": {**LIST, "nth": [2, 3, 4]}, "action": {"status": 500}},
        ]
    )
    gathering.submit(["a"])
    world.emulator.reset_faults()
    gathering.submit(["c"])
    gathering.finish()
    gathering.check()


def test_request_files_are_removed_once_no_partition_needs_them(world: World) -> None:
    gathering = small(world)
    gathering.build()
    gathering.submit()
    world.emulator.end_batches()
    world.finish(gathering.pipeline(), "a")
    at_once = RetentionConfig(request_files_days=0)
    apply_retention(world.root, NAME, at_once)
    assert request_file(gathering).exists()
    gathering.finish()
    apply_retention(world.root, NAME, at_once)
    assert list(world.path(NAME, "requests").rglob("part-*.jsonl")) == []
    gathering.run()
    gathering.check()


def test_a_partition_that_another_process_has_taken_over_holds_back_no_other(world: World) -> None:
    """The process was frozen for longer than its leases while the group was built."""
    gathering, left = small(world), ["c"]

    def take_over(key: str) -> None:
        if key in left:
            left.remove(key)
            world.query("update lease set until = 0 where name = 'requests:asked:b'")
            with open_root(world.root.settings) as other:
                assert build_requests(other, gathering.pipeline(), "b").written == 3

    outcomes = build_partitions(world.root, gathering.pipeline(), KEYS, AskAgain(), take_over)
    assert isinstance(outcomes["b"], LeaseLostError)
    assert gathering.written(outcomes) == {"a": 3, "b": -1, "c": 3}
    assert gathering.files() == [("b", 3, "ready"), ("a", 6, "ready")]
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_a_full_disk_leaves_nothing_of_the_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gathering = small(world)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(OpenPart, "append", full)
        assert gathering.written(gathering.build()) == {"a": -1, "b": -1, "c": 3}
    assert gathering.files() == [("c", 3, "ready")]
    gathering.run()
    gathering.check()


def test_runs_over_overlapping_partitions_at_a_time(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    gathering = Gathering(world, {key: texts(2, "shared") | texts(2, key) for key in "abcde"})
    begin = threading.Barrier(2)

    def run(keys: str) -> dict[str, Any]:
        with open_root(world.root.settings) as root:
            begin.wait(60)
            return dict(build_partitions(root, gathering.pipeline(), list(keys), AskAgain()))

    with ThreadPoolExecutor(2) as pool:
        outcomes = [*pool.map(run, ["abcd", "bcde"])]
    for each in outcomes:
        assert -1 not in gathering.written(each).values(), each
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_groups_are_no_larger_when_unsent_files_are_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group holds leases and digests. Each partition has a file of its own, which no other needs."""
    monkeypatch.setattr(gather, "_REQUESTS", 8)
    partitions = {f"p{number:02}": 4 for number in range(8)}
    batching = {"across_partitions": True, "max_requests": 2}
    gathering = Gathering.of(world, partitions, batching=batching)
    for prompt in ("{{ text }}", "{{ text }}!"):
        gathering.build(prompt=prompt)
        manifests = [path.read_text() for path in world.path(NAME, "requests").rglob("manifest.json")]
        groups = [len(json.loads(text)["registered_with"] or ()) + 1 for text in manifests]
        assert max(groups) == 2, "of 4 requests each"


def test_a_group_does_not_wait_with_leases_that_others_wait_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work on the whole pipeline begins after the first partition is built: it waits for the group, not both."""
    monkeypatch.setattr(leases, "PATIENCE", 60.0)
    gathering = small(world)
    done: list[str] = []

    def work() -> None:
        with open_root(world.root.settings) as root, hold_pipeline(root.ledger, NAME, wait=30.0):
            done.append("the whole pipeline")

    thread = threading.Thread(target=work)

    def begin(partition: str) -> None:
        done.append(partition)
        if partition == "a":
            thread.start()
            is_held = f"select 1 from lease where name = 'requests:{NAME}' and until > 0"
            wait_for(lambda: world.query(is_held) or None, "the lease on the pipeline")

    pipeline = gathering.pipeline()
    outcomes = build_partitions(world.root, pipeline, KEYS, AskAgain(), begin)
    thread.join()
    assert gathering.written(outcomes) == {key: len(rows) for key, rows in gathering.rows.items()}
    assert done.index("the whole pipeline") < done.index("b"), "it did not wait for the other partitions"
    gathering.submit()
    gathering.finish()
    gathering.check()
