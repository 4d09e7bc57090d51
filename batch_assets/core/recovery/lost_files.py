"""Find the state of each request file of a lost ledger, as far as manifests, receipts and responses show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.names import RequestFileId, ResponseName
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
from batch_assets.core.recovery.lost_pipeline import LostFile, LostPipeline
from batch_assets.core.recovery.lost_waits import Shared, WaitedOn
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.live_journal import headers_of
from batch_assets.core.store.outcomes import Outcomes, Refreshes, in_force, read_responses
from batch_assets.core.store.packed_responses import FAILED
from batch_assets.core.store.request_files import MISSING

_IN_DOUBT = "the ledger was lost, and no receipt shows whether this was sent"
_DAMAGED = "the ledger was lost, and its receipt is damaged: it was sent, and its batch is looked for"
_NO_DIGESTS: Digests = np.empty(0, dtype="S16")


def find_pipeline(storage: Storage, pipeline: str, foreign: Collection[str] = ()) -> LostPipeline:
    """Find a pipeline's submissions and the state of each of their request files.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        foreign: The ids of submissions to leave out: copies of other pipelines' folders, and builds that were
            never registered.
    """
    return with_states(storage, pipeline, *submissions_of(storage, pipeline, foreign))


def with_states(
    storage: Storage, pipeline: str, found_submissions: list[FoundSubmission], problems: list[str]
) -> LostPipeline:
    """Find the state of each request file of a pipeline.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        found_submissions: Its submissions, oldest first.
        problems: The texts about files that are damaged.
    """
    lost = LostPipeline(found_submissions, problems=problems)
    if not lost.submissions:
        return lost
    responses, problems = responses_of(storage, pipeline)
    lost.problems += problems
    headers, problems = headers_of(storage, pipeline)
    lost.live_groups, lost.problems = dict(headers), lost.problems + problems
    claimed = {
        ResponseName.of_batch(part.receipt.batch.id)
        for submission in lost.submissions
        for part in submission.parts
        if part.receipt is not None
    }
    for submission in lost.submissions:
        lost.problems += submission.problems
        lost.files += [_file(submission, part, responses, lost.problems) for part in submission.parts]
    for file in lost.files:
        refusal = responses.get(ResponseName.of_refusal(file.id))
        if refusal is not None and file.state is FileState.UNRESOLVED:
            claimed.add(refusal.name)
            file.state, file.why = FileState.COLLECTED, "the stored response is the refusal of its only request"
    _claim(lost, [responses[name] for name in responses.keys() - claimed])
    waited_on = WaitedOn(lost.files)
    for submission in lost.submissions:
        if submission.fresh_after is not None:
            lost.waits[submission.id] = waited_on.own[submission.id] | waited_on.in_flight(submission)
    if any(file.state is FileState.UNRESOLVED for file in lost.files):
        # Imported answers and those of live calls show nothing about what was sent.
        _set_aside(storage, lost, {name: each for name, each in responses.items() if not name.is_never_followed})
    shared = Shared(storage, lost.files)
    for submission in {s.partition: s for s in lost.submissions}.values():
        waits = lost.waits.setdefault(submission.id, set(waited_on.own[submission.id]))
        waits |= waited_on.unread[submission.id]
        try:
            waits |= shared.files_of(submission)
        except (DamagedFileError, MissingFileError) as error:  # its partition has no new table without the index
            lost.problems.append(str(error))
        if table_is_complete(storage, submission):
            lost.complete.add(submission.id)
    return lost


def _file(
    submission: FoundSubmission,
    part: FoundPart,
    responses: dict[ResponseName, FoundResponses],
    problems: list[str],
) -> LostFile:
    """Return a request file with the state that its receipt shows. Adds the text about a damaged one."""
    if part.receipt is None:
        return _without_receipt(submission, part, problems)
    listed_bytes = part.listed.bytes if part.listed is not None else 0
    batch = part.receipt.batch
    requests, attempt = batch.total, part.receipt.attempt
    answers = responses.get(ResponseName.of_batch(batch.id))
    why = f"its receipt names {batch.id}"
    if answers is not None and len(answers.digests) == requests:
        why = f"{why}, whose responses are stored"
        return LostFile(
            submission, part, answers.digests, requests, listed_bytes, attempt, FileState.COLLECTED, why, answers
        )
    if not part.exists:
        return LostFile(submission, part, _NO_DIGESTS, requests, listed_bytes, attempt, FileState.SUBMITTED, why)
    contents = part.contents()
    problems += [contents.problem] if contents.problem is not None else []
    return LostFile(
        submission, part, contents.digests, requests, contents.bytes, attempt, FileState.SUBMITTED, why
    )


def _without_receipt(submission: FoundSubmission, part: FoundPart, problems: list[str]) -> LostFile:
    listed = part.listed
    requests, size, attempt = (listed.requests, listed.bytes, listed.attempt) if listed is not None else (0, 0, 0)
    digests, state, why = _NO_DIGESTS, FileState.REFUSED, MISSING
    if part.exists:
        contents = part.contents()
        problems += [contents.problem] if contents.problem is not None else []
        digests, requests, size = contents.digests, contents.requests, contents.bytes
        state, why = FileState.UNRESOLVED, _IN_DOUBT
    if part.was_sent:
        state, why = FileState.UNRESOLVED, _DAMAGED
    return LostFile(submission, part, digests, requests, size, attempt, state, why)


def reject_receipt(lost: LostPipeline, file: LostFile, why: str) -> None:
    """Put a file in doubt whose receipt is another file's. Like a damaged one, it shows that the file was sent.

    Args:
        lost: What the files show.
        file: The file. Its numbers are read again, because they were those of the receipt.
        why: Why the receipt is not its own.
    """
    own = _without_receipt(file.submission, replace(file.part, receipt=None), lost.problems)
    file.part, file.digests, file.requests, file.bytes = own.part, own.digests, own.requests, own.bytes
    file.attempt = own.attempt or 1 + _earlier_attempts(lost, file)
    file.state, file.why, file.responses = FileState.UNRESOLVED, why, None


def _earlier_attempts(lost: LostPipeline, file: LostFile) -> int:
    """Return how often requests of a file were tried in other files, within the same refresh."""
    requests, refreshes = DigestSet(), _refreshes(lost)
    requests.add(file.digests)
    tried = (
        other.attempt
        for other in lost.files
        if other is not file and other.state.sent and refreshes[other.id] == refreshes[file.id]
        if requests.contains(other.digests).any()
    )
    return max(tried, default=0)


def _claim(lost: LostPipeline, unclaimed: Iterable[FoundResponses]) -> None:
    """Assign responses whose batch no receipt names to the file with the same requests in the same order."""
    by_content: dict[bytes, list[LostFile]] = defaultdict(list)
    by_id: dict[RequestFileId, LostFile] = {}
    for file in lost.files:
        by_content[file.digests.tobytes()].append(file)
        by_id[file.file_id] = file
    for responses in sorted(unclaimed, key=lambda responses: responses.ended_at):
        if responses.name.is_import:  # no file became the batch that the answers come from
            lost.spare.append((responses, None))
            continue
        if (asked := responses.name.asked_live) is not None:
            lost.live += [(responses, by_id[asked[0]])] if asked[0] in by_id else []
            continue
        files = by_content[responses.digests.tobytes()]
        free = [f for f in files if f.state is FileState.UNRESOLVED and f.attempt in (0, responses.attempt)]
        if not free:
            lost.spare.append((responses, files[-1] if files else None))
            continue
        file = free[-1]
        file.state, file.attempt, file.responses = FileState.COLLECTED, responses.attempt, responses
        file.why = f"the stored responses of {responses.batch_id} answer its requests"


def _set_aside(storage: Storage, lost: LostPipeline, answered: Mapping[ResponseName, FoundResponses]) -> None:
    """Find the files in doubt that were given up before they were sent, and mark them as superseded.

    Apart from refreshes, no request is ever in two files that were sent or may still be sent. So consider a file
    without a receipt or responses. If it shares a request with a file that was sent, answered or written later,
    and that file is not of an earlier refresh or attempt, then the first file was set aside or never registered.
    It must not be sent.
    """
    pipeline, refreshes = lost.submissions[0].pipeline, _refreshes(lost)
    of_responses: Refreshes = {}
    for file in lost.files:
        of_responses[ResponseName.of_refusal(file.id)] = refreshes[file.id]
        if file.responses is not None:
            of_responses[file.responses.name] = refreshes[file.id]
    files, all_responses = read_responses(storage, pipeline)
    is_other = np.array([name.is_never_followed for name in files.names], bool)
    if is_other.any():
        all_responses = all_responses.at(~is_other[files.number_of(all_responses.row)])
    of_refreshes: dict[float, Outcomes] = {}

    def outcomes_for(refresh: float) -> Outcomes:
        if refresh not in of_refreshes:
            of_refreshes[refresh] = in_force(all_responses, files, of_responses, refresh or None)
        return of_refreshes[refresh]

    sent_digests: dict[tuple[float, int], DigestSet] = defaultdict(DigestSet)
    for responses in answered.values():
        sent_digests[of_responses.get(responses.name, 0.0), responses.attempt].add(responses.digests)
    for file in lost.files:
        if file.state.sent:
            sent_digests[refreshes[file.id], file.attempt].add(file.digests)
    in_doubt = [file for file in lost.files if file.state is FileState.UNRESOLVED]
    by_id = {file.file_id: file for file in lost.files}
    for file in in_doubt:
        if file.attempt == 0:  # no manifest lists the files of retries and the halves of split files
            whole_id = file.file_id.whole
            whole = by_id.get(whole_id) if whole_id is not None else None
            earlier = outcomes_for(refreshes[file.id]).attempts(file.digests)
            file.attempt = whole.attempt if whole is not None else int(earlier.max(initial=0)) + 1
    for file in reversed([file for file in in_doubt if not file.part.was_sent]):
        whole_id = file.file_id.whole
        if whole_id in by_id and not all(half in by_id for half in whole_id.halves):
            file.state, file.why = FileState.SUPERSEDED, "its other half was never written"
            continue
        written = refreshes[file.id], file.attempt
        of_refresh, steps = outcomes_for(refreshes[file.id]), file.steps()
        outcomes = of_refresh.for_digests(file.digests)
        has_too_many = file.attempt > file.most_attempts and file.part.listed is None
        is_answered = outcomes.is_answered & (of_refresh.steps(file.digests) >= steps)
        is_settled = bool((is_answered | (outcomes.kind == FAILED)).any())
        later = (digests for order, digests in sent_digests.items() if order >= written)
        if has_too_many or is_settled or any(digests.contains(file.digests).any() for digests in later):
            file.state = FileState.SUPERSEDED
            file.why = "its requests were answered, or are in a file that was sent or written later"
        else:
            sent_digests[written].add(file.digests)


def _refreshes(lost: LostPipeline) -> dict[str, float]:
    """Return by file id the `fresh_after` of the newest refresh that wrote the file or waits on it, or 0.0."""
    refreshes = {file.id: 0.0 for file in lost.files}
    for submission in lost.submissions:
        if submission.fresh_after is not None:
            for file_id in lost.waits[submission.id]:
                refreshes[file_id] = max(refreshes[file_id], submission.fresh_after)
    return refreshes
