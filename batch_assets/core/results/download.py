"""An ended batch's results from the API into a file, or why there will never be any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batch_assets.core.api.errors import ApiError, NotFoundError, RefusedError
from batch_assets.core.batches import workspace
from batch_assets.core.errors import ResultsError
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.leases import Lease
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.root import Root

# A line is held in memory as a whole. An answer of a million tokens is a tenth of this.
_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class LeasedBatch:
    """A batch that only this process works on.

    Attributes:
        file: The request file that it answers.
        lease: The batch's, held.
    """

    root: Root
    batch: Batch
    file: RequestFile
    lease: Lease

    def disprove(self, why: str) -> None:
        """Records that the batch, which only its count made ours, is somebody else's."""
        with self.root.ledger.write() as tx:
            self.lease.confirm(tx)
            batches.disprove(tx, self.batch.id, why)


@dataclass(frozen=True)
class Download:
    """What a download brought.

    Attributes:
        bytes: How much.
        gone: Why there are no results and never will be; None when they were downloaded.
    """

    bytes: int = 0
    gone: str | None = None


def download(leased: LeasedBatch, raw: Path, on_bytes: Callable[[int], None]) -> Download:
    """Downloads the results of a batch.

    Args:
        leased: The batch.
        raw: Where to write them, as the API sends them.
        on_bytes: Called with the bytes downloaded so far.

    Raises:
        ResultsError: They cannot be downloaded now; a later run tries again.
    """
    batch_id = leased.batch.id
    try:
        return _stream(leased, raw, on_bytes)
    except (NotFoundError, RefusedError) as error:
        if (gone := _why_gone(leased, error)) is not None:
            return Download(gone=gone)
        raise ResultsError(
            f"results of {batch_id}: {error}. {workspace.WHOSE_KEY} A later run downloads them again. "
            f"{workspace.if_deleted(batch_id)}"
        ) from None
    except ApiError as error:
        raise ResultsError(f"results of {batch_id}: {error}; the next run downloads them again") from None


def _stream(leased: LeasedBatch, raw: Path, on_bytes: Callable[[int], None]) -> Download:
    size = unended = 0
    with leased.root.api.results(leased.batch.id) as chunks, raw.open("wb") as out:
        for chunk in chunks:
            leased.lease.check()
            unended = len(chunk) - 1 - last if (last := chunk.rfind(b"\n")) >= 0 else unended + len(chunk)
            if unended > _LINE_BYTES:
                raise ResultsError(
                    f"results of {leased.batch.id}: a line is longer than {_LINE_BYTES >> 20} MiB, "
                    "which no answer is; the next run downloads them again"
                )
            out.write(chunk)
            size += len(chunk)
            on_bytes(size)
    return Download(size)


def _why_gone(leased: LeasedBatch, error: NotFoundError | RefusedError) -> str | None:
    """Why there are no results any more; None when there may be.

    Args:
        leased: The batch.
        error: What the API answered when it was asked for its results.

    Raises:
        ResultsError: The batch was never ours.
    """
    batch_id = leased.batch.id
    try:
        archived_at = leased.root.api.retrieve(batch_id).archived_at
    except NotFoundError:
        return _why_unknown(leased) if isinstance(error, NotFoundError) else None
    except ApiError:
        return None
    if archived_at is None:
        return None
    return f"the API has archived the results of {batch_id}: 29 days have passed"


def _why_unknown(leased: LeasedBatch) -> str | None:
    """Why there are no results when the API knows neither them nor the batch; None when that proves nothing.

    A key of another workspace gets the same answer. It proves something only about a batch whose results have
    expired anyway, and about a batch that only its count made ours.

    Raises:
        ResultsError: The batch was somebody else's, who has deleted it.
    """
    batch = leased.batch
    if not batch.provisional:
        over = f"the API no longer has the batch {batch.id}, and 29 days have passed"
        return over if _have_expired(leased) else None
    try:
        is_ours = workspace.is_ours(leased.root, workspace.last_intent(leased.root, leased.file.id))
    except ApiError:
        return None
    if not is_ours:
        return None
    leased.disprove(f"adopted on its count, ended, and 404 since: {batch.id} was deleted")
    raise ResultsError(
        f"{batch.id}, taken for ours on its count alone, was deleted: {leased.file.id} is looked for again"
    ) from None


def _have_expired(leased: LeasedBatch) -> bool:
    end = results_end(leased.batch)
    with leased.root.ledger.read() as tx:
        return end is not None and tx.now >= end
