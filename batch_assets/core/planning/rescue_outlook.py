"""What the ledger records about the rescue of a submission: live calls that are due, or that are not stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from batch_assets.core.api.rescue_rule import RescueRule
from batch_assets.core.ledger import Transaction, budgets, rescues
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.rescues import Rescue
from batch_assets.core.ledger.reservations import Amounts
from batch_assets.core.ledger.states import FileState


@dataclass(frozen=True)
class RescueOutlook:
    """The rescue of a submission at one moment.

    Attributes:
        now: The ledger's clock, seconds since 1970.
        files: The request files whose rows wait for them and whose batch has not ended.
        due_times: By id, when requests of these files are asked by live calls; none of one that they never are.
        begun: By id, how far the requests of these files are asked, if that has begun.
        affordable: Ids of the files that a budget held back, and whose next call fits into it now.
        unstored: Ids of the groups of live calls whose answers are not stored yet.
        answered: By id, how many requests of these files have an answer from live calls, if any.
        is_calling: Whether a process makes live calls of the pipeline, or stores their answers.
    """

    now: float = 0.0
    files: tuple[RequestFile, ...] = ()
    due_times: Mapping[str, float] = field(default_factory=dict)
    begun: Mapping[str, Rescue] = field(default_factory=dict)
    affordable: frozenset[str] = frozenset()
    unstored: tuple[str, ...] = ()
    answered: Mapping[str, int] = field(default_factory=dict)
    is_calling: bool = False

    @cached_property
    def due(self) -> list[RequestFile]:
        """Files whose requests are to be asked by live calls now."""
        if self.is_calling:
            return []
        return [file for file in self._unfinished if self.due_times[file.id] <= self.now and self._may_go(file)]

    def _may_go(self, file: RequestFile) -> bool:
        state = self.begun.get(file.id)
        if state is None:
            return True
        return state.not_before <= self.now and (state.needs is None or file.id in self.affordable)

    @property
    def to_store(self) -> tuple[str, ...]:
        """Ids of the groups whose answers are to be stored now."""
        return () if self.is_calling else self.unstored

    @property
    def times(self) -> list[float]:
        """When live calls may be due that are not due now."""
        begun = [self.begun[file.id].not_before for file in self._unfinished if file.id in self.begun]
        return [time for time in (*self._due_times, *begun) if time > self.now]

    @property
    def next_due(self) -> float | None:
        """The next deadline that has not passed; `None` if there is none."""
        return min((time for time in self._due_times if time > self.now), default=None)

    @property
    def _due_times(self) -> list[float]:
        return [self.due_times[file.id] for file in self._unfinished]

    @property
    def held(self) -> dict[str, str]:
        """By file id, why requests are not asked by live calls although the deadline has passed."""
        states = [self.begun[file.id] for file in self._unfinished if file.id in self.begun]
        return {each.file_id: each.why for each in states if each.why is not None}

    @property
    def _unfinished(self) -> list[RequestFile]:
        begun = {id_ for id_, state in self.begun.items() if state.is_done}
        return [file for file in self.files if file.id in self.due_times and file.id not in begun]


NO_RESCUE = RescueOutlook()


def read_outlooks(
    tx: Transaction,
    selected: Sequence[Submission],
    files_of: Mapping[str, Sequence[RequestFile]],
    batches_of: Mapping[str, Sequence[Batch]],
    held_leases: Collection[str],
) -> dict[str, RescueOutlook]:
    """Read the rescues of some submissions. The keys are their ids. Without a deadline it takes one statement.

    Args:
        tx: A transaction.
        selected: The submissions.
        files_of: By submission, the request files that its rows wait on.
        batches_of: By submission, the batches of these files.
        held_leases: The names of the leases that processes hold, among those of `rescues.lease_name`.
    """
    rules = rescues.rules(tx, (submission.pipeline for submission in selected))
    concerned = [submission for submission in selected if submission.pipeline in rules]
    if not concerned:
        return {}
    at_api = {each.id: _at_api(files_of[each.id], batches_of[each.id]) for each in concerned}
    begun = rescues.of_submissions(tx, [id_ for id_, waited_on in at_api.items() if waited_on])
    affordable = _affordable(tx, at_api, begun)
    answered = rescues.answered(tx, {file.id for each in at_api.values() for file in each})
    groups = rescues.groups(tx, rules)
    outlooks = {}
    for submission in concerned:
        own = {file.id for file in files_of[submission.id]}
        outlooks[submission.id] = RescueOutlook(
            tx.now,
            tuple(at_api[submission.id]),
            _due_times(submission, rules[submission.pipeline], at_api[submission.id], batches_of[submission.id]),
            begun.get(submission.id, {}),
            frozenset(id_ for id_ in own if (submission.id, id_) in affordable),
            tuple(group.id for group in groups if group.file_id in own),
            {id_: answered[id_] for id_ in own if id_ in answered},
            rescues.lease_name(submission.pipeline) in held_leases,
        )
    return outlooks


def _due_times(
    submission: Submission, rule: RescueRule, at_api: Sequence[RequestFile], batches: Sequence[Batch]
) -> dict[str, float]:
    batch_of = {batch.id: batch for batch in batches}
    times = {file.id: rescues.due_at(submission, rule, batch_of[file.batch_id or ""]) for file in at_api}
    return {id_: time for id_, time in times.items() if time is not None}


def _affordable(
    tx: Transaction, at_api: Mapping[str, Sequence[RequestFile]], begun: Mapping[str, Mapping[str, Rescue]]
) -> set[tuple[str, str]]:
    """Return (submission, request file) of what a budget held back, and whose next call fits into it now."""
    asked, needs, keys = list[RequestFile](), dict[str, Amounts](), dict[str, tuple[str, str]]()
    for submission_id, waited_on in at_api.items():
        for file in waited_on:
            state = begun[submission_id].get(file.id)
            if state is not None and state.needs is not None:
                id_ = f"{submission_id} {file.id}"  # others may hold another request of the same file
                asked.append(replace(file, id=id_, requests=1, error=None))
                needs[id_], keys[id_] = state.needs, (submission_id, file.id)
    prospects = budgets.prospects(tx, budgets.recorded(tx), asked, live=needs) if asked else {}
    return {keys[id_] for id_, prospect in prospects.items() if prospect.may_go}


def _at_api(files: Sequence[RequestFile], batches: Sequence[Batch]) -> list[RequestFile]:
    unended = {batch.id for batch in batches if batch.state.unended}
    return [file for file in files if file.state is FileState.SUBMITTED and file.batch_id in unended]
