"""`python -m benchmarks.beside --partitions 100 1000`: what a run costs beside many other partitions.

One partition is really run, against the emulator. What the ledger has of it is then copied for other partitions.
Half of the copies stay finished, with a response file each; the batches of a quarter run at the API; those of a
quarter have ended and wait for runs of their own. Beside them, more partitions are really built, sent and
collected: one alone, and 24 together, as the sensor requests them.

Prints CPU seconds of each stage, with what Dagster needs, the statements that reach the ledger, and the calls to
the storage, which are counted as in `benchmarks.history`. Exits with 1 if there are more of them beside more
partitions.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.ledger import answer_index, tables
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.dagster import keys
from batch_assets.dagster.rounds import tags_for
from batch_assets.emulator import Emulator
from benchmarks.history import Cost, measured, write_responses
from benchmarks.ticks import Location, copied_location

TOGETHER, ROWS = 24, 4
# A few more statements: of runs that are a little longer, and of lists of ids that are cut.
_SLACK = 20
_PIPELINE = "bench"
# Requests of the partition that is copied.
_REQUESTS = 2
_NEVER = 1e12


def spread() -> None:
    """Give the first half of the copies response files, and set the others back to before their collection."""
    with open_root() as root:
        with root.ledger.read() as tx:
            ids = list(tx.execute(sa.select(tables.batch.c.id).order_by(tables.batch.c.id)).scalars())
        half = len(ids) // 2
        _store(root, ids[:half])
        _set_back(root, ids[half::2], BatchState.OPEN)
        _set_back(root, ids[half + 1 :: 2], BatchState.ENDED)


def _store(root: Root, batch_ids: Sequence[str]) -> None:
    """Give batches response files with answers to requests that no partition has, and make their index."""
    folder = Path(root.settings.root, _PIPELINE, "responses")
    first, *others = [id_ for id_ in batch_ids if not (folder / f"{id_}.parquet").exists()]
    write_responses(root, _PIPELINE, first, random.Random(1).randbytes(16 * _REQUESTS), 1)
    for other in others:
        os.link(folder / f"{first}.parquet", folder / f"{other}.parquet")
    common = {"pipeline": _PIPELINE, "requests": _REQUESTS, "ended_at": 1.0, "row_groups": f"[[{_REQUESTS}, 100]]"}
    versions = root.storage.versions(_PIPELINE, "responses")
    with root.ledger.write() as tx:
        rows = [
            common
            | {"name": name, "version": version, "indexed_at": tx.now}
            | {"name_hash": answer_index.names_hash([name])[1]}
            for name, version in versions.items()
        ]
        tx.connection.execute(sa.insert(tables.indexed_file), rows)
        answer_index.checked(tx, _PIPELINE)


def _set_back(root: Root, batch_ids: Sequence[str], state: BatchState) -> None:
    file, batch, submission = tables.request_file, tables.batch, tables.submission
    with root.ledger.write() as tx:
        for chunk in id_chunks(batch_ids):
            files = sa.select(batch.c.file_id).where(batch.c.id.in_(chunk))
            waiting = sa.select(tables.wait.c.submission_id).where(tables.wait.c.file_id.in_(files))
            unjoined = {"final_at": None, "announced_at": None, "joined_seq": 0, "counts": None}
            tx.execute(sa.update(submission).where(submission.c.id.in_(waiting)).values(unjoined))
            sent = {"state": FileState.SUBMITTED, "collected_seq": None}
            tx.execute(sa.update(file).where(file.c.id.in_(files)).values(sent))
            of_chunk = sa.update(batch).where(batch.c.id.in_(chunk))
            tx.execute(of_chunk.values(state=state, next_poll_at=_NEVER, next_download_at=0.0))


def write_datasets(folder: Path, names: Sequence[str]) -> None:
    """Write the datasets of some partitions."""
    for name in names:
        rows = [f"{number},row {number} of {name}" for number in range(ROWS)]
        (folder / f"{name}.csv").write_text("\n".join(["id,text", *rows, ""]))


def end_batches(emulator: Emulator) -> None:
    """Let the batches end that were really sent."""
    emulator.end_batches()
    with open_root() as root:
        with root.ledger.write() as tx:
            sent = sa.update(tables.batch).where(tables.batch.c.next_poll_at < _NEVER)
            tx.execute(sent.values(next_poll_at=0.0))
        assert not poll(root).problems


def run_stages(location: Location, emulator: Emulator, names: Sequence[str]) -> dict[str, Cost]:
    """Run all stages of some partitions together, the last one as the sensor requests it.

    Returns:
        The cost of each stage.
    """
    costs: dict[str, Cost] = {}
    ends = (names[0], names[-1]) if len(names) > 1 else None
    tags = {keys.RANGE_START: ends[0], keys.RANGE_END: ends[1]} if ends else {}
    for key in (key for asset in location.assets for key in asset.keys):
        if (stage := key.path[-1]) == "results":
            end_batches(emulator)
            tags = tags_for("leader", "1:1", ends)
        with measured() as costs[stage]:
            done = dg.materialize(
                location.assets,
                selection=[key],
                instance=location.instance,
                tags=tags,
                partition_key=None if ends else names[0],
            )
        assert done.success
    with open_root() as root, root.ledger.read() as tx:
        announced = sa.select(sa.func.count(tables.submission.c.announced_at))
        complete = tx.execute(announced.where(tables.submission.c.partition.in_(names))).scalar_one()
    assert complete == len(names), f"{complete} of {len(names)} tables are complete"
    return costs


def measure(partitions: int) -> dict[str, Cost]:
    """Measure the stages beside some partitions.

    Returns:
        The cost of each stage, by its name and the number of partitions in the run.
    """
    with copied_location(partitions) as (location, emulator):
        folder = Path(os.environ["BATCH_ASSETS_ROOT"]).parent
        spread()
        names = [f"real-{number:02}" for number in range(TOGETHER + 2)]
        write_datasets(folder, names)
        location.instance.add_dynamic_partitions(_PIPELINE, names)
        run_stages(location, emulator, names[:1])  # afterwards everything is imported, and in the index
        alone = run_stages(location, emulator, names[1:2])
        together = run_stages(location, emulator, names[2:])
    costs = {f"{stage}, 1 partition": cost for stage, cost in alone.items()}
    return costs | {f"{stage}, {TOGETHER} partitions": cost for stage, cost in together.items()}


def missed(few: dict[str, Cost], many: dict[str, Cost]) -> list[str]:
    """Return which stages need more statements or calls beside more partitions, as text."""
    problems = []
    for name, cost in many.items():
        before, after = (f"{len(one.statements)} statements, {len(one.calls)} calls" for one in (few[name], cost))
        more = len(cost.statements) > len(few[name].statements) + _SLACK or len(cost.calls) > len(few[name].calls)
        if more:
            problems.append(f"{name}: {after}, beside fewer partitions {before}")
    return problems


def main() -> None:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[100, 1000])
    options = parser.parse_args()
    logging.disable()  # Dagster's messages about the runs
    costs = []
    for partitions in options.partitions:
        costs.append(measure(partitions))
        for name, cost in costs[-1].items():
            print(
                f"{partitions:,} beside: {name}: {cost.cpu:.2f} s CPU time, {len(cost.statements)} statements, "
                f"{len(cost.calls)} calls, {len(cost.looks):,} folders looked through",
                flush=True,
            )
    sys.exit("; ".join(problem for many in costs[1:] for problem in missed(costs[0], many)) or 0)


if __name__ == "__main__":
    main()
