"""What became of the request files of a lost ledger, as far as manifests, receipts and responses tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from batch_assets.core.io.names import RequestFileId, ResponseName, SubmissionId
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.states import FileState
from batch_assets.core.recovery.found_files import (
    FoundPart,
    FoundResponses,
    FoundSubmission,
    responses_of,
    submissions_of,
    table_is_complete,
)
from batch_assets.core.store.digests import DigestOwners, Digests, DigestSet
from batch_assets.core.store.outcomes import FAILED, Outcomes, Refreshes, load_outcomes
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.responses import ResponseFiles, digest_array

_IN_DOUBT = "the ledger was lost, and no receipt says whether this was sent"


@dataclass
class LostFile:
    """A request file with what its remains say of it.

    Attributes:
        state: as in the ledger.
        why: what says so.
    """

    submission: FoundSubmission
    part: FoundPart
    digests: Digests
    requests: int
    bytes: int
    attempt: int
    state: FileState
    why: str
    responses: FoundResponses | None = None

    @property
    def file_id(self) -> RequestFileId:
        return SubmissionId(self.submission.id).file(self.part.name)

    @property
    def id(self) -> str:
        """The same, as the ledger has it."""
        return str(self.file_id)

    def headers(self) -> dict[str, str] | None:
        """Those of its requests; None where they are those of its submission, or nobody can send it any more.

        Errors:
            DamagedFileError: its first line is not as it was written.
        """
        sets = self.submission.manifest.header_sets
        return self.part.headers(sets) if sets and self.part.is_there else None


@dataclass
class LostPipeline:
    """What is known of a pipeline.

    Attributes:
        files: in the order in which they were written.
        spare: responses to requests of no file here, or to such that another batch answered as well.
        waits: for each submission in force, and each refresh, the files its rows wait on, its own included.
        complete: submissions in force whose table is there and has every row's final result.
    """

    submissions: list[FoundSubmission]
    files: list[LostFile] = field(default_factory=list)
    spare: list[tuple[FoundResponses, LostFile | None]] = field(default_factory=list)
    waits: dict[str, set[str]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)


def find_pipeline(storage: Storage, pipeline: str) -> LostPipeline:
    """What is known of a pipeline's submissions and of each of their request files.

    Errors:
        DamagedFileError: a file of the root is not as it was written.
    """
    found = LostPipeline(submissions_of(storage, pipeline))
    if not found.submissions:
        return found
    responses = responses_of(storage, pipeline)
    claimed = {
        ResponseName.of_batch(part.receipt.batch.id)
        for submission in found.submissions
        for part in submission.parts
        if part.receipt is not None
    }
    for submission in found.submissions:
        found.files += [_file(submission, part, responses) for part in submission.parts]
    for file in found.files:
        refusal = responses.get(ResponseName.of_refusal(file.id))
        if refusal is not None and file.state is FileState.UNRESOLVED:
            claimed.add(refusal.name)
            file.state, file.why = FileState.COLLECTED, "the stored response is the refusal of its only request"
    _claim(found, [responses[name] for name in responses.keys() - claimed])
    for submission in found.submissions:
        if submission.fresh_after is not None:
            found.waits[submission.id] = _own(found, submission) | _in_flight(found, submission)
    if any(file.state is FileState.UNRESOLVED for file in found.files):
        _set_aside(storage, found, responses)
    for submission in {s.partition: s for s in found.submissions}.values():
        waits = found.waits.setdefault(submission.id, _own(found, submission))
        waits |= _others(storage, submission, found.files)
        if table_is_complete(storage, submission):
            found.complete.add(submission.id)
    return found


def _own(found: LostPipeline, submission: FoundSubmission) -> set[str]:
    return {file.id for file in found.files if file.submission is submission}


def _in_flight(found: LostPipeline, submission: FoundSubmission) -> set[str]:
    """What was in flight when a refresh was built, or the parts that took its place."""
    waits = set(submission.manifest.waits or ())
    return {file.id for file in found.files if waits & {file.id, *map(str, file.file_id.wholes())}}


def _file(submission: FoundSubmission, part: FoundPart, responses: dict[ResponseName, FoundResponses]) -> LostFile:
    """What its receipt says of a request file."""
    nothing: Digests = np.empty(0, dtype="S16")
    listed = part.listed
    numbers = (listed.requests, listed.bytes, listed.attempt) if listed is not None else (0, 0, 0)
    _, listed_bytes, listed_attempt = numbers
    if part.receipt is None:
        if not part.is_there:
            why = f"the request file is gone: materialize {submission.pipeline}/requests again"
            return LostFile(submission, part, nothing, *numbers, FileState.REFUSED, why)
        digests, size = part.contents()
        return LostFile(
            submission, part, digests, len(digests), size, listed_attempt, FileState.UNRESOLVED, _IN_DOUBT
        )
    batch = part.receipt.batch
    requests, attempt = batch.total, part.receipt.attempt
    answers = responses.get(ResponseName.of_batch(batch.id))
    why = f"its receipt names {batch.id}"
    if answers is not None and len(answers.digests) == requests:
        why = f"{why}, whose responses are stored"
        return LostFile(
            submission, part, answers.digests, requests, listed_bytes, attempt, FileState.COLLECTED, why, answers
        )
    digests, size = part.contents() if part.is_there else (nothing, listed_bytes)
    return LostFile(submission, part, digests, requests, size, attempt, FileState.SUBMITTED, why)


def _claim(found: LostPipeline, unclaimed: Iterable[FoundResponses]) -> None:
    """Responses whose batch no receipt names belong to the file with the same requests in the same order."""
    by_content: dict[bytes, list[LostFile]] = defaultdict(list)
    for file in found.files:
        by_content[file.digests.tobytes()].append(file)
    for responses in sorted(unclaimed, key=lambda responses: responses.ended_at):
        files = by_content[responses.digests.tobytes()]
        free = [f for f in files if f.state is FileState.UNRESOLVED and f.attempt in (0, responses.attempt)]
        if not free:
            found.spare.append((responses, files[-1] if files else None))
            continue
        file = free[-1]
        file.state, file.attempt, file.responses = FileState.COLLECTED, responses.attempt, responses
        file.why = f"the stored responses of {responses.batch_id} are to its requests"


def _set_aside(storage: Storage, found: LostPipeline, answered: Mapping[ResponseName, FoundResponses]) -> None:
    """Tells files in doubt from those that were given up unsent.

    No request is ever in two files that were sent or may still be, but by a refresh. So a file without receipt
    or responses that shares a request with one that was sent, was answered or was written later, in no earlier
    refresh or attempt, was set aside, or never registered: nobody may send it.
    """
    pipeline, refreshes = found.submissions[0].pipeline, _refreshes(found)
    of_responses: Refreshes = {}
    for file in found.files:
        of_responses[ResponseName.of_refusal(file.id)] = refreshes[file.id]
        if file.responses is not None:
            of_responses[file.responses.name] = refreshes[file.id]
    files, of_refreshes = ResponseFiles(storage, pipeline), dict[float, Outcomes]()

    def outcomes_for(refresh: float) -> Outcomes:
        if refresh not in of_refreshes:
            of_refreshes[refresh] = load_outcomes(files, of_responses, refresh or None)
        return of_refreshes[refresh]

    taken: dict[tuple[float, int], DigestSet] = defaultdict(DigestSet)
    for responses in answered.values():
        taken[of_responses.get(responses.name, 0.0), responses.attempt].add(responses.digests)
    for file in found.files:
        if file.state.sent:
            taken[refreshes[file.id], file.attempt].add(file.digests)
    in_doubt = [file for file in found.files if file.state is FileState.UNRESOLVED]
    by_id = {file.file_id: file for file in found.files}
    for file in in_doubt:
        if file.attempt == 0:  # no manifest lists what retries added, and the halves of files that were cut
            whole_id = file.file_id.whole
            whole = by_id.get(whole_id) if whole_id is not None else None
            found_before = outcomes_for(refreshes[file.id]).of(file.digests)
            file.attempt = whole.attempt if whole is not None else int(found_before.attempt.max(initial=0)) + 1
    for file in reversed(in_doubt):
        whole_id = file.file_id.whole
        if whole_id in by_id and not all(half in by_id for half in whole_id.halves):
            file.state, file.why = FileState.SUPERSEDED, "its other half was never written"
            continue
        written = refreshes[file.id], file.attempt
        outcomes = outcomes_for(refreshes[file.id]).of(file.digests)
        over = file.attempt > file.submission.manifest.max_attempts and file.part.listed is None
        settled = bool((outcomes.is_answered | (outcomes.kind == FAILED)).any())
        others = (digests for when, digests in taken.items() if when >= written)
        if over or settled or any(digests.contains(file.digests).any() for digests in others):
            file.state = FileState.SUPERSEDED
            file.why = "its requests were answered, or lie in a file that was sent or written later"
        else:
            taken[written].add(file.digests)


def _refreshes(found: LostPipeline) -> dict[str, float]:
    """For each file the `fresh_after` of the newest refresh that wrote it or waited on it, 0.0 for none."""
    refreshes = {file.id: 0.0 for file in found.files}
    for submission in found.submissions:
        if submission.fresh_after is not None:
            for file_id in found.waits[submission.id]:
                refreshes[file_id] = max(refreshes[file_id], submission.fresh_after)
    return refreshes


def _others(storage: Storage, submission: FoundSubmission, files: list[LostFile]) -> set[str]:
    """Files of other submissions that a submission's rows wait on, or that brought their answers.

    What brought answers before a refresh brought none for it.
    """
    states = [FileState.UNRESOLVED, FileState.SUBMITTED]  # what is on its way comes before what was answered
    others = [
        file
        for state in (states if submission.fresh_after is not None else [*states, FileState.COLLECTED])
        for file in files
        if file.state is state and len(file.digests)
    ]
    owners = DigestOwners([file.digests for file in others])
    index = RequestIndex(storage, submission.pipeline, submission.partition, submission.id)
    for rows in index.slices([DIGEST]):
        owners.contains(digest_array(rows.column(0).drop_null()))
    return {file.id for file, asked in zip(others, owners.asked.tolist(), strict=True) if asked}
