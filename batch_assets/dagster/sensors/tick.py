"""One tick of the sensor: poll the open batches, then request the runs that have something to do.

All state is in the ledger. A tick may be repeated, overlap with another or be killed at any point: its writes are
transactions, and a round whose run never starts runs out.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.feeding import note_turns
from batch_assets.core.batches.poll import try_poll
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Transaction, rounds, submissions
from batch_assets.core.ledger.budgets import ROOT
from batch_assets.core.ledger.near_caps import near_caps
from batch_assets.core.ledger.overview import in_motion
from batch_assets.core.ledger.records import Submission
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.root import Root
from batch_assets.dagster.checks.deadline import DeadlineCheck
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.metadata.progress import Progress
from batch_assets.dagster.notifications import notify
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.pools import pools_of
from batch_assets.dagster.remedies import as_text as remedy_as_text
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.resource import settings_for
from batch_assets.dagster.sensors import broken_files, lost_submissions, removed
from batch_assets.dagster.sensors.broken_files import broken_of_location
from batch_assets.dagster.sensors.free_slots import assign_free_slots
from batch_assets.dagster.sensors.groups import Due
from batch_assets.dagster.sensors.launch import Launch
from batch_assets.dagster.sensors.situation import situation
from batch_assets.dagster.sensors.unwatched import pipelines_of_location, unwatched

# Dagster ends a tick after 60 seconds, but its function would keep running beside the next tick.
_POLL_SECONDS, _ROUNDS_SECONDS = 20.0, 35.0
# Sentences in the message of a tick.
_SHOWN = 30


def watch(
    context: dg.SensorEvaluationContext, resource_key: str | None, names: Sequence[str] | None
) -> dg.SensorResult:
    """Run one tick over the pipelines of the code location that have this resource key.

    Passing problems (no API key, no connection) are reported, and the tick reports everything else as well.

    Args:
        context: The context of the tick.
        resource_key: The `resource_key` of the pipelines; None for those without one.
        names: Names of the pipelines to watch; None for all.
    """
    pipelines, cursor = _pipelines_of(context, resource_key, names), SensorCursor.read(context.cursor)
    assign_free_slots(context, pools_of(assets.pipeline for assets in pipelines.values()), cursor)
    try:
        settings = settings_for(resource_key, context.resources)
        if not has_ledger(settings):
            return _nothing_submitted(context, resource_key, cursor)
        with open_root(settings) as root:
            return _Tick(context, root, pipelines, resource_key, cursor).run()
    except BatchAssetsError as error:
        return dg.SensorResult(skip_reason=error_as_text(error))


def _nothing_submitted(
    context: dg.SensorEvaluationContext, resource_key: str | None, cursor: SensorCursor
) -> dg.SensorResult:
    broken = broken_of_location(context)
    return dg.SensorResult(
        asset_events=list(broken_files.evaluate_checks(broken, resource_key, cursor)),
        cursor=cursor.write(),
        skip_reason=" ".join(["Nothing has been submitted.", *unwatched(context), *broken_files.describe(broken)]),
    )


def _pipelines_of(
    context: dg.SensorEvaluationContext, resource_key: str | None, names: Sequence[str] | None
) -> dict[str, PipelineAssets]:
    return {
        name: assets
        for name, assets in pipelines_of_location(context).items()
        if assets.pipeline.config.resource_key == resource_key and (names is None or name in names)
    }


class _Tick:
    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        root: Root,
        pipelines: dict[str, PipelineAssets],
        resource_key: str | None,
        cursor: SensorCursor,
    ) -> None:
        self._context, self._root, self._pipelines = context, root, pipelines
        self._resource_key, self._cursor = resource_key, cursor
        self._location, self._broken = pipelines_of_location(context), broken_of_location(context)

    def run(self) -> dg.SensorResult:
        """Poll, read the overview once, and open the rounds of the runs to request."""
        end = time.monotonic() + _ROUNDS_SECONDS
        polled = try_poll(self._root, budget=_POLL_SECONDS)
        cursor = self._cursor
        record_caps(self._root, (assets.pipeline for assets in self._pipelines.values()))
        note_turns(self._root)
        with self._root.ledger.read() as tx:
            progress = Progress(cursor, tx.now, emulated=self._root.settings.emulator_url is not None)
            snapshots, gone = self._overview(tx, progress.final_since)
            due = _due(tx, snapshots)
            events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = [
                *progress.observe(snapshots, self._pipelines),
                *self._deadline_check(cursor).evaluate(tx, self._pipelines),
                *broken_files.evaluate_checks(self._broken, self._resource_key, cursor),
            ]
            reasons = [
                *broken_files.describe(self._broken),
                *polled.problems,
                *map(remedy_as_text, polled.remedies),
            ]
            reasons += situation(snapshots, submissions.paid_twice(tx))
            reasons += removed.describe(tx, gone, self._broken)
            budget_of = {name: assets.pipeline.budget for name, assets in self._pipelines.items()}
            reasons += map(str, near_caps(tx, {ROOT: self._root.settings.budget, **budget_of}))
            now = tx.now
        reasons += lost_submissions.describe(self._root, self._pipelines, cursor, now)
        launch = Launch(self._context, self._root, self._pipelines, end)
        requests = launch.run(due, now)
        reasons += launch.reasons
        stray = [snapshot for snapshot in snapshots if _is_of(snapshot.submission, launch.unknown)]
        due_here = removed.due([*gone, *stray], self._broken)
        removed.collect(self._root.settings, due_here, self._broken)
        unsent = notify(self._root, self._pipelines)
        for problem in unsent if requests else ():  # without requests they are in the skip reason
            self._context.log.warning(problem)
        reasons += unsent
        return dg.SensorResult(
            run_requests=requests,
            asset_events=events,
            cursor=cursor.write(),
            skip_reason=None if requests else _as_text(reasons) or "No batch is open.",
        )

    def _overview(self, tx: Transaction, final_since: float) -> tuple[list[Snapshot], list[Snapshot]]:
        """Read what may have something left to do: of the sensor's pipelines, and of removed ones."""
        moving = in_motion(tx, final_since)
        in_force = [submission for submission in moving if submission.pipeline in self._pipelines]
        gone = [submission for submission in moving if self._is_removed(submission.pipeline)]
        snapshots = read_snapshots(tx, [*in_force, *gone])
        return (
            [snapshots[submission.id] for submission in in_force],
            [snapshots[submission.id] for submission in gone],
        )

    def _is_removed(self, pipeline: str) -> bool:
        """Whether the code location has no pipeline of this name, of whatever resource."""
        return self._context.repository_def is not None and pipeline not in self._location

    def _deadline_check(self, cursor: SensorCursor) -> DeadlineCheck:
        repository = self._context.repository_def
        present = repository.asset_checks_defs_by_key if repository is not None else ()
        return DeadlineCheck(present, cursor.warned)


def _due(tx: Transaction, snapshots: Iterable[Snapshot]) -> list[Due]:
    """Return the submissions that have something to do, with their newest rounds."""
    steps = [
        (snapshot.submission, step)
        for snapshot in snapshots
        if (step := round_of(next_step(snapshot))) is not None
    ]
    newest = rounds.current_of(tx, [submission.id for submission, _ in steps])
    return [
        Due(submission, step, newest.get(submission.id) or rounds.no_round(submission.id))
        for submission, step in steps
    ]


def _is_of(submission: Submission, partitions: Mapping[str, Collection[str]]) -> bool:
    """Whether a submission is of one of some partitions, by pipeline."""
    return submission.partition in partitions.get(submission.pipeline, ())


def _as_text(reasons: Sequence[str]) -> str:
    different = list(dict.fromkeys(reasons))
    more = [f"and {len(different) - _SHOWN:,} more, see batch-assets status"] if len(different) > _SHOWN else []
    return "; ".join([*different[:_SHOWN], *more])
