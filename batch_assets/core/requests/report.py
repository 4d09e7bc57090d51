"""The options and the report of one run of the requests stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.requests.estimate import Estimate


@dataclass
class RequestsReport:
    """Report of one run of the requests stage.

    Attributes:
        submission_id: The id of the submission.
        rows: The number of rows.
        rejected: The number of rejected rows.
        rendered: The number of rows that were rendered or rejected. The requests of the others are known from the
            last submission.
        requests: The number of distinct requests of all rows.
        written: The number of these requests that are to be submitted.
        reused: The number of these requests that were answered or given up before, and are left as they are.
        in_flight: The number of these requests in request files that are in flight.
        left_out: The number of these requests that would be submitted, but are beyond the limit.
        without_partition: The number of rows that belong to no partition, so to no submission: their value in
            `partitions.column` is null, not a date, or not a partition key.
        without_partition_examples: The first of these rows, as texts.
        files: The names of the request files written.
        bytes: The size of the HTTP bodies that they become.
        example: The params of one of the requests that are to be submitted, as JSON; `None` if there are none.
        estimate: What the requests that are to be submitted would cost; `None` if there are none.
        why_held: Why the requests are held until a user approves them; `None` if they are not.
        waits_for_pilot: Why requests wait for a pilot, which goes first; `None` if they do not.
        rest: What those beyond the limit would cost; `None` if there are none.
        mixed_columns: Columns that are text because of a few values, if their kind was inferred by this run.
        is_refresh: The run begins or continues a refresh: answers from before it did not count.
        is_unchanged: The dataset and the pipeline are as they were, so the submission in force remains, and no row
            was read.
    """

    submission_id: str
    rows: int = 0
    rejected: int = 0
    rendered: int = 0
    requests: int = 0
    written: int = 0
    reused: int = 0
    in_flight: int = 0
    left_out: int = 0
    without_partition: int = 0
    without_partition_examples: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    example: str | None = None
    estimate: Estimate | None = None
    rest: Estimate | None = None
    why_held: str | None = None
    waits_for_pilot: str | None = None
    mixed_columns: list[MixedColumn] = field(default_factory=list)
    is_refresh: bool = False
    is_unchanged: bool = False


@dataclass(frozen=True)
class AskAgain:
    """The options of a run: requests to send that would not be sent otherwise, and the limit on all requests.

    Attributes:
        retry_failed: Also send again the requests that were given up: those that failed for a lasting reason,
            used up their attempts, or whose results the API has archived.
        refresh: Also send requests that are answered. A refresh that has begun continues without this, see
            `fresh_after_for`.
        limit: Send at most this many requests, the first ones; `None` for all. It applies to each partition.
        accept_rendering: Also send requests of answered rows that render differently since an upgrade.
    """

    retry_failed: bool = False
    refresh: bool = False
    limit: int | None = None
    accept_rendering: bool = False

    @property
    def asks_for_more(self) -> bool:
        """Whether requests are sent again that are answered or given up."""
        return self.retry_failed or self.refresh


NOTHING_AGAIN = AskAgain()
