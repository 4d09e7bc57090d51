"""Many partitions: what ticks, polls and checks cost does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from batch_assets.core.batches.poll import poll
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.snapshot import read_snapshots
from batch_assets.dagster.checks.results import results_evaluations
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.metadata import progress
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.emulator import Emulator
from benchmarks.ended import reopen
from benchmarks.ticks import Location, copy_files, copy_rows, counting, make_assets


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(text(statement))
        return list(result) if result.returns_rows else []


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """A location over a ledger with 240 partitions, whose batches have been sent and have ended."""
    folder = tmp_path_factory.mktemp("copied")
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(latency=0.0) as emulator,
        dg.DagsterInstance.local_temp(str(folder)) as instance,
    ):
        patch.setenv("BATCH_ASSETS_EMULATOR", emulator.url)
        patch.setenv("BATCH_ASSETS_ROOT", str(folder / "root"))
        location = Location(make_assets(folder), instance)
        location.finish()
        copy_rows(240)
        copy_files(240)
        instance.add_dynamic_partitions("bench", [f"key-{number}" for number in range(1, 240)])
        location.folder, location.url = folder / "root", emulator.url
        yield location


@pytest.fixture
def many(copied: Location, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(copied.folder))
    monkeypatch.setenv("BATCH_ASSETS_EMULATOR", copied.url)
    return copied


def test_a_tick_needs_no_more_statements_for_more_ended_batches(many: Location) -> None:
    statements, opened = {}, {}
    for ended in (60, 240):
        reopen(None)
        ledger(
            "update submission set final_at = 0, announced_at = 0, joined_seq = 9999999 "
            f"where cast(substr(partition, 5) as integer) >= {ended}"
        )
        others = f"select id from request_file where cast(substr(partition, 5) as integer) >= {ended}"
        ledger(f"update request_file set state = 'collected' where id in ({others})")
        ledger(f"update batch set state = 'collected' where file_id in ({others})")
        with counting() as seen:
            requests, _ = many.tick()
        statements[ended], opened[ended] = len(seen), len(requests)
    assert opened == {60: 3, 240: 10}
    assert statements[240] == statements[60] <= 52


def test_a_tick_over_a_page_of_open_rounds_reads_the_runs_at_once(
    many: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_PARTITIONS_PER_RUN", "1")
    reopen(None)
    asked: list[Any] = []
    original = dg.DagsterInstance.get_run_records
    monkeypatch.setattr(
        dg.DagsterInstance, "get_run_records", lambda *args, **how: asked.append(1) or original(*args, **how)
    )
    requested = [len(many.tick()[0]) for _ in range(3)]
    assert requested == [20, 20, 0]
    assert len(asked) <= 4


def test_a_tick_reports_the_progress_of_some_partitions_and_the_next_of_others(many: Location) -> None:
    reopen(None)
    ledger("""update batch set counts = '{"succeeded"\\: 2}'""")
    with open_root() as root, root.ledger.read() as tx:
        snapshots = list(read_snapshots(tx, submissions.all_newest(tx)).values())
        now = tx.now
    (bound,) = pipelines_in(spec for asset in many.assets for spec in asset.specs).values()
    watched = progress.Progress(SensorCursor(), now, emulated=False)
    seen = [[event.partition for event in watched.observe(snapshots, {"bench": bound})] for _ in range(6)]
    assert [len(partitions) for partitions in seen] == [50, 50, 50, 50, 40, 0]
    assert len({partition for partitions in seen for partition in partitions}) == 240


def test_every_end_is_observed_however_many_ticks_that_takes(
    many: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen(None)
    ledger("""update batch set state = 'collected', counts = '{"succeeded"\\: 2}'""")
    ledger("update request_file set state = 'collected', collected_seq = 1")
    with open_root() as root, root.ledger.read() as tx:
        now = tx.now
    ledger(f"update submission set final_at = {now} - seq, announced_at = {now}, joined_seq = 9999999")
    location = Location(many.assets, many.instance)
    observed = []
    for _ in range(6):
        location.tick()
        observed.append(location.observed)
        # The others became final longer ago than a tick looks back.
        monkeypatch.setattr(progress, "_RECENT_SECONDS", 0.0)
    assert [len(partitions) for partitions in observed] == [50, 50, 50, 50, 40, 0]
    assert len({partition for partitions in observed for partition in partitions}) == 240


def test_a_poll_needs_no_more_statements_for_more_batches(many: Location) -> None:
    statements = []
    for most in (60, 240):
        with Emulator(latency=3600.0) as emulator, pytest.MonkeyPatch.context() as patch:
            patch.setenv("BATCH_ASSETS_EMULATOR", emulator.url)
            ledger(f"update endpoint set base_url = '{emulator.url}'")
            ledger("update batch set state = 'collected'")
            reopen(emulator)
            emulator.end_batches()
            ledger(
                "update batch set state = 'collected' where file_id in (select id from request_file "
                f"where cast(substr(partition, 5) as integer) >= {most})"
            )
            with open_root() as root, counting() as seen:
                report = poll(root)
            assert (report.problems, len(report.changed["bench"])) == ([], most)
            statements.append(len(seen))
    ledger(f"update endpoint set base_url = '{many.url}'")
    assert statements[0] == statements[1]
    states = "select distinct from_state, to_state, reason from history where reason like 'the API reports%'"
    assert ("open", "ended", "the API reports ended") in ledger(states)


def test_the_checks_of_a_partition_read_its_own_files_only(
    many: Location, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **more)

        return call

    for name in ("open", "exists", "names", "read_bytes"):
        monkeypatch.setattr(Storage, name, counted(name, getattr(Storage, name)))
    (bound,) = pipelines_in(make_assets(tmp_path)[0].specs).values()
    ledger("update submission set counts = '{\"errored\": 1}' where partition != 'key-0'")
    first = many.folder / "bench" / "results" / "partition=key-0"
    needed: list[int] = []
    for partitions in (10, 40):
        for number in range(1, partitions):
            folder = first.with_name(f"partition=key-{number}")
            folder.exists() or folder.symlink_to(first, target_is_directory=True)
        calls.clear()
        key = dg.AssetKey(["bench", "results"])
        with open_root() as root:
            evaluations = list(results_evaluations(many.instance, root, bound.pipeline, key, ["key-0"]))
        needed.append(calls.total())
        (blocking,) = [one for one in evaluations if one.check_name == "failed_rows_are_few"]
        assert (blocking.partition, blocking.passed) == ("key-0", True), "others block only what depends on them"
        (check,) = [one for one in evaluations if one.check_name == "every_row_once"]
        failed = str(check.description).splitlines()
        assert failed[0] == "- key-1: 1 row of 2 in the dataset"
        assert (len(failed), failed[-1] == "- and 29 more partitions") == (
            (9, False) if partitions == 10 else (11, True)
        )
    assert needed[0] == needed[1] <= 12


def test_what_a_run_found_is_what_the_checks_of_others_report(many: Location, tmp_path: Path) -> None:
    (bound,) = pipelines_in(make_assets(tmp_path)[0].specs).values()
    key = dg.AssetKey(["bench", "results"])

    def columns(partition: str) -> Any:
        with open_root() as root:
            found = list(results_evaluations(many.instance, root, bound.pipeline, key, [partition]))
        (check,) = [one for one in found if one.check_name == "columns_match"]
        return check

    ledger("update submission set examined = null, counts = '{\"succeeded\": 2}'")
    folder = many.folder / "bench" / "results" / "partition=key-7"
    folder.exists() or folder.symlink_to(folder.with_name("partition=key-0"), target_is_directory=True)
    assert columns("key-0").passed
    numbers = (
        '{"rows": 2, "expected_rows": 2, "counts": {"succeeded": 2}, "invalid": 0, "unexpected": 0, '
        '"stopped": {}, "misplaced": 1, "columns": ["why is missing"]}'
    )
    ledger(f"update submission set examined = '{numbers}' where partition = 'key-7'".replace(":", "\\:"))
    check = columns("key-0")
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    assert str(check.description).startswith("key-7: why is missing. Materialize bench/requests")
    ((examined,),) = ledger("select examined from submission where partition = 'key-0'")
    assert '"expected_rows": 2' in examined
