"""Free slots of pools that no waiting step gets: the sensor has Dagster assign them.

A step asks Dagster for a slot in two transactions: one looks for a free slot, the next one notes the step, as
waiting if there was none. If another step gives its slot back in between, or if its run is killed before it has
assigned the slot to the next step, the slot stays free, and the step waits until a further step of the pool ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._utils.concurrency import ConcurrencyKeyInfo

from batch_assets.core.text import count
from batch_assets.dagster.cursor import SensorCursor

# Most ticks need no instance. To open one on SQLite takes 50 ms of CPU time, four times as much as such a tick.
PAUSE_SECONDS = 60.0
_log = logging.getLogger("batch_assets")  # the log of a tick needs the instance


def assign_free_slots(context: dg.SensorEvaluationContext, pools: Sequence[str], cursor: SensorCursor) -> None:
    """Have Dagster assign the free slots of pools to steps that wait for them.

    Two ticks at once may assign one slot to two steps. It then goes to one of them, and the other one waits.

    Args:
        context: The context of the tick. If its instance cannot be read, the tick logs that and goes on.
        pools: The names of the pools.
        cursor: The state of the last tick. It is changed.
    """
    now = time.time()
    if 0.0 <= now - cursor.pools_seen_at < PAUSE_SECONDS:
        return
    cursor.pools_seen_at = now
    try:
        storage = context.instance.event_log_storage
        # That of Dagster+ is another one, which assigns slots on its own.
        if isinstance(storage, SqlEventLogStorage):
            _assign(context, storage, pools)
    except Exception as error:  # a storage raises errors of its driver, whose texts may repeat a password
        _log.warning(f"the pools of the Dagster instance cannot be read ({type(error).__name__})")


def _assign(context: dg.SensorEvaluationContext, storage: SqlEventLogStorage, pools: Sequence[str]) -> None:
    # Mostly no step has a slot or waits for one. To find that takes one statement.
    if not (storage.supports_global_concurrency_limits and storage.get_concurrency_run_ids()):
        return
    for info in _infos(storage, pools):
        free = min(info.slot_count - info.assigned_step_count, info.pending_step_count)
        if free > 0:
            storage.assign_pending_steps([info.concurrency_key] * free)
            context.log.info(f"pool {info.concurrency_key}: {count(free, 'free slot')} assigned to waiting steps")


def _infos(storage: SqlEventLogStorage, pools: Sequence[str]) -> Iterable[ConcurrencyKeyInfo]:
    if hasattr(storage, "get_concurrency_infos"):  # Dagster 1.13.0 does not have it
        return storage.get_concurrency_infos(pools).values()
    return [storage.get_concurrency_info(pool) for pool in pools]
