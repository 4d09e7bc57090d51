"""One tick of the sensor: look at the open batches, then ask for the runs that something can be done in.

The truth is in the ledger. A tick may be repeated, overlap with another or die at any point: what it writes
is transactional, and a round that comes to nothing runs out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from batch_assets.core.chain import Work, work_for
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import Transaction, rounds, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.poll import PollReport, poll
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.dagster.deadline_check import DeadlineCheck
from batch_assets.dagster.pipelines import PipelineAssets, pipelines_in
from batch_assets.dagster.progress import batches_in, counts_of
from batch_assets.dagster.rounds import name_of, tags_for
from batch_assets.dagster.runs import RunsOfSubmission
from batch_assets.dagster.situation import has_ledger, situation

# Dagster gives a tick 60 seconds; one that takes longer would go on beside the next.
_POLL_SECONDS = 30.0


def watch(context: dg.SensorEvaluationContext, names: Sequence[str] | None) -> dg.SensorResult:
    """One tick over the pipelines of the code location, or the named ones of them.

    What is wrong for the moment (no key, no connection) skips the tick with its text instead of failing it.
    """
    try:
        settings = Settings.from_env()
        if not has_ledger(settings):
            return dg.SensorResult(skip_reason="Nothing was ever submitted.")
        with Root(settings) as root:
            return _Tick(context, root, _pipelines_of(context, names)).run()
    except BatchAssetsError as error:
        return dg.SensorResult(skip_reason=str(error))


def _pipelines_of(context: dg.SensorEvaluationContext, names: Sequence[str] | None) -> dict[str, PipelineAssets]:
    repository = context.repository_def
    if repository is None:
        return {}
    specs = (spec for assets in repository.assets_defs_by_key.values() for spec in assets.specs)
    found = pipelines_in(specs)
    return found if names is None else {name: found[name] for name in names if name in found}


class _Tick:
    def __init__(
        self, context: dg.SensorEvaluationContext, root: Root, pipelines: dict[str, PipelineAssets]
    ) -> None:
        self._context, self._root, self._pipelines = context, root, pipelines

    def run(self) -> dg.SensorResult:
        polled = poll(self._root, budget=_POLL_SECONDS)
        with self._root.ledger.read() as tx:
            in_force = [s for s in submissions.all_newest(tx) if s.pipeline in self._pipelines]
            work = {s.id: found for s in in_force if (found := work_for(tx, s)) is not None}
            deadlines = self._deadline_check()
            events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = [
                *self._observations(tx, in_force, polled),
                *deadlines.evaluate(tx, self._pipelines),
            ]
            said = list(dict.fromkeys([*polled.problems, *situation(tx, in_force)]))
        if work:
            self._root.check_endpoint()
        asked = [self._round(s, work[s.id]) for s in in_force if s.id in work]
        requests = [found for found in asked if isinstance(found, dg.RunRequest)]
        said += [found for found in asked if isinstance(found, str)]
        return dg.SensorResult(
            run_requests=requests,
            asset_events=events,
            cursor=deadlines.cursor,
            skip_reason=None if requests else "; ".join(said) or "No batch is open.",
        )

    def _deadline_check(self) -> DeadlineCheck:
        repository = self._context.repository_def
        present = repository.asset_checks_defs_by_key if repository is not None else ()
        return DeadlineCheck(present, self._context.cursor)

    def _observations(
        self, tx: Transaction, in_force: list[Submission], polled: PollReport
    ) -> Iterator[dg.AssetObservation]:
        """How far the batches are, of every partition where something changed."""
        for submission in in_force:
            changed = set(polled.changed.get(submission.pipeline, ()))
            if not changed:
                continue
            found = batches_in(tx, submission.id)
            if any(batch.id in changed for batch in found):
                yield dg.AssetObservation(
                    self._pipelines[submission.pipeline].stages["batches"],
                    partition=submission.partition or None,
                    metadata=counts_of(found),
                )

    def _round(self, submission: Submission, work: Work) -> dg.RunRequest | str:
        """Opens a round, or says why not: the last one is not over, or it is too early for another."""
        runs = RunsOfSubmission.read(self._context.instance, submission.id)
        with self._root.ledger.write() as tx:
            number, is_open, opened_at = rounds.current(tx, submission.id)
            age = tx.now - opened_at
            if is_open and not runs.is_over(name_of(number, opened_at), age):
                return f"{submission.pipeline}: round {number} is at work"
            if age < (pause := max(work.pause, runs.back_off())):
                return f"{submission.pipeline}: {work.reason}, the next round begins in {pause - age:.0f} s"
            rounds.close(tx, submission.id, number)
            opened = rounds.open_next(tx, submission.id, work.reason)
            opened_at = tx.now
        assert opened is not None  # the last one was closed in the same transaction
        self._context.log.info(f"{submission.pipeline}: round {opened}: {work.reason}")
        return self._request(submission, work, name_of(opened, opened_at))

    def _request(self, submission: Submission, work: Work, name: str) -> dg.RunRequest:
        stages = self._pipelines[submission.pipeline].stages
        wanted = ["batches", "results"] if work.send else ["results"]
        return dg.RunRequest(
            run_key=f"{submission.id}:{name}",
            asset_selection=[stages[stage] for stage in wanted],
            partition_key=submission.partition or None,
            tags=tags_for(submission.id, name),
        )
