"""The asset check that warns before the API deletes answers that are not collected."""

from collections.abc import Iterable, Iterator, Mapping

import dagster as dg

from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.deadlines import ending_soon
from batch_assets.core.ledger.records import Batch
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.remedies import Stage
from batch_assets.core.text import day, duration
from batch_assets.dagster import keys
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.checks.lasting import LastingCheck
from batch_assets.dagster.failures import explained
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.resource import required_keys, settings_for
from batch_assets.dagster.run_roots import root_of_run

DEADLINE_CHECK = "results_are_collected_in_time"
_HOUR = 3600.0


def deadline_check(assets: PipelineAssets) -> dg.AssetChecksDefinition:
    """Build the check that warns when an uncollected batch has less than three of its 29 days left.

    It names the batches. While it warns, the sensor evaluates it once a day.
    """

    @dg.asset_check(
        asset=assets.stages[Stage.RESULTS],
        name=DEADLINE_CHECK,
        description="No uncollected batch is within three days of the end of its results, 29 days after creation.",
        required_resource_keys=required_keys(assets.pipeline),
    )
    def results_are_collected_in_time(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with explained():
            settings = settings_for(assets.pipeline.config.resource_key, context.resources)
            if not has_ledger(settings):
                return dg.AssetCheckResult(passed=True)
            with root_of_run(context.run.run_id, settings, sends=False) as root, root.ledger.read() as tx:
                return deadline_result(assets.stages[Stage.RESULTS], ending_soon(tx, assets.pipeline.name))

    return LastingCheck.like(results_are_collected_in_time)


def deadline_result(results: dg.AssetKey, ending: list[tuple[Batch, float]]) -> dg.AssetCheckResult:
    """Return the result of the check.

    Args:
        results: The asset that is checked.
        ending: Batches with the seconds that they have left, see `ending_soon`.
    """
    return dg.AssetCheckResult(
        asset_key=results,
        check_name=DEADLINE_CHECK,
        passed=not ending,
        severity=dg.AssetCheckSeverity.WARN,
        description=_warning(results, ending),
        metadata={keys.BATCH_IDS: [batch.id for batch, _ in ending]} if ending else {},
    )


class DeadlineCheck:
    """Evaluates the check in the sensor, because `results` is not materialized while batches run.

    Args:
        present: The checks of the code location.
        warned: The last warning about each pipeline. `evaluate` updates it.
    """

    def __init__(self, present: Iterable[dg.AssetCheckKey], warned: dict[str, str]) -> None:
        self._present, self._warned = set(present), warned

    def evaluate(
        self, tx: Transaction, pipelines: Mapping[str, PipelineAssets]
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """Yield an evaluation once a day and after each change while there is a warning, and one when it ends."""
        today = day(tx.now)
        for name, assets in pipelines.items():
            results = assets.stages.get(Stage.RESULTS)
            if results is None or dg.AssetCheckKey(results, DEADLINE_CHECK) not in self._present:
                continue
            ending = ending_soon(tx, name)
            warning = ",".join([today, *sorted(batch.id for batch, _ in ending)]) if ending else ""
            if warning == self._warned.get(name, ""):
                continue
            if warning:
                self._warned[name] = warning
            else:
                del self._warned[name]
            yield evaluation(deadline_result(results, ending))


def _warning(results: dg.AssetKey, ending: list[tuple[Batch, float]]) -> str | None:
    if not ending:
        return None
    listed = "; ".join(f"{batch.id} ({batch.state}): {_time_left(seconds)}" for batch, seconds in ending)
    return (
        f"Results that are not collected are soon lost: {listed}. Materialize {results.to_user_string()}; "
        "does the sensor run?"
    )


def _time_left(seconds: float) -> str:
    return f"{duration(seconds)} left" if seconds > 0 else "its time is over"
