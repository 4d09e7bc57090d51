"""Leases on the requests of a pipeline: one for each partition, and one for the whole pipeline that excludes them.

Builds and retries of different partitions go on side by side. What one of them registers meanwhile, the others see
when they register (`RegisteredSince`). Work on the whole pipeline first takes its lease, so that nothing new
begins, and then waits for what is going on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa

from batch_assets.core.ledger import leases
from batch_assets.core.ledger.connection import Ledger, Transaction
from batch_assets.core.ledger.leases import Lease
from batch_assets.core.ledger.tables import lease

# The name of a pipeline has at most 100 characters, and the name of a lease at most 150.
_LONGEST_PARTITION = 40


def hold_partition(
    ledger: Ledger, pipeline: str, partition: str, *, wait: float = 0.0
) -> AbstractContextManager[Lease]:
    """Hold the lease on a partition's requests for the block: no other process builds, retries or removes them.

    Args:
        ledger: The ledger.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        wait: Seconds to wait for another holder, or for work on the whole pipeline.

    Raises:
        BusyError: When the other work is not done by then.
        SettingsError: When BATCH_ASSETS_LEASE_SECONDS is not a number above 0.
    """

    def whole(tx: Transaction) -> str | None:
        return _work(pipeline) if leases.is_held(tx, _whole_name(pipeline)) else None

    name, work = partition_lease_name(pipeline, partition), _work(pipeline, partition)
    return leases.hold(ledger, name, wait=wait, work=work, pipeline=pipeline, blocked_by=whole)


@contextmanager
def hold_pipeline(ledger: Ledger, pipeline: str, *, wait: float = 0.0) -> Iterator[Lease]:
    """Hold the lease on all requests of a pipeline for the block, while no process works on any partition of them.

    Args:
        ledger: The ledger.
        pipeline: The name of the pipeline.
        wait: Seconds to wait for another holder, and for work on partitions, in all.

    Raises:
        BusyError: When the other work is not done by then.
        SettingsError: When BATCH_ASSETS_LEASE_SECONDS is not a number above 0.
    """
    deadline = time.monotonic() + wait
    with leases.hold(
        ledger, _whole_name(pipeline), wait=wait, work=_work(pipeline), pipeline=pipeline
    ) as own_lease:
        while _is_worked_on(ledger, pipeline):
            if time.monotonic() >= deadline:
                raise leases.busy(_work(pipeline))
            time.sleep(leases.PAUSE)
        yield own_lease


def partition_lease_name(pipeline: str, partition: str) -> str:
    """Return the name of the lease on a partition's requests. A long key is replaced by its hash."""
    if len(partition) > _LONGEST_PARTITION:
        encoded = partition.encode("utf-8", "surrogatepass")
        partition = f"#{hashlib.blake2b(encoded, digest_size=16).hexdigest()}"
    return f"{_whole_name(pipeline)}:{partition}"


def _whole_name(pipeline: str) -> str:
    return f"requests:{pipeline}"


def _work(pipeline: str, partition: str = "") -> str:
    return f"the requests of {pipeline} [{partition}]" if partition else f"the requests of {pipeline}"


def _is_worked_on(ledger: Ledger, pipeline: str) -> bool:
    prefix = partition_lease_name(pipeline, "")
    of_partition = sa.func.substr(lease.c.name, 1, len(prefix)) == prefix
    with ledger.read() as tx:
        held = sa.select(lease.c.name).where(of_partition, lease.c.until >= tx.now)
        return tx.execute(held.limit(1)).first() is not None
