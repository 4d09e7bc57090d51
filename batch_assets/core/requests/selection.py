"""Select the requests to submit: those that rows want and that are not answered, in flight or given up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import BusyError
from batch_assets.core.ledger import Transaction, files, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import MAX_HEADER_SETS
from batch_assets.core.requests.newest_submission import NewestSubmission
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight_index import retire_settled
from batch_assets.core.store.outcomes import Refreshes
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, open_answers
from batch_assets.core.store.refreshes import fresh_after_for, refreshes_of
from batch_assets.core.store.registered_since import RegisteredSince, read_in_flight
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.text import count

# A new submission sends these, up to a limit. It sends requests that were given up only with `retry_failed`.
_UNSETTLED = np.array([RequestFate.NEW, RequestFate.RETRY, RequestFate.CANCELED], np.int8)


@dataclass(frozen=True)
class _Look:
    """What a selection takes from the ledger, apart from the request files in flight. See `Selection`."""

    set_aside: list[RequestFile]
    since: RegisteredSince
    refreshes: Refreshes
    fresh_after: float | None

    @classmethod
    def of(
        cls,
        tx: Transaction,
        root: Root,
        pipeline: str,
        partition: str,
        again: AskAgain,
        met: Collection[str],
        peers: Peers,
    ) -> tuple[_Look, list[RequestFile]]:
        set_aside = submissions.unsent(tx, pipeline, peers.partitions or [partition])
        unsent = {file.id for file in set_aside}
        in_flight = submissions.files_in_flight(tx, pipeline)
        begun = peers.fresh_after
        fresh_after = fresh_after_for(tx, pipeline, partition, refresh=again.refresh, begun=begun)
        if fresh_after is not None or again.retry_failed:
            in_flight += files.answered_among(tx, met)
        since = RegisteredSince(root, pipeline, in_flight, tx.last_seq())
        look = cls(set_aside, since, refreshes_of(tx, pipeline), fresh_after)
        return look, [file for file in in_flight if file.id not in unsent]


@dataclass(frozen=True)
class Chosen:
    """What a selection has found. It takes 16 bytes for each request that the rows want.

    Attributes:
        since: See `Selection`.
        fresh_after: See `Selection`.
        set_aside: See `Selection`.
        waited_on: See `Selection`.
        desired: The requests that the rows want.
    """

    since: RegisteredSince
    fresh_after: float | None
    set_aside: list[RequestFile]
    waited_on: list[str]
    desired: DigestSet


class Peers:
    """Submissions that are built one after the other and registered at the same time.

    The requests of those that are built count as in flight for the next ones.

    Args:
        partitions: Their partitions, whose unsent files are set aside.

    Attributes:
        partitions: Their partitions; empty for a submission that is built alone.
        fresh_after: The `fresh_after` of those that begin a refresh; `None` before the first.
        piloted: The number of their requests in a new pilot.
    """

    def __init__(self, partitions: Collection[str] = ()) -> None:
        self.partitions = partitions
        self.fresh_after: float | None = None
        self.piloted = 0
        self._requests: dict[str, DigestSet] = {}

    def add(self, file_id: str, digests: Digests) -> None:
        """Add requests of a file.

        Args:
            file_id: The id that the file will have.
            digests: Its new requests: S16, shape (n,).
        """
        self._requests.setdefault(file_id, DigestSet()).add(digests)

    def find(self, digests: Digests) -> tuple[NDArray[np.bool_], set[str]]:
        """Return which requests are in a file, bool, shape (n,), and the ids of these files.

        Args:
            digests: S16, shape (n,).
        """
        is_in, file_ids = np.zeros(len(digests), bool), set()
        for file_id, requests in self._requests.items():
            if (found := requests.contains(digests)).any():
                is_in |= found
                file_ids.add(file_id)
        return is_in, file_ids


class Selection:
    """Which of a pipeline's requests are answered, given up or in flight, and which the rows so far want.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        newest: The partition's newest submission, whose size is about that of the next; `None` without one.
        again: What is sent again, and the limit.
        met: The ids of request files with requests that the rows want, which others registered while this build
            ran before. If answers may be asked for again, they count as in flight even if they are answered by
            now, as they would in a build that began after they were registered.

    Attributes:
        since: What was registered since this was read.
        fresh_after: The `fresh_after` of the submission that is built; `None` if it is not a refresh.
        set_aside: Request files that count as unsent: the submission replaces them.
        outcomes: The outcomes of the pipeline's requests.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        newest: NewestSubmission | None,
        again: AskAgain,
        met: Collection[str] = (),
        peers: Peers | None = None,
    ) -> None:
        self._root = root
        self._peers = peers if peers is not None else Peers()
        self._peer_files: set[str] = set()
        self._again, self._max_attempts = again, pipeline.config.retry.max_attempts
        retire_settled(root, pipeline.name)
        rows = newest.record.rows if newest is not None else 0

        def look() -> tuple[_Look, list[RequestFile]]:
            # No writer in between: a line that comes later has a number above the newest one.
            with root.ledger.write(pipeline.name) as tx:
                return _Look.of(tx, root, pipeline.name, partition, again, met, self._peers)

        # In this order, a batch that is collected in between is in both, never in neither.
        read, self._in_flight = read_in_flight(root, look, partition, rows)
        self.set_aside, self.since, self.fresh_after = read.set_aside, read.since, read.fresh_after
        answers = open_answers(root, pipeline.name, rows)
        self.outcomes = PipelineOutcomes(answers, read.refreshes, self.fresh_after)
        self._desired = DigestSet()

    def lost_files(self) -> list[str]:
        """Return a text about each request file in flight that is lost, as far as the rows so far show."""
        return self._in_flight.lost()

    @property
    def waited_on(self) -> list[str]:
        """Ids of other request files in flight, or of peers, that contain requests the rows want."""
        return [*self._in_flight.waited_on, *sorted(self._peer_files)]

    def is_wanted(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether the rows so far want each request: bool, shape (n,).

        Args:
            digests: The digests of the requests, shape (n,).
        """
        return self._desired.contains(digests)

    def is_in_flight(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each request is in flight: bool, shape (n,).

        Args:
            digests: The digests of the requests, shape (n,).
        """
        is_of_peer, file_ids = self._peers.find(digests)
        self._peer_files |= file_ids
        return self._in_flight.contains(digests) | is_of_peer

    def is_kept(self, digest: bytes) -> bool:
        """Whether the request with this digest is answered or in flight, so that it is not sent."""
        digests = pack([digest])
        return bool(self.outcomes.for_digests(digests).is_answered[0] or self.is_in_flight(digests)[0])

    def check_chains(self) -> None:
        """Refuse a refresh that would take the end of chains from before it for its own answers.

        A first request in flight is as new as the refresh. A follow-up is not: its chain began with an old answer.

        Raises:
            BusyError: When a follow-up of an answer from before the refresh, which the rows want, is in flight.
        """
        if self.fresh_after is None:
            return
        with self._root.ledger.read() as tx:
            again = [file for id_ in self._in_flight.waited_on if (file := files.by_id(tx, id_)).attempt > 1]
            of_files = {each.id: each for each in submissions.by_ids(tx, [file.submission_id for file in again])}
        for file in again:
            is_before = (of_files[file.submission_id].fresh_after or 0.0) < self.fresh_after
            if is_before and StoredRequestFile.of(self._root.storage, file).has_follow_ups():
                raise BusyError(
                    f"a refresh cannot have the {count(file.requests, 'follow-up')} in {file.id}, which carry on "
                    "from answers of before it: refresh again when they are answered, or cancel the pipeline first"
                )

    @property
    def chosen(self) -> Chosen:
        """What is needed to register the submission, once all rows were looked up."""
        return Chosen(self.since, self.fresh_after, self.set_aside, self.waited_on, self._desired)

    def keep(self, digests: Digests, report: RequestsReport) -> NDArray[np.bool_]:
        """Return which requests are answered or in flight, and count these in the report. They are not sent.

        Args:
            digests: The digest of each row's request, shape (n,). Rows may share a request.
            report: The report to count in.

        Returns:
            bool, shape (n,).
        """
        distinct, place = np.unique(digests, return_inverse=True)
        in_flight = self.is_in_flight(distinct)
        kept: NDArray[np.bool_] = in_flight | self.outcomes.for_digests(distinct).is_answered
        unseen = kept.copy()
        unseen[kept] = ~self._desired.contains(distinct[kept])
        self._desired.add_new(distinct[unseen])
        report.requests += int(unseen.sum())
        report.in_flight += int((unseen & in_flight).sum())
        report.reused += int((unseen & ~in_flight).sum())
        return kept[place]

    def choose(
        self, digests: Digests, report: RequestsReport
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.intp]]:
        """Choose the requests to submit among those that some rows want, and count all of them in the report.

        Args:
            digests: The digest of each row's request, shape (n,). Rows may share a request.
            report: The report to count in.

        Returns:
            The positions of the requests to submit (intp), the attempt of each (int32), and the positions of the
            requests that the limit leaves out (intp). Given-up requests beyond the limit are in none of these.
        """
        distinct, first = np.unique(digests, return_index=True)
        unseen = ~self._desired.contains(distinct)
        distinct, first = distinct[unseen], first[unseen]
        self._desired.add_new(distinct)
        in_flight = self.is_in_flight(distinct)
        outcomes = self.outcomes.for_digests(distinct)
        fates = request_fates(
            outcomes.is_known,
            outcomes.kind,
            outcomes.attempt,
            max_attempts=self._max_attempts,
            in_flight=in_flight,
        )
        unsettled = np.isin(fates, _UNSETTLED)
        wanted = unsettled | (fates == RequestFate.GIVEN_UP.value) if self._again.retry_failed else unsettled
        chosen = np.flatnonzero(wanted)
        chosen = chosen[np.argsort(first[chosen])]
        limit = self._again.limit
        room = len(chosen) if limit is None else min(len(chosen), limit - report.written)
        chosen, beyond = chosen[:room], chosen[room:]
        left_out = beyond[unsettled[beyond]]
        report.requests += len(distinct)
        report.in_flight += int(in_flight.sum())
        report.written += len(chosen)
        report.left_out += len(left_out)
        report.reused += int((~in_flight).sum()) - len(chosen) - len(left_out)
        return first[chosen], (outcomes.attempt + 1)[chosen], first[left_out]


def kinds_of(attempts: NDArray[np.int32], header_sets: list[int] | None) -> NDArray[np.int32]:
    """Combine attempt and number of the header set, which together decide the request file, into one number.

    Args:
        attempts: The attempt of each request, shape (n,).
        header_sets: The number of each request's header set; `None` if there is only one.

    Returns:
        int32, shape (n,).
    """
    kinds = attempts * MAX_HEADER_SETS
    return kinds if header_sets is None else kinds + np.array(header_sets, dtype=kinds.dtype)
