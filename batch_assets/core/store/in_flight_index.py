"""Requests in flight in the index: which of them are in which request file, when there are many files.

The content of a request file that is in flight never changes. So what the index has of one is right as long as it
is of the content that the ledger has the checksum of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.ledger import answer_index, index_removal
from batch_assets.core.ledger.answer_index import ROWS_AT_ONCE
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests


class InFlightIndex:
    """The digests of request files in the index. Files that it does not have are added.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        files: The request files.
        digests_of: Returns all digests of a request file; `None` if they are not all known.

    Attributes:
        left: The files whose digests are not all known. They are not in the index.
    """

    def __init__(
        self,
        root: Root,
        pipeline: str,
        files: list[RequestFile],
        digests_of: Callable[[RequestFile], Digests | None],
    ) -> None:
        self._root = root
        self.left: list[RequestFile] = []
        with root.ledger.read() as tx:
            known, lost = answer_index.request_file_numbers(tx, pipeline)
        if lost:
            with root.ledger.write(pipeline) as tx:
                index_removal.retire(tx, lost)
        self._file_of: dict[int, RequestFile] = {}
        unknown: list[RequestFile] = []
        for file in files:
            number, version = known.get(file.id, (0, None))
            if version == _version(file):
                self._file_of[number] = file
            else:
                unknown.append(file)
        for file, digests in root.storage.each(digests_of, unknown):
            if digests is None:
                self.left.append(file)
            else:
                self._file_of[_add(root, file, digests)] = file
        self._requested: set[int] = set()

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each digest is in one of the files: bool, shape (n,). Marks the files in `requested`.

        Args:
            digests: S16, shape (n,).
        """
        with self._root.ledger.read() as tx:
            position, number = answer_index.find_asked(tx, digests).T
        is_ours = np.isin(number, np.array([*self._file_of], np.int64))
        self._requested.update(number[is_ours].tolist())
        is_in = np.zeros(len(digests), dtype=bool)
        is_in[position[is_ours]] = True
        return is_in

    @property
    def requested(self) -> list[RequestFile]:
        """The files with a digest that `contains` was called with."""
        return [file for number, file in self._file_of.items() if number in self._requested]


def retire_settled(root: Root, pipeline: str) -> None:
    """Stop to use what the index has of request files that are not in flight any more."""
    with root.ledger.read() as tx:
        settled = index_removal.settled(tx, pipeline)
    if settled:
        with root.ledger.write(pipeline) as tx:
            index_removal.retire(tx, settled)


def _version(file: RequestFile) -> str:
    """Return which content of a request file the ledger knows."""
    return file.checksum or f"{file.bytes} bytes, {file.requests} requests"


def _add(root: Root, file: RequestFile, digests: Digests) -> int:
    """Add a request file, a few requests at a time so that no other process waits long for the ledger."""
    ordered = np.unique(digests)
    number, start = None, 0
    while number is None or start < len(ordered):
        with root.ledger.write(file.pipeline) as tx:
            if number is None:
                number = answer_index.begin(
                    tx, file.pipeline, file.id, _version(file), is_response=False, digests=ordered
                )
            end = start + ROWS_AT_ONCE
            answer_index.add_asked(tx, number, ordered[start:end])
            if end >= len(ordered):
                answer_index.complete(tx, {number: len(ordered)})
            start = end
    return number
