"""Find answers that are not in force, because their request has another answer, or that others have followed."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpKind
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.root import Root
from batch_assets.core.spend.amounts import CONTINUED, IN_FORCE, PAID_TWICE, REPLACED, SUPERSEDED
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.outcomes import in_force, read_responses
from batch_assets.core.store.packed_responses import CANCELED, SUCCEEDED, Responses
from batch_assets.core.store.refreshes import refreshes_of
from batch_assets.core.store.responses import ResponseFiles


def fates_of(root: Root, pipeline: str) -> dict[str, NDArray[np.int8]]:
    """Return what became of the answers in each response file that has one that is not just in force.

    Args:
        root: The root.
        pipeline: The pipeline.

    Returns:
        By the name of the file: IN_FORCE, SUPERSEDED, PAID_TWICE, CONTINUED or REPLACED for each row; int8, shape
        (rows,).
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
    if answers.step.any():
        _mark_followed(fate, answers, files)
    fates: dict[str, NDArray[np.int8]] = {}
    for each in np.unique(number[fate != IN_FORCE]).tolist():
        of_file = np.zeros(sum(files.group_rows[each]), np.int8)
        its = number == each
        of_file[answers.row[its] - files.first_row(each)] = fate[its]
        fates[str(files.names[each])] = of_file
    return fates


def _mark_followed(fate: NDArray[np.int8], answers: Responses, files: ResponseFiles) -> None:
    """Mark the answers in force that others continued or replaced, by how the custom_ids of these count.

    An answer that was cut off and asked again stays IN_FORCE: its stop reason tells what it is.

    Args:
        fate: What became of the answers: int8, shape (n,). Changed in place.
        answers: See `_counting`; n of them.
        files: All response files.
    """
    counts, has_answer = np.zeros((len(fate), len(FollowUpKind)), np.int8), answers.step == 0
    number = files.number_of(answers.row)
    for each in np.unique(number[answers.step > 0]).tolist():
        table = files.read(each, ["custom_id", "result_type", "error_type"])
        its = number == each
        rows = answers.row[its] - files.first_row(each)
        counts[its] = counts_in(table["custom_id"])[rows]
        is_answer = pc.or_kleene(
            pc.equal(table["result_type"], ResultType.SUCCEEDED.value),
            pc.equal(table["error_type"], ErrorType.PRUNED.value),
        )
        has_answer[its] = pc.fill_null(is_answer, False).to_numpy()[rows]
    chosen = np.flatnonzero((fate == IN_FORCE) & has_answer)
    chosen = chosen[np.lexsort((answers.step[chosen], answers.digests[chosen]))]
    before, after = chosen[:-1], chosen[1:]
    is_next = (answers.digests[before] == answers.digests[after]) & (
        answers.step[before] + 1 == answers.step[after]
    )
    before, after = before[is_next], after[is_next]
    added = counts[after] - counts[before]
    fate[before[added[:, FollowUpKind.PAUSED] > 0]] = CONTINUED
    fate[before[added[:, FollowUpKind.INVALID] > 0]] = REPLACED


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
