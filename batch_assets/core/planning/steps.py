"""What may come next for a submission, as values: a step of ours, a wait, a person's remedy, or nothing.

Words for them are elsewhere: `in_words` has those that both faces share, the command line and Dagster have those
that name a command or an asset.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.planning.snapshot import SEND_AGAIN_SECONDS

# While other batches still run, the table is refreshed at most this often.
PARTIAL_SECONDS = 900.0
# A batch hidden beyond the grace period is looked for this often.
WATCH_SECONDS = 3600.0


class Sending(StrEnum):
    """Why `batches` has something to do."""

    CANCEL = "cancel"
    """Batches run at the API although their submission was canceled."""
    ASK_AGAIN = "ask again"
    """Requests failed for a passing reason, and no request file holds them."""
    UNSENT = "unsent"
    """Request files are ready, or too large and to be split."""
    IN_DOUBT = "in doubt"
    """Nobody knows whether request files reached the API."""
    LATE_BATCH = "late batch"
    """A file was sent again, and the batch of its first upload may still turn up."""


class Joining(StrEnum):
    """Why the table has to be written."""

    FIRST = "first"
    """It never was."""
    CANCELED = "canceled"
    """It was not since the submission was canceled."""
    NEW_ANSWERS = "new answers"
    """Answers were collected since the last join."""


class Waiting(StrEnum):
    """What a submission waits for that happens without a person."""

    BATCHES = "batches"
    """The API is to end batches."""
    RATE_LIMIT = "rate limit"
    """The API asked to send no more for a while."""
    DOWNLOAD = "download"
    """Results could not be downloaded; they are tried again later."""
    UPLOAD = "upload"
    """A request file is being sent, or a run of `batches` is at work."""
    COLLECTING = "collecting"
    """A person's run is collecting results of the pipeline."""
    NEXT_ROUND = "next round"
    """Files are under way; a later run takes them on."""


@dataclass(frozen=True)
class MaterializeBatches:
    """Requests were built and nobody has agreed to send them: it costs money.

    Attributes:
        files: request files that are ready; none where only failed requests are to be asked again, or lost uploads
            to be looked for.
    """

    files: tuple[RequestFile, ...] = ()


@dataclass(frozen=True)
class MaterializeRequests:
    """No request file holds what rows wait for: the requests have to be built again.

    Attributes:
        refused: files that the API refused; none where the files are gone for another reason, such as another
            partition's cancel.
    """

    refused: tuple[RequestFile, ...] = ()


@dataclass(frozen=True)
class MaterializeResults:
    """Everything is answered, reused or canceled, but the table was never written from it."""


@dataclass(frozen=True)
class SendStopped:
    """The API refused for a reason outside the files (key, billing, spend limit): fix that, then send them again.

    Attributes:
        files: the files that were kept.
    """

    files: tuple[RequestFile, ...]


@dataclass(frozen=True)
class CancelBatch:
    """The API does not know a batch: set the key of its workspace, or give the batch up."""

    batch_id: str


@dataclass(frozen=True)
class RestoreFile:
    """A request file is lost, and with it the text of requests to ask again.

    Attributes:
        why: which file, and what the last try said.
        next_try: when it is tried again unattended, seconds since 1970.
    """

    why: str
    next_try: float


@dataclass(frozen=True)
class AskTheRest:
    """A limit left requests out.

    Attributes:
        requests: how many.
        by_refresh: only another refresh asks for them; any other run ends the refresh.
    """

    requests: int
    by_refresh: bool


Remedy = (
    MaterializeBatches
    | MaterializeRequests
    | MaterializeResults
    | SendStopped
    | CancelBatch
    | RestoreFile
    | AskTheRest
)


@dataclass(frozen=True)
class Send:
    """`batches` has something to do, and `results` after it.

    Attributes:
        count: of the requests, files or batches that `why` speaks of.
    """

    why: Sending
    count: int = 0

    @property
    def pause(self) -> float:
        """Seconds that should have passed since the last round."""
        if self.why is Sending.ASK_AGAIN:
            return 0.0
        return WATCH_SECONDS if self.why is Sending.LATE_BATCH else SEND_AGAIN_SECONDS


@dataclass(frozen=True)
class Collect:
    """Batches have ended.

    Attributes:
        batches: how many.
        others_run: answers of others are under way.
    """

    batches: int
    others_run: bool

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        return PARTIAL_SECONDS if self.others_run else 0.0


@dataclass(frozen=True)
class Join:
    """The table has to be written, from answers that are here.

    Attributes:
        others_run: answers are under way.
    """

    why: Joining
    others_run: bool

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        return PARTIAL_SECONDS if self.others_run else 0.0


@dataclass(frozen=True)
class Announce:
    """The results are complete, and their materialization is not in Dagster's log."""

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        return 0.0


@dataclass(frozen=True)
class Wait:
    """It goes on by itself.

    Attributes:
        until: when it may, seconds since 1970; None where the ledger does not say.
        watch: a run of `batches` should look for a late batch now and then.
    """

    until: float | None
    why: Waiting
    watch: bool = False


@dataclass(frozen=True)
class Person:
    """Rows are without an answer, and nothing that could bring one is under way: it takes a person.

    Attributes:
        remedy: the first of `next_step.remedies`.
        watch: as of `Wait`.
    """

    remedy: Remedy
    watch: bool = False


@dataclass(frozen=True)
class Done:
    """Every row has its final result, and nothing is left to do.

    Attributes:
        watch: as of `Wait`.
    """

    watch: bool = False


Round = Send | Collect | Join | Announce
"""What an unattended run can do."""
Step = Round | Wait | Person | Done
