"""Add response files to the index of answers. See `answer_index`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import answer_index
from batch_assets.core.ledger.answer_index import ROWS_AT_ONCE
from batch_assets.core.root import Root
from batch_assets.core.store.packed_responses import Responses, packed_responses, read_outcomes
from batch_assets.core.store.responses import ResponseFacts, open_responses, reading_responses

UNSEEN = "written"
"""The version of a file that was written just now: its size, a colon and this. The next listing shows the rest."""
# Responses of several files that are added together, at 24 bytes each.
_READ_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class _NewFile:
    """A response file that is not in the index.

    Attributes:
        facts: Its facts.
        version: Its version.
        responses: Its responses, sorted by digest, with the rows counted within it.
    """

    facts: ResponseFacts
    version: str
    responses: Responses

    @classmethod
    def read(cls, name: ResponseName, version: str, file: pq.ParquetFile) -> _NewFile:
        responses = packed_responses(read_outcomes(file))
        release_memory()
        # A digest occurs once. A file in which it does not must not stop the others.
        is_first = np.append(True, responses.digests[1:] != responses.digests[:-1])[: len(responses.digests)]
        return cls(ResponseFacts.of(name, file), version, responses.at(is_first))


def add_stored(root: Root, pipeline: str, versions: dict[str, str]) -> None:
    """Read response files, and add their responses.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        versions: The version of each file, by name.

    Raises:
        DamagedFileError: When a file is not a response file. Those before it are in the index by then.
    """
    pending: list[_NewFile] = []
    pending_responses = 0
    try:
        for text, version in versions.items():
            name = ResponseName.parse(text)
            assert name is not None
            with (
                open_responses(root.storage, pipeline, name) as file,
                reading_responses(root.storage, pipeline, name),
            ):
                pending.append(_NewFile.read(name, version, file))
            pending_responses += len(pending[-1].responses.digests)
            if pending_responses >= _READ_AT_ONCE:
                _add(root, pipeline, pending)
                pending, pending_responses = [], 0
    finally:
        _add(root, pipeline, pending)


def _add(root: Root, pipeline: str, files: list[_NewFile]) -> None:
    """Add files, a few responses at a time so that no other process waits long for the ledger.

    Responses of many files are sorted first: they are then beside each other in the database.
    """
    if not files:
        return
    with root.ledger.write(pipeline) as tx:
        numbers = [
            answer_index.begin(
                tx,
                pipeline,
                str(new.facts.name),
                new.version,
                ended_at=new.facts.ended_at,
                row_groups=new.facts.row_groups,
                digests=new.responses.digests,
            )
            for new in files
        ]
    sizes = [len(new.responses.digests) for new in files]
    of_file = np.repeat(np.array(numbers, np.int64), sizes)
    digests = np.concatenate([new.responses.digests for new in files])
    order = np.argsort(digests, kind="stable")
    row = np.concatenate([new.responses.row for new in files])
    packed = np.concatenate([new.responses.packed for new in files])
    for start in range(0, len(order), ROWS_AT_ONCE):
        part = order[start : start + ROWS_AT_ONCE]
        with root.ledger.write(pipeline) as tx:
            answer_index.add_answers(tx, of_file[part], digests[part], row[part], packed[part])
    with root.ledger.write(pipeline) as tx:
        answer_index.complete(tx, dict(zip(numbers, sizes, strict=True)))


class WrittenAnswers:
    """The answers of a response file that is being written, to be added to the index once it is published.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        name: The name of the file.
        scratch: The path of the finished file, before it is published.
    """

    def __init__(self, root: Root, pipeline: str, name: ResponseName, scratch: Path) -> None:
        self._root, self._pipeline = root, pipeline
        self._new: _NewFile | None = None
        with root.ledger.read() as tx:
            is_indexed = answer_index.has_response_files(tx, pipeline)
        if is_indexed:  # otherwise the index is made by whoever needs it first
            version = f"{scratch.stat().st_size}:{UNSEEN}"
            with pq.ParquetFile(scratch, pre_buffer=False) as file:
                self._new = _NewFile.read(name, version, file)

    def add(self) -> None:
        """Add them. The file was published just now."""
        if self._new is not None:
            written = self._root.storage.is_local and self._root.storage.version(
                self._pipeline, "responses", str(self._new.facts.name)
            )
            new = replace(self._new, version=written) if written else self._new
            _add(self._root, self._pipeline, [new])
