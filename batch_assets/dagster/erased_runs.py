"""The runs whose events may show rows of a pipeline, in sample rows, prompts and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import dagster as dg

_AT_ONCE = 1000
_Fetch = Callable[..., dg.EventRecordsResult]


def runs_of(instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey]) -> list[str]:
    """Return the ids of the runs that materialized or observed one of the assets, newest first."""
    newest: dict[str, float] = {}
    for key in assets:
        for fetch in (instance.fetch_materializations, instance.fetch_observations):
            for run_id, at in _events(fetch, key):
                newest[run_id] = max(at, newest.get(run_id, 0.0))
    return sorted(newest, key=lambda run_id: newest[run_id], reverse=True)


def _events(fetch: _Fetch, key: dg.AssetKey) -> Iterable[tuple[str, float]]:
    """Yield (run id, time) of an asset's events."""
    cursor: str | None = None
    while True:
        page = fetch(key, limit=_AT_ONCE, cursor=cursor)
        for record in page.records:
            yield record.run_id, record.timestamp
        if not page.has_more:
            return
        cursor = page.cursor
