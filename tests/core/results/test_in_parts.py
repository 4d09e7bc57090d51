"""A partition that does not fit into memory gives the same request files and the same table as one that does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io import parted_records
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results import matches, reorder
from batch_assets.core.results import survey as surveys
from batch_assets.core.results.join import ResultsJoin
from batch_assets.core.results.survey import Counted, survey
from batch_assets.core.store import digest_set, parts, pipeline_outcomes, row_hashes
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_index import DIGEST, MESSAGE, REASON, RequestIndex
from batch_assets.core.store.responses import RESPONSE_SCHEMA

from ..support import CREATE, World, texts

Joined = tuple[pa.Table, list[int], list[bool], int]


@contextmanager
def in_small_parts(*, scattered: bool = False) -> Iterator[None]:
    """As if a few rows were as many as memory holds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digest_set, "_IN_MEMORY", 10)
        patched.setattr(digest_set, "_FILTER_BITS", 8)
        patched.setattr(parted_records, "_BLOCK_BYTES", 100)
        patched.setattr(parts, "_PART_ROWS", 4)
        patched.setattr(pipeline_outcomes, "_IN_MEMORY", 5)
        patched.setattr(row_hashes, "_IN_MEMORY", 5)
        patched.setattr(matches, "_RANGE_ROWS", 7)
        patched.setattr(reorder, "_PART_GROUPS", 1)
        if scattered:
            patched.setattr(surveys, "_LOADS", 0)
        yield


def joined(world: World, pipeline: Pipeline) -> Joined:
    """The table that a join of the newest submission makes now, and what it counts."""
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
        assert submission is not None
        in_flight, refreshes = submissions.files_in_flight(tx, pipeline.name), refreshes_of(tx, pipeline.name)
        untried = untried_of(tx, submission)
    join = ResultsJoin(world.root, submission, in_flight, refreshes, untried, None)
    slices = [*join.slices()]
    fates = [fate for slice_ in slices for fate in slice_.fates.tolist()]
    is_first = [first for slice_ in slices for first in slice_.is_first.tolist()]
    return pa.concat_tables([slice_.table for slice_ in slices]), fates, is_first, len(join.waits)


def check(world: World, pipeline: Pipeline) -> Joined:
    """Compare joins in small parts with one in memory, and return that."""
    whole = joined(world, pipeline)
    for scattered in (False, True):
        with in_small_parts(scattered=scattered):
            assert joined(world, pipeline) == whole
    check_answers(whole[0])
    return whole


def check_answers(table: pa.Table) -> None:
    """Check that each row has the answer to its own text, and names the first row with the same text."""
    first: dict[str, str] = {}
    for row in table.to_pylist():
        if row["response_text"] is not None:
            assert f": {row['text']}\n" in row["response_text"] + "\n"
        if row["result_type"] not in ("pending", "rejected"):
            before = first.setdefault(row["text"], row["id"])
            assert row["shared_with"] == (before if before != row["id"] else None)


def rows_of(count: int) -> dict[str, str]:
    """Rows of which every fifth shares its request with others, and some are rejected."""
    rows = texts(count)
    for number, key in enumerate(rows):
        if number % 5 == 0:
            rows[key] = f"shared {number % 3}"
        if number % 17 == 3:
            rows[key] = " "
    return rows


def build_both(world: World, rows: dict[str, str]) -> tuple[Pipeline, RequestsReport]:
    """Build equal pipelines in memory and in small parts, and compare their request files."""
    whole = world.pipeline(rows, name="whole", batching={"max_requests": 40})
    parted = world.pipeline(rows, name="parted", batching={"max_requests": 40})
    report = world.build(whole)
    with in_small_parts():
        again = world.build(parted)
    counts = [(one.requests, one.written, one.rendered, one.reused, one.in_flight) for one in (report, again)]
    assert counts[0] == counts[1]
    folders = world.submission_folder(whole, report), world.submission_folder(parted, again)
    names = [sorted(path.name for path in folder.glob("part-*")) for folder in folders]
    assert names[0] == names[1]
    for name in names[0]:
        if not name.endswith(".json"):  # a receipt
            assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    return parted, again


