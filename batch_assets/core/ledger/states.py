"""The states of everything in the ledger, and the legal moves of request files, batches and submissions.

`moves.py` refuses every other move. The diagrams in docs/durability.md are drawn from these moves.
"""

from __future__ import annotations

from enum import Enum, StrEnum, unique


class FileState(StrEnum):
    """The state of a request file, which is the body of exactly one batch. It decides what may be sent."""

    READY = "ready"
    """Written, and not at the API: it may be sent."""
    HELD = "held"
    """Written, and not at the API: `hold` says what has to allow it to be sent."""
    SENDING = "sending"
    """Its intent is written. The upload is running, or its process is gone."""
    UNRESOLVED = "unresolved"
    """Its upload got no clear answer: the API's list of batches shows whether it was accepted."""
    SUBMITTED = "submitted"
    """It became a batch whose answers are not stored yet."""
    COLLECTED = "collected"
    """The answers to its requests are in the response store."""
    STOPPED = "stopped"
    """Refused for a reason that affects every file (key, billing, limit): kept until a user runs it again."""
    REFUSED = "refused"
    """Refused for good: its requests may be written into another file."""
    TOO_LARGE = "too_large"
    """Too large for the API: it is about to be split, or given up if it has only one request."""
    SUPERSEDED = "superseded"
    """Replaced by other files: it will not be sent."""
    CANCELED = "canceled"
    """A user canceled it before it was sent, or gave its lost answers up."""

    @property
    def in_flight(self) -> bool:
        """Its requests are in flight: no other file may contain them."""
        return self in (
            FileState.READY,
            FileState.HELD,
            FileState.SENDING,
            FileState.UNRESOLVED,
            FileState.SUBMITTED,
            FileState.STOPPED,
            FileState.TOO_LARGE,
        )

    @property
    def in_doubt(self) -> bool:
        """Its upload has begun, and it is unknown whether the API accepted it."""
        return self in (FileState.SENDING, FileState.UNRESOLVED)

    @property
    def sendable(self) -> bool:
        """A run of `batches` sends it, whole or in two parts."""
        return self in (FileState.READY, FileState.TOO_LARGE)

    @property
    def unsent(self) -> bool:
        """Its requests are in flight, and the API certainly does not have it."""
        return self in (FileState.READY, FileState.HELD, FileState.STOPPED, FileState.TOO_LARGE)

    @property
    def replaceable(self) -> bool:
        """A newer submission sets it aside, unless it was sent once."""
        return self in (FileState.READY, FileState.HELD)

    @property
    def sent(self) -> bool:
        """It became a batch, or it has its answers without one."""
        return self in (FileState.SUBMITTED, FileState.COLLECTED)

    @property
    def let_go(self) -> bool:
        """Its requests are not in flight and it brought no answer: waiting on it is useless."""
        return self in (FileState.REFUSED, FileState.SUPERSEDED, FileState.CANCELED)

    @property
    def settled(self) -> bool:
        """Nothing is left to do or to report about it."""
        return self in (FileState.COLLECTED, FileState.SUPERSEDED, FileState.CANCELED)


class HoldReason(StrEnum):
    """Why a request file is held."""

    CONFIRM = "confirm"
    """A user has to approve what it costs."""
    BUDGET = "budget"
    """A budget has too little left for it."""
    QUEUE = "queue"
    """The API has too many requests in its queue, or it is the turn of another pipeline."""
    MORE = "more"
    """There are few requests: it waits for more, or until it has waited long enough."""
    CACHE = "cache"
    """Its stub has to be answered first, so that it reads the prompt that they share from the cache."""
    PILOT = "pilot"
    """The pilot of its prompt is not judged yet. If a user has to judge it, the reason becomes `CONFIRM`."""

    @property
    def needs_approval(self) -> bool:
        """Only a user lets it go."""
        return self is HoldReason.CONFIRM


class BatchState(StrEnum):
    """The state of a batch, from the id that the API gave it to the answers in the response store."""

    OPEN = "open"
    """The API works on it, as far as is known."""
    UNREACHABLE = "unreachable"
    """The API has answered 404 for minutes: the key belongs to another workspace, or the batch was deleted."""
    ENDED = "ended"
    """The API has ended it. Its answers are not stored yet."""
    COLLECTED = "collected"
    """Its answers are in the response store."""
    DELETING = "deleting"
    """Its answers are stored, and the API has been asked to delete it."""
    DELETED = "deleted"
    """Its answers are stored, and the API no longer has it."""
    LOST = "lost"
    """Its answers were stored and are lost, and a user gave them up."""
    FOREIGN = "foreign"
    """It belongs to someone else. It is recorded so that it is examined only once."""
    DISPROVED = "disproved"
    """Wrongly recorded as ours or as someone else's. Its row is deleted: only the history has this state."""

    @property
    def unended(self) -> bool:
        """The API has not ended it yet, as far as is known."""
        return self in (BatchState.OPEN, BatchState.UNREACHABLE)

    @property
    def uncollected(self) -> bool:
        """Its answers are not in the response store, but may still be collected."""
        return self in (BatchState.OPEN, BatchState.UNREACHABLE, BatchState.ENDED)

    @property
    def stored(self) -> bool:
        """Its answers are in the response store, whether or not the API still has it."""
        return self in (BatchState.COLLECTED, BatchState.DELETING, BatchState.DELETED)


