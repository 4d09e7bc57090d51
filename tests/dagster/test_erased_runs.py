"""The runs whose events may show an erased row."""

from __future__ import annotations

import dagster as dg

from batch_assets.dagster.erased_runs import runs_of


@dg.asset
def shown() -> None:
    """An asset with events of both kinds."""


@dg.asset
def another() -> None:
    """An asset of another pipeline."""


@dg.asset
def observed() -> None:
    """An asset whose run observes the first one."""
    dg.AssetExecutionContext.get().log_event(dg.AssetObservation("shown"))


def test_all_runs_with_events_of_the_assets_are_listed() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.materialize([shown], instance=instance).run_id
        dg.materialize([another], instance=instance)
        second = dg.materialize([observed], instance=instance).run_id
        assert runs_of(instance, [dg.AssetKey("shown"), dg.AssetKey("never")]) == [second, first]
