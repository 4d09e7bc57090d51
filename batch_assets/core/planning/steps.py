"""The possible next steps of a submission, as values: a step that runs, a wait, a remedy for a user, or nothing.

The texts for them are elsewhere: `texts` has those that the command line and Dagster share. The command line
and Dagster each have texts that name a command or an asset.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.planning.snapshot import SEND_AGAIN_SECONDS
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers

# While other batches still run, the table is written again after this time at the earliest.
PARTIAL_SECONDS = 900.0
# Time between two searches for a batch that may turn up after the grace period.
WATCH_SECONDS = 3600.0


class SendReason(StrEnum):
    """Why `batches` has something to do."""

    CANCEL = "cancel"
    """Batches run at the API, or request files may be sent, although their submission was canceled."""
    ASK_AGAIN = "ask again"
    """Requests failed for a passing reason, and no request file holds them."""
    AFFORDABLE = "affordable"
    """Request files were held because a budget had too little left, and they fit into it now."""
    PILOT = "pilot"
    """Request files are held until the pilot of their prompt is judged, and it can be judged now."""
    ENOUGH = "enough"
    """Request files were held for more requests, and have waited long enough."""
    ROOM = "room"
    """Request files waited for room in the queue of the API, and there is room now."""
    UNSENT = "unsent"
    """Request files are ready, or too large and to be split."""
    IN_DOUBT = "in doubt"
    """It is unknown whether request files reached the API."""
    RESCUE = "rescue"
    """The deadline has passed, and rows without an answer are asked by live calls."""
    LATE_BATCH = "late batch"
    """A file was sent again, and the batch of its first upload may still turn up."""


class Joining(StrEnum):
    """Why the table has to be written."""

    FIRST = "first"
    """It was never written."""
    CANCELED = "canceled"
    """It has not been written since the submission was canceled, or since the last of it was in flight."""
    NEW_ANSWERS = "new answers"
    """Answers were collected since the last join."""
    LIVE_ANSWERS = "live answers"
    """Answers of live calls are not stored yet."""


class Waiting(StrEnum):
    """What a submission waits for that happens without a user."""

    BATCHES = "batches"
    """The API has to end batches."""
    CACHE = "cache"
    """The first request has to be answered, so that the others read the prompt from the cache."""
    RATE_LIMIT = "rate limit"
    """The API asked to send no more for a while."""
    DOWNLOAD = "download"
    """Results could not be downloaded; they are tried again later."""
    UPLOAD = "upload"
    """A request file is being sent, or a run of `batches` is running."""
    COLLECTING = "collecting"
    """A run that a user started is collecting results of the pipeline."""
    BUDGET = "budget"
    """A budget has too little left. Answers that come in may free money, or a new period begins."""
    PILOT = "pilot"
    """The pilot of its prompt, which another partition sends, is not judged yet."""
    MORE = "more"
    """There are few requests: more may come, or the oldest has waited long enough."""
    QUEUE = "queue"
    """Too many requests are queued, or it is the turn of another pipeline."""
    NEXT_ROUND = "next round"
    """Files are in flight; a later run continues with them."""

    @property
    def ends_at_a_time(self) -> bool:
        """Whether work continues at the time given; otherwise it is only looked at again then."""
        return self in (Waiting.RATE_LIMIT, Waiting.DOWNLOAD, Waiting.BUDGET, Waiting.MORE)


@dataclass(frozen=True)
class MaterializeBatches:
    """Requests are built, and no user has agreed to send them: it costs money.

    Attributes:
        files: Request files that are ready; empty if there are only failed requests to send again, or lost uploads
            to look for.
    """

    files: tuple[RequestFile, ...] = ()


@dataclass(frozen=True)
class MaterializeRequests:
    """No request file has the requests that rows wait for: they have to be built again.

    Attributes:
        refused: Files that the API refused; empty if the files are gone for another reason, such as another
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
        files: The files that were kept.
    """

    files: tuple[RequestFile, ...]


@dataclass(frozen=True)
class ApproveFiles:
    """Request files are held until a user approves them.

    Attributes:
        files: The files.
    """

    files: tuple[RequestFile, ...]


@dataclass(frozen=True)
class RaiseBudget:
    """Request files are held that no money comes free for.

    Attributes:
        files: The files.
    """

    files: tuple[RequestFile, ...]


@dataclass(frozen=True)
class RestoreFile:
    """A request file is lost, and with it the text of requests to send again; or a tool gave no result for one.

    Attributes:
        why: Which file or tool, and the error of the last try.
        last_try: When it was last tried, seconds since 1970.
        next_try: When the next unattended try is due, seconds since 1970.
    """

    why: str
    last_try: float
    next_try: float


@dataclass(frozen=True)
class AskTheRest:
    """A limit left requests out.

    Attributes:
        requests: Number of requests that were left out.
        by_refresh: Whether only another refresh sends them; any other run ends the refresh.
    """

    requests: int
    by_refresh: bool


SubmissionRemedy = (
    MaterializeBatches
    | MaterializeRequests
    | MaterializeResults
    | SendStopped
    | ApproveFiles
    | RaiseBudget
    | CancelBatch
    | GiveUpAnswers
    | RestoreFile
    | AskTheRest
)
"""What a user can do for a submission, with what the ledger shows about it."""


@dataclass(frozen=True)
class Send:
    """`batches` has something to do, and `results` after it.

    Attributes:
        why: What `batches` has to do.
        count: Number of the requests, files or batches that `why` refers to.
    """

    why: SendReason
    count: int = 0

    @property
    def pause(self) -> float:
        """Seconds that should have passed since the last round."""
        if self.why in (SendReason.ASK_AGAIN, SendReason.PILOT):
            return 0.0
        return WATCH_SECONDS if self.why is SendReason.LATE_BATCH else SEND_AGAIN_SECONDS


@dataclass(frozen=True)
class Collect:
    """Batches have ended.

    Attributes:
        batches: Number of these batches.
        others_run: Whether other batches are still running.
    """

    batches: int
    others_run: bool

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        return PARTIAL_SECONDS if self.others_run else 0.0


@dataclass(frozen=True)
class Join:
    """The table has to be written from the stored answers.

    Attributes:
        why: Why it has to be written.
        others_run: Whether more answers are under way.
    """

    why: Joining
    others_run: bool

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        # The run that made live calls stores their answers. What it left may be damaged, and stay so.
        return PARTIAL_SECONDS if self.others_run or self.why is Joining.LIVE_ANSWERS else 0.0


@dataclass(frozen=True)
class Announce:
    """The results are complete, and their materialization is not in Dagster's log."""

    @property
    def pause(self) -> float:
        """See `Send.pause`."""
        return 0.0


@dataclass(frozen=True)
class Wait:
    """The submission continues automatically.

    Attributes:
        until: The earliest time, seconds since 1970; None if the ledger does not have it.
        why: What it waits for.
        watch: Whether a run of `batches` should look for a late batch now and then.
    """

    until: float | None
    why: Waiting
    watch: bool = False


@dataclass(frozen=True)
class NeedsUser:
    """A user has to act: rows have no answer, or have lost theirs, and nothing is under way that could bring one.

    Attributes:
        remedy: The first of `next_step.remedies`.
        watch: See `Wait`.
    """

    remedy: SubmissionRemedy
    watch: bool = False


@dataclass(frozen=True)
class Done:
    """Every row has its final result, and nothing is left to do.

    Attributes:
        watch: See `Wait`.
    """

    watch: bool = False


Round = Send | Collect | Join | Announce
"""What an unattended run can do."""
Step = Round | Wait | NeedsUser | Done
