"""The columns that change with a state, so that a misspelled column is found before it is written.

Ids and states are left out: `moves.move` writes them.
"""

from __future__ import annotations

from typing import TypedDict

from batch_assets.core.ledger.states import HoldReason


class FileColumns(TypedDict, total=False):
    """Columns of `request_file`."""

    submission_id: str
    pipeline: str
    partition: str
    name: str
    requests: int
    bytes: int
    attempt: int
    not_before: float
    error: str | None
    batch_id: str | None
    collected_seq: int | None
    headers: str | None
    checksum: str | None
    hold: HoldReason | None
    worst_case: int | None
    stub: str | None
    breakpoint: str | None
    follows: bool | None


class BatchColumns(TypedDict, total=False):
    """Columns of `batch`."""

    file_id: str | None
    pipeline: str | None
    provisional: bool
    paid_twice: bool
    replied: bool | None
    processing_status: str
    requests: int
    counts: str
    created_at: float | None
    expires_at: float | None
    ended_at: float | None
    submitted_at: float | None
    canceled_at: float | None
    missing_since: float | None
    results_refused: bool
    next_poll_at: float
    downloads: int
    failing_since: float | None
    next_download_at: float
    next_delete_at: float
    live_of: str


class SubmissionColumns(TypedDict, total=False):
    """Columns of `submission`. The times of later states are left out: `moves.move` writes them.

    `seq` is given only for a submission that is older than others in the ledger. Usually the database counts it.
    """

    seq: int
    pipeline: str
    partition: str
    created_at: float
    rows: int
    rejected: int
    requests: int
    written: int
    headers: str
    max_attempts: int
    follow_ups: str | None
    max_requests: int
    max_bytes: int
    joined_seq: int | None
    joined_at: float | None
    counts: str | None
    unusable: int | None
    examined: str | None
    joined_inputs: str | None
    joined_table: str | None
    held_back: bool
    ask_again: int
    announced_at: float | None
    fresh_after: float | None
    left_out: int
    estimate: str | None
    pilot: str | None
    superseded_at: float | None
    history_removed_at: float | None
