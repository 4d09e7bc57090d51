"""What a stage costs does not depend on how many answers, batches and request files there were before."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.ledger import tables
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.results.run import collect_results
from batch_assets.emulator import Emulator
from benchmarks.history import Cost, make_pipeline, measure, measured, opened, write_partition


def counts(cost: Cost) -> tuple[int, int]:
    return len(cost.calls), len(cost.statements)


def test_calls_and_statements_are_equal_beside_few_and_many_response_files(
    emulator: Emulator, tmp_path: Path
) -> None:
    costs = []
    for files in (5, 50):
        folder = tmp_path / str(files)
        folder.mkdir()
        # Of different sizes, so that no batch at the emulator could be one that the other root has lost.
        (cost,) = measure(folder, emulator, files, rows=50 + files, rounds=1)
        costs.append(cost)
    (few_requests, few_results), (many_requests, many_results) = costs
    assert counts(few_requests) == counts(many_requests)
    assert counts(few_results) == counts(many_results)
    assert len(many_requests.calls) <= 20 and len(many_results.calls) <= 20


def test_calls_are_equal_beside_few_and_many_request_files_in_flight(emulator: Emulator, tmp_path: Path) -> None:
    costs = []
    for files in (5, 50):
        folder = tmp_path / str(files)
        folder.mkdir()
        pipeline = make_pipeline(folder, max_requests=1)
        for partition, rows in [("first", files), ("second", 2), ("third", 2)]:
            write_partition(folder, partition, rows)
            with opened(folder, emulator) as root, measured() as cost:
                assert build_requests(root, pipeline, partition).written == rows
        costs.append(cost)
    few, many = costs
    # The request files of the second partition are read once, those of the first are in the index by now.
    assert counts(few) == counts(many)
    assert sum(call.startswith("read_bytes") and call.endswith(".digests") for call in many.calls) == 2


def test_statements_and_calls_of_a_gathered_partition_do_not_grow_with_the_others(
    emulator: Emulator, tmp_path: Path
) -> None:
    costs = {}
    for partitions in (5, 30):
        folder = tmp_path / str(partitions)
        folder.mkdir()
        pipeline, keys = make_pipeline(folder), [f"p{number:02}" for number in range(partitions)]
        for key in keys:
            write_partition(folder, key, 2)
        with opened(folder, emulator) as root, measured() as cost:
            outcomes = build_partitions(root, pipeline, keys, AskAgain())
        assert [each.written for each in outcomes.values() if isinstance(each, RequestsReport)] == [2] * partitions
        assert sum(call.startswith("publish") and ".jsonl" in call for call in cost.calls) <= 1
        costs[partitions] = counts(cost)
    (few_calls, few_statements), (calls, statements) = costs[5], costs[30]
    assert calls <= few_calls * 6
    assert statements <= few_statements * 6


def test_a_run_over_partitions_lists_the_response_files_once(emulator: Emulator, tmp_path: Path) -> None:
    measure(tmp_path, emulator, 5, rows=3, rounds=0)
    pipeline = make_pipeline(tmp_path)
    with opened(tmp_path, emulator) as root, measured() as cost:
        for number in range(4):
            write_partition(tmp_path, f"p{number}", 3)
            assert build_requests(root, pipeline, f"p{number}").written == 3
    # In each partition, to see whether a file of a collected batch is gone. The index takes the first listing.
    assert sum(call.endswith("names bench/responses") for call in cost.calls) == 4
    assert not any(call == "versions bench/responses" for call in cost.calls), "it takes seven times as long"
    # The estimate reads a few, once for all partitions.
    assert sum(call.startswith("open bench/responses") for call in cost.calls) == 3


@pytest.mark.parametrize("meanwhile", ["collected", "removed", "collected and removed"])
def test_a_run_over_partitions_sees_what_happens_meanwhile(
    emulator: Emulator, tmp_path: Path, meanwhile: str
) -> None:
    """Another process answers requests that a later partition has too, and a response file is deleted."""
    measure(tmp_path, emulator, 5, rows=3, rounds=0)
    pipeline = make_pipeline(tmp_path)
    write_partition(tmp_path, "p0", 3)
    removed = tmp_path / "root" / "bench" / "responses" / f"{emulator.log()[-1]['id']}.parquet"
    for same in ("p1", "p2"):
        write_partition(tmp_path, same, 4)
        (tmp_path / f"{same}.csv").write_text("id,text\n1,the same in two partitions\n")
    with opened(tmp_path, emulator) as root:
        build_requests(root, pipeline, "p0")
        with opened(tmp_path, emulator) as other:
            build_requests(other, pipeline, "p1")
            if "collected" in meanwhile:
                submit_batches(other, pipeline.name, "p1")
                poll(other, now=True)
                assert collect_results(other, pipeline.name, "p1").collected
        if "removed" in meanwhile:
            removed.unlink()
        report = build_requests(root, pipeline, "p2")
        assert (report.written, report.requests) == (0, 1)
        assert (report.reused, report.in_flight) == ((1, 0) if "collected" in meanwhile else (0, 1))
        done = collect_results(root, pipeline.name, "p2")
        assert done.results is not None and done.results.final == ("collected" in meanwhile)


def test_a_complete_table_beside_a_history_is_joined_again_only_if_a_response_file_changed(
    emulator: Emulator, tmp_path: Path
) -> None:
    measure(tmp_path, emulator, 5, rows=3, rounds=1)
    responses = tmp_path / "root" / "bench" / "responses"
    changed = min(responses.glob("msgbatch_history*.parquet"))
    joined = []
    for _ in range(3):
        with opened(tmp_path, emulator) as root, measured() as cost:
            done = collect_results(root, "bench", "key-0")
        assert done.results is not None and done.results.final
        joined.append(any(call.startswith("publish") for call in cost.calls))
        if len(joined) == 1:
            content = changed.read_bytes()
            changed.unlink()
            changed.write_bytes(content)
    assert joined == [False, True, True]
    with opened(tmp_path, emulator) as root:  # the index has the new version once it has compared all files
        with root.ledger.write() as tx:
            tx.execute(sa.delete(tables.index_check))
        collect_results(root, "bench", "key-0")
        with measured() as cost:
            collect_results(root, "bench", "key-0")
    assert not any(call.startswith("publish") for call in cost.calls)


def test_a_damaged_response_file_is_set_aside_and_downloaded_again(emulator: Emulator, tmp_path: Path) -> None:
    measure(tmp_path, emulator, 5, rows=3, rounds=0)
    pipeline = make_pipeline(tmp_path)
    responses = tmp_path / "root" / "bench" / "responses"
    (stored,) = responses.glob(f"{emulator.log()[-1]['id']}.parquet")  # of the second partition
    with opened(tmp_path, emulator) as root:
        assert build_requests(root, pipeline, "second").reused == 3
        content = stored.read_bytes()
        stored.write_bytes(content[:40] + b"garbage" + content[47:])
        done = collect_results(root, pipeline.name, "second")
        assert any("was renamed to" in problem for problem in done.problems)
        assert build_requests(root, pipeline, "second").written == 0
        done = collect_results(root, pipeline.name, "second")
        assert done.results is not None and done.results.counts["succeeded"] == 3


def test_a_run_collects_lost_answers_of_other_partitions(emulator: Emulator, tmp_path: Path) -> None:
    pipeline = make_pipeline(tmp_path)
    for name in ("p1", "p2"):
        (tmp_path / f"{name}.csv").write_text("id,text\n1,the same in two partitions\n")
    write_partition(tmp_path, "p3", 2)
    with opened(tmp_path, emulator) as root:
        build_requests(root, pipeline, "p1")
        submit_batches(root, pipeline.name, "p1")
        poll(root, now=True)
        assert collect_results(root, pipeline.name, "p1", partitions=["p1"]).collected
        assert build_requests(root, pipeline, "p2").reused == 1
        collect_results(root, pipeline.name, "p2", partitions=["p2"])
        build_requests(root, pipeline, "p3")
        submit_batches(root, pipeline.name, "p3")
        poll(root, now=True)
        (stored,) = (tmp_path / "root" / "bench" / "responses").glob("*.parquet")
        stored.unlink()
        done = collect_results(root, pipeline.name, "p2", partitions=["p2"])
        assert [report.batch_id for report in done.collected] == [stored.stem], "and not that of p3"
        assert done.results is not None and done.results.final
