"""The rescue: when a deadline has passed, rows without an answer are asked by live calls.

Only requests are asked whose batch the API has accepted and not ended, in the order of their request file. Their
batch goes on, and its answers are kept. Calls are made in groups. A group is recorded and what it may cost is
reserved in one transaction before its first call, see `store/live_journal.py` for what is recorded of each call.
`results` stores the answers.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from batch_assets.core.api.rescue_rule import RescueRule
from batch_assets.core.batches.live_budget import amounts_of, calls_that_fit, worst_of_call
from batch_assets.core.batches.live_calls import LONGEST_ANSWER, LiveCalls, Losses, may_last_too_long
from batch_assets.core.batches.live_traces import record_traces
from batch_assets.core.batches.poll import try_poll
from batch_assets.core.batches.reserve import find_out_others, in_force
from batch_assets.core.batches.send import SubmissionWork
from batch_assets.core.errors import (
    FAILURES,
    DamagedFileError,
    LeaseLostError,
    MissingFileError,
)
from batch_assets.core.io.names import RequestFileId, ResponseName
from batch_assets.core.ledger import (
    Lease,
    Transaction,
    batches,
    files,
    leases,
    rescues,
    reservations,
    submissions,
)
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.rescues import Rescue
from batch_assets.core.ledger.states import FileState
from batch_assets.core.root import Root
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import DIGEST_CHARACTERS, decode_tails, digester, digests_of_tails
from batch_assets.core.store.live_journal import LiveGroupHeader, LiveJournal, journals_of
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, open_answers
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_files import StoredRequestFile, is_intact
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.request_lines import custom_id_of, own_tail
from batch_assets.core.store.responses import digest_array, open_responses, reading_responses
from batch_assets.core.text import count

# The most calls of a group: as many answers become one response file, and their worst case is reserved together.
GROUP_CALLS = 500
# A run makes live calls for at most this long. Its results are written then, and the next run goes on.
RUN_SECONDS = 600.0
# Betas that only batches take.
_BATCH_ONLY = ("output-300k-",)
# After this time it is tried again to read a file that is damaged or gone.
_UNREADABLE_SECONDS = 3600.0
_BY_ANOTHER = "another process makes the live calls of the pipeline"


def rescue(root: Root, works: Sequence[SubmissionWork], seconds: float | None) -> None:
    """Make the live calls that are due for some submissions of a pipeline, and fill their reports.

    Args:
        root: The root.
        works: The submissions.
        seconds: The time that the run has left; `None` for no limit.
    """
    pipeline = works[0].submission.pipeline
    with root.ledger.read() as tx:
        rule = rescues.rules(tx, [pipeline]).get(pipeline)
        ids = [work.submission.id for work in works] if rule else []
        current = {each.id: each for each in submissions.by_ids(tx, ids)}
        now = tx.now
    due = [work for work in works if work.failure is None and is_due(current.get(work.submission.id), rule, now)]
    if rule is None or not due:
        return
    lease = leases.try_take(
        root.ledger, rescues.lease_name(pipeline), work=f"the live calls of {pipeline}", pipeline=pipeline
    )
    if lease is None:
        for work in due:
            work.report.waiting["rescue"] = _BY_ANOTHER
        return
    until = time.monotonic() + min(RUN_SECONDS, seconds if seconds is not None else RUN_SECONDS)
    with lease:
        record_traces(root, pipeline, lease)
        for problem in try_poll(root, budget=30.0, now=True).problems:  # what has ended is collected, not asked
            due[0].report.waiting["rescue"] = problem
        losses = Losses()
        parts = [_Rescue(root, current[work.submission.id], work, rule, lease, until, losses) for work in due]
        pause: Rescue | None = None
        for work, part in zip(due, parts, strict=True):
            try:
                if pause is None:
                    pause = part.run()
                if pause is not None:  # it is that of the API or the network, and holds for every file
                    part.put_off(pause)
            except LeaseLostError as error:
                work.report.waiting["rescue"] = str(error)
                return
            except FAILURES as error:
                work.fails(error)


def is_due(submission: Submission | None, rule: RescueRule | None, now: float, sent: Batch | None = None) -> bool:
    """Whether rows of a submission that have no answer, all or those of a batch, are asked by live calls now."""
    due_at = rescues.due_at(submission, rule, sent) if submission is not None else None
    return due_at is not None and due_at <= now


class _Rescue:
    """The live calls for one submission."""

    def __init__(
        self,
        root: Root,
        submission: Submission,
        work: SubmissionWork,
        rule: RescueRule,
        lease: Lease,
        until: float,
        losses: Losses,
    ) -> None:
        self._root, self._submission, self._report = root, submission, work.report
        self._rule, self._lease, self._until, self._losses = rule, lease, until, losses
        self._wanted: DigestSet | None = None

    def run(self) -> Rescue | None:
        """Make the live calls for one file after the other. Return the pause of the file that ended it, if any."""
        for file in self._waiting():
            try:
                reached = self._rescue_file(file)
            except FileNotFoundError:
                self._note_unreadable(file, f"the request file {file.id} is gone. Restore it from a backup")
                continue
            except (MissingFileError, DamagedFileError) as error:
                self._note_unreadable(file, str(error))
                continue
            if reached is not None:
                self._note([reached])
                if reached.not_before:
                    return reached
            if time.monotonic() >= self._until:
                break
        return None

    def put_off(self, pause: Rescue) -> None:
        """Record for the files that wait for live calls that none is made before the end of a pause."""
        self._note([replace(pause, file_id=file.id) for file in self._waiting()])

    def _waiting(self) -> list[RequestFile]:
        """Return the files that the rows wait on, whose batch has not ended, and for which calls may be made."""
        with self._root.ledger.read() as tx:
            waited_on = submissions.waited_on(tx, self._submission.id)
            due = self._due(tx, self._submission, waited_on)
            known = rescues.of_submissions(tx, [self._submission.id])[self._submission.id]
            states = [known.get(file.id, Rescue(file.id)) for file in due]
            may_go = [not state.is_done and state.not_before <= tx.now for state in states]
        return [*itertools.compress(due, may_go)]

    def _due(self, tx: Transaction, submission: Submission, waited_on: list[RequestFile]) -> list[RequestFile]:
        """Return those of some files whose rows are asked by live calls now: the API works on their batch."""
        sent = [file for file in waited_on if file.state is FileState.SUBMITTED]
        known = batches.by_ids(tx, [file.batch_id for file in sent if file.batch_id is not None])
        running = {batch.id: batch for batch in known if batch.state.unended}
        return [
            file
            for file in sent
            if (batch := running.get(file.batch_id or "")) and is_due(submission, self._rule, tx.now, batch)
        ]

    def _note_unreadable(self, file: RequestFile, why: str) -> None:
        """Record that a file which the calls need cannot be read: it may be restored."""
        with self._root.ledger.read() as tx:
            later = tx.now + _UNREADABLE_SECONDS
        self._note([Rescue(file.id, not_before=later, why=f"its requests stay with the batch until then: {why}")])

    def _note(self, states: Sequence[Rescue]) -> None:
        with self._root.ledger.write(self._submission.pipeline) as tx:
            self._lease.confirm(tx)
            rescues.note(tx, self._submission, states)
        for state in states:
            if state.why is not None:
                self._report.waiting[f"rescue of {state.file_id}"] = state.why

    def _rescue_file(self, file: RequestFile) -> Rescue | None:
        """Ask the requests of a file.

        Returns:
            How far that is; `None` if the time is over, or the batch of the file has ended.
        """
        with self._root.ledger.read() as tx:
            headers = files.headers_of(tx, file)
        if any(beta in headers.get("anthropic-beta", "") for beta in _BATCH_ONLY):
            return Rescue(
                file.id, is_done=True, why="only batches take its betas: its requests stay with the batch"
            )
        primed, left, pending = digester(headers), Counter[str](), list[bytes]()
        lines = self._to_call(file)
        while True:
            for line in itertools.islice(lines, GROUP_CALLS - len(pending)):
                if not is_intact(line, primed):  # nothing is asked that no row asked for
                    left["with a damaged line"] += 1
                elif may_last_too_long(line):
                    left[f"with max_tokens above {LONGEST_ANSWER:,}"] += 1
                else:
                    pending.append(line)
            if not pending:
                break
            begun = self._begin(file, pending)
            if not isinstance(begun, _Begun):
                return begun
            called, pending = pending[: begun.calls], pending[begun.calls :]
            run = self._lease, self._until, self._losses, self._report.live_calls
            calls = LiveCalls(self._root, begun.journal, called, headers, *run)
            calls.run(self._rule.max_in_flight)
            if calls.pause is not None:
                with self._root.ledger.read() as tx:
                    return Rescue(file.id, not_before=tx.now + calls.pause.seconds, why=calls.pause.why)
            if time.monotonic() >= self._until:
                return None
        whys = ", ".join(f"{count(number, 'request')} {what}" for what, number in left.items())
        return Rescue(file.id, is_done=True, why=f"left to the batch: {whys}" if whys else None)

    def _to_call(self, file: RequestFile) -> Iterator[bytes]:
        """Yield the lines of a file whose requests the rows ask, have no answer, and were never called."""
        stored = StoredRequestFile.of(self._root.storage, file)
        called, answered = _called(self._root, file), self._answered(stored)
        for some in _chunks(stored.lines()):
            digests, are_ours = decode_tails(np.array([own_tail(line) for line in some]))
            due = are_ours & self._rows().contains(digests) & ~called.contains(digests)
            if answered is not None:
                due &= ~answered.for_digests(digests).is_answered
            yield from (some[at] for at in np.flatnonzero(due).tolist())

    def _rows(self) -> DigestSet:
        """Return the digests that the submission's rows ask for."""
        if self._wanted is None:
            submission, self._wanted = self._submission, DigestSet()
            index = RequestIndex(self._root.storage, submission.pipeline, submission.partition, submission.id)
            for rows in index.slices([DIGEST]):
                self._wanted.add_new(np.unique(digest_array(rows.column(0).drop_null())))
        return self._wanted

    def _answered(self, stored: StoredRequestFile) -> PipelineOutcomes | None:
        """Return what tells which requests have an answer; `None` if all of them follow one."""
        if stored.has_follow_ups():
            return None
        submission = self._submission
        with self._root.ledger.read() as tx:
            refreshes, untried = refreshes_of(tx, submission.pipeline), untried_of(tx, submission)
        answers = open_answers(self._root, submission.pipeline, submission.rows)
        return PipelineOutcomes(answers, refreshes, submission.fresh_after, untried)

    def _begin(self, file: RequestFile, lines: Sequence[bytes]) -> _Begun | Rescue | None:
        """Record a group of calls for as many of some lines as the budgets allow.

        Returns:
            The group, or what the rescue of the file waits for. `None` if its batch has ended, or nothing of it
            is to be asked any more.
        """
        prices = self._root.settings.prices
        worst = [worst_of_call(prices, line) for line in lines]
        with self._root.ledger.read() as tx:
            limits = in_force(self._root, tx, file.pipeline)
        if limits:
            find_out_others(self._root, file, limits)
        group_id = ResponseName.of_live_calls(file.id, self._next_number(file)).stem
        with self._root.ledger.write(file.pipeline, endpoint=True) as tx:
            self._lease.confirm(tx)
            submission = submissions.by_id(tx, self._submission.id)
            if not self._due(tx, submission, [files.by_id(tx, file.id)]):
                return None
            mean = reservations.mean_cost(tx, file.pipeline)
            counted = partial(amounts_of, mean=mean, discount=prices.table.batch_multiplier)
            calls, prospect = calls_that_fit(tx, limits, file, worst, counted)
            if not calls:
                return Rescue(file.id, needs=counted(worst[:1]), why=f"held: {prospect.why}")
            header = self._header(tx.now, file, lines[:calls], worst[:calls])
            rescues.begin(tx, file, group_id, calls, counted(worst[:calls]))
        journal = LiveJournal(self._root.storage, file.pipeline, group_id)
        journal.begin(header)
        return _Begun(journal, calls)

    def _header(
        self, now: float, file: RequestFile, lines: Sequence[bytes], worst: Sequence[int]
    ) -> LiveGroupHeader:
        custom_ids = [custom_id_of(line) or "" for line in lines]
        return LiveGroupHeader(file_id=file.id, started_at=now, custom_ids=custom_ids, worst_cases=list(worst))

    def _next_number(self, file: RequestFile) -> int:
        """Return the ordinal of the next group for a file. It is the first without a trace under the root."""
        stored = map(ResponseName.parse, self._root.storage.file_names(file.pipeline, "responses"))
        journals = (ResponseName(journal.group_id) for journal in journals_of(self._root.storage, file.pipeline))
        with self._root.ledger.read() as tx:
            recorded = [ResponseName(id_) for id_ in rescues.ids_of(tx, file.id)]
        used = (name.asked_live for name in [*filter(None, stored), *journals, *recorded])
        own = RequestFileId.parse(file.id)
        return 1 + max((asked[1] for asked in used if asked is not None and asked[0] == own), default=0)


