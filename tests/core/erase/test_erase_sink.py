"""An erased row leaves the table of the sink, whatever the type of its key."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.sink.write import write_sink

from ..mariadb import MariadbServer
from ..support import World
from .support import GONE, ROWS, SECRET, erased

TIME = pa.array([datetime(2024, 1, 5), datetime(2024, 1, 6), datetime(2024, 1, 7, 1, 2, 3, 4)])
KEYS = {
    "text": (pa.array(["a", "b", "c"]), "a"),
    "categories": (pa.array(["a", "b", "c"]).dictionary_encode(), "a"),
    "integer": (pa.array([7, 8, 9]), "7"),
    "large integer": (pa.array([2**64 - 1, 8, 9], pa.uint64()), str(2**64 - 1)),
    "time": (TIME, "2024-01-05 00:00:00"),
    "time in JSON": (TIME, "2024-01-05T00:00:00"),
    "time in UTC": (TIME.cast(pa.timestamp("us", "UTC")), "2024-01-05T00:00:00Z"),
    "time in Berlin": (TIME.cast(pa.timestamp("ns", "Europe/Berlin")), "2024-01-05 01:00:00+01:00"),
    "date": (pa.array([date(2024, 1, 5), date(2024, 1, 6), date(2024, 1, 7)]), "2024-01-05"),
    "float": (pa.array([1e22, 2.5, 0.1]), "1e22"),
    "single": (pa.array([0.1, 2.5, 3.5], pa.float32()), "0.1"),
    "whole float": (pa.array([1.0, 2.5, 0.1]), "1"),
    "decimal": (pa.array([Decimal("1.50"), Decimal("2.50"), Decimal("3.00")]), "1.5"),
    "boolean": (pa.array([True, False]), "true"),
    "bytes": (pa.array([b"abcd1234", b"b", b"c"]), "abcd1234"),
}


def copy_to_sink(world: World, pipeline: Pipeline) -> None:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    assert newest is not None
    write_sink(world.root, pipeline, "", newest.id)


@pytest.mark.parametrize(("keys", "key"), KEYS.values(), ids=KEYS)
def test_an_erased_row_leaves_the_sink(world: World, sink_url: str, keys: pa.Array, key: str) -> None:
    rows = {"id": keys, "text": [SECRET, "another text", SECRET][: len(keys)]}
    pq.write_table(pa.table(rows), world.folder / "rows.parquet")
    dataset = {"path": "rows.parquet", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, sink={"url_env": "WAREHOUSE_URL"})
    world.run(pipeline)
    copy_to_sink(world, pipeline)
    report = erased(world, pipeline, key)
    assert report.is_complete, list(report.open_ends())
    assert report.sink_rows == 1
    engine = sa.create_engine(sink_url)
    with engine.connect() as connection:
        left = connection.execute(sa.text("select text, shared_with from asked")).all()
    engine.dispose()
    assert sorted(left) == sorted([("another text", None), (SECRET, None)][: len(keys) - 1])


def test_a_key_in_other_letters_stays(
    world: World, mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL counts such texts as equal."""
    sink_url = mariadb_server.new_database()
    monkeypatch.setenv("WAREHOUSE_URL", sink_url)
    others = [GONE.upper(), f"{GONE} ", GONE.replace("e", "é")]
    pipeline = world.pipeline(
        {key: f"the text of {key}" for key in [GONE, *others]}, sink={"url_env": "WAREHOUSE_URL"}
    )
    world.run(pipeline)
    copy_to_sink(world, pipeline)
    assert erased(world, pipeline).sink_rows == 1
    engine = sa.create_engine(sink_url)
    with engine.connect() as connection:
        assert sorted(connection.execute(sa.text("select id from asked")).scalars()) == sorted(others)
    engine.dispose()


@pytest.mark.parametrize("sink_url", ["sqlite"], indirect=True)
def test_custom_ids_are_found_by_an_index(world: World, sink_url: str) -> None:
    """The whole table was read for each request that an erased row shared."""
    rows = {GONE: SECRET, "other": SECRET}  # of one request
    pipeline = world.pipeline(rows, sink={"url_env": "WAREHOUSE_URL"})
    world.run(pipeline)
    copy_to_sink(world, pipeline)
    engine = sa.create_engine(sink_url)
    with engine.begin() as connection:
        before = connection.execute(sa.text("select custom_id from asked")).scalars().all()
        connection.execute(sa.text("create index by_custom_id on asked (custom_id)"))
    updates: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("UPDATE asked SET custom_id"):
            updates.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert erased(world, pipeline).is_complete
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert updates
    with engine.connect() as connection:
        for statement, parameters in updates:
            plan = connection.exec_driver_sql(f"explain query plan {statement}", parameters).all()
            assert "by_custom_id" in str(plan)
        after = connection.execute(sa.text("select custom_id from asked")).scalars().all()
    engine.dispose()
    assert len(after) == 1 and not {*after} & {*before}


def test_the_file_of_sqlite_keeps_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", f"sqlite:///{tmp_path}/warehouse.db")
    pipeline = world.pipeline(ROWS, sink={"url_env": "WAREHOUSE_URL"})
    world.run(pipeline)
    copy_to_sink(world, pipeline)
    assert SECRET.encode() in (tmp_path / "warehouse.db").read_bytes()
    assert erased(world, pipeline).is_complete
    content = (tmp_path / "warehouse.db").read_bytes()
    assert not [text for text in (SECRET, GONE) if text.encode() in content]
