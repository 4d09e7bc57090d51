"""Retries and follow-ups: write requests of the newest submission into further request files of it.

Requests that failed for a passing reason are copied. An answer that is not the last of its chain is followed by a
new request. Neither the dataset nor the template is read, so a half-edited prompt is never paid for unattended.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.answers.answers import Answers
from batch_assets.core.batches.follow_up_lines import Answered, FollowUpLines
from batch_assets.core.batches.retried_prompts import with_breakpoints
from batch_assets.core.batches.stored_lines import LostTexts, StoredLines, file_of
from batch_assets.core.batches.tool_results import ToolResults
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import DIGEST_FILES, REQUEST_FILES, PartName, SubmissionId
from batch_assets.core.ledger import Lease, joins, leases, standstills, submissions
from batch_assets.core.ledger.records import RequestFile, RequestFileEntry, Submission
from batch_assets.core.ledger.request_leases import hold_partition
from batch_assets.core.pipeline.hooks import NO_TOOLS, ToolFunctions
from batch_assets.core.root import Root
from batch_assets.core.store.digest_files import remove_digests
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests, digester, pack
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.manifest import Manifest, PartEntry
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.outcomes import Outcomes
from batch_assets.core.store.part_writer import PartWriters
from batch_assets.core.store.pipeline_outcomes import outcomes_for
from batch_assets.core.store.registered_since import LOOKS, RegisteredSince, read_in_flight
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, RequestIndex
from batch_assets.core.store.request_lines import line_with_mark
from batch_assets.core.store.responses import ResponseFiles, digest_array

_PLANS = 3


def plan_again(
    root: Root,
    submission: Submission,
    answers: Answers | None = None,
    tools: ToolFunctions = NO_TOOLS,
    tools_until: float | None = None,
) -> tuple[int, list[str]]:
    """Write the submission's retries and follow-ups into new request files.

    Requests whose text is lost, because their request file is gone or damaged, do not hold back the others. The
    ledger records them as a standstill, and a later run tries them again.

    Args:
        root: The root.
        submission: The submission.
        answers: How the pipeline's own code reads answers; `None` to follow the manifest.
        tools: The pipeline's functions that give the results of tools.
        tools_until: The time by `time.monotonic` from which on they are not called; `None` for no limit. The
            answers that are left are followed by the next run.

    Returns:
        The number of requests written, and a text about each file whose requests could not be.

    Raises:
        MissingFileError: When a lost file leaves unknown which of them are in flight. Nothing is written.
        DamagedFileError: When the request index cannot be read. Nothing is written.
        BusyError: When another run works on the partition's requests, or on the whole pipeline.
    """
    if submission.ask_again == 0:
        return 0, []
    with hold_partition(root.ledger, submission.pipeline, submission.partition, wait=leases.PATIENCE) as lease:
        for _ in range(_PLANS):
            planned = _plan(
                root, submission, lease, answers, ToolResults(tools, submission.max_bytes, tools_until)
            )
            if planned is not None:
                return planned
    return 0, []  # others registered the same requests each time: the next run plans again


def _plan(
    root: Root, submission: Submission, lease: Lease, answers: Answers | None, tools: ToolResults
) -> tuple[int, list[str]] | None:
    """Write and register the request files of a retry.

    Returns:
        As `plan_again`; `None` if others have registered the same requests meanwhile.
    """

    def look() -> tuple[tuple[Submission, list[str], RegisteredSince], list[RequestFile]]:
        # No writer in between: a line that comes later has a number above the newest one.
        with root.ledger.write(submission.pipeline) as tx:
            in_flight = submissions.files_in_flight(tx, submission.pipeline)
            since = RegisteredSince(root, submission.pipeline, in_flight, tx.last_seq())
            names = [file.name for file in submissions.waited_on(tx, submission.id)]
            return (submissions.by_id(tx, submission.id), names, since), in_flight

    read, in_flight = read_in_flight(root, look, submission.partition, submission.rows)
    current, waited_on_names, since = read
    if current.ask_again == 0:
        return 0, []
    outcomes, set_aside = with_readable_responses(root, lambda: outcomes_for(root, submission))
    if set_aside:  # the requests of these files are in flight now, and the next run counts them
        return 0, set_aside
    folder = submission_parts(submission.pipeline, submission.partition, submission.id)
    # Request files only: another process may be writing a receipt.
    for pattern in (REQUEST_FILES, DIGEST_FILES):
        root.storage.remove_leftovers(*folder, name=pattern)
    used_names = {*waited_on_names, *root.storage.names(*folder)}
    names = (name for name in map(PartName, itertools.count()) if str(name) not in used_names)
    limits = submission.max_requests, submission.max_bytes
    retries, follow_ups = (PartWriters(root.storage, folder, limits, names.__next__) for _ in range(2))
    lost, wanted = LostTexts(), DigestSet()
    failed, answered = _wanted_requests(root, submission, outcomes, in_flight, wanted)
    with retries:
        for attempt, headers, text in _request_lines(root, submission, outcomes.files, failed, lost):
            lease.check()
            retries.add(attempt, headers, [line_with_mark(text, root.mark)])
    if answered is not None and (rules := submission.follow_up_rules) is not None:
        answers = answers or _answers_of(root, submission)
        lines = FollowUpLines(root, submission, rules, answers, tools, in_flight.contains, lost, wanted)
        with follow_ups:  # in files of their own, see `has_follow_ups`
            for attempt, headers, text in lines.of(outcomes, answered):
                lease.check()
                follow_ups.add(attempt, headers, [text])
    written = [*retries.written, *follow_ups.written]
    files = _entries(root, submission, retries.written)
    files += [replace(entry, follows=True) for entry in _entries(root, submission, follow_ups.written)]
    if not _register(root, submission, lease, files, in_flight, since, wanted, lost):
        for entry in written:
            remove_digests(root.storage, folder, entry.part)
            root.storage.remove(*folder, entry.name)
        return None
    return sum(entry.requests for entry in written), lost.problems


def _answers_of(root: Root, submission: Submission) -> Answers:
    location = submission.pipeline, submission.partition, submission.id
    return Manifest.read(root.storage, *location).answers


def _entries(root: Root, submission: Submission, written: Sequence[PartEntry]) -> list[RequestFileEntry]:
    """Return request files as the ledger registers them."""
    submission_id = SubmissionId(submission.id)
    return [
        entry.ledger_entry(submission_id, submission.pipeline, submission.partition)
        for entry in with_breakpoints(root, submission, written)
    ]


def _register(
    root: Root,
    submission: Submission,
    lease: Lease,
    files: Sequence[RequestFileEntry],
    in_flight: RequestsInFlight,
    since: RegisteredSince,
    wanted: DigestSet,
    lost: LostTexts,
) -> bool:
    """Register the request files of a retry, unless others have registered the same requests meanwhile."""
    for _ in range(LOOKS):
        with root.ledger.write(submission.pipeline) as tx:
            lease.confirm(tx)
            new, seq = since.new(tx), tx.last_seq()
            if not new:
                submissions.add_files(tx, submission.id, files)
                submissions.add_waits(tx, submission.id, in_flight.waited_on)
                if not submissions.let_go(tx, in_flight.waited_on):  # otherwise the next run plans again
                    joins.planned_again(tx, submission.id, left=lost.requests + lost.postponed)
                    if lost.requests:
                        standstills.note(tx, submission.id, "; ".join(lost.problems))
                    else:
                        standstills.end(tx, submission.id)
                return True
        if since.have(new, wanted.contains):
            return False
        since.saw(new, seq)
    return False


def _wanted_requests(
    root: Root, submission: Submission, outcomes: Outcomes, in_flight: RequestsInFlight, wanted: DigestSet
) -> tuple[_Failed, Answered | None]:
    """Return the requests to retry, and those whose answers may be followed by others; `None` if none are.

    The digests of requests to retry are added to `wanted`.
    """
    index = RequestIndex(root.storage, submission.pipeline, submission.partition, submission.id)
    read_before = DigestSet()
    all_rows: list[NDArray[np.int64]] = []
    all_attempts: list[NDArray[np.int32]] = []
    all_digests: list[Digests] = []
    answered: list[tuple[NDArray[np.int64], NDArray[np.int32], Digests]] = []
    for rows in index.slices([DIGEST, LEFT_OUT] if index.is_limited else [DIGEST]):
        digests = np.unique(digest_array(rows.column(0).drop_null()))
        digests = digests[~read_before.contains(digests)]
        read_before.add(digests)
        left_out = None
        if index.is_limited:
            left_out = np.isin(digests, digest_array(rows.column(0).filter(rows.column(1))))
        response_rows, kinds, attempts = outcomes.for_digests(digests)
        fates = request_fates(
            response_rows >= 0, kinds, attempts, max_attempts=submission.attempts_allowed, left_out=left_out
        )
        if submission.follow_ups is not None:
            has_answer = fates == RequestFate.ANSWERED.value
            answered.append((response_rows[has_answer], attempts[has_answer], digests[has_answer]))
        due = np.flatnonzero(fates == RequestFate.RETRY.value)
        # Only requests to retry are looked up: the submission will wait on every file that `in_flight` finds.
        free = due[~in_flight.contains(digests[due])]
        wanted.add_new(digests[free])
        all_rows.append(response_rows[free])
        all_attempts.append(attempts[free])
        all_digests.append(digests[free])
    response_rows = np.concatenate([np.empty(0, np.int64), *all_rows])
    attempts = np.concatenate([np.empty(0, np.int32), *all_attempts])
    failed_digests = np.concatenate([pack([]), *all_digests])
    order = np.argsort(response_rows)
    failed = _Failed(response_rows[order], attempts[order], failed_digests[order])
    if not answered:
        return failed, None
    rows, sent, answered_digests = (np.concatenate(column) for column in zip(*answered, strict=True))
    return failed, Answered.of(outcomes, rows, sent, answered_digests, submission.max_attempts)


@dataclass(frozen=True)
class _Failed:
    """The n requests to retry, in the order of their responses.

    Attributes:
        response_rows: The row numbers of their responses; int64, shape (n,), sorted.
        attempts: Their last attempt; int32, shape (n,).
        digests: S16, shape (n,).
    """

    response_rows: NDArray[np.int64]
    attempts: NDArray[np.int32]
    digests: Digests


def _request_lines(
    root: Root, submission: Submission, files: ResponseFiles, failed: _Failed, lost: LostTexts
) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
    """Yield (next attempt, headers, line) of requests to retry, and note those whose line is lost.

    Responses are in the order of their request file. The headers are `None` if they are the submission's.

    Args:
        root: The root.
        submission: The submission whose requests are retried.
        files: The response files.
        failed: The requests.
        lost: Where to note the lost ones.
    """
    for number, selected, rows in files.by_file(failed.response_rows):
        file, headers = file_of(root, submission, files.names[number])
        if file is None:
            continue  # the ledger does not know the batch
        primed = digester(json.loads(submission.headers) if headers is None else headers)
        lines = StoredLines(root, file)
        missed = 0
        wanted = zip(rows.tolist(), failed.attempts[selected].tolist(), failed.digests[selected], strict=True)
        for position, attempt, digest in wanted:
            line = lines.at(position, digest, primed)
            if line is not None:
                yield attempt + 1, headers, line
            else:
                missed += 1
        if missed:
            lost.add(missed, lines.problem(missed))
