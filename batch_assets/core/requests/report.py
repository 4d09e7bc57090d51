"""What one run of the requests stage is to ask, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RequestsReport:
    """What one run of the stage did.

    Attributes:
        requests: distinct requests that the rows want.
        written: of these, the ones that are to be submitted.
        reused: of these, answered or given up before, and left as they are.
        in_flight: of these, in request files that are in flight.
        left_out: of these, to be submitted as well, but beyond the limit.
        without_partition: rows of the dataset that belong to no partition, so to no submission: their value in
            `partitions.column` is null, no date, or none that there is a partition for.
        files: names of the request files written.
        bytes: of the HTTP bodies they become.
        is_refresh: it begins a refresh or goes on with one: answers from before that did not count.
    """

    submission_id: str
    rows: int = 0
    rejected: int = 0
    requests: int = 0
    written: int = 0
    reused: int = 0
    in_flight: int = 0
    left_out: int = 0
    without_partition: int = 0
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    is_refresh: bool = False


@dataclass(frozen=True)
class AskAgain:
    """What is asked although the rule alone would not, and how much of all at most.

    Attributes:
        retry_failed: once more than before what was given up: requests that failed for a lasting reason, used up
            their attempts, or whose results the API has archived.
        refresh: what is answered, too. A refresh that has begun goes on without it, see `fresh_after_for`.
        limit: only so many of the requests that are to be submitted, the first ones; all if None. It counts in
            each partition.
    """

    retry_failed: bool = False
    refresh: bool = False
    limit: int | None = None


NOTHING_AGAIN = AskAgain()
