"""Open the rounds of one tick and return the runs to request: a bounded number, the most urgent first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from batch_assets.core.errors import EndpointMismatchError, SettingsError
from batch_assets.core.ledger import rounds, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.rounds import LastRound, RoundEntry
from batch_assets.core.planning import texts
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import read_snapshots
from batch_assets.core.planning.steps import Round, Send
from batch_assets.core.remedies import Stage
from batch_assets.core.root import Root
from batch_assets.core.text import count, duration, listed
from batch_assets.dagster.pipelines import PipelineAssets
from batch_assets.dagster.remedies import error_as_text
from batch_assets.dagster.rounds import name_of, tags_for
from batch_assets.dagster.sensors.groups import Due, PartitionOrder, grouped
from batch_assets.dagster.sensors.runs import Failures, OpenRuns

# The daemon needs part of a second for each run request, and Dagster ends a sensor's evaluation after 60 s.
_RUNS_AT_ONCE = 20
# No run is requested while this many wait for their turn: each tick looks at them, and Dagster does them in order.
_RUNS_WAITING = 40
_SHOWN = 5
_RUNNING = "a run is queued or in progress"
_COLLECTED = "Answers are collected all the same; nothing more is sent"


class Launch:
    """The rounds that one tick opens.

    Args:
        context: The context of the tick.
        root: The root.
        pipelines: The pipelines that the sensor watches, by name.
        end: When to open no more rounds, by `time.monotonic`.

    Attributes:
        reasons: Why submissions that have something to do get no run.
        unknown: By pipeline, the partitions with something to do that Dagster does not know.
    """

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        root: Root,
        pipelines: Mapping[str, PipelineAssets],
        end: float,
    ) -> None:
        self._context, self._root, self._pipelines, self._end = context, root, pipelines, end
        self._orders: dict[str, PartitionOrder] = {}
        self._waiting: dict[tuple[str, str], list[str]] = {}
        self.unknown: dict[str, list[str]] = {}
        self.reasons: list[str] = []

    def run(self, due: Sequence[Due], now: float) -> list[dg.RunRequest]:
        """Return the runs to request, after their rounds were opened.

        Args:
            due: Submissions that have something to do, as one transaction read them.
            now: The time of this transaction, by the ledger's clock.
        """
        if not due:
            return []
        try:
            self._root.check_endpoint()
        except (EndpointMismatchError, SettingsError) as error:
            self.reasons.append(error_as_text(error))
            return []
        opened = [entry.last for entry in due if entry.last.is_open]
        runs = OpenRuns.read(self._context.instance, opened)
        candidates = self._candidates(due, runs, now)
        waiting = runs.waiting(opened, now)
        room = min(_RUNS_AT_ONCE, max(0, _RUNS_WAITING - waiting))
        if candidates and not room:
            queued = count(waiting, "run is", "runs are")
            self.reasons.append(f"{queued} already queued in Dagster; more are requested when some have begun")
        requests: list[dg.RunRequest] = []
        at_once = _RUNS_AT_ONCE * self._root.settings.partitions_per_run
        for start in range(0, len(candidates), at_once):
            if len(requests) >= room or time.monotonic() >= self._end:
                break
            page = self._after_failures(candidates[start : start + at_once], now)
            self._make_known([entry.submission for entry in page])
            requests += self._open(self._groups(page)[: room - len(requests)], runs)
        for (pipeline, why), partitions in self._waiting.items():
            self.reasons.append(f"{_named(pipeline, partitions)}: {why}")
        for pipeline, partitions in self.unknown.items():
            self.reasons.append(self._unknown_as_text(pipeline, partitions))
        return requests

    def _candidates(self, due: Sequence[Due], runs: OpenRuns, now: float) -> list[Due]:
        """Return the submissions whose last round is over long enough, the most urgent first.

        This takes no statement for each submission.
        """
        candidates = []
        for entry in sorted(due, key=lambda entry: entry.urgency):
            last, pipeline = entry.last, entry.submission.pipeline
            if last.is_open and not runs.is_over(last, now - last.opened_at):
                self._wait(entry, _RUNNING)
            elif (waits := _too_early(entry, now, entry.step.pause)) is not None:
                self._wait(entry, f"{texts.reason(entry.step)}, {waits}")
            elif self._is_known(entry):
                candidates.append(entry)
            else:
                self.unknown.setdefault(pipeline, []).append(entry.submission.partition)
        return candidates

    def _wait(self, entry: Due, why: str) -> None:
        """Note why a submission gets no run now."""
        self._waiting.setdefault((entry.submission.pipeline, why), []).append(entry.submission.partition)

    def _after_failures(self, page: Sequence[Due], now: float) -> list[Due]:
        """Return the submissions whose last runs did not fail, or failed long enough ago."""
        failures = Failures.read(self._context.instance, [entry.last for entry in page if entry.last.number])
        ready = []
        for entry in page:
            if (waits := _too_early(entry, now, failures.back_off(entry.last))) is not None:
                self._wait(entry, f"{texts.reason(entry.step)}, {failures.as_text(entry.last)}, {waits}")
            else:
                ready.append(replace(entry, failures=failures.of(entry.last)))
        return ready

    def _groups(self, page: Sequence[Due]) -> list[list[Due]]:
        return grouped(page, self._orders, self._root.settings.partitions_per_run)

    def _open(self, groups: Sequence[Sequence[Due]], runs: OpenRuns) -> list[dg.RunRequest]:
        """Open the rounds of some runs in one transaction, and return the runs.

        What was read before may be outdated: the transaction reads it again.
        """
        chosen = {entry.submission.id: entry for group in groups for entry in group}
        if not chosen:
            return []
        with self._root.ledger.write() as tx:
            last = rounds.current_of(tx, list(chosen))
            snapshots = read_snapshots(tx, submissions.by_ids(tx, list(chosen)))
            steps = {id_: round_of(next_step(snapshot)) for id_, snapshot in snapshots.items()}
            left = [
                replace(entry, step=step)
                for id_, entry in chosen.items()
                if (step := self._still_due(entry, last.get(id_, entry.last), steps[id_])) is not None
            ]
            groups = self._groups(left)
            rounds.close_all(
                tx, [(entry.submission.id, entry.last.number) for entry in left if entry.last.is_open]
            )
            entries = [[_entry(due) for due in group] for group in groups]
            leaders = rounds.open_runs(tx, entries, last)
        return [self._request(group, leader) for group, leader in zip(groups, leaders, strict=True)]

    def _still_due(self, entry: Due, last: LastRound, step: Round | None) -> Round | None:
        """Return the step for which a round is to be opened; None if another process was first."""
        if step is None:
            self._wait(entry, f"nothing left to do: {texts.reason(entry.step)}")
            return None
        if last != entry.last:  # another tick opened a round, or a run closed one
            self._wait(entry, _RUNNING)
            return None
        return step

    def _is_known(self, entry: Due) -> bool:
        """Return whether a run can be requested for the partition.

        Dagster would fail the whole tick for an unknown one, and so request no run of any pipeline.
        """
        name, key = entry.submission.pipeline, entry.submission.partition
        if name not in self._orders:
            self._read_order(name)
        return key in self._orders[name] or (bool(key) and _dynamic_name(self._definition(name)) is not None)

    def _read_order(self, pipeline: str) -> None:
        self._orders[pipeline] = PartitionOrder(self._definition(pipeline), self._context.instance)

    def _definition(self, pipeline: str) -> dg.PartitionsDefinition[Any] | None:
        return self._pipelines[pipeline].partitions

    def _unknown_as_text(self, name: str, partitions: list[str]) -> str:
        if "" in partitions:
            return f"{name}: batches were sent before it had partitions. {_COLLECTED}"
        shown = listed([*map(repr, partitions)], _SHOWN)
        sent = f"{shown} was sent as a partition" if len(partitions) == 1 else f"{shown} were sent as partitions"
        if self._definition(name) is None:
            return f"{name}: {sent}, but the pipeline has no partitions now. {_COLLECTED}"
        what = "this partition" if len(partitions) == 1 else "these partitions"
        return f"{name}: {sent}, but the pipeline no longer has {what}. {_COLLECTED}"

    def _make_known(self, due: Sequence[Submission]) -> None:
        """Add keys of dynamic partitions that were run outside of Dagster, before runs are requested for them."""
        missing: dict[str, list[str]] = {}
        for submission in due:
            if submission.partition not in self._orders[submission.pipeline]:
                missing.setdefault(submission.pipeline, []).append(submission.partition)
        for pipeline, partitions in missing.items():
            name = _dynamic_name(self._definition(pipeline))
            assert name is not None  # only these may have new keys
            self._context.instance.add_dynamic_partitions(name, partitions)
            self._read_order(pipeline)

    def _request(self, group: Sequence[Due], leader: LastRound) -> dg.RunRequest:
        first, last = group[0].submission, group[-1].submission
        stages = self._pipelines[first.pipeline].stages
        wanted = [Stage.BATCHES, Stage.RESULTS] if isinstance(group[0].step, Send) else [Stage.RESULTS]
        name = name_of(leader.number, leader.opened_at)
        ends = (first.partition, last.partition) if len(group) > 1 else None
        reasons = "; ".join(dict.fromkeys(texts.reason(entry.step) for entry in group))
        names = _named(first.pipeline, [entry.submission.partition for entry in group])
        after = f", after {count(group[0].failures, 'failed run')}" if group[0].failures else ""
        self._context.log.info(f"{names}: a run is requested{after}: {reasons}")
        return dg.RunRequest(
            run_key=f"{leader.leader}:{name}",
            asset_selection=[stages[stage] for stage in wanted],
            partition_key=None if ends else first.partition or None,
            tags=tags_for(leader.leader, name, ends),
        )


def _entry(due: Due) -> RoundEntry:
    return RoundEntry(due.submission.id, texts.reason(due.step))


def _named(pipeline: str, partitions: Sequence[str]) -> str:
    """Return the name of a pipeline, with those of its partitions if it has any."""
    return " ".join(filter(None, [pipeline, listed(partitions, _SHOWN)]))


def _too_early(entry: Due, now: float, pause: float) -> str | None:
    """Return when the next run begins, as text; None if the pause since the last one is over."""
    seconds_left = pause - (now - entry.last.opened_at)
    if seconds_left <= 0:
        return None
    return f"the next run begins in {duration(seconds_left)}"


def _dynamic_name(definition: dg.PartitionsDefinition[Any] | None) -> str | None:
    """Return the name under which an instance keeps the keys of dynamic partitions; None for other partitions."""
    return definition.name if isinstance(definition, dg.DynamicPartitionsDefinition) else None
