"""What a join reads, as a digest: while it is the same, so is the table.

A complete table depends on its submission, the response files, and what the ledger says about refreshes and
canceled batches. One with failed rows also depends on the request files in flight, which may bring their answers.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

from batch_assets.core.answers.result_columns import VERSION
from batch_assets.core.ledger.records import Submission
from batch_assets.core.store.outcomes import Refreshes, Untried


def join_inputs(versions: str, submission: Submission, refreshes: Refreshes, untried: Untried) -> str:
    """Return a digest of all that a table depends on, if no code of the pipeline makes its columns.

    Args:
        versions: The `versions_digest` of the response files, from before they were read. A file that arrives in
            between then counts as new next time.
        submission: The submission.
        refreshes: See `refreshes_of`.
        untried: See `untried_of`.
    """
    inputs = [
        version("batch-assets"),
        VERSION,
        submission.id,
        submission.canceled_at,
        versions,
        sorted((str(name), fresh_after) for name, fresh_after in refreshes.items()),
        sorted((str(name), attempts) for name, attempts in untried.items()),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
