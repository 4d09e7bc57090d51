"""`python -m benchmarks.ticks --partitions 400`: the cost of a tick of the sensor when there is nothing to do.

One partition is really run, against the emulator. Its files and its rows in the ledger are then copied under other
keys, until there are enough partitions, all complete and announced for an hour. Prints the seconds of a tick, as
the median of the wall time and the least CPU time, and how many statements it has the ledger execute.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from batch_assets import build_message_batch_assets, build_message_batch_sensor
from batch_assets.core.ledger import tables
from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator
from benchmarks.workload import MAX_TOKENS, MODEL, POLL_SECONDS, USER_TEMPLATE

_PIPELINE, _FIRST = "bench", "key-0"
_AGE_SECONDS = 3600.0
_ROWS_AT_ONCE = 5000
# What the ledger has of a submission, in the order in which it can be inserted.
COPIED_TABLES = (
    tables.submission,
    tables.request_file,
    tables.wait,
    tables.intent,
    tables.batch,
    tables.round_,
    tables.history,
)


def make_assets(folder: Path) -> list[dg.AssetsDefinition]:
    """A pipeline with dynamic partitions, and the dataset of the first."""
    (folder / f"{_FIRST}.csv").write_text("id,text\n1,one\n2,two\n")
    messages = [{"role": "user", "content": USER_TEMPLATE}]
    return build_message_batch_assets(
        name=_PIPELINE,
        dataset={"path": "{partition}.csv", "key": "id"},
        partitions={"dynamic": True},
        params={"model": MODEL, "max_tokens": MAX_TOKENS, "messages": messages},
        folder=folder,
        project=folder,
    )


class Location:
    """A code location whose sensor ticks on demand.

    Attributes:
        observed: The partitions of the batches that the last tick observed.
    """

    def __init__(self, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> None:
        self.assets, self.instance = assets, instance
        self._sensor = build_message_batch_sensor()
        definitions = dg.Definitions(assets=assets, sensors=[self._sensor])
        self._repository = definitions.get_repository_def()
        self._cursor: str | None = None
        self.observed: list[str | None] = []

    def materialize(self, **more: Any) -> None:
        dg.materialize(self.assets, instance=self.instance, partition_key=_FIRST, **more)

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """Run a tick; return the runs that it asks for, and its message in the UI."""
        with (
            dg.partition_loading_context(dynamic_partitions_store=self.instance),  # as the daemon does
            dg.build_sensor_context(
                instance=self.instance, repository_def=self._repository, cursor=self._cursor
            ) as context,
        ):
            data = self._sensor.evaluate_tick(context)
        self._cursor = data.cursor or self._cursor
        observations = (event for event in data.asset_events if isinstance(event, dg.AssetObservation))
        self.observed = [event.partition for event in observations]
        return list(data.run_requests or []), data.skip_message or ""

    def succeeded(self, request: dg.RunRequest) -> None:
        """Tell Dagster of a run that was requested and succeeded."""
        self.instance.create_run_for_job(
            dg.Definitions(assets=self.assets).resolve_implicit_global_asset_job_def(),
            status=dg.DagsterRunStatus.SUCCESS,
            tags=dict(request.tags),
        )

    def finish(self) -> None:
        """Run the first partition until its results are complete and announced."""
        self.instance.add_dynamic_partitions(_PIPELINE, [_FIRST])
        self.materialize()
        while self.tick()[1] != "No batch is open.":
            time.sleep(POLL_SECONDS)
            self.materialize(selection=[key for asset in self.assets for key in asset.keys][-1:])


def copy_files(partitions: int) -> None:
    """Give partitions like the first the files of their submissions, so that none counts as lost."""
    with open_root() as root:
        (first,) = Path(root.settings.root, _PIPELINE, "requests", f"partition={_FIRST}").iterdir()
        for number in range(1, partitions):
            copy = first.parents[1] / f"partition=key-{number}" / f"{first.name}-{number}"
            copy.parent.mkdir()
            copy.symlink_to(first, target_is_directory=True)


def copy_rows(partitions: int) -> None:
    """Fill the ledger with partitions like the first, which became complete a while ago."""
    with open_root() as root, root.ledger.write() as tx:
        age = sa.update(tables.submission)
        tx.execute(age.values(final_at=tables.submission.c.final_at - _AGE_SECONDS))
        (submission_id,) = tx.execute(sa.select(tables.submission.c.id)).scalars()
        (batch_id,) = tx.execute(sa.select(tables.batch.c.id)).scalars()
        for table in COPIED_TABLES:
            rows = [dict(row._mapping) for row in tx.execute(sa.select(table))]
            copies = [
                _copy(table, row, number, (submission_id, batch_id))
                for number in range(1, partitions)
                for row in rows
            ]
            for start in range(0, len(copies), _ROWS_AT_ONCE):
                tx.connection.execute(sa.insert(table), copies[start : start + _ROWS_AT_ONCE])


def _copy(table: sa.Table, row: dict[str, Any], number: int, ids: tuple[str, ...]) -> dict[str, Any]:
    """A copy of a row with the ids and the key of another partition."""
    made = {}
    for name, value in row.items():
        if table.c[name].primary_key and isinstance(table.c[name].type, sa.Integer) and name != "number":
            continue  # the database chooses this number
        if isinstance(value, str):
            value = f"key-{number}" if name == "partition" else value
            for old_id in ids:
                value = value.replace(old_id, f"{old_id}-{number}")
        made[name] = value
    return made


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements that reach a ledger during the block."""
    seen: list[str] = []

    def note(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if str(connection.engine.url.database).endswith("ledger.db"):
            seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@contextmanager
def copied_location(partitions: int) -> Iterator[tuple[Location, Emulator]]:
    """Open a code location whose ledger has this many finished partitions, and the emulator that it uses."""
    with tempfile.TemporaryDirectory() as folder, Emulator(latency=0.0) as emulator:
        os.environ |= {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(Path(folder, "root"))}
        os.environ.pop("BATCH_ASSETS_LEDGER", None)
        with dg.DagsterInstance.local_temp(folder) as instance:
            location = Location(make_assets(Path(folder)), instance)
            location.finish()
            copy_rows(partitions)
            copy_files(partitions)
            yield location, emulator


def main() -> None:
    """Build the root, and print what its ticks cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ticks", description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[400, 8760])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable()  # Dagster's messages about the runs
    for partitions in options.partitions:
        with copied_location(partitions) as (location, _emulator):
            seconds, used = [], []
            for _ in range(options.rounds):
                began, cpu = time.perf_counter(), time.process_time()
                with counting() as statements:
                    outcome = location.tick()
                seconds.append(time.perf_counter() - began)
                used.append(time.process_time() - cpu)
                assert outcome == ([], "No batch is open."), outcome
        spent = f"{statistics.median(seconds):.3f} s, {min(used):.3f} s CPU time"
        print(
            f"{partitions:,} finished partitions: a tick takes {spent}, {len(statements)} statements", flush=True
        )


if __name__ == "__main__":
    main()
