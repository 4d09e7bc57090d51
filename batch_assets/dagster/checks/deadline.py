"""The asset check of a pipeline's results: no answers are about to be lost."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.deadlines import ending_soon
from batch_assets.core.ledger.records import Batch
from batch_assets.core.open_root import open_root
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.text import duration
from batch_assets.dagster import keys
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.failures import explained
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.resource import required_keys, settings_for

DEADLINE_CHECK = "results_are_collected_in_time"
_HOUR = 3600.0


def deadline_check(of: PipelineAssets) -> dg.AssetChecksDefinition:
    """Warns, naming the batches, when one that is not collected has less than three days of its 29 left.

    The sensor evaluates it once a day while it warns.
    """

    @dg.asset_check(
        asset=of.stages["results"],
        name=DEADLINE_CHECK,
        description="No uncollected batch is within three days of the end of its results, 29 days after creation.",
        required_resource_keys=required_keys(of.pipeline),
    )
    def results_are_collected_in_time(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with explained():
            settings = settings_for(of.pipeline.config.resource_key, context.resources)
            if not has_ledger(settings):
                return dg.AssetCheckResult(passed=True)
            with open_root(settings) as root, root.ledger.read() as tx:
                return deadline_result(of.stages["results"], ending_soon(tx, of.pipeline.name))

    return LastingCheck.like(results_are_collected_in_time)


def deadline_result(results: dg.AssetKey, found: list[tuple[Batch, float]]) -> dg.AssetCheckResult:
    """What the check says.

    Args:
        results: the asset that the check is of.
        found: see `ending_soon`.
    """
    return dg.AssetCheckResult(
        asset_key=results,
        check_name=DEADLINE_CHECK,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=_in_words(results, found),
        metadata={keys.BATCH_IDS: [batch.id for batch, _ in found]} if found else {},
    )


class DeadlineCheck:
    """The check as the sensor evaluates it: `results` is not materialized while batches run.

    Args:
        present: the checks of the code location.
        told: what was last said of each pipeline; it is brought up to date.
    """

    def __init__(self, present: Iterable[dg.AssetCheckKey], told: dict[str, str]) -> None:
        self._present, self._told = set(present), told

    def evaluate(
        self, tx: Transaction, pipelines: Mapping[str, PipelineAssets]
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """One evaluation a day and for each change while there is something to warn of, and one at its end."""
        today = datetime.fromtimestamp(tx.now, UTC).strftime("%Y-%m-%d")
        for name, of in pipelines.items():
            results = of.stages.get("results")
            if results is None or dg.AssetCheckKey(results, DEADLINE_CHECK) not in self._present:
                continue
            found = ending_soon(tx, name)
            said = ",".join([today, *sorted(batch.id for batch, _ in found)]) if found else ""
            if said == self._told.get(name, ""):
                continue
            if said:
                self._told[name] = said
            else:
                del self._told[name]
            yield evaluation(deadline_result(results, found))


def _in_words(results: dg.AssetKey, found: list[tuple[Batch, float]]) -> str | None:
    if not found:
        return None
    said = "; ".join(f"{batch.id} ({batch.state}): {_left(seconds)}" for batch, seconds in found)
    return (
        f"Results that are not collected are soon lost: {said}. Materialize {results.to_user_string()}; "
        "does the sensor run?"
    )


def _left(seconds: float) -> str:
    return f"{duration(seconds)} left" if seconds > 0 else "its time is over"