@dataclass(frozen=True)
class _Begun:
    """A group of calls that may be made.

    Attributes:
        journal: Its journal.
        calls: The number of its calls.
    """

    journal: LiveJournal
    calls: int


def _called(root: Root, file: RequestFile) -> DigestSet:
    """Return the digests of the requests of a file for which a live call was made, by what is under the root."""
    called, own = DigestSet(), RequestFileId.parse(file.id)

    def is_own(name: ResponseName) -> bool:
        return name.asked_live is not None and name.asked_live[0] == own

    for journal in journals_of(root.storage, file.pipeline):
        header = journal.header() if is_own(ResponseName(journal.group_id)) else None
        if header is not None:
            numbers, _ = journal.notes()
            tails = [header.custom_ids[number].encode()[-DIGEST_CHARACTERS:] for number in sorted(numbers)]
            called.add(digests_of_tails(tails))
    # After the journals: one that is stored meanwhile is found here.
    names = map(ResponseName.parse, sorted(root.storage.file_names(file.pipeline, "responses")))
    for name in filter(None, names):
        if is_own(name):
            with (
                open_responses(root.storage, file.pipeline, name) as opened,
                reading_responses(root.storage, file.pipeline, name),
            ):
                column = opened.read(columns=["digest"], use_threads=False)["digest"]
            called.add(digest_array(column.drop_null()))
    return called


def _chunks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while some := list(itertools.islice(lines, GROUP_CALLS)):
        yield some
