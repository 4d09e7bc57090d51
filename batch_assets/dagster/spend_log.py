"""What collected answers cost, in events that can be added up: no amount is in two of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import dagster as dg

from batch_assets.core.ledger import spend
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.spend import NOTHING, SpendEvent
from batch_assets.core.prices.money import usd
from batch_assets.core.root import Root
from batch_assets.dagster import keys

_KINDS = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION}


class SpendLog:
    """The amounts that a step reports. Use it as late as possible before an event, and `logged` right after it.

    Args:
        context: The context of the step.
        root: The root.
        pipeline: The name of the pipeline.
    """

    def __init__(self, context: dg.AssetExecutionContext, root: Root, pipeline: str) -> None:
        self._instance, self._run_id = context.instance, context.run.run_id
        self._root, self._pipeline = root, pipeline
        self._pending: list[str] = []
        self._read: dict[str, set[str]] = {}

    def metadata(self, partitions: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return what the next event of each partition reports, with 0 for nothing new."""
        with self._root.ledger.write(self._pipeline) as tx:
            events = spend.report(tx, self._pipeline, partitions, self._run_id, self._is_logged)
        self._pending += [event.id for event in events.values()]
        return {partition: _metadata(events.get(partition)) for partition in partitions}

    def logged(self, tx: Transaction) -> None:
        """Record that the events are in Dagster's log."""
        spend.note_logged(tx, self._pending)
        self._pending.clear()

    def _is_logged(self, run_id: str, event: str) -> bool | None:
        """Return whether an event of an earlier step is in the log; `None` if its run may still log it."""
        if event in self._pending:
            return None
        if run_id not in self._read:
            run = self._instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished and run_id != self._run_id:
                return None
            self._read[run_id] = set(_events_of(self._instance, run_id))
        return event in self._read[run_id]


def _metadata(event: SpendEvent | None) -> dict[str, Any]:
    if event is None:
        return {keys.SPENT_USD: 0.0}
    metadata: dict[str, Any] = {keys.SPENT_USD: usd(event.new.picodollars), keys.SPEND_EVENT: event.id}
    if event.new.unpriced:
        metadata[keys.SPEND_UNKNOWN] = event.new.unpriced
    if event.not_logged != NOTHING:
        metadata[keys.SPEND_NOT_LOGGED_USD] = usd(event.not_logged.picodollars)
    return metadata


def _events_of(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield the spend events in the log of a run."""
    for record in instance.get_records_for_run(run_id, of_type=_KINDS).records:
        entry = record.event_log_entry
        logged = entry.asset_materialization or entry.asset_observation
        if logged is not None and (value := logged.metadata.get(keys.SPEND_EVENT)) is not None:
            yield str(value.value)