class SubmissionState(StrEnum):
    """The state of a submission. It has no column: the times of its events determine it."""

    REGISTERED = "registered"
    """Built. A user has to start sending it."""
    BEGAN = "began"
    """A run of `batches` has begun: from now on it is sent unattended."""
    CANCELED = "canceled"
    """A user canceled it: nothing more of it is sent or retried."""
    FINAL = "final"
    """Every row has its final result."""


class EntityKind(StrEnum):
    """What a line of the history is about."""

    SUBMISSION = "submission"
    """What one run of `requests` wrote for a partition."""
    FILE = "file"
    """A request file."""
    BATCH = "batch"
    """A batch at the API."""
    ROUND = "round"
    """A run that the sensor requested."""
    ENDPOINT = "endpoint"
    """The API endpoint that the root belongs to."""


class RoundState(StrEnum):
    """The state of a round: a run that the sensor requested."""

    OPEN = "open"
    """Its run is in progress or about to start."""
    CLOSED = "closed"
    """Its run is over."""


class NoticeState(StrEnum):
    """The state of a notice to one target."""

    WAITING = "waiting"
    """It is to be sent, for the first time or again."""
    SENT = "sent"
    """The target has it."""
    REFUSED = "refused"
    """The target refused it for good: it is not sent again."""
    GIVEN_UP = "given_up"
    """It could not be sent for too long."""
    DROPPED = "dropped"
    """The pipeline no longer names its target."""


class ReservationState(StrEnum):
    """The state of a reservation: what one upload of a request file counts in budgets."""

    OPEN = "open"
    """What it cost is not known: it counts as what it may cost."""
    SETTLED = "settled"
    """The answers are stored: it counts as what they did cost."""
    RELEASED = "released"
    """The API has certainly not accepted the upload: it counts as nothing."""


class PilotVerdict(StrEnum):
    """What became of a pilot whose answers were judged."""

    GO = "go"
    """The other requests of the prompt may be sent."""
    ASK = "ask"
    """A user has to let them go."""
    CANCELED = "canceled"
    """Nothing: it was canceled before all was answered. The next build takes another pilot."""


