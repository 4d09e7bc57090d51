"""The progress of batches: the sensor's observations and text, also after a restart and with a rebuilt ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from batch_assets.core.batches.poll import poll
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.snapshot import read_snapshots
from batch_assets.dagster import keys
from batch_assets.dagster.cursor import Observed, SensorCursor
from batch_assets.dagster.metadata.progress import Progress
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.dagster.sensors.situation import situation
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
COUNTS = ("batches", "batches_open", "processing", "succeeded")


class Watched:
    """A submitted pipeline of three batches with two requests each, and what the sensor would report about it.

    Attributes:
        cursor: What the sensor has reported.
    """

    def __init__(self, assets: list[dg.AssetsDefinition], emulator: Emulator) -> None:
        self.assets, self.emulator = assets, emulator
        self.cursor = SensorCursor()
        self.batches = [batch["id"] for batch in emulator.log()]

    def report(self, *, emulated: bool = False) -> list[dict[str, Any]]:
        """The observations of one tick, after a poll of every batch."""
        pipelines = pipelines_in(spec for asset in self.assets for spec in asset.specs)
        with open_root() as root:
            poll(root, now=True)
            with root.ledger.read() as tx:
                snapshots = read_snapshots(tx, submissions.all_newest(tx)).values()
                progress = Progress(self.cursor, tx.now, emulated=emulated)
            events = list(progress.observe(snapshots, pipelines))
        # Dagster passes it from one tick to the next as text.
        self.cursor = SensorCursor.read(self.cursor.write())
        assert {event.asset_key.path[-1] for event in events} <= {"batches"}
        return [{key: value.value for key, value in event.metadata.items()} for event in events]

    def counts(self) -> list[list[int]]:
        return [[event.get(keys.count_key(name), 0) for name in COUNTS] for event in self.report()]

    def later(self, seconds: float) -> None:
        """Make the last observation this much older."""
        self.cursor.observed = {
            name: Observed(observed.at - seconds, observed.counts)
            for name, observed in self.cursor.observed.items()
        }

    def message(self) -> str:
        with open_root() as root, root.ledger.read() as tx:
            snapshots = read_snapshots(tx, submissions.all_newest(tx))
            return "; ".join(situation(snapshots.values(), submissions.paid_twice(tx)))


@pytest.fixture
def watched(make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator) -> Iterator[Watched]:
    assets = make_assets(rows=6, batching={"max_requests": 2})
    dg.materialize(assets, instance=instance)
    yield Watched(assets, emulator)


def ledger(statement: str) -> None:
    with open_root() as root, root.ledger.write() as tx:
        tx.execute(text(statement))


def test_changes_are_reported_now_and_then_and_the_end_always(watched: Watched) -> None:
    assert watched.counts() == []  # the run that submitted them has reported it
    watched.emulator.end_batches(watched.batches[0])
    assert watched.counts() == [[3, 2, 4, 2]]
    watched.emulator.end_batches(watched.batches[1])
    assert watched.counts() == []
    watched.later(890)
    assert watched.counts() == []
    watched.later(20)
    (event,) = watched.report()
    assert [event[keys.count_key(name)] for name in COUNTS] == [3, 1, 2, 4]
    assert f"| {watched.batches[2]} | in_progress | 2 | 2 processing |" in event[keys.BATCH_TABLE].replace(
        "\\", ""
    )
    watched.emulator.end_batches()
    assert watched.counts() == [[3, 0, 0, 6]]
    watched.later(1000)
    assert watched.counts() == []  # nothing has changed


def test_with_the_emulator_the_pause_is_as_short_as_its_batches(watched: Watched) -> None:
    watched.emulator.end_batches(watched.batches[0])
    assert len(watched.report(emulated=True)) == 1
    watched.emulator.end_batches(watched.batches[1])
    watched.later(2)
    assert len(watched.report(emulated=True)) == 1


def test_a_restarted_daemon_reports_the_right_numbers_once(watched: Watched, instance: dg.DagsterInstance) -> None:
    watched.emulator.end_batches(watched.batches[0])
    assert watched.counts() == [[3, 2, 4, 2]]
    watched.cursor = SensorCursor()
    assert watched.counts() == [[3, 2, 4, 2]]
    assert watched.counts() == []
    # Collected and joined between two ticks: the end is still reported, and once.
    watched.emulator.end_batches()
    with open_root() as root:
        poll(root, now=True)
    results = [asset for asset in watched.assets if asset.key.path[-1] == "results"]
    assert dg.materialize(watched.assets, selection=[results[0].key], instance=instance).success
    watched.cursor = SensorCursor()
    assert watched.counts() == [[3, 0, 0, 6]]
    assert watched.counts() == []
    # A new daemon reports nothing about a submission that was complete long ago.
    watched.cursor = SensorCursor()
    ledger("update submission set final_at = final_at - 1000")
    assert watched.counts() == []


def test_a_rebuilt_ledger_reports_the_right_numbers(
    watched: Watched, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched.emulator.end_batches(watched.batches[0])
    with open_root() as root:
        poll(root, now=True)
    keys_of = {asset.key.path[-1]: asset.key for asset in watched.assets}
    dg.materialize(watched.assets, selection=[keys_of["results"]], instance=instance)
    watched.emulator.end_batches(watched.batches[1])
    assert watched.counts() == [[3, 1, 2, 4]]
    for file in (tmp_path / "root").glob("ledger.db*"):
        file.unlink()
    assert watched.counts() == []  # they are unchanged
    watched.cursor = SensorCursor()
    assert watched.counts() == [[3, 1, 2, 4]]
    # How many seconds old a batch is depends on the machine.
    assert re.match(
        r"1 of 3 batches in progress, oldest \d+ s, 66 % of requests answered, next look in \d+ s",
        watched.message(),
    )


def test_the_message_shows_the_progress_and_the_next_poll(watched: Watched) -> None:
    ledger("update batch set submitted_at = submitted_at - 11530, next_poll_at = next_poll_at + 125")
    assert watched.message() == "3 of 3 batches in progress, oldest 3 h 12 min, next look in 2 min"
    watched.emulator.end_batches(watched.batches[0])
    with open_root() as root:
        poll(root, now=True)
    assert watched.message().startswith(
        "2 of 3 batches in progress, oldest 3 h 12 min, 33 % of requests answered, next look in"
    )


@pytest.mark.parametrize(
    "text", [None, "", "no JSON", "[]", '{"greetings": "2026-11-20"}', '{"observed": {"a": 1}}']
)
def test_an_unreadable_cursor_starts_again(text: str | None) -> None:
    assert SensorCursor.read(text) == SensorCursor()


def test_a_written_cursor_is_read_back() -> None:
    cursor = SensorCursor({"greetings": "2026-11-20,msgbatch_1"}, {"20261120T1": Observed(1.5, [3, 1, 2])}, 2.5)
    assert SensorCursor.read(cursor.write()) == cursor
