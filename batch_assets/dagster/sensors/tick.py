"""One tick of the sensor: poll the open batches, then request the runs that have something to do.

All state is in the ledger. A tick may be repeated, overlap with another or be killed at any point: its writes are
transactions, and a round whose run never starts runs out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.core.batches.poll import try_poll
from batch_assets.core.errors import BatchAssetsError, EndpointMismatchError, SettingsError
from batch_assets.core.ledger import rounds, submissions
from batch_assets.core.ledger.overview import in_motion
from batch_assets.core.ledger.records import Submission
from batch_assets.core.open_root import open_root
from batch_assets.core.planning import texts
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.planning.steps import Round, Send
from batch_assets.core.recovery.rebuild import has_ledger
from batch_assets.core.remedies import Stage
from batch_assets.core.root import Root
from batch_assets.core.text import duration
from batch_assets.dagster.checks.deadline import DeadlineCheck
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.metadata.progress import RECENT_SECONDS, Progress
from batch_assets.dagster.notifications import notify
from batch_assets.dagster.partitions import is_partition
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.remedies import as_text as remedy_as_text
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.resource import settings_for
from batch_assets.dagster.rounds import name_of, tags_for
from batch_assets.dagster.sensors import lost_submissions, removed
from batch_assets.dagster.sensors.runs import RunsOfSubmission
from batch_assets.dagster.sensors.situation import situation
from batch_assets.dagster.sensors.unwatched import pipelines_of_location, unwatched

# Dagster ends a tick after 60 seconds, but its function would keep running beside the next tick.
_POLL_SECONDS = 30.0

LastRound = tuple[int, bool, float]
"""Number of a round, whether it is open, and when it was opened, as `rounds.current` returns them."""
NO_ROUND: LastRound = (0, False, 0.0)


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
    try:
        settings = settings_for(resource_key, context.resources)
        if not has_ledger(settings):
            return dg.SensorResult(skip_reason=" ".join(["Nothing has been submitted.", *unwatched(context)]))
        with open_root(settings) as root:
            return _Tick(context, root, _pipelines_of(context, resource_key, names)).run()
    except BatchAssetsError as error:
        return dg.SensorResult(skip_reason=error_as_text(error))


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
        self, context: dg.SensorEvaluationContext, root: Root, pipelines: dict[str, PipelineAssets]
    ) -> None:
        self._context, self._root, self._pipelines = context, root, pipelines
        self._location = pipelines_of_location(context)

    def run(self) -> dg.SensorResult:
        polled = try_poll(self._root, budget=_POLL_SECONDS)
        with self._root.ledger.read() as tx:
            moving = in_motion(tx, tx.now - RECENT_SECONDS)
            in_force = [s for s in moving if s.pipeline in self._pipelines]
            gone = read_snapshots(tx, [s for s in moving if self._is_removed(s.pipeline)]).values()
            snapshots = list(read_snapshots(tx, in_force).values())
            due = [
                (snapshot.submission, step)
                for snapshot in snapshots
                if (step := round_of(next_step(snapshot))) is not None
            ]
            rounds_before = rounds.current_of(tx, [submission.id for submission, _ in due])
            cursor = SensorCursor.read(self._context.cursor)
            progress = Progress(cursor.observed, emulated=self._root.settings.emulator_url is not None)
            events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = [
                *progress.observe(tx, in_force, self._pipelines),
                *self._deadline_check(cursor).evaluate(tx, self._pipelines),
            ]
            reasons = [*polled.problems, *map(remedy_as_text, polled.remedies)]
            reasons += situation(snapshots, submissions.paid_twice(tx))
            reasons += removed.describe(tx, gone)
            reasons += lost_submissions.describe(tx, self._root.storage, self._pipelines, cursor)
            now = tx.now
        removed.collect(self._root.settings, removed.due(gone))
        outcomes = self._rounds(due, rounds_before, now)
        requests = [outcome for outcome in outcomes if isinstance(outcome, dg.RunRequest)]
        reasons += [outcome for outcome in outcomes if isinstance(outcome, str)]
        unsent = notify(self._root, self._pipelines)
        for problem in unsent if requests else ():  # without requests they are in the skip reason
            self._context.log.warning(problem)
        reasons += unsent
        return dg.SensorResult(
            run_requests=requests,
            asset_events=events,
            cursor=cursor.write(),
            skip_reason=None if requests else "; ".join(dict.fromkeys(reasons)) or "No batch is open.",
        )

    def _is_removed(self, pipeline: str) -> bool:
        """Whether the code location has no pipeline of this name, of whatever resource."""
        return self._context.repository_def is not None and pipeline not in self._location

    def _deadline_check(self, cursor: SensorCursor) -> DeadlineCheck:
        repository = self._context.repository_def
        present = repository.asset_checks_defs_by_key if repository is not None else ()
        return DeadlineCheck(present, cursor.warned)

    def _rounds(
        self, due: Sequence[tuple[Submission, Round]], before: Mapping[str, LastRound], now: float
    ) -> list[dg.RunRequest | str]:
        """Return for each submission the run to request, or the reason why there is none.

        Args:
            due: Submissions that have something to do, with the step.
            before: The newest round of each submission that has had one.
            now: The time when these were read, by the ledger's clock.
        """
        if not due:
            return []
        try:
            self._root.check_endpoint()
        except (EndpointMismatchError, SettingsError) as error:
            return [error_as_text(error)]
        return [
            self._round(submission, step, before.get(submission.id, NO_ROUND), now) for submission, step in due
        ]

    def _round(self, submission: Submission, step: Round, before: LastRound, now: float) -> dg.RunRequest | str:
        """Open a round and return the run to request, or the reason why no round is opened.

        The reason is that the last round is not over, that it is too early for another, or that the partition no
        longer exists. What was read before may be outdated: the transaction that opens the round reads it again.
        """
        if (unknown := self._unknown_partition(submission)) is not None:
            return unknown
        if not before[1] and (waits := _too_early(now, submission, step, before, step.pause)) is not None:
            return waits  # this is the usual case, so most ticks do not query Dagster's runs
        runs = RunsOfSubmission.read(self._context.instance, submission.id)
        if (waits := _waits(now, submission, step, before, runs)) is not None:
            return waits
        self._make_known(submission)
        with self._root.ledger.write() as tx:
            last = rounds.current(tx, submission.id)
            current = round_of(next_step(Snapshot.of(tx, submissions.by_id(tx, submission.id))))
            if current is None:
                return f"{submission.pipeline}: nothing left to do: {texts.reason(step)}"
            if (waits := _waits(tx.now, submission, current, last, runs)) is not None:  # another tick was first
                return waits
            rounds.close(tx, submission.id, last[0])
            reason = texts.reason(current)
            opened = rounds.open_next(tx, submission.id, reason)
            opened_at = tx.now
        assert opened is not None  # the last one was closed in the same transaction
        self._context.log.info(f"{submission.pipeline}: round {opened}: {reason}")
        return self._request(submission, current, name_of(opened, opened_at))

    def _unknown_partition(self, submission: Submission) -> str | None:
        """Return why no run can be requested for the partition, or None.

        Dagster would fail the whole tick, and so request no run of any pipeline.
        """
        name, key = submission.pipeline, submission.partition
        definition = self._pipelines[name].partitions
        if definition is None:
            return (
                f"{name}: {key!r} was sent as a partition, but the pipeline has no partitions now" if key else None
            )
        if not key:
            return f"{name}: batches were sent before it had partitions: remove `partitions` to collect them"
        if _dynamic_name(definition) is not None or is_partition(definition, key, self._context.instance):
            return None
        return f"{name}: {key!r} was sent as a partition, but the pipeline no longer has this partition"

    def _make_known(self, submission: Submission) -> None:
        """Add the key of a dynamic partition that was run outside of Dagster, before a run is requested for it."""
        dynamic = _dynamic_name(self._pipelines[submission.pipeline].partitions)
        if dynamic is not None:
            self._context.instance.add_dynamic_partitions(dynamic, [submission.partition])

    def _request(self, submission: Submission, step: Round, name: str) -> dg.RunRequest:
        stages = self._pipelines[submission.pipeline].stages
        wanted = [Stage.BATCHES, Stage.RESULTS] if isinstance(step, Send) else [Stage.RESULTS]
        return dg.RunRequest(
            run_key=f"{submission.id}:{name}",
            asset_selection=[stages[stage] for stage in wanted],
            partition_key=submission.partition or None,
            tags=tags_for(submission.id, name),
        )


def _waits(now: float, submission: Submission, step: Round, last: LastRound, runs: RunsOfSubmission) -> str | None:
    """Return why no round is opened now: the last one is not over, or it is too early for another."""
    number, is_open, opened_at = last
    if is_open and not runs.is_over(name_of(number, opened_at), now - opened_at):
        return f"{submission.pipeline}: round {number} is running"
    return _too_early(now, submission, step, last, max(step.pause, runs.back_off()))


def _too_early(now: float, submission: Submission, step: Round, last: LastRound, pause: float) -> str | None:
    """Return when the next round begins, as text; None if the pause since the last one is over."""
    _, _, opened_at = last
    if now - opened_at >= pause:
        return None
    seconds_left = pause - (now - opened_at)
    return f"{submission.pipeline}: {texts.reason(step)}, the next round begins in {duration(seconds_left)}"


def _dynamic_name(definition: dg.PartitionsDefinition[Any] | None) -> str | None:
    """Return the name under which an instance keeps the keys of dynamic partitions; None for other partitions."""
    return definition.name if isinstance(definition, dg.DynamicPartitionsDefinition) else None
