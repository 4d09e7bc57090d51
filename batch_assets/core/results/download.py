"""Download an ended batch's results into a file, or find out why there will never be any."""

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
from batch_assets.core.remedies import CancelBatch
from batch_assets.core.root import Root

# A whole line is kept in memory. An answer of a million tokens is a tenth of this limit.
_LINE_BYTES = 64 << 20
# A download may have each line twice and some of someone else. With more lines it is no answer to our requests.
_SPARE_LINES = 1000


@dataclass(frozen=True)
class LeasedBatch:
    """A batch that only this process works on.

    Attributes:
        root: The root.
        batch: The batch.
        file: The request file that it answers.
        lease: The lease on the batch.
    """

    root: Root
    batch: Batch
    file: RequestFile
    lease: Lease

    def disprove(self, why: str) -> None:
        """Record that the batch, which was matched by its count alone, belongs to someone else."""
        with self.root.ledger.write() as tx:
            self.lease.confirm(tx)
            batches.disprove(tx, self.batch.id, why)


@dataclass(frozen=True)
class Download:
    """The outcome of a download.

    Attributes:
        bytes: The number of bytes downloaded.
        gone: Why there are no results and never will be; `None` if they were downloaded.
    """

    bytes: int = 0
    gone: str | None = None


def download(leased: LeasedBatch, raw: Path, on_bytes: Callable[[int], None]) -> Download:
    """Download the results of a batch.

    Args:
        leased: The batch.
        raw: The file to write them to, as the API sends them.
        on_bytes: Called with the number of bytes downloaded so far.

    Raises:
        ResultsError: When they cannot be downloaded now. A later run tries again.
    """
    batch_id = leased.batch.id
    try:
        return _stream(leased, raw, on_bytes)
    except (NotFoundError, RefusedError) as error:
        if isinstance(error, RefusedError) and _says_nothing_of_the_batch(error):
            raise ResultsError(f"results of {batch_id}: {error}. A later run downloads them again") from None
        if (reason := _why_gone(leased, error)) is not None:
            return Download(gone=reason)
        raise ResultsError(
            f"results of {batch_id}: {error}. {workspace.WHOSE_KEY} A later run downloads them again",
            remedy=CancelBatch(batch_id, leased.file.pipeline),
        ) from None
    except ApiError as error:
        raise ResultsError(f"results of {batch_id}: {error}; the next run downloads them again") from None


def _says_nothing_of_the_batch(refused: RefusedError) -> bool:
    """Whether a refusal is about the key, the account or the base URL, so that the results may well exist."""
    # The API may answer 403 for the results of a batch of another workspace, and of a deleted one.
    return refused.waits or (refused.stop and refused.status != 403)


def _stream(leased: LeasedBatch, raw: Path, on_bytes: Callable[[int], None]) -> Download:
    size = unended = lines = 0
    most_lines = _SPARE_LINES + 2 * leased.file.requests
    with leased.root.api.results(leased.batch.id) as chunks, raw.open("wb") as out:
        for chunk in chunks:
            leased.lease.check()
            lines += chunk.count(b"\n")
            if lines > most_lines:
                raise ResultsError(
                    f"results of {leased.batch.id}: there are more than {most_lines:,} lines for "
                    f"{leased.file.requests:,} requests; the next run downloads them again"
                )
            unended = len(chunk) - 1 - last if (last := chunk.rfind(b"\n")) >= 0 else unended + len(chunk)
            if unended > _LINE_BYTES:
                raise ResultsError(
                    f"results of {leased.batch.id}: a line is longer than {_LINE_BYTES >> 20} MiB, "
                    "longer than any answer; the next run downloads them again"
                )
            out.write(chunk)
            size += len(chunk)
            on_bytes(size)
    return Download(size)


def _why_gone(leased: LeasedBatch, error: NotFoundError | RefusedError) -> str | None:
    """Return why the results no longer exist; `None` if they may exist.

    Args:
        leased: The batch.
        error: The API's answer to the download.

    Raises:
        ResultsError: When the batch was never ours.
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
    """Return why there are no results if the API knows neither them nor the batch; `None` if that proves nothing.

    A key of another workspace gets the same answer. It proves something only about a batch whose results have
    expired anyway, and about a batch that was matched by its count alone.

    Raises:
        ResultsError: When the batch belonged to someone else, who has deleted it.
    """
    batch = leased.batch
    if not batch.provisional:
        reason = f"the API no longer has the batch {batch.id}, and 29 days have passed"
        return reason if _have_expired(leased) else None
    try:
        is_ours = workspace.is_ours(leased.root, workspace.current_intent(leased.root, leased.file.id))
    except ApiError:
        return None
    if not is_ours:
        return None
    leased.disprove(f"adopted on its count, ended, and 404 since: {batch.id} was deleted")
    raise ResultsError(
        f"{batch.id}, adopted on its count alone, was deleted: {leased.file.id} is reconciled again"
    ) from None


def _have_expired(leased: LeasedBatch) -> bool:
    end = results_end(leased.batch)
    with leased.root.ledger.read() as tx:
        return end is not None and tx.now >= end
