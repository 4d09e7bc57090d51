"""Read the request index a first time: which rows share a request, and how to read the responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.io.slices import bounds_by_weight
from batch_assets.core.store.outcomes import Outcomes
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, RequestIndex
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.store.responses import digest_array

# Reading responses in the dataset's order may load the same row groups again and again. If there would be more
# loads than this many times the number of row groups, the responses are first laid out on disk in that order.
_LOADS = 3


@dataclass(frozen=True)
class SharedKeys:
    """Row keys of the first rows whose request other rows share.

    Attributes:
        numbers: The numbers of these rows, sorted; int32, shape (shared,).
        keys: Their row keys; strings, length `shared`.
    """

    numbers: NDArray[np.int32]
    keys: pa.Array

    def first_keys(self, first: NDArray[np.int64], is_first: NDArray[np.bool_]) -> pa.Array:
        """Return the key of the first row with each row's request.

        Args:
            first: The number of the first row that has each row's request; int64, shape (n,).
            is_first: Whether that is the row itself; bool, shape (n,).

        Returns:
            Strings of length n, null for first rows.
        """
        if len(self.numbers) == 0:
            return pa.nulls(len(first), pa.string())
        return self.keys.take(pa.array(np.searchsorted(self.numbers, first), mask=is_first))


@dataclass(frozen=True)
class Survey:
    """Facts about all rows, which have to be known before the first row is joined.

    Attributes:
        first_rows: For each response in force, the number of the first row that has it, -1 without one; int32,
            shape (responses,).
        left_out: For each response in force, whether a limit left its request out of the submission; bool, shape
            (responses,); `None` without a limit.
        shared: The keys of the rows whose request other rows share.
        is_scattered: Whether reading responses in the dataset's order would load the same row groups again and
            again.
    """

    first_rows: NDArray[np.int32]
    left_out: NDArray[np.bool_] | None
    shared: SharedKeys
    is_scattered: bool


def survey(index: RequestIndex, key: str, outcomes: Outcomes, reader: ResponseReader) -> Survey:
    """Read the digests of an index once, in slices.

    Args:
        index: The index of the submission.
        key: The name of the column with the row key.
        outcomes: The responses in force.
        reader: The reader of these responses.
    """
    first_rows = np.full(len(outcomes.digests), -1, dtype=np.int32)
    left_out = np.zeros(len(outcomes.digests), dtype=bool) if index.is_limited else None
    sharing: list[NDArray[np.int32]] = []
    loads, groups, start = 0, set[int](), 0
    for rows in index.slices([DIGEST] if left_out is None else [DIGEST, LEFT_OUT]):
        position = positions_of(outcomes, rows.column(0))
        answered = np.flatnonzero(position >= 0)
        distinct, first = np.unique(position[answered], return_index=True)
        unseen = first_rows[distinct] < 0
        first_rows[distinct[unseen]] = start + answered[first[unseen]]
        owner = first_rows[position[answered]]
        sharing.append(np.unique(owner[owner != start + answered]))
        for touched in _groups_by_slice(reader, outcomes.at(position).row):
            loads += len(touched)
            groups.update(touched)
        if left_out is not None:
            marked = rows.column(1).to_numpy(zero_copy_only=False)
            left_out[position[marked & (position >= 0)]] = True
        start += len(rows)
    shared = _keys_of(index, key, np.unique(np.concatenate([np.empty(0, np.int32), *sharing])))
    return Survey(first_rows, left_out, shared, loads > _LOADS * len(groups))


def _groups_by_slice(reader: ResponseReader, row: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the row groups that each slice of the join will read.

    Args:
        reader: The reader of the responses.
        row: The row numbers of the responses of some consecutive rows, -1 without one; int64, shape (n,).
    """
    groups = reader.groups_of(row)
    for start, end in bounds_by_weight(reader.sizes(row)):
        touched = np.unique(groups[start:end])
        yield touched[touched >= 0].tolist()


def _keys_of(index: RequestIndex, key: str, numbers: NDArray[np.int32]) -> SharedKeys:
    keys = [pa.array([], pa.string())]
    start = 0
    for rows in index.slices([key]) if len(numbers) else ():
        inside = numbers[(numbers >= start) & (numbers < start + len(rows))] - start
        keys.append(rows.column(0).take(pa.array(inside)).cast(pa.string()))
        start += len(rows)
    return SharedKeys(numbers, pa.concat_arrays(keys))


def response_rows(index: RequestIndex, outcomes: Outcomes) -> NDArray[np.int32]:
    """Return the row number of each row's response in force, -1 without one; int32, shape (rows,)."""
    response_row = np.full(index.rows, -1, dtype=np.int32)
    start = 0
    for rows in index.slices([DIGEST]):
        response_row[start : start + len(rows)] = outcomes.at(positions_of(outcomes, rows.column(0))).row
        start += len(rows)
    return response_row


def positions_of(outcomes: Outcomes, digests: pa.Array) -> NDArray[np.int64]:
    """Look up digests, some of which may be null.

    Args:
        outcomes: The outcomes to search.
        digests: The digests; binary, length n.

    Returns:
        The position of each digest in the outcomes, -1 for null and without a response; int64, shape (n,).
    """
    if digests.null_count == 0:
        return outcomes.position(digest_array(digests))
    position = np.full(len(digests), -1, dtype=np.int64)
    valid = digests.is_valid().to_numpy(zero_copy_only=False)
    position[valid] = outcomes.position(digest_array(digests.drop_null()))
    return position
