"""The requests of a pilot, read from its request files, and whether some of them were canceled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.pilots import PilotState
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests, digests_of_tails
from batch_assets.core.store.packed_responses import CANCELED
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, open_answers
from batch_assets.core.store.refreshes import refreshes_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail


def requests_of_pilot(root: Root, state: PilotState) -> tuple[Digests, NDArray[np.float64]]:
    """Return the digests of a pilot's requests, sorted (S16), and the bytes of their lines (float64), shape (n,).

    Raises:
        FileNotFoundError: When a request file is lost.
        DamagedFileError: When a request file cannot be read.
    """
    files = state.collected_files
    lines = [line for file in files for line in StoredRequestFile.of(root.storage, file).lines()]
    sizes = np.array([len(line) for line in lines], np.float64)
    # What was sent again is in several files.
    digests, first = np.unique(digests_of_tails([own_tail(line) for line in lines]), return_index=True)
    return digests, sizes[first]


def is_canceled(root: Root, state: PilotState) -> bool:
    """Whether requests of a pilot that is not judged were canceled, so that a build sends them again.

    A pilot whose files cannot be read is not: whoever judges it reports that.
    """
    if state.pilot.verdict is not None or not state.collected_files:
        return False
    with root.ledger.read() as tx:
        submission = submissions.by_id(tx, state.pilot.submission_id)
        refreshes = refreshes_of(tx, state.pilot.pipeline)
    try:
        digests, _ = requests_of_pilot(root, state)
    except (FileNotFoundError, DamagedFileError):
        return False
    stored = open_answers(root, state.pilot.pipeline, len(digests))
    outcomes = PipelineOutcomes(stored, refreshes, submission.fresh_after).for_digests(digests)
    return bool((outcomes.is_known & (outcomes.kind == CANCELED)).any())
