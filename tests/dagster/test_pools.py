"""A slot of a pool that Dagster gives to no waiting step: a tick of the sensor has it assigned."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.legacy_storage import LegacyEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sensor_ticks import location_of, tick

from batch_assets import build_message_batch_sensor
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.sensors.free_slots import assign_free_slots
from tests.core.postgres import PostgresServer

POOL, STEP = "message_batches", "greetings__batches"
MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def opened(folder: Path, **settings: Any) -> dg.DagsterInstance:
    """An instance with the shipped limit of pools."""
    limit = {"concurrency": {"pools": {"default_limit": 1}}}
    return dg.DagsterInstance.local_temp(str(folder), overrides=limit | settings)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with opened(tmp_path) as on_sqlite:
        yield on_sqlite


@pytest.fixture
def location(make_assets: MakeAssets) -> dg.Definitions:
    return location_of(make_assets(op={"requests": {"pool": "warehouse"}}))


def is_claimed(instance: dg.DagsterInstance, run_id: str, pool: str = POOL) -> bool:
    """Ask for a slot, as a run does until it has one."""
    return instance.event_log_storage.claim_concurrency_slot(pool, run_id, STEP).is_claimed


def lose_a_slot(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the pool's slot back between the two transactions in which the run `late` asks for it."""
    storage: Any = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    assert is_claimed(instance, "early")
    add = storage.add_pending_step

    def add_later(**step: Any) -> None:
        storage.free_concurrency_slot_for_step("early", STEP)
        add(**step)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "add_pending_step", add_later)
        assert not is_claimed(instance, "late")
    assert not is_claimed(instance, "late"), (
        "Dagster has forgotten it: if it has not, sensors/free_slots.py can go"
    )
    info = storage.get_concurrency_info(POOL)
    assert (info.slot_count, info.claimed_slots, info.pending_step_count) == (1, [], 1)


def test_a_step_that_asked_while_another_ended_gets_the_slot(
    instance: dg.DagsterInstance, location: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_a_slot(instance, monkeypatch)
    assert tick(location, instance).skip_message == "Nothing has been submitted."
    assert is_claimed(instance, "late")


def test_on_postgresql(
    storage_server: PostgresServer, location: dg.Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = {"postgres": {"postgres_url": storage_server.new_database()}}
    with opened(tmp_path, storage=storage) as instance:
        lose_a_slot(instance, monkeypatch)
        tick(location, instance)
        assert is_claimed(instance, "late")


def test_as_many_steps_get_a_slot_as_are_free(instance: dg.DagsterInstance, location: dg.Definitions) -> None:
    storage: Any = instance.event_log_storage
    for pool in ("warehouse", "of another location"):
        storage.set_concurrency_slots(pool, 3)
        assert is_claimed(instance, "first", pool)
        for number in range(3):
            storage.add_pending_step(pool, f"late-{number}", STEP)
    tick(location, instance)
    assert [is_claimed(instance, f"late-{number}", "warehouse") for number in range(3)] == [True, True, False]
    assert not is_claimed(instance, "late-0", "of another location")
    tick(location, instance)
    info = storage.get_concurrency_info("warehouse")
    assert (info.assigned_step_count, info.pending_step_count) == (3, 1), "all three slots are in use"


def test_most_ticks_do_not_open_the_instance(
    instance: dg.DagsterInstance, location: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = tick(location, instance).cursor
    lose_a_slot(instance, monkeypatch)
    tick(location, instance, cursor)
    assert not is_claimed(instance, "late")
    long_ago = SensorCursor.read(cursor)
    long_ago.pools_seen_at -= 60.0
    tick(location, instance, long_ago.write())
    assert is_claimed(instance, "late")


@pytest.mark.skipif(
    not hasattr(SqlEventLogStorage, "get_concurrency_infos"),
    reason="this version of Dagster reads each pool alone",
)
def test_many_pools_take_no_more_statements_than_one(instance: dg.DagsterInstance) -> None:
    seen: list[str] = []
    note = lambda *event: seen.append(event[2])  # noqa: E731

    def asked(pools: int) -> int:
        seen.clear()
        with dg.build_sensor_context(instance=instance) as context:
            assign_free_slots(context, [POOL, *(f"pool-{number}" for number in range(1, pools))], SensorCursor())
        return sum("concurrency_" in statement or "pending_steps" in statement for statement in seen)

    assert isinstance(instance.event_log_storage.supports_global_concurrency_limits, bool)
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert asked(500) == 1, "no step has a slot"
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
        assert is_claimed(instance, "early")
        asked(1)  # reads once whether the tables are there
        assert asked(500) == asked(1) == 4
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


class OtherStorage(LegacyEventLogStorage):
    """A storage with pools that keeps its tables to itself, as that of Dagster+ does."""

    supports_global_concurrency_limits = True

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> OtherStorage:
        return cls(DagsterSqliteStorage.from_local(config_value["config_yaml"]), inst_data)


def test_an_instance_with_another_storage_is_left_alone(
    instance: dg.DagsterInstance,
    location: dg.Definitions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lose_a_slot(instance, monkeypatch)
    config = {"module_name": "", "class_name": "", "config_yaml": str(tmp_path)}
    kind = {"module": __name__, "class": "OtherStorage", "config": config}
    with opened(tmp_path, event_log_storage=kind) as other:
        assert other.event_log_storage.get_concurrency_info(POOL).pending_step_count == 1
        assert tick(location, other).skip_message == "Nothing has been submitted."
    assert "the pools of the Dagster instance" not in caplog.text
    assert not is_claimed(instance, "late")


def test_an_instance_that_cannot_be_opened_fails_no_tick(
    instance: dg.DagsterInstance, location: dg.Definitions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (index,) = tmp_path.rglob("index.db")
    shutil.rmtree(index.parent)
    index.parent.touch()
    repository = location.get_repository_def()
    with dg.SensorEvaluationContext(
        instance.get_ref(), None, None, None, None, repository_def=repository, resources={}
    ) as context:
        skipped = build_message_batch_sensor().evaluate_tick(context).skip_message
    assert skipped == "Nothing has been submitted."
    assert "the pools of the Dagster instance cannot be read (FileExistsError)" in caplog.text
