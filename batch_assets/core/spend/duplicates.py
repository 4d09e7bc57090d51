"""Find answers that are not in force, because their request has another answer, or that others have followed.

What was compared before is not compared again: only new answers are, with the answers to the same requests. The
index of answers finds these, so a long history is not read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpKind
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger.collected import collections
from batch_assets.core.root import Root
from batch_assets.core.spend.amounts import CONTINUED, IN_FORCE, PAID_TWICE, REPLACED, SUPERSEDED
from batch_assets.core.store.answer_index import AnswerIndex, OldIndexError, is_read_whole
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.outcomes import in_force, read_responses
from batch_assets.core.store.packed_responses import CANCELED, SUCCEEDED, Responses
from batch_assets.core.store.refreshes import refreshes_of
from batch_assets.core.store.responses import ResponseFiles, digest_array, open_responses, reading_responses


@dataclass(frozen=True)
class AnswerFates:
    """What became of n answers.

    Attributes:
        files: The response files that have them.
        answers: All answers to some requests, sorted by digest and then by the end of their batch. Pruned ones
            count as canceled, as do those that were canceled, which cost nothing.
        fate: IN_FORCE, SUPERSEDED, PAID_TWICE, CONTINUED or REPLACED for each; int8, shape (n,).
    """

    files: ResponseFiles
    answers: Responses
    fate: NDArray[np.int8]

    def of_file(self, name: ResponseName) -> NDArray[np.int8]:
        """Return what became of the rows of a response file; int8, shape (rows,). Others are IN_FORCE."""
        number = self.files.names.index(name)
        is_its = self.files.number_of(self.answers.row) == number
        fates = np.zeros(sum(self.files.group_rows[number]), np.int8)
        fates[self.answers.row[is_its] - self.files.first_row(number)] = self.fate[is_its]
        return fates

    def in_force_in(self, name: ResponseName) -> Digests:
        """Return the requests whose answer in a response file is in force: S16, sorted, shape (m,)."""
        if name not in self.files.names:
            return pack([])
        is_its = self.files.number_of(self.answers.row) == self.files.names.index(name)
        digests: Digests = self.answers.digests[is_its & (self.fate == IN_FORCE)]
        return digests


class Comparison:
    """Compares the answers of a pipeline to the same requests.

    Args:
        root: The root.
        pipeline: The pipeline.
        may_write: Whether the index of answers may be brought up to date. If it must not and is old, all response
            files are read.

    Raises:
        DamagedFileError: From every method, when a file is not a response file.
    """

    def __init__(self, root: Root, pipeline: str, *, may_write: bool) -> None:
        self._root, self._pipeline, self._may_write = root, pipeline, may_write
        with root.ledger.read() as tx:
            self._refreshes = refreshes_of(tx, pipeline)
            self._stored, self._requests, _ = collections(tx, pipeline)

    def beside(self, new: Collection[ResponseName]) -> dict[ResponseName, NDArray[np.int8]]:
        """Return what became of the answers in response files, and in all others with answers to their requests.

        Args:
            new: The names of the files.

        Returns:
            By the name of the file: see `AnswerFates.of_file`.
        """
        of_new = self._digests_in(new)
        if 2 * len(new) < self._stored and (index := self._index(len(of_new))) is not None:
            try:
                numbers = index.files.number_of(index.responses_to(of_new).row)
                related = {*new, *(index.files.names[number] for number in np.unique(numbers).tolist())}
                responses = index.responses_to(self._digests_in(related))
                fates = self._fates_among(index.files, responses)
                return {name: fates.of_file(name) for name in related.intersection(index.files.names)}
            except OldIndexError:
                pass
        fates = self._fates_among(*read_responses(self._root.storage, self._pipeline))
        return {name: fates.of_file(name) for name in fates.files.names}

    def fates_of(self, digests: Digests) -> AnswerFates:
        """Return what became of the answers to some requests, and perhaps to others.

        Args:
            digests: The digests of the requests: S16, shape (n,).
        """
        if (index := self._index(len(digests))) is not None:
            try:
                return self._fates_among(index.files, index.responses_to(np.unique(digests)))
            except OldIndexError:
                pass
        return self._fates_among(*read_responses(self._root.storage, self._pipeline))

    def _index(self, requests: int) -> AnswerIndex | None:
        """Open the index of answers; `None` if all response files are to be read.

        Args:
            requests: The number of requests that will be looked up.
        """
        if is_read_whole(self._stored, self._requests, requests):
            return None
        try:
            return AnswerIndex(self._root, self._pipeline, may_write=self._may_write)
        except OldIndexError:
            return None

    def _digests_in(self, names: Collection[ResponseName]) -> Digests:
        """Return the digests of the requests that response files answer: S16, sorted, shape (n,), each once."""
        storage, digests = self._root.storage, [pack([])]
        for name in names:
            with (
                open_responses(storage, self._pipeline, name) as file,
                reading_responses(storage, self._pipeline, name),
            ):
                column = file.read(columns=["digest"], use_threads=False)["digest"]
            digests.append(digest_array(column.drop_null()))
        return np.unique(np.concatenate(digests))

    def _fates_among(self, files: ResponseFiles, responses: Responses) -> AnswerFates:
        """Decide what became of answers.

        Args:
            files: The files that have them.
            responses: All responses to some requests, sorted by digest and then by the end of their batch.
        """
        outcomes = in_force(responses, files, self._refreshes)
        answers = responses.at((responses.kind == SUCCEEDED) | (responses.kind == CANCELED))
        of_files = np.array([self._refreshes.get(name, 0.0) for name in files.names], np.float64)
        number, in_force_row = files.number_of(answers.row), outcomes.for_digests(answers.digests).row
        refresh = of_files[number]
        counting = _counting(answers, refresh, in_force_row)
        newest = np.maximum(refresh[counting], of_files[files.number_of(in_force_row)])
        is_surplus = (counting != np.arange(len(counting))) | (newest > refresh)
        fate = np.where(newest > refresh, SUPERSEDED, np.where(is_surplus, PAID_TWICE, IN_FORCE)).astype(np.int8)
        fate[answers.row == in_force_row] = IN_FORCE
        if answers.step.any():
            _mark_followed(fate, answers, files)
        return AnswerFates(files, answers, fate)


def _mark_followed(fate: NDArray[np.int8], answers: Responses, files: ResponseFiles) -> None:
    """Mark the answers in force that others continued or replaced, by how the custom_ids of these count.

    An answer that was cut off and asked again stays IN_FORCE: its stop reason tells what it is.

    Args:
        fate: What became of the answers: int8, shape (n,). Changed in place.
        answers: See `AnswerFates`; n of them.
        files: All response files.
    """
    counts, has_answer = np.zeros((len(fate), len(FollowUpKind)), np.int8), answers.step == 0
    number = files.number_of(answers.row)
    for each in np.unique(number[answers.step > 0]).tolist():
        table = files.read(each, ["custom_id", "result_type", "error_type"])
        its = number == each
        rows = answers.row[its] - files.first_row(each)
        counts[its] = counts_in(table["custom_id"])[rows]
        is_answer = pc.or_kleene(
            pc.equal(table["result_type"], ResultType.SUCCEEDED.value),
            pc.equal(table["error_type"], ErrorType.PRUNED.value),
        )
        has_answer[its] = pc.fill_null(is_answer, False).to_numpy()[rows]
    chosen = np.flatnonzero((fate == IN_FORCE) & has_answer)
    chosen = chosen[np.lexsort((answers.step[chosen], answers.digests[chosen]))]
    before, after = chosen[:-1], chosen[1:]
    is_next = (answers.digests[before] == answers.digests[after]) & (
        answers.step[before] + 1 == answers.step[after]
    )
    before, after = before[is_next], after[is_next]
    added = counts[after] - counts[before]
    fate[before[added[:, FollowUpKind.PAUSED] > 0]] = CONTINUED
    fate[before[added[:, FollowUpKind.INVALID] > 0]] = REPLACED


def _counting(
    answers: Responses, refresh: NDArray[np.float64], in_force_row: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the position of the answer that counts among those of the same request and step of its chain.

    It is the one in force, or for other steps the last one of the newest refresh. An answer that was pruned still
    counts, so that what was paid for it stays what it was.

    Args:
        answers: All answers to some requests, n of them, sorted by digest and then by the end of their batch.
            Pruned ones count as canceled, as do those that were canceled, which cost nothing.
        refresh: `fresh_after` of the refresh of each one, 0 without a refresh: float64, shape (n,).
        in_force_row: The row number of the answer in force of each one's request: int64, shape (n,).

    Returns:
        intp, shape (n,).
    """
    is_first = np.append(True, answers.digests[1:] != answers.digests[:-1])[: len(answers.digests)]
    request, position = np.cumsum(is_first) - 1, np.arange(len(is_first))
    is_in_force = answers.row == in_force_row
    order = np.lexsort((position, answers.kind == SUCCEEDED, refresh, is_in_force, answers.step, request))
    last = np.append(
        (request[order][1:] != request[order][:-1]) | (answers.step[order][1:] != answers.step[order][:-1]), True
    )[: len(order)]
    group = np.cumsum(last) - last
    counting: NDArray[np.intp] = np.empty(len(order), np.intp)
    counting[order] = order[last][group]
    return counting
