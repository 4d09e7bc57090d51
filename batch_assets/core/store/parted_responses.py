"""The responses in all response files of a pipeline, part by part. See `Parts`."""

from __future__ import annotations

from functools import partial

import numpy as np

from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parted_records import PartedRecords
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.packed_responses import Responses, ordered, read_outcomes, responses_of
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.response_listing import response_versions, versions_digest
from batch_assets.core.store.responses import ResponseFacts, ResponseFiles, open_responses, reading_responses

_RESPONSE = np.dtype([("digest", "S16"), ("row", np.int32), ("packed", np.int32)])


class PartedResponses:
    """Reads all response files, each of which is opened once.

    Args:
        storage: The storage of the root.
        pipeline: The name of the pipeline.
        parts: The parts.

    Attributes:
        files: The response files.
        versions: Their `versions_digest`, as they were listed before they were read.

    Raises:
        DamagedFileError: When a file is not a response file.
        StorageError: When the folder for scratch files is full.
    """

    def __init__(self, storage: Storage, pipeline: str, parts: Parts) -> None:
        self._records, self._parts = PartedRecords(_RESPONSE, parts.count), parts
        listed = response_versions(storage, pipeline)
        self.versions: str | None = versions_digest(listed)
        facts, starts = list[ResponseFacts](), [0]
        names = [*filter(None, map(ResponseName.parse, sorted(listed)))]
        for name, opened in storage.each(partial(open_responses, storage, pipeline), names):
            with opened as file, reading_responses(storage, pipeline, name):
                facts.append(ResponseFacts.of(name, file))
                responses = responses_of(read_outcomes(file))
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

    def of_part(self, number: int) -> Responses:
        """Return the responses of a part, sorted by digest and then by row number."""
        records = self._records.of_part(number)
        row = records["row"]
        if self._shift.any():
            row = (row + self._shift[np.searchsorted(self._starts, row, side="right") - 1]).astype(np.int32)
        return ordered(Responses(records["digest"], row, records["packed"]))
