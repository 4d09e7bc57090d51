"""Read the request index a first time: find the response to each row, and which rows share a request.

Rows and responses are divided by the first bits of their digests. One part of both is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.io.parted_records import PartedRecords
from batch_assets.core.io.slices import SLICE_ROWS, bounds_by_weight
from batch_assets.core.results.matches import MATCH, Matches
from batch_assets.core.root import Root
from batch_assets.core.store.chains import Chains, joined
from batch_assets.core.store.outcomes import Outcomes, Refreshes, Untried, in_force
from batch_assets.core.store.parted_answers import PartedAnswers, parted_answers
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, RequestIndex
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.store.responses import ResponseFiles, digest_array

# Reading responses in the dataset's order may load the same row groups again and again. If there would be more
# loads than this many times the number of row groups, the responses are first laid out on disk in that order.
_LOADS = 3
_ROW = np.dtype([("digest", "S16"), ("row", np.int32), ("left_out", np.bool_)])


@dataclass(frozen=True)
class SharedKeys:
    """Row keys of the first rows whose request other rows share.

    Attributes:
        numbers: The numbers of these rows, sorted; int32, shape (shared,).
        keys: Their row keys; strings, length `shared`.
    """

    numbers: NDArray[np.int32]
    keys: pa.Array

    def first_keys(self, first: NDArray[np.int32], is_first: NDArray[np.bool_]) -> pa.Array:
        """Return the key of the first row with each row's request.

        Args:
            first: The number of the first row that has each row's request; int32, shape (n,).
            is_first: Whether that is the row itself; bool, shape (n,).

        Returns:
            Strings of length n, null for first rows.
        """
        if len(self.numbers) == 0:
            return pa.nulls(len(first), pa.string())
        return self.keys.take(pa.array(np.searchsorted(self.numbers, first), mask=is_first))


@dataclass(frozen=True)
class Counted:
    """Which responses count.

    Attributes:
        refreshes: See `refreshes_of`.
        untried: See `untried_of`.
        fresh_after: See `in_force`.
    """

    refreshes: Refreshes
    untried: Untried
    fresh_after: float | None


@dataclass(frozen=True)
class Survey:
    """Facts about all rows, which have to be known before the first row is joined.

    Attributes:
        files: The files of the responses.
        versions: The `versions_digest` of the pipeline's response files, see `PartedAnswers`.
        matches: What was found for each row.
        shared: The keys of the rows whose request other rows share.
        chains: The chains of follow-up requests; `None` if there are none.
    """

    files: ResponseFiles
    versions: str | None
    matches: Matches
    shared: SharedKeys
    chains: Chains | None

    def is_scattered(self, reader: ResponseReader) -> bool:
        """Whether reading responses in the dataset's order would load the same row groups again and again.

        Args:
            reader: The reader of the responses.
        """
        loads, groups = 0, set[int]()
        for matches in self.matches.ranges():
            for start in range(0, len(matches), SLICE_ROWS):
                for touched in _groups_by_slice(reader, matches["response"][start : start + SLICE_ROWS]):
                    loads += len(touched)
                    groups.update(touched)
        return loads > _LOADS * len(groups)


def survey(root: Root, pipeline: str, index: RequestIndex, key: str, counted: Counted) -> Survey:
    """Read the digests of an index and the responses of its pipeline once.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        index: The index of the submission.
        key: The name of the column with the row key.
        counted: Which responses count.

    Raises:
        DamagedFileError: When a file cannot be read.
        StorageError: When the folder for scratch files is full.
    """
    parts = Parts(index.rows)
    answers = parted_answers(root, pipeline, index.rows, parts)
    rows = _rows_of(index, parts)
    matches, sharing, chains = Matches(index.rows), [np.empty(0, np.int32)], list[Chains]()
    for number in range(parts.count):
        of_part = rows.of_part(number)
        position, found, of_requests = _matched(of_part, number, answers, counted)
        chains += [of_requests] if of_requests is not None else []
        matches.add(of_part["row"][position >= 0], found)
        sharing.append(np.unique(found["first"][found["first"] != of_part["row"][position >= 0]]))
    shared = _keys_of(index, key, np.unique(np.concatenate(sharing)))
    return Survey(answers.files, answers.versions, matches, shared, joined(chains))


def _rows_of(index: RequestIndex, parts: Parts) -> PartedRecords:
    """Divide the rows that have a digest into parts. Those of a part are in the order of the index."""
    rows, start = PartedRecords(_ROW, parts.count), 0
    for slice_ in index.slices([DIGEST, LEFT_OUT] if index.is_limited else [DIGEST]):
        number = np.arange(start, start + len(slice_), dtype=np.int32)
        start += len(slice_)
        if slice_.column(0).null_count:
            number = number[slice_.column(0).is_valid().to_numpy(zero_copy_only=False)]
            slice_ = slice_.filter(slice_.column(0).is_valid())
        records = np.zeros(len(slice_), _ROW)
        records["digest"], records["row"] = digest_array(slice_.column(0)), number
        if index.is_limited:
            records["left_out"] = slice_.column(1).to_numpy(zero_copy_only=False)
        rows.add(records, parts.of(records["digest"]))
    return rows


def _matched(
    rows: NDArray[Any], number: int, answers: PartedAnswers, counted: Counted
) -> tuple[NDArray[np.int64], NDArray[Any], Chains | None]:
    """Match the rows of a part with the responses.

    Args:
        rows: The rows, in the order of the index; _ROW, shape (n,).
        number: The number of the part.
        answers: The responses.
        counted: Which of them count.

    Returns:
        The position of each row's response, -1 without one (int64, shape (n,)), what was found for the rows with
        one (MATCH, shape (m,)), and the chains of follow-up requests.
    """
    digests = np.ascontiguousarray(rows["digest"])
    responses = answers.of_part(number, digests)
    outcomes = in_force(responses, answers.files, counted.refreshes, untried=counted.untried)
    all_positions = outcomes.position(digests)
    has_response = all_positions >= 0
    rows, digests, position = rows[has_response], digests[has_response], all_positions[has_response]
    found = np.empty(len(rows), MATCH)
    found["response"], found["kind"], found["attempt"] = outcomes.at(position)
    # A refresh counts its own responses, the table shows what is in force. Both are from the same files.
    counting = found["response"], found["kind"], found["attempt"]
    if counted.fresh_after is not None:
        fresh = in_force(responses, answers.files, counted.refreshes, counted.fresh_after, counted.untried)
        counting = fresh.for_digests(digests)
    found["counting"], found["counting_kind"], found["counting_attempt"] = counting
    found["first"] = _first_rows(outcomes, rows["row"], position)
    is_left_out = np.zeros(len(outcomes.digests), bool)
    is_left_out[position[rows["left_out"]]] = True
    found["left_out"] = is_left_out[position]
    return all_positions, found, outcomes.chains


def _first_rows(outcomes: Outcomes, row: NDArray[np.int32], position: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the number of the first row that has each row's response; int32, shape (n,).

    Args:
        outcomes: The responses in force.
        row: The numbers of the rows, sorted; int32, shape (n,).
        position: The position of each row's response; int64, shape (n,).
    """
    first_rows = np.empty(len(outcomes.digests), np.int32)
    first_rows[position[::-1]] = row[::-1]  # of several values for a position, the last one stays
    return first_rows[position]


def _groups_by_slice(reader: ResponseReader, row: NDArray[np.int32]) -> Iterator[list[int]]:
    """Yield the row groups that each slice of the join will read.

    Args:
        reader: The reader of the responses.
        row: The row numbers of the responses of some consecutive rows, -1 without one; int32, shape (n,).
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
