"""Keep the index of answers equal to the response files, and ask it.

The files are the truth. A listing of their folder shows the version of each: those that the index does not have in
this version are read, and what it has of others is not used. So the index may be lost, old or unfinished at any
time, and may have lost rows. A process that has it open looks again after a minute. A file whose content has
changed gets a number of its own, and what is known under the old number is removed a day later, when no process
can be asking for it any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import answer_index, index_removal
from batch_assets.core.ledger.answer_index import IndexedFile
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.indexing import UNSEEN, add_stored
from batch_assets.core.store.packed_responses import Responses
from batch_assets.core.store.response_listing import (
    FEW_FILES,
    ResponseListing,
    list_responses,
    note_indexed,
    response_versions,
    versions_digest,
)
from batch_assets.core.store.responses import ResponseFacts, ResponseFiles

# A history of at most so many files and requests is read whole.
_FEW_FILES, _FEW_REQUESTS = 4, 20_000
# So is one of at most this many times the rows of a stage, unless its files are many and small.
_TIMES_THE_ROWS, _MORE_FILES, _ROWS_A_FILE = 4, 20, 10_000
# Requests that are looked up in one statement.
_ASKED_AT_ONCE = 8192
# How often a request is looked up again because files change meanwhile.
_LOOKS = 3
# The versions of all files are compared once in this time.
_CHECK_SECONDS = 600.0
# What is not used any more is removed after this long.
_UNUSED_SECONDS = 86400.0


def is_read_whole(files: int, requests: int, rows: int) -> bool:
    """Whether some files are read whole, and not asked for single requests in the index.

    Args:
        files: The number of the files.
        requests: The number of requests in them.
        rows: The number of rows that a stage asks for, as far as it is known.
    """
    is_small = files <= _FEW_FILES and requests <= _FEW_REQUESTS
    return is_small or (requests <= _TIMES_THE_ROWS * rows and files <= max(_MORE_FILES, rows // _ROWS_A_FILE))


class OldIndexError(Exception):
    """The index does not have all response files as they are, and must not be brought up to date."""


class AnswerIndex:
    """The index of a pipeline's answers, as of one listing of its response files.

    The names of all files are compared with the index at once, their versions at most every ten minutes: a history
    has thousands of files. The version of a file that has a response to a request that is asked for is always
    compared.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        listing: Its response files; `None` to list them.
        may_write: Whether the index may be brought up to date.

    Attributes:
        names: The names of all response files.
        files: Those that have responses to the requests that were asked for so far, in the order of asking.

    Raises:
        OldIndexError: From every method, when the index is not up to date and must not be written.
    """

    def __init__(
        self, root: Root, pipeline: str, listing: ResponseListing | None = None, *, may_write: bool = True
    ) -> None:
        self._root, self._pipeline, self._may_write = root, pipeline, may_write
        listing = listing or list_responses(root, pipeline)
        self.names = listing.names
        with root.ledger.read() as tx:
            is_same = listing.is_indexed or (
                answer_index.indexed_names(tx, pipeline) == answer_index.names_hash(self.names)
            )
            index = answer_index.state(tx, pipeline)
            is_checked = index.checked_at > tx.now - _CHECK_SECONDS
        is_same = is_same and not index.has_lost_rows and not (index.is_empty and self.names)
        if is_same and not listing.is_indexed:
            note_indexed(root, pipeline, listing)
        if not (is_same and (is_checked or not may_write)):
            self.names = self._check()
        self.files = ResponseFiles(root.storage, pipeline, ())
        self._number_of: dict[int, int] = {}  # by the number in the index; -1 for a file that does not count
        self._facts: list[ResponseFacts] = []
        self._just_seen: dict[str, str | None] = {}  # versions that `_look_up` need not ask for again

    def versions_digest(self) -> str | None:
        """Return the `versions_digest` of the response files, as the index has them.

        Call it before `responses_to`, which notices if a file that it reads from has another version by now.

        Returns:
            `None` if a file has just been removed or replaced.
        """
        with self._root.ledger.read() as tx:
            versions = answer_index.response_versions(tx, self._pipeline)
        if len(versions) > len(self.names):  # files that came after the listing
            versions = {name: version for name, version in versions.items() if name in self.names}
        if versions.keys() != self.names:
            return None
        unseen = [name for name, version in versions.items() if version.endswith(UNSEEN)]
        self._just_seen = self._stored_versions(unseen)
        versions |= {name: version for name, version in self._just_seen.items() if version is not None}
        return versions_digest(versions) if None not in self._just_seen.values() else None

    def _stored_versions(self, names: list[str]) -> dict[str, str | None]:
        """Return the version that each of some files has now; `None` for one that does not exist."""
        storage = self._root.storage
        if len(names) > FEW_FILES:
            listed = response_versions(storage, self._pipeline)
            return {name: listed.get(name) for name in names}
        return dict(storage.each(lambda name: storage.version(self._pipeline, "responses", name), names))

    def responses_to(self, digests: Digests) -> Responses:
        """Find all responses to some requests, sorted by digest and then by the end of their batch.

        Args:
            digests: The digests of the requests, sorted, each once: S16, shape (n,).

        Raises:
            DamagedFileError: When a file has changed, and is not a response file.
        """
        parts = [
            self._find(digests[start : start + _ASKED_AT_ONCE]) for start in range(0, len(digests), _ASKED_AT_ONCE)
        ]
        return merge(parts)

    def _find(self, digests: Digests) -> Responses:
        position, number, file_row, packed = self._look_up(digests).T
        of_number = np.array([self._number_of[at] for at in number.tolist()], np.int64)
        counts = of_number >= 0
        position, of_number = position[counts], of_number[counts]
        row = np.array([self.files.first_row(at) for at in range(len(self._facts))], np.int64)[of_number]
        order = np.lexsort((self._ranks()[of_number], position))
        return Responses(
            digests[position[order]],
            (row + file_row[counts])[order].astype(np.int32),
            packed[counts][order].astype(np.int32),
        )

    def _look_up(self, digests: Digests) -> NDArray[np.int64]:
        """Look up requests, and again if a file that has one of them has changed since it was read."""
        for _ in range(_LOOKS):
            with self._root.ledger.read() as tx:
                answers = answer_index.find_answers(tx, digests)
                unknown = set(answers[:, 1].tolist()).difference(self._number_of)
                new = answer_index.of_numbers(tx, self._pipeline, unknown) if unknown else []
            new = [file for file in new if file.name in self.names]
            if all(_is_same(file, self._version(file)) for file in new):
                break
            self.names = self._check()
        self._number_of |= dict.fromkeys(unknown, -1)
        for file in new:
            facts = _facts(file)
            self._facts.append(facts)
            self._number_of[file.number] = self.files.add(facts)
        return answers

    def _check(self) -> frozenset[str]:
        if not self._may_write:
            raise OldIndexError
        return check(self._root, self._pipeline)

    def _version(self, file: IndexedFile) -> str | None:
        if file.name in self._just_seen:
            return self._just_seen.pop(file.name)
        return self._root.storage.version(self._pipeline, "responses", file.name)

    def _ranks(self) -> NDArray[np.int64]:
        """Return the rank of each of `files` by the end of its batch: int64, shape (files,)."""
        facts = self._facts
        ordered = sorted(range(len(facts)), key=lambda at: (facts[at].ended_at, str(facts[at].name)))
        ranks = np.empty(len(facts), np.int64)
        ranks[ordered] = np.arange(len(facts))
        return ranks


def check(root: Root, pipeline: str) -> frozenset[str]:
    """Compare the response files of a pipeline with the index, and read those that differ or have lost rows there.

    Returns:
        The names of the files.

    Raises:
        DamagedFileError: When a file that is not in the index is not a response file.
    """
    listed = root.storage.versions(pipeline, "responses")
    listed = {name: version for name, version in listed.items() if ResponseName.parse(name) is not None}
    with root.ledger.read() as tx:
        indexed = answer_index.response_files(tx, pipeline)
        lost = answer_index.without_rows(tx, pipeline)
    newest = {file.name: file for file in indexed}
    usable = {name: file for name, file in newest.items() if _is_same(file, listed.get(name))}
    if any(file.number in lost for file in usable.values()):
        usable = {}  # a file whose witness is there may have lost other rows
    _record_versions(root, pipeline, usable, listed)
    add_stored(root, pipeline, {name: version for name, version in listed.items() if name not in usable})
    used = {file.number for file in usable.values()}
    _remove_unused(root, pipeline, [file.number for file in indexed if file.number not in used])
    with root.ledger.write(pipeline) as tx:
        answer_index.checked(tx, pipeline)
    return frozenset(listed)


_NO_RESPONSES = Responses(np.empty(0, "S16"), np.empty(0, np.int32), np.empty(0, np.int32))


def _is_same(file: IndexedFile, version: str | None) -> bool:
    """Whether the index has the content that a file has now."""
    if version is None:
        return False
    size, _, written_at = file.version.partition(":")
    return file.version == version or (written_at == UNSEEN and version.startswith(f"{size}:"))


def _record_versions(root: Root, pipeline: str, usable: dict[str, IndexedFile], listed: dict[str, str]) -> None:
    """Record the versions of files that were written since the last listing."""
    unseen = {file.number: listed[name] for name, file in usable.items() if file.version != listed[name]}
    if unseen:
        with root.ledger.write(pipeline) as tx:
            answer_index.seen(tx, unseen)


def _facts(file: IndexedFile) -> ResponseFacts:
    name = ResponseName.parse(file.name)
    assert name is not None
    return ResponseFacts(name, file.ended_at, file.row_groups)


def _remove_unused(root: Root, pipeline: str, replaced: list[int]) -> None:
    """Retire numbers whose content no file has any more, and remove what was retired a day ago."""
    with root.ledger.read() as tx:
        long_ago = tx.now - _UNUSED_SECONDS
        unused = [*replaced, *index_removal.unfinished(tx, pipeline, long_ago)]
        responses, requests = index_removal.retired(tx, pipeline, long_ago)
    if unused:
        with root.ledger.write(pipeline) as tx:
            index_removal.retire(tx, unused)
    for number in requests:
        with root.ledger.write(pipeline) as tx:
            index_removal.remove_asked(tx, number)
    for part in range(index_removal.PARTS) if responses else ():
        with root.ledger.write(pipeline) as tx:
            index_removal.remove_answers(tx, responses, part)
    if responses or requests:
        with root.ledger.write(pipeline) as tx:
            index_removal.remove_numbers(tx, [*responses, *requests])


def merge(parts: Sequence[Responses]) -> Responses:
    """Join responses to different requests into one sequence, sorted by digest."""
    digests = np.concatenate([_NO_RESPONSES.digests, *(part.digests for part in parts)])
    order: NDArray[np.intp] = np.argsort(digests, kind="stable")
    row = np.concatenate([_NO_RESPONSES.row, *(part.row for part in parts)])
    packed = np.concatenate([_NO_RESPONSES.packed, *(part.packed for part in parts)])
    return Responses(digests, row, packed).at(order)
