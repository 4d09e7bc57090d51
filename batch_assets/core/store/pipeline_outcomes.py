"""The outcomes of a pipeline's requests, for a stage that asks for those of its own rows.

A history that is small, or not much larger than what a stage asks for, is read from the response files. Any other
history is in the index of answers, so that the cost of a partition does not grow with it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger.collected import collections
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.answer_index import AnswerIndex, is_read_whole, merge
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.outcomes import Outcomes, Refreshes, UnpackedOutcomes, Untried, in_force
from batch_assets.core.store.packed_responses import Responses
from batch_assets.core.store.parted_responses import PartedResponses
from batch_assets.core.store.parts import Parts
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.response_listing import forget_listing, listed_responses
from batch_assets.core.store.responses import ResponseFiles, digest_array
from batch_assets.core.store.stored_outcomes import StoredOutcomes

# Other partitions use the same listing of files for this long, as long as nothing is collected.
_KEEP_SECONDS = 60.0
# More responses than this are not kept in memory.
_IN_MEMORY = 1 << 20


class AllAnswers:
    """The responses to all requests of a pipeline.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        requests: The number of responses, as far as it is known. Many are kept in a scratch file.

    Attributes:
        files: The response files.
        fit_into_memory: Whether the responses are few enough to be kept in memory.

    Raises:
        DamagedFileError: When a file is not a response file.
        StorageError: When the folder for scratch files is full.
    """

    def __init__(self, root: Root, pipeline: str, requests: int) -> None:
        self._parts = Parts(requests)
        self._parted = PartedResponses(root.storage, pipeline, self._parts)
        self.files, self.fit_into_memory = self._parted.files, requests <= _IN_MEMORY

    @cached_property
    def responses(self) -> Responses:
        """All responses, in memory, sorted by digest and then by row number."""
        parts = [*self.parts()]
        return parts[0] if len(parts) == 1 else Responses(*map(np.concatenate, zip(*parts, strict=True)))

    def parts(self) -> Iterator[Responses]:
        """Yield all responses in parts, sorted."""
        return map(self._parted.of_part, range(self._parts.count))


PipelineAnswers = AllAnswers | AnswerIndex


@dataclass(frozen=True)
class _KeptIndex:
    """An index that serves for several partitions.

    Attributes:
        index: The index.
        collected: The last collection when its listing was made, see `last_collection`.
        at: When that was, in seconds of a steady clock.
    """

    index: AnswerIndex
    collected: int
    at: float


def open_answers(root: Root, pipeline: str, rows: int) -> PipelineAnswers:
    """Read the responses of a pipeline, or bring its index up to date.

    Call it after the list of request files in flight was read: a batch that is collected in between is then in
    both, never in neither.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        rows: The number of rows that will be asked for, as far as it is known.

    Raises:
        DamagedFileError: When a file is not a response file.
    """
    index, requests = index_of_answers(root, pipeline, rows)
    return index if index is not None else AllAnswers(root, pipeline, requests)


def index_of_answers(root: Root, pipeline: str, rows: int) -> tuple[AnswerIndex | None, int]:
    """Bring the index of a pipeline's answers up to date. See `open_answers`.

    Returns:
        The index, `None` if all responses are to be read, and the number of responses, as far as it is known.
    """
    with root.ledger.read() as tx:
        files, requests, last = collections(tx, pipeline)
    if is_read_whole(files, requests, rows):
        return None, requests
    name, now = _kept_name(pipeline), time.monotonic()
    kept = root.kept.get(name)
    if isinstance(kept, _KeptIndex) and kept.collected == last and now - kept.at < _KEEP_SECONDS:
        return kept.index, requests
    listing = listed_responses(root, pipeline, last)
    index = AnswerIndex(root, pipeline, listing)
    root.kept[name] = _KeptIndex(index, listing.last, now)
    return index, requests


def forget_kept(root: Root, pipeline: str, names: Collection[str]) -> None:
    """Forget the index that serves for several partitions if a listing lacks one of its response files.

    Also if the listing has answers that were imported since: no collection shows these.
    """
    kept = root.kept.get(_kept_name(pipeline))
    if not isinstance(kept, _KeptIndex):
        return
    has_all = kept.index.names.issubset(names)
    new = (ResponseName.parse(name) for name in set(names) - kept.index.names) if has_all else ()
    if not has_all or any(name is not None and name.is_never_followed for name in new):
        root.kept.pop(_kept_name(pipeline))


def drop_kept(root: Root, pipeline: str) -> None:
    """Forget the index and the listing that serve for several comparisons: response files have changed."""
    root.kept.pop(_kept_name(pipeline), None)
    forget_listing(root, pipeline)


def _kept_name(pipeline: str) -> str:
    return f"answers of {pipeline}"


def responses_to(answers: PipelineAnswers, parts: Iterable[Digests]) -> Responses:
    """Return the responses to some requests, and perhaps to others, sorted by digest and then by row number.

    Args:
        answers: The answers of the pipeline.
        parts: The digests of the requests, in any order.
    """
    if isinstance(answers, AllAnswers):
        return answers.responses
    before, responses = DigestSet(), list[Responses]()
    for part in parts:
        digests = np.unique(part)
        digests = digests[~before.contains(digests)]
        before.add(digests)
        responses.append(answers.responses_to(digests))
    return merge(responses)


def digests_of_rows(rows: pa.RecordBatch) -> Digests:
    """Return the digests in the first column of some rows of a request index: S16, shape (rows with one,)."""
    return digest_array(rows.column(0).drop_null())


@dataclass(frozen=True)
class PipelineOutcomes:
    """The outcomes in force of a pipeline's requests, looked up as they are asked for.

    Attributes:
        answers: The answers of the pipeline.
        refreshes: See `refreshes_of`.
        fresh_after: See `in_force`.
        untried: See `untried_of`.
    """

    answers: PipelineAnswers
    refreshes: Refreshes
    fresh_after: float | None = None
    untried: Untried = field(default_factory=dict)

    @property
    def files(self) -> ResponseFiles:
        """The response files, whose rows the outcomes name."""
        return self.answers.files

    def for_digests(self, digests: Digests) -> UnpackedOutcomes:
        """Return the outcomes of requests.

        Args:
            digests: S16, shape (n,).
        """
        if isinstance(self.answers, AllAnswers):
            return self._of_all.for_digests(digests)
        return self._in_force(self.answers.responses_to(np.unique(digests))).for_digests(digests)

    @cached_property
    def _of_all(self) -> Outcomes | StoredOutcomes:
        answers = self.answers
        assert isinstance(answers, AllAnswers)
        if answers.fit_into_memory:
            return self._in_force(answers.responses)
        return StoredOutcomes(map(self._in_force, answers.parts()), answers.files.rows)

    def _in_force(self, responses: Responses) -> Outcomes:
        return in_force(responses, self.files, self.refreshes, self.fresh_after, self.untried)


def outcomes_for(root: Root, submission: Submission) -> Outcomes:
    """Read the outcomes of a submission's requests, and perhaps of others, as far as they count for it.

    Raises:
        MissingFileError: When its request index does not exist.
        DamagedFileError: When a response file or the request index cannot be read.
    """
    with root.ledger.read() as tx:
        refreshes, untried = refreshes_of(tx, submission.pipeline), untried_of(tx, submission)
    answers = open_answers(root, submission.pipeline, submission.rows)
    index = RequestIndex(root.storage, submission.pipeline, submission.partition, submission.id)
    responses = responses_to(answers, map(digests_of_rows, index.slices([DIGEST])))
    return in_force(responses, answers.files, refreshes, submission.fresh_after, untried)
