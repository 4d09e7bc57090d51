"""Find answers that are not in force, because their request has another answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.root import Root
from batch_assets.core.spend.amounts import IN_FORCE, PAID_TWICE, SUPERSEDED
from batch_assets.core.store.outcomes import in_force, read_responses
from batch_assets.core.store.packed_responses import CANCELED, SUCCEEDED, Responses
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
    answers = responses.at((responses.kind == SUCCEEDED) | (responses.kind == CANCELED))
    of_files = np.array([refreshes.get(name, 0.0) for name in files.names], np.float64)
    number, in_force_row = files.number_of(answers.row), outcomes.for_digests(answers.digests).row
    refresh = of_files[number]
    counting = _counting(answers, refresh, in_force_row)
    newest = np.maximum(refresh[counting], of_files[files.number_of(in_force_row)])
    is_surplus = (counting != np.arange(len(counting))) | (newest > refresh)
    fate = np.where(newest > refresh, SUPERSEDED, np.where(is_surplus, PAID_TWICE, IN_FORCE)).astype(np.int8)
    fate[answers.row == in_force_row] = IN_FORCE
    fates: dict[str, NDArray[np.int8]] = {}
    for each in np.unique(number[fate != IN_FORCE]).tolist():
        of_file = np.zeros(sum(files.group_rows[each]), np.int8)
        its = number == each
        of_file[answers.row[its] - files.first_row(each)] = fate[its]
        fates[str(files.names[each])] = of_file
    return fates


def _counting(
    answers: Responses, refresh: NDArray[np.float64], in_force_row: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the position of the answer that counts among those of the same request and step of its chain.

    It is the one in force, or for other steps the last one of the newest refresh. An answer that was pruned still
    counts, so that what was paid for it stays what it was.

    Args:
        answers: All answers to some requests, n of them, sorted by digest and then by the end of their batch.
            Pruned ones count as canceled, as do those that were canceled, which cost nothing.
        refresh: `fresh_after` of the refresh of each one, 0 without a refresh: float64, shape (n,).
        in_force_row: The row number of the answer in force of each one's request: int64, shape (n,).

    Returns:
        intp, shape (n,).
    """
    is_first = np.append(True, answers.digests[1:] != answers.digests[:-1])[: len(answers.digests)]
    request, position = np.cumsum(is_first) - 1, np.arange(len(is_first))
    is_in_force = answers.row == in_force_row
    order = np.lexsort((position, answers.kind == SUCCEEDED, refresh, is_in_force, answers.step, request))
    last = np.append(
        (request[order][1:] != request[order][:-1]) | (answers.step[order][1:] != answers.step[order][:-1]), True
    )[: len(order)]
    group = np.cumsum(last) - last
    counting: NDArray[np.intp] = np.empty(len(order), np.intp)
    counting[order] = order[last][group]
    return counting
