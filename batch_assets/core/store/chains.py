"""Chains of follow-up requests: what was sent for a request beside the answer in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.names import ResponseName
from batch_assets.core.store.packed_responses import CANCELED, PASSING, SUCCEEDED, Responses
from batch_assets.core.store.responses import ResponseFiles


@dataclass(frozen=True)
class Chains:
    """The answers in force of requests that have follow-ups. All arrays but the last two have the shape (n,).

    Attributes:
        row: The row number of each answer in force, sorted: int32.
        tried: How often the next follow-up was sent and failed: int32, 0 if it was not.
        may_pass: Whether its last failure may pass, or there is none: bool.
        attempts: How often requests of the chain were sent: int32.
        earlier_of: The row numbers of answers in force that follow others, once for each of these: int32, shape
            (m,), sorted.
        earlier: The row number of the other one: int32, shape (m,).
    """

    row: NDArray[np.int32]
    tried: NDArray[np.int32]
    may_pass: NDArray[np.bool_]
    attempts: NDArray[np.int32]
    earlier_of: NDArray[np.int32]
    earlier: NDArray[np.int32]

    def find(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the position of each answer in force: int64, shape (k,), -1 for one without follow-ups.

        Args:
            row: Row numbers, -1 for none: int64, shape (k,).
        """
        position = np.minimum(np.searchsorted(self.row, row), len(self.row) - 1)
        return np.where(self.row[position] == row, position, -1)

    def is_over(self, position: NDArray[np.int64], max_attempts: int) -> NDArray[np.bool_]:
        """Return which next follow-ups are not sent again, because they failed: bool, shape (k,).

        Args:
            position: What `find` returned: int64, shape (k,).
            max_attempts: The most attempts for a request.
        """
        over: NDArray[np.bool_] = (position >= 0) & (
            ~self.may_pass[position] | (self.tried[position] >= max_attempts)
        )
        return over

    def attempts_at(self, position: NDArray[np.int64], attempt: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return how often requests were sent so far: int32, shape (k,).

        Args:
            position: What `find` returned: int64, shape (k,).
            attempt: The attempts of the answers in force, for those without follow-ups: int32, shape (k,).
        """
        return np.where(position >= 0, self.attempts[position], attempt).astype(np.int32)


def joined(parts: list[Chains]) -> Chains | None:
    """Join the chains of different requests; `None` if there are none."""
    if not parts:
        return None
    order = np.argsort(np.concatenate([part.row for part in parts]), kind="stable")
    of_earlier = np.argsort(np.concatenate([part.earlier_of for part in parts]), kind="stable")
    return Chains(
        np.concatenate([part.row for part in parts])[order],
        np.concatenate([part.tried for part in parts])[order],
        np.concatenate([part.may_pass for part in parts])[order],
        np.concatenate([part.attempts for part in parts])[order],
        np.concatenate([part.earlier_of for part in parts])[of_earlier],
        np.concatenate([part.earlier for part in parts])[of_earlier],
    )


def chains_of(
    responses: Responses,
    is_first: NDArray[np.bool_],
    best: NDArray[np.intp],
    files: ResponseFiles,
    refreshes: NDArray[np.float64],
    untried: Mapping[ResponseName, int],
) -> Chains | None:
    """Find the chains among responses; `None` if there are none.

    Args:
        responses: Sorted by digest and then by the end of their batch, n of them.
        is_first: Whether each one is the first to its request: bool, shape (n,).
        best: The position of the response in force of each request: intp, shape (requests,).
        files: All response files.
        refreshes: float64, shape (number of files,): `fresh_after` of each file's refresh, 0 without a refresh.
        untried: See `untried_of`.
    """
    request = np.cumsum(is_first) - 1
    position = np.arange(len(request))
    in_force, step = best[request], responses.step
    has_succeeded = responses.kind == SUCCEEDED
    after = step - step[in_force]
    of_file = files.number_of(responses.row)
    # What failed for an answer of before a refresh says nothing about the answer of the refresh.
    is_later = position > in_force
    counts = is_later | (refreshes[of_file] >= refreshes[of_file[in_force]])
    # Nor does what was canceled before the submission waits for it, or pruned before this answer came.
    was_canceled = (responses.kind == CANCELED) & (~is_later | np.isin(of_file, _numbers(files, untried)))
    is_tried = has_succeeded[in_force] & ~has_succeeded & (after == 1) & counts & ~was_canceled
    is_earlier = has_succeeded[in_force] & has_succeeded & (after < 0) & (position < in_force)
    # The last attempt, and of each earlier step the answer that ended last: the one that was followed.
    last_tried = _last(np.flatnonzero(is_tried), request, responses.attempt)
    earlier = _last(np.flatnonzero(is_earlier), request * (int(step.max()) + 1) + step, position)
    chained = np.unique(np.concatenate([request[last_tried], request[earlier], request[best[step[best] > 0]]]))
    if not len(chained):  # all that follows is without the answer that it follows, which does not count
        return None
    tried = np.zeros(len(best), np.int32)
    may_pass = np.ones(len(best), bool)
    attempts = responses.attempt[best].astype(np.int32)
    base = responses.attempt[best[request[last_tried]]]
    tried[request[last_tried]] = np.maximum(responses.attempt[last_tried] - base, 1)
    may_pass[request[last_tried]] = responses.kind[last_tried] == PASSING
    attempts[request[last_tried]] = np.maximum(responses.attempt[last_tried], base)
    rows = responses.row[best[chained]]
    order, of_earlier = np.argsort(rows), responses.row[best[request[earlier]]]
    by_answer = np.argsort(of_earlier, kind="stable")
    return Chains(
        rows[order].astype(np.int32),
        tried[chained][order],
        may_pass[chained][order],
        attempts[chained][order],
        of_earlier[by_answer].astype(np.int32),
        responses.row[earlier][by_answer].astype(np.int32),
    )


def _last(chosen: NDArray[np.intp], group: NDArray[np.int64], rank: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return of each group the chosen response with the highest rank, the last one of equal ranks.

    Args:
        chosen: The positions of responses: intp, shape (m,), sorted.
        group: The group of every response: int64, shape (n,).
        rank: The rank of every response: any integer type, shape (n,).
    """
    order: NDArray[np.intp] = chosen[np.lexsort((rank[chosen], group[chosen]))]
    is_last = np.append(group[order][1:] != group[order][:-1], True)[: len(order)]
    last: NDArray[np.intp] = order[is_last]
    return last


def _numbers(files: ResponseFiles, names: Mapping[ResponseName, int]) -> list[int]:
    return [number for number, name in enumerate(files.names) if name in names]
