"""Count how many of a submission's requests have an outcome."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.ledger.records import Batch, RequestFile


def requests_done(files: Iterable[RequestFile], batches: Iterable[Batch]) -> tuple[int, int]:
    """Return (number of requests whose outcome the API has reported, number of all requests).

    The API may report on a batch only once it has ended.

    Args:
        files: Request files. Those that were set aside, refused or canceled do not count.
        batches: The batches of these files. Only open ones matter.
    """
    running = [batch for batch in batches if batch.state.unended]
    processing = {batch.file_id: batch.count_map.get("processing", 0) for batch in running}
    wanted = [file for file in files if not file.state.let_go]
    sent = [file for file in wanted if file.state.sent]
    done = sum(file.requests - processing.get(file.id, 0) for file in sent)
    return done, sum(file.requests for file in wanted)
