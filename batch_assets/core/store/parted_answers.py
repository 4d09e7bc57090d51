"""The responses to the requests of many rows, part by part, so that memory does not grow with the rows.

A part has the digests that begin with the same bits.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parted_records import PartedRecords
from batch_assets.core.io.storage import Storage
from batch_assets.core.root import Root
from batch_assets.core.store.answer_index import AnswerIndex
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.outcomes import RESPONSE_COLUMNS, Responses, ordered, responses_of
from batch_assets.core.store.pipeline_outcomes import index_of_answers
from batch_assets.core.store.response_listing import response_versions, versions_digest
from batch_assets.core.store.responses import ResponseFacts, ResponseFiles, open_responses, reading_responses

# A part has about this many rows.
_PART_ROWS = 1 << 17
_MOST_BITS = 16
_RESPONSE = np.dtype([("digest", "S16"), ("row", np.int32), ("packed", np.int32)])


class Parts:
    """A division of digests into parts by their first bits.

    Args:
        rows: The number of rows whose digests are divided.

    Attributes:
        count: The number of parts, a power of two.
    """

    def __init__(self, rows: int) -> None:
        self._bits = min(_MOST_BITS, max(0, rows - 1).bit_length() - (_PART_ROWS - 1).bit_length())
        self._bits = max(0, self._bits)
        self.count = 1 << self._bits

    def of(self, digests: Digests) -> NDArray[np.uint16]:
        """Return the part of each digest: uint16, shape (n,).

        Args:
            digests: S16, shape (n,).
        """
        first = np.ascontiguousarray(digests).view(">u2").reshape(-1, 8)[:, 0].astype(np.uint32)
        return (first >> np.uint32(_MOST_BITS - self._bits)).astype(np.uint16)


class PartedAnswers(Protocol):
    """The responses of a pipeline, part by part.

    Attributes:
        files: The response files whose rows the responses name. They are complete after the last part.
        versions: The `versions_digest` of the response files, as they were listed before they were read; `None` if
            one of them has just been removed or replaced.
    """

    files: ResponseFiles
    versions: str | None

    def of_part(self, number: int, digests: Digests) -> Responses:
        """Return the responses to the requests of a part, and perhaps to others of the same part.

        Args:
            number: The number of the part.
            digests: The digests of the requests, in any order: S16, shape (n,).

        Returns:
            Sorted by digest and then by row number.
        """
        ...


def parted_answers(root: Root, pipeline: str, rows: int, parts: Parts) -> PartedAnswers:
    """Read the responses of a pipeline, or bring its index up to date. See `open_answers`.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        rows: The number of rows that will be asked for.
        parts: The parts.

    Raises:
        DamagedFileError: When a file is not a response file.
        StorageError: When the folder for scratch files is full.
    """
    index = index_of_answers(root, pipeline, rows)
    return _Indexed(index) if index is not None else _Read(root.storage, pipeline, parts)


class _Indexed:
    """Responses that are looked up in the index. See `PartedAnswers`."""

    def __init__(self, index: AnswerIndex) -> None:
        self._index, self.files = index, index.files
        self.versions = index.versions_digest()

    def of_part(self, number: int, digests: Digests) -> Responses:
        return self._index.responses_to(np.unique(digests))


class _Read:
    """Responses that are read from all response files, each of which is opened once. See `PartedAnswers`."""

    def __init__(self, storage: Storage, pipeline: str, parts: Parts) -> None:
        self._records = PartedRecords(_RESPONSE, parts.count)
        listed = response_versions(storage, pipeline)
        self.versions: str | None = versions_digest(listed)
        facts, starts = list[ResponseFacts](), [0]
        names = [*filter(None, map(ResponseName.parse, sorted(listed)))]
        for name, opened in storage.each(partial(open_responses, storage, pipeline), names):
            with opened as file, reading_responses(storage, pipeline, name):
                facts.append(ResponseFacts.of(name, file))
                responses = responses_of(file.read(columns=RESPONSE_COLUMNS, use_threads=False))
            records = np.empty(len(responses.digests), _RESPONSE)
            records["digest"], records["packed"] = responses.digests, responses.packed
            records["row"] = responses.row + starts[-1]
            self._records.add(records, parts.of(responses.digests))
            starts.append(starts[-1] + sum(rows for rows, _ in facts[-1].row_groups))
            del responses, records
            release_memory()
        self.files = ResponseFiles(storage, pipeline, facts)
        # Rows were numbered in the order of reading. The files are in the order in which their batches ended.
        self._starts = np.array(starts[:-1], np.int64)
        first_rows = {name: self.files.first_row(number) for number, name in enumerate(self.files.names)}
        self._shift = np.array([first_rows[one.name] for one in facts], np.int64) - self._starts

    def of_part(self, number: int, digests: Digests) -> Responses:
        records = self._records.of_part(number)
        row = records["row"]
        if self._shift.any():
            row = (row + self._shift[np.searchsorted(self._starts, row, side="right") - 1]).astype(np.int32)
        return ordered(Responses(records["digest"], row, records["packed"]))
