"""Erasures that had to wait are finished by the run that stores the answers, also in a sink on PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.erase import run
from batch_assets.core.erase.later import collect_and_erase
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import CollectedResults
from batch_assets.core.sink.write import write_sink

from ..postgres import PostgresServer
from ..support import World
from .support import GONE, ROWS, SECRET, erased, every_text

VARIABLE = "WAREHOUSE_URL"


def later(world: World, pipeline: Pipeline, *, name_only: bool = False) -> CollectedResults:
    """What the sensor's run does once the batch has ended."""
    submit_batches(world.root, pipeline.name, unattended=True)
    poll(world.root, now=True)
    return collect_and_erase(world.root, pipeline.name, pipeline=None if name_only else pipeline)


def waiting(world: World) -> list[str]:
    record = json.loads(world.path("asked", "erasures", "keys.json").read_text())
    return list(record["waiting"])


@pytest.mark.parametrize("name_only", [False, True], ids=["pipeline", "removed pipeline"])
def test_a_row_in_flight_is_erased_by_the_run_that_stores_its_answer(world: World, name_only: bool) -> None:
    pipeline = world.pipeline(ROWS)
    world.send(pipeline)
    assert list(erased(world, pipeline).waiting) == [GONE]
    assert len(waiting(world)) == 1 and GONE not in str(waiting(world))
    done = later(world, pipeline, name_only=name_only)
    assert done.problems == [] and len(done.collected) == 1
    assert done.results is not None and done.results.rows == len(ROWS) - 1
    assert SECRET not in every_text(world.path()) and waiting(world) == []
    assert GONE not in set(world.table(pipeline)["id"])
    history = world.query("select reason from history where to_state = 'rows erased'")
    assert len(history) == 1 and "1 row that had waited" in history[0][0]
    assert world.query("select state from batch") == [("deleted",)]
    world.forget_calls()
    assert later(world, pipeline, name_only=name_only).problems == []
    assert world.calls().total() == 0, "nothing is left to do"


def test_a_row_waits_as_long_as_its_answer(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(ROWS)
    world.send(pipeline)
    erased(world, pipeline)
    assert later(world, pipeline).problems == []
    assert len(waiting(world)) == 1
    assert world.query("select count(*) from history where to_state = 'rows erased'") == [(0,)]


def test_an_erasure_that_was_killed_is_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    with monkeypatch.context() as patched:
        patched.setattr(run._Erasure, "_erase_texts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erased(world, pipeline)
    assert later(world, pipeline).problems == []
    assert SECRET not in every_text(world.path()) and waiting(world) == []


def test_a_batch_that_could_not_be_deleted_is_deleted_by_a_later_run(world: World) -> None:
    pipeline = world.pipeline(ROWS)
    world.run(pipeline)
    world.emulator.faults([{"match": {"method": "DELETE"}, "action": {"status": 500}}])
    assert erased(world, pipeline).kept
    assert any("is not deleted at the API" in problem for problem in later(world, pipeline).problems)
    assert later(world, pipeline).problems == [], "not before an hour has passed"
    world.emulator.reset_faults()
    world.query("update batch set next_delete_at = 0")
    assert later(world, pipeline).problems == []
    assert world.query("select state from batch") == [("deleted",)]


@pytest.fixture
def warehouse(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    url = postgres_server.new_database()
    monkeypatch.setenv(VARIABLE, url)
    return sa.create_engine(url, poolclass=sa.NullPool)


def rows_of(warehouse: sa.Engine, table: str = "asked") -> list[Any]:
    with warehouse.connect() as connection:
        return list(connection.execute(sa.text(f"select id, custom_id, shared_with from {table} order by id")))


def with_sink(world: World, rows: dict[str, str]) -> Pipeline:
    """A pipeline whose table was copied into its sink."""
    pipeline = world.pipeline(rows, sink={"url_env": VARIABLE})
    world.run(pipeline)
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    assert newest is not None
    write_sink(world.root, pipeline, "", newest.id)
    return pipeline


def test_rows_leave_a_sink_on_postgresql(world: World, warehouse: sa.Engine) -> None:
    """A row that shared the request keeps its answer, without the erased key."""
    pipeline = with_sink(world, {GONE: SECRET, "other": SECRET, "third": "3"})
    assert [row.id for row in rows_of(warehouse)] == ["other", GONE, "third"]
    report = erased(world, pipeline)
    assert (report.sink_rows, list(report.open_ends())) == (1, [])
    assert [row.id for row in rows_of(warehouse)] == ["other", "third"]
    with warehouse.connect() as connection:
        text = str(list(connection.execute(sa.text("select * from asked"))))
    assert GONE not in text
    assert erased(world, pipeline).sink_rows == 0


def test_a_row_that_waited_leaves_a_sink_on_postgresql(
    world: World, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the sink cannot be reached, nothing is erased, so that the next run erases everything."""
    pipeline = with_sink(world, ROWS)
    pipeline = world.pipeline({**ROWS, "new": "a new text"}, sink={"url_env": VARIABLE})
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    assert list(erased(world, pipeline).waiting) == [GONE]
    with monkeypatch.context() as patched:
        patched.setenv(VARIABLE, "postgresql+psycopg2://me@127.0.0.1:1/nowhere")
        (problem,) = later(world, pipeline).problems
    assert "erasing rows that waited" in problem and len(waiting(world)) == 1
    assert GONE in [row.id for row in rows_of(warehouse)]
    assert later(world, pipeline).problems == []
    assert GONE not in [row.id for row in rows_of(warehouse)]
    assert SECRET not in every_text(world.path()) and waiting(world) == []
