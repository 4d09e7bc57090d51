"""The responses to the requests of many rows, part by part, so that memory does not grow with the rows."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from batch_assets.core.root import Root
from batch_assets.core.store.answer_index import AnswerIndex
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.packed_responses import Responses
from batch_assets.core.store.parted_responses import PartedResponses
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.pipeline_outcomes import index_of_answers
from batch_assets.core.store.responses import ResponseFiles


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
    index, _ = index_of_answers(root, pipeline, rows)
    if index is not None:
        return _Indexed(index)
    return _Read(PartedResponses(root.storage, pipeline, parts))


class _Indexed:
    """Responses that are looked up in the index. See `PartedAnswers`."""

    def __init__(self, index: AnswerIndex) -> None:
        self._index, self.files = index, index.files
        self.versions = index.versions_digest()

    def of_part(self, number: int, digests: Digests) -> Responses:
        return self._index.responses_to(np.unique(digests))


class _Read:
    """Responses that are read from all response files. See `PartedAnswers`."""

    def __init__(self, responses: PartedResponses) -> None:
        self._responses, self.files, self.versions = responses, responses.files, responses.versions

    def of_part(self, number: int, digests: Digests) -> Responses:
        return self._responses.of_part(number)