@unique
class FileMove(Enum):
    """The legal moves of a request file: states before (`None`: it did not exist), state after, event."""

    WRITE = (None,), FileState.READY, "written"
    INTEND = (FileState.READY,), FileState.SENDING, "intent written"
    HOLD = (FileState.READY,), FileState.HELD, "not to be sent before something allows it"
    RELEASE = (FileState.HELD,), FileState.READY, "allowed"
    ACCEPT = (
        (FileState.READY, FileState.HELD, FileState.SENDING, FileState.UNRESOLVED),
        FileState.SUBMITTED,
        "accepted, or found in the API's list",
    )
    DOUBT = (
        (FileState.READY, FileState.SENDING),
        FileState.UNRESOLVED,
        "no clear answer, its process is gone, or the API shows a batch like it",
    )
    WAIT = (FileState.READY, FileState.SENDING), FileState.READY, "not sent, or the API asks to wait"
    RESEND = (FileState.SENDING,), FileState.READY, "garbled in transit"
    SEND_AGAIN = (
        (FileState.SENDING, FileState.UNRESOLVED),
        FileState.READY,
        "the API shows no such batch for the grace period",
    )
    DROP = (
        (FileState.SENDING, FileState.UNRESOLVED),
        FileState.SUPERSEDED,
        "the API shows no such batch, and no submission in force waits on it",
    )
    REFUSE = (
        (FileState.READY, FileState.SENDING, FileState.TOO_LARGE),
        FileState.REFUSED,
        "refused for good, or its file is lost",
    )
    STOP = (FileState.READY, FileState.SENDING), FileState.STOPPED, "refused for the key, billing or a limit"
    RESUME = (FileState.STOPPED,), FileState.READY, "run again by a user"
    EXCEED = (FileState.SENDING,), FileState.TOO_LARGE, "too large for the API"
    CUT = (
        (FileState.TOO_LARGE, FileState.HELD),
        FileState.SUPERSEDED,
        "split into two files",
    )
    GIVE_UP = (FileState.TOO_LARGE,), FileState.COLLECTED, "a single request, with the refusal as its answer"
    SET_ASIDE = (FileState.READY, FileState.HELD), FileState.SUPERSEDED, "replaced by a newer submission"
    CANCEL = (
        (FileState.READY, FileState.HELD, FileState.STOPPED, FileState.TOO_LARGE),
        FileState.CANCELED,
        "canceled by a user",
    )
    COLLECT = (FileState.SUBMITTED,), FileState.COLLECTED, "answers stored"
    REOPEN = (FileState.COLLECTED,), FileState.SUBMITTED, "response file is lost"
    FORGO = (FileState.SUBMITTED,), FileState.CANCELED, "its answers are lost, and a user gave them up"
    DISPROVE = (FileState.SUBMITTED,), FileState.UNRESOLVED, "its batch proved to belong to another"
    MISTRUST = (FileState.READY, FileState.HELD), FileState.UNRESOLVED, "the ledger is older than the files"
    REBUILD_IN_DOUBT = (None,), FileState.UNRESOLVED, "rebuilt, unknown whether it was sent"
    REBUILD_SUBMITTED = (None,), FileState.SUBMITTED, "rebuilt from its receipt"
    REBUILD_COLLECTED = (None,), FileState.COLLECTED, "rebuilt from its answers"
    REBUILD_LOST = (None,), FileState.REFUSED, "rebuilt, but the file is gone"
    REBUILD_UNWANTED = (None,), FileState.SUPERSEDED, "rebuilt, but other files have its requests"

    def __init__(self, before: tuple[FileState | None, ...], after: FileState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


@unique
class BatchMove(Enum):
    """The legal moves of a batch: states before (`None`: it was not known), state after, event."""

    MEET = (None,), BatchState.OPEN, "accepted, found, or rebuilt"
    MEET_ENDED = (None,), BatchState.ENDED, "found"
    MEET_FOREIGN = (None,), BatchState.FOREIGN, "found, and someone else's"
    SEE = (BatchState.OPEN, BatchState.UNREACHABLE), BatchState.OPEN, "the API shows it"
    LOSE = (BatchState.OPEN,), BatchState.UNREACHABLE, "404 for minutes"
    END = (BatchState.OPEN, BatchState.UNREACHABLE), BatchState.ENDED, "the API has ended it, or 29 days are over"
    FAIL = (BatchState.ENDED,), BatchState.ENDED, "a download failed"
    COLLECT = (BatchState.UNREACHABLE, BatchState.ENDED), BatchState.COLLECTED, "answers stored"
    REOPEN = (
        (BatchState.COLLECTED, BatchState.DELETING, BatchState.DELETED),
        BatchState.ENDED,
        "response file is lost",
    )
    DELETE = (BatchState.COLLECTED,), BatchState.DELETING, "retention"
    KEEP = (BatchState.DELETING,), BatchState.COLLECTED, "the API did not delete it"
    DELETED = (BatchState.DELETING,), BatchState.DELETED, "the API has deleted it"
    GIVE_UP = (BatchState.COLLECTED,), BatchState.DELETED, "a user reports that it was deleted"
    FORGO = (BatchState.ENDED,), BatchState.LOST, "its answers are lost, and a user gave them up"
    DISPROVE = (
        (BatchState.OPEN, BatchState.UNREACHABLE, BatchState.ENDED, BatchState.FOREIGN),
        BatchState.DISPROVED,
        "proved to belong to another",
    )
    REBUILD_COLLECTED = (None,), BatchState.COLLECTED, "rebuilt from its answers"
    IMPORT = (None,), BatchState.COLLECTED, "imported by a user"
    CALL = (None,), BatchState.COLLECTED, "asked by live calls"

    def __init__(self, before: tuple[BatchState | None, ...], after: BatchState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


@unique
class SubmissionMove(Enum):
    """The legal moves of a submission: states before (`None`: it did not exist), state after, event."""

    REGISTER = (None,), SubmissionState.REGISTERED, "built"
    BEGIN = (SubmissionState.REGISTERED,), SubmissionState.BEGAN, "a run of batches"
    CANCEL = (
        (SubmissionState.REGISTERED, SubmissionState.BEGAN),
        SubmissionState.CANCELED,
        "canceled by a user",
    )
    FINISH = (
        (SubmissionState.REGISTERED, SubmissionState.BEGAN, SubmissionState.CANCELED),
        SubmissionState.FINAL,
        "every row has its final result",
    )
    REOPEN_UNSENT = (SubmissionState.FINAL,), SubmissionState.REGISTERED, "rows wait again, nothing was sent"
    REOPEN = (SubmissionState.FINAL,), SubmissionState.BEGAN, "rows wait again"
    REOPEN_CANCELED = (SubmissionState.FINAL,), SubmissionState.CANCELED, "rows wait again after a cancel"

    def __init__(self, before: tuple[SubmissionState | None, ...], after: SubmissionState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


Move = FileMove | BatchMove | SubmissionMove


# For SQL statements, which take values and not properties.
FILES_REPLACEABLE = [state for state in FileState if state.replaceable]
FILES_IN_FLIGHT = [state for state in FileState if state.in_flight]
FILES_IN_DOUBT = [state for state in FileState if state.in_doubt]
FILES_UNSETTLED = [state for state in FileState if not state.settled]
HOLDS_TO_APPROVE = [reason for reason in HoldReason if reason.needs_approval]
BATCHES_UNENDED = [state for state in BatchState if state.unended]
BATCHES_UNCOLLECTED = [state for state in BatchState if state.uncollected]
BATCHES_STORED = [state for state in BatchState if state.stored]
# Nearly all batches are stored. A condition that names the other states keeps a database without statistics from
# reading all of the stored ones by their state.
BATCHES_NOT_STORED = [state for state in BatchState if not state.stored]
