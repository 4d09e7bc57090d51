"""Rows whose answer was stored and is lost: the table names them, and the submission waits for their files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import lost_answers, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.request_index import RequestIndex
from batch_assets.core.store.responses import digest_array

MESSAGE = (
    "its answer was stored, and the file that held it is gone; nothing is sent for it. Restore the file from a "
    "backup, or give the batch up: its id is in the problems of the last run"
)
"""The error message of such a row."""


def open_index(root: Root, pipeline: str, partition: str, submission_id: str) -> RequestIndex:
    """Open the index of a submission.

    Raises:
        MissingFileError: When it is gone, or it is damaged and answers are lost. Lost answers are named too, with
            their remedy: without both, no build can tell what was answered.
        DamagedFileError: When it is damaged.
    """
    try:
        return RequestIndex(root.storage, pipeline, partition, submission_id)
    except (MissingFileError, DamagedFileError) as error:
        with root.ledger.read() as tx:
            lost = lost_answers.among(submissions.waited_on(tx, submission_id))
        if not lost:
            raise
        problems = ". ".join([str(error), *(file.error or "" for file in lost)])
        raise MissingFileError(problems, remedy=lost_answers.remedy(lost[0])) from None


class LostRows:
    """Finds the rows whose answer is lost. Nothing is read as long as no answer is.

    Args:
        root: The root.
        files_in_flight: The pipeline's request files in flight.
    """

    def __init__(self, root: Root, files_in_flight: Sequence[RequestFile]) -> None:
        self._root, self._files_in_flight = root, files_in_flight
        self._lost_files = lost_answers.among(files_in_flight)

    @cached_property
    def _lost(self) -> RequestsInFlight:
        return RequestsInFlight(self._root, self._lost_files, may_be_unknown=True)

    @cached_property
    def _others(self) -> RequestsInFlight:
        # The requests of a lost file are known from the index only, which has those of other files too.
        others = [file for file in self._files_in_flight if not lost_answers.is_lost(file)]
        return RequestsInFlight(self._root, others, may_be_unknown=True)

    @property
    def waited_on(self) -> list[str]:
        """Ids of the lost files that the rows wait on."""
        return self._lost.waited_on if self._lost_files else []

    def among(self, digests: pa.Array, is_waiting: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which rows wait for an answer that is lost; bool, shape (n,).

        Args:
            digests: The digest of each row's request, null for rejected rows; length n.
            is_waiting: Whether each row is pending and its request has no response that counts; bool, shape (n,).
        """
        is_lost: NDArray[np.bool_] = is_waiting & digests.is_valid().to_numpy(zero_copy_only=False)
        if not self._lost_files or not is_lost.any():
            return np.zeros(len(is_waiting), dtype=bool)
        waiting = digest_array(digests.filter(pa.array(is_lost)))
        is_in_lost_only = ~self._others.contains(waiting)
        is_in_lost_only[is_in_lost_only] = self._lost.contains(waiting[is_in_lost_only])
        is_lost[is_lost] = is_in_lost_only
        return is_lost
