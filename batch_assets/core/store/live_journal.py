"""The journal of a group of live calls: what is known of each call, under the root, before and after it is made.

A call is noted before it is made, and its answer as soon as it is there. So a process may be killed at any point,
and the ledger may be lost: a call that is noted and has no answer is never repeated. Each note is a small file,
which is complete or absent, on an object store as well. The journal is removed once the answers are stored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.layout import calls_parts
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.rescues import LiveGroup
from batch_assets.core.store.document import Document

_HEADER = "group.json"
_NOTE = re.compile(r"(?P<number>\d{6})\.(?P<kind>called|jsonl)")


class LiveGroupHeader(Document):
    """What a group of live calls asks.

    Attributes:
        file_id: The request file that has the requests.
        started_at: When the calls began, in seconds since 1970.
        custom_ids: The custom_id of each call.
        worst_cases: The most that each can cost in picodollars; -1 without a bound.
    """

    file_id: str
    started_at: float
    custom_ids: list[str]
    worst_cases: list[int]

    @property
    def worst_case(self) -> int | None:
        """The most that all of them can cost in picodollars; `None` without a bound."""
        return None if min(self.worst_cases, default=0) < 0 else sum(self.worst_cases)

    def group(self, group_id: str, pipeline: str) -> LiveGroup:
        """Return the group as the ledger has it."""
        return LiveGroup(group_id, self.file_id, pipeline, len(self.custom_ids), self.worst_case, self.started_at)


@dataclass(frozen=True)
class LiveJournal:
    """The journal of one group.

    Attributes:
        storage: The storage of the root.
        pipeline: The pipeline.
        group_id: The id of the group.
    """

    storage: Storage
    pipeline: str
    group_id: str

    def begin(self, header: LiveGroupHeader) -> None:
        """Write what the group asks, before its first call."""
        self._write(json.dumps(header.model_dump()).encode(), _HEADER)

    def header(self) -> LiveGroupHeader | None:
        """Read what the group asks; `None` if it was never written, so that no call was made."""
        try:
            return read_document(self.storage, self._parts(_HEADER), LiveGroupHeader)
        except FileNotFoundError:
            return None

    def note_call(self, number: int) -> None:
        """Note that a call is about to be made."""
        self._write(b"called\n", f"{number:06d}.called")

    def take_back(self, number: int) -> None:
        """Note that a call was certainly not processed, so that it may be made again."""
        self.storage.remove(*self._parts(f"{number:06d}.called"))

    def note_answer(self, number: int, line: bytes) -> None:
        """Note the answer to a call, as a result line with its newline."""
        self._write(line, f"{number:06d}.jsonl")

    def notes(self) -> tuple[set[int], set[int]]:
        """Return the numbers of the calls that were made, and of those that have an answer."""
        called, answered = set[int](), set[int]()
        for name in self.storage.file_names(*calls_parts(self.pipeline, self.group_id)):
            if (match := _NOTE.fullmatch(name)) is not None:
                (answered if match["kind"] == "jsonl" else called).add(int(match["number"]))
        return called | answered, answered

    def answer(self, number: int) -> bytes:
        """Read the answer to a call."""
        return self.storage.read_bytes(*self._parts(f"{number:06d}.jsonl"))

    def remove(self) -> None:
        """Remove the journal. The header goes last: without one, no call was made."""
        folder = calls_parts(self.pipeline, self.group_id)
        for name in sorted(self.storage.file_names(*folder) - {_HEADER}):
            self.storage.remove(*folder, name)
        self.storage.remove(*folder)

    def _write(self, content: bytes, name: str) -> None:
        self.storage.write_bytes(content, *self._parts(name))

    def _parts(self, name: str) -> tuple[str, ...]:
        return (*calls_parts(self.pipeline, self.group_id), name)


def journals_of(storage: Storage, pipeline: str) -> list[LiveJournal]:
    """Return the journals of a pipeline."""
    return [LiveJournal(storage, pipeline, name) for name in storage.names(*calls_parts(pipeline))]


def headers_of(storage: Storage, pipeline: str) -> tuple[list[tuple[str, LiveGroupHeader]], list[str]]:
    """Read the headers of a pipeline's journals.

    Returns:
        (id of the group, header) of those that have one, and the texts about damaged ones.
    """
    headers, problems = list[tuple[str, LiveGroupHeader]](), list[str]()
    for journal in journals_of(storage, pipeline):
        try:
            header = journal.header()
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        if header is not None:
            headers.append((journal.group_id, header))
    return headers, problems
