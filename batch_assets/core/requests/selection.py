"""to submit = desired - answered - in flight - given up: how requests stand when a submission is built."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import MAX_HEADER_SETS
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests, DigestSet
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.outcomes import load_outcomes
from batch_assets.core.store.refreshes import fresh_after_for, refreshes_of
from batch_assets.core.store.responses import ResponseFiles

# What a new submission asks, a limit aside. What was given up it asks only when a person wants that.
_UNSETTLED = np.array([RequestFate.UNASKED, RequestFate.RETRY, RequestFate.CANCELED], np.int8)


class Selection:
    """What is answered, given up or in flight of a pipeline's requests, and which were seen to be desired.

    Attributes:
        created_at: when it was read, by the ledger's clock.
        fresh_after: of the submission that is built, where it is a refresh.
        set_aside: request files that count as unsent: the submission takes their place.
    """

    def __init__(self, root: Root, pipeline: Pipeline, partition: str, again: AskAgain) -> None:
        self._again, self._max_attempts = again, pipeline.config.retry.max_attempts
        with root.ledger.read() as tx:
            self.created_at = tx.now
            self.set_aside = submissions.unsent(tx, pipeline.name, partition)
            unsent = {file.id for file in self.set_aside}
            held = [file for file in submissions.holding(tx, pipeline.name) if file.id not in unsent]
            refreshes = refreshes_of(tx, pipeline.name)
            self.fresh_after = fresh_after_for(tx, pipeline.name, partition, refresh=again.refresh)
        # In this order: what is collected in between is in both, never in neither.
        self._held = RequestsInFlight(root, held)
        files = ResponseFiles(root.storage, pipeline.name)
        self._outcomes = load_outcomes(files, refreshes, self.fresh_after)
        self._desired = DigestSet()

    @property
    def waited_on(self) -> list[str]:
        """Ids of other request files that hold what was desired."""
        return self._held.waited_on

    def choose(
        self, digests: Digests, report: RequestsReport
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.intp]]:
        """Finds those of some desired requests that are to be submitted, and counts all in the report.

        Args:
            digests: one or several for each request.

        Returns:
            The places of those to submit, the attempt of each, and the places of those that the limit leaves out.
            What was given up and is beyond the limit is none of these: it stays as it is.
        """
        distinct, first = np.unique(digests, return_index=True)
        unseen = ~self._desired.contains(distinct)
        distinct, first = distinct[unseen], first[unseen]
        self._desired.add(distinct)
        held = self._held.contains(distinct)
        place, outcome, attempt = self._outcomes.of(distinct)
        fates = request_fates(place >= 0, outcome, attempt, max_attempts=self._max_attempts, in_flight=held)
        unsettled = np.isin(fates, _UNSETTLED)
        wanted = unsettled | (fates == RequestFate.GIVEN_UP.value) if self._again.retry_failed else unsettled
        chosen = np.flatnonzero(wanted)
        chosen = chosen[np.argsort(first[chosen])]
        limit = self._again.limit
        room = len(chosen) if limit is None else min(len(chosen), limit - report.written)
        chosen, beyond = chosen[:room], chosen[room:]
        left_out = beyond[unsettled[beyond]]
        report.requests += len(distinct)
        report.in_flight += int(held.sum())
        report.written += len(chosen)
        report.left_out += len(left_out)
        report.reused += int((~held).sum()) - len(chosen) - len(left_out)
        return first[chosen], (attempt + 1)[chosen], first[left_out]


def kinds_of(attempts: NDArray[np.int32], header_sets: list[int] | None) -> NDArray[np.int32]:
    """One number for both by which requests are told apart: attempt, and number of the header set."""
    kinds = attempts * MAX_HEADER_SETS
    return kinds if header_sets is None else kinds + np.array(header_sets, dtype=kinds.dtype)
