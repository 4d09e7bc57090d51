"""Find answers that are not in force, because their request has another answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.root import Root
from batch_assets.core.spend.amounts import PAID_TWICE, SUPERSEDED
from batch_assets.core.store.outcomes import in_force, not_in_force, read_responses
from batch_assets.core.store.refreshes import refreshes_of


def fates_of(root: Root, pipeline: str) -> dict[str, NDArray[np.int8]]:
    """Return what became of the answers in each response file that has one that is not in force.

    Args:
        root: The root.
        pipeline: The pipeline.

    Returns:
        By the name of the file: IN_FORCE, SUPERSEDED or PAID_TWICE for each row; int8, shape (rows,).
    """
    with root.ledger.read() as tx:
        refreshes = refreshes_of(tx, pipeline)
    files, responses = read_responses(root.storage, pipeline)
    outcomes = in_force(responses, files, refreshes)
    surplus = responses.at(not_in_force(responses, outcomes))
    of_files = np.array([refreshes.get(name, 0.0) for name in files.names], np.float64)
    number = files.number_of(surplus.row)
    is_newer = of_files[files.number_of(outcomes.for_digests(surplus.digests).row)] > of_files[number]
    fate = np.where(is_newer, SUPERSEDED, PAID_TWICE).astype(np.int8)
    fates: dict[str, NDArray[np.int8]] = {}
    for each in np.unique(number).tolist():
        of_file = np.zeros(sum(files.group_rows[each]), np.int8)
        its = number == each
        of_file[surplus.row[its] - files.first_row(each)] = fate[its]
        fates[str(files.names[each])] = of_file
    return fates
