"""Count how many of a submission's requests are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.planning.snapshot import Snapshot


def requests_answered(snapshots: Iterable[Snapshot]) -> tuple[int, int]:
    """Return (number of distinct requests that are answered, number of those that rows have waited for).

    A request counts once, however often it is sent, and one that failed, expired or was canceled is not answered.
    Nor is one whose answer is followed by another request that has no answer yet. Requests that were answered
    before the submission was built do not count. The API may report on a batch only once it has ended.

    Args:
        snapshots: The submissions.
    """
    answered = total = 0
    for snapshot in snapshots:
        submission = snapshot.submission
        others = (file for file in snapshot.files if file.submission_id != submission.id and not file.state.let_go)
        # Files of others may also have requests of other partitions.
        wanted = min(submission.written + sum(file.requests for file in others), submission.requests)
        by_batches: Counter[str | None] = Counter()
        for batch in snapshot.batches:
            by_batches[batch.file_id] += batch.count_map.get(ResultType.SUCCEEDED, 0)
        live = sum(max(0, number - by_batches[id_]) for id_, number in snapshot.rescue.answered.items())
        followed = {file.id: file for file in snapshot.files if file.follows}
        succeeded = sum(number for id_, number in by_batches.items() if id_ not in followed)
        # What a follow-up brings takes the place of an answer that counts already.
        waiting = sum(
            max(0, file.requests - by_batches[file.id]) for file in followed.values() if file.state.in_flight
        )
        most = wanted
        if submission.follow_ups is not None and submission.final_at is None and submission.count_map:
            # The last join has found out which answers are followed. Batches that it did not have may bring more.
            joined = submission.joined_seq or 0
            since = [file for file in snapshot.files if file.collected_seq is None or file.collected_seq > joined]
            rows = submission.count_map.get(ResultType.SUCCEEDED, 0)
            more = rows + live + sum(by_batches[file.id] for file in since)
            most = min(more, wanted - submission.ask_again)
        answered += max(0, min(succeeded + live - waiting, most))
        total += wanted
    return answered, total
