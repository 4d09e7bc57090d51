"""What stored answers cost, in events that can be added up: no batch is counted in two of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from batch_assets.core.ledger import spend
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.spend import BatchSpend, Spend, SpendEvent
from batch_assets.core.prices.money import usd
from batch_assets.core.root import Root
from batch_assets.core.store.response_cost import stored_cost
from batch_assets.dagster import keys

_PAGE = 500
# The clocks of this machine and of Dagster's database may differ.
_CLOCKS_SECONDS = 3600.0


class SpendLog:
    """The amounts that a step reports. Use it as late as possible before an event, and `logged` right after it.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The name of the pipeline.
    """

    def __init__(self, context: dg.AssetExecutionContext, root: Root, pipeline: str) -> None:
        self._instance, self._run_id, self._asset = context.instance, context.run.run_id, context.asset_key
        self._root, self._pipeline = root, pipeline
        self._pending: dict[str, list[str]] = {}

    def metadata(self, partitions: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return what the next event of each partition reports, with 0 for nothing new."""
        with self._root.ledger.read() as tx:
            seen = spend.not_logged(tx, self._pipeline, partitions)
        events: dict[str, SpendEvent] = {}
        if seen:
            in_log = self._batches_in_log(seen)
            costs = {known.batch_id: self._stored_cost(known) for known in seen if known.cost is None}
            seen = [replace(known, cost=known.cost or costs[known.batch_id]) for known in seen]
            is_over = {event: self._is_over(*event) for event in {(known.run_id, known.event) for known in seen}}
            others = [
                known
                for known in seen
                if known.cost is not None and known.batch_id not in in_log and is_over[known.run_id, known.event]
            ]
            with self._root.ledger.write(self._pipeline) as tx:
                for batch_id, cost in costs.items():
                    if cost is not None:
                        spend.record(tx, batch_id, cost)
                spend.logged(tx, in_log & {known.batch_id for known in seen})
                events = spend.report(tx, others, self._run_id)
        self._pending |= {event.id: event.batches for event in events.values()}
        return {partition: _metadata(events.get(partition)) for partition in partitions}

    def logged(self, tx: Transaction) -> None:
        """Record that the events are in Dagster's log."""
        spend.logged(tx, [batch_id for batches in self._pending.values() for batch_id in batches])
        self._pending.clear()

    @property
    def has_news(self) -> bool:
        """Whether there is something for `logged` to record."""
        return bool(self._pending)

    def _stored_cost(self, known: BatchSpend) -> Spend | None:
        """Return the cost of a batch from its response file; `None` without one."""
        cost = stored_cost(self._root.storage, self._pipeline, known.batch_id)
        return cost.total if cost is not None else None

    def _is_over(self, run_id: str | None, event: str | None) -> bool:
        """Return whether no step can still log an event, which may not exist."""
        if event is None or run_id is None:
            return True
        if event in self._pending:
            return False
        run = self._instance.get_run_by_id(run_id)
        return run is None or run.is_finished or run_id == self._run_id

    def _batches_in_log(self, seen: Sequence[BatchSpend]) -> set[str]:
        """Return the ids of the batches that events of these partitions count."""
        partitions = sorted({known.partition for known in seen} - {""})
        since = min(known.since for known in seen) - _CLOCKS_SECONDS
        records = dg.AssetRecordsFilter(
            asset_key=self._asset, asset_partitions=partitions or None, after_timestamp=max(0.0, since)
        )
        reads = (self._instance.fetch_materializations, self._instance.fetch_observations)
        return {batch_id for read in reads for batch_id in _batches_of(read, records)}


def _metadata(event: SpendEvent | None) -> dict[str, Any]:
    if event is None:
        return {keys.SPENT_USD: 0.0}
    metadata: dict[str, Any] = {
        keys.SPENT_USD: usd(event.new.picodollars),
        keys.SPEND_BATCHES: dg.MetadataValue.json(event.batches),
    }
    if unpriced := event.new.unpriced + event.not_logged.unpriced:
        metadata[keys.SPEND_UNKNOWN] = unpriced
    if event.not_logged.picodollars:
        metadata[keys.SPEND_NOT_LOGGED_USD] = usd(event.not_logged.picodollars)
    return metadata


def _batches_of(read: Callable[..., dg.EventRecordsResult], records: dg.AssetRecordsFilter) -> Iterator[str]:
    """Yield the ids of the batches that some events count."""
    cursor: str | None = None
    while True:
        page = read(records, limit=_PAGE, cursor=cursor)
        for record in page.records:
            entry = record.event_log_entry
            event = entry.asset_materialization or entry.asset_observation
            value = event.metadata.get(keys.SPEND_BATCHES) if event is not None else None
            if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, list):
                yield from map(str, value.data)
        if not page.has_more:
            return
        cursor = page.cursor