def test_request_files_are_the_same(world: World) -> None:
    rows = rows_of(300)
    _, first = build_both(world, rows)
    assert len(first.files) > 5
    for name in ("whole", "parted"):
        pipeline = world.pipeline(name=name)
        world.submit(pipeline)
        world.finish(pipeline)
    changed = (
        dict(reversed([*rows.items()])) | {f"row-{at}": f"text {at}" for at in range(1, 300, 7)} | {"new": "more"}
    )
    _, again = build_both(world, changed)
    assert 0 < again.written <= again.rendered < 100
    assert again.reused > 150


def test_tables_are_the_same_while_answers_come_fail_and_are_replaced(world: World) -> None:
    rows = rows_of(60)
    mix = {"error_mix": {"overloaded_error": 0.2, "credit_error": 0.1, "canceled": 0.1, "first": 1}}
    world.emulator.faults([{"match": CREATE, "action": mix}])
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(rows, batching={"max_requests": 12})
    first, *others = world.send(pipeline).submitted
    assert set(check(world, pipeline)[0]["result_type"].to_pylist()) == {"pending", "rejected"}
    world.emulator.end_batches(others[-1])
    world.collect(pipeline)
    world.emulator.end_batches(first)
    world.collect(pipeline)
    assert "pending" in check(world, pipeline)[0]["result_type"].to_pylist()
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)
    table, _, is_first, _ = check(world, pipeline)
    assert {"succeeded", "errored", "rejected"} <= set(table["result_type"].to_pylist())
    assert False in is_first

    changed = dict(reversed([*rows.items()])) | {"row-1": "another text", "new": "one more"}
    pipeline = world.pipeline(changed)
    world.build(pipeline, limit=1)
    check(world, pipeline)
    world.emulator.reset_faults()
    world.emulator.settings(latency=3600)
    world.build(pipeline, refresh=True)
    begun, *_ = world.submit(pipeline).submitted
    check(world, pipeline)
    world.emulator.end_batches(begun)
    world.collect(pipeline)
    check(world, pipeline)


def test_the_first_look_holds_no_more_for_more_rows(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, rows, per_file = new_world(), 200_000, 10_000
    digests = np.frombuffer(np.random.default_rng(0).bytes(16 * rows), "S16")
    column = pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(digests.tobytes())])
    nulls = pa.nulls(rows, pa.string())
    folder = world.path("asked", "requests", "s1")
    folder.mkdir(parents=True)
    index = pa.table({"id": np.arange(rows), DIGEST: column, REASON: nulls, MESSAGE: nulls})
    pq.write_table(index, folder / "index.parquet", row_group_size=8192)
    world.path("asked", "responses").mkdir()
    for start in range(0, rows, per_file):
        columns = {field.name: pa.nulls(per_file, field.type) for field in RESPONSE_SCHEMA}
        columns |= {"digest": column.slice(start, per_file), "attempts": pa.array([1] * per_file, pa.int32())}
        columns["result_type"] = pa.array(["succeeded"] * per_file)
        table = pa.table(columns, schema=RESPONSE_SCHEMA)
        pq.write_table(table, world.path("asked", "responses", f"b{start}.parquet"), row_group_size=8192)
    monkeypatch.setattr(parted_records, "_BLOCK_BYTES", 100_000)
    monkeypatch.setattr(parts, "_PART_ROWS", 4096)
    monkeypatch.setattr(matches, "_RANGE_ROWS", 4096)
    opened = RequestIndex(world.root.storage, "asked", "", "s1")
    counted = Counted({}, {}, None)
    survey(world.root, "asked", opened, "id", counted)  # imports what it needs
    tracemalloc.start()
    try:
        surveyed = survey(world.root, "asked", opened, "id", counted)
        found = sum(int((part["response"] >= 0).sum()) for part in surveyed.matches.ranges())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == rows
    assert peak < 1_500_000  # 16 bytes a digest would be 3,200,000
