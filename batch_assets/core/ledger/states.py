"""What a request file, a batch and a submission can be, and how each comes from one state to the next.

The moves are the only legal ones: `moves.py` refuses every other. The diagrams of docs/durability.md are drawn
from them.
"""

from __future__ import annotations

from enum import Enum, StrEnum, unique


class FileState(StrEnum):
    """The state of a request file, which is the body of exactly one batch: it decides what may be sent."""

    READY = "ready"
    """Written, and not at the API: it may be sent."""
    SENDING = "sending"
    """Its intent is written; the upload is under way, or its process is gone."""
    UNRESOLVED = "unresolved"
    """Its upload got no clear answer: the API's own list of batches has to tell."""
    SUBMITTED = "submitted"
    """It became a batch whose answers are not stored yet."""
    COLLECTED = "collected"
    """The answers to its requests are in the response store."""
    STOPPED = "stopped"
    """Refused for a reason that concerns every file (key, billing, limit): kept until a person runs it again."""
    REFUSED = "refused"
    """Refused for good: its requests are free to be written into another file."""
    TOO_LARGE = "too_large"
    """The API finds it too large: it is about to be cut in two, or given up if it has one request only."""
    SUPERSEDED = "superseded"
    """Set aside for other files: nobody sends it any more."""
    CANCELED = "canceled"
    """A person canceled it before it was sent."""

    @property
    def in_flight(self) -> bool:
        """It holds its requests: no other file may have them."""
        return self in (
            FileState.READY,
            FileState.SENDING,
            FileState.UNRESOLVED,
            FileState.SUBMITTED,
            FileState.STOPPED,
            FileState.TOO_LARGE,
        )

    @property
    def in_doubt(self) -> bool:
        """Its upload has begun, and nothing says yet whether the API accepted it."""
        return self in (FileState.SENDING, FileState.UNRESOLVED)

    @property
    def sendable(self) -> bool:
        """A run of `batches` has something to do for it, as it is or in two parts."""
        return self in (FileState.READY, FileState.TOO_LARGE)

    @property
    def unsent(self) -> bool:
        """It holds its requests, and the API surely does not have it."""
        return self in (FileState.READY, FileState.STOPPED, FileState.TOO_LARGE)

    @property
    def sent(self) -> bool:
        """It became a batch, or it has its answers without one."""
        return self in (FileState.SUBMITTED, FileState.COLLECTED)

    @property
    def needs_person(self) -> bool:
        """The API refused it, and it goes no further until a person does something about it."""
        return self in (FileState.REFUSED, FileState.STOPPED)

    @property
    def let_go(self) -> bool:
        """It holds nothing and brought no answer: who waits on it waits in vain."""
        return self in (FileState.REFUSED, FileState.SUPERSEDED, FileState.CANCELED)

    @property
    def settled(self) -> bool:
        """Nothing is left to do or to say about it."""
        return self in (FileState.COLLECTED, FileState.SUPERSEDED, FileState.CANCELED)


class BatchState(StrEnum):
    """The state of a batch, from the id the API gave it to the answers in the response store."""

    OPEN = "open"
    """The API works on it, as far as is known."""
    UNREACHABLE = "unreachable"
    """The API has answered 404 for it for minutes: a key of another workspace, or somebody deleted it."""
    ENDED = "ended"
    """The API is done with it; its answers are not stored yet."""
    COLLECTED = "collected"
    """Its answers are in the response store."""
    DELETING = "deleting"
    """Its answers are stored, and the API has been asked to delete it."""
    DELETED = "deleted"
    """Its answers are stored, and the API does not have it any more."""
    FOREIGN = "foreign"
    """Somebody else's, and remembered so that it is looked into once only."""
    DISPROVED = "disproved"
    """Taken for ours, or for somebody else's, and it was not. Its row is deleted: only the history has this."""

    @property
    def unended(self) -> bool:
        """The API has not ended it, as far as is known."""
        return self in (BatchState.OPEN, BatchState.UNREACHABLE)

    @property
    def uncollected(self) -> bool:
        """Its answers are not in the response store, and may come into it."""
        return self in (BatchState.OPEN, BatchState.UNREACHABLE, BatchState.ENDED)

    @property
    def stored(self) -> bool:
        """Its answers are in the response store, whether the API still has it or not."""
        return self in (BatchState.COLLECTED, BatchState.DELETING, BatchState.DELETED)


class SubmissionState(StrEnum):
    """The state of a submission. No column holds it: the times of what happened to it tell."""

    REGISTERED = "registered"
    """Built, and a person has to begin to send it."""
    BEGAN = "began"
    """A run of `batches` has begun: from here on it is sent unattended."""
    CANCELED = "canceled"
    """A person canceled it: nothing more of it is sent or asked again."""
    FINAL = "final"
    """Every row has its final result."""


@unique
class FileMove(Enum):
    """Every legal move of a request file: where it may begin (None: there was none), where it ends, the event."""

    WRITE = (None,), FileState.READY, "written"
    INTEND = (FileState.READY,), FileState.SENDING, "intent written"
    ACCEPT = (
        (FileState.READY, FileState.SENDING, FileState.UNRESOLVED),
        FileState.SUBMITTED,
        "accepted, or found in the API's list",
    )
    DOUBT = (FileState.SENDING,), FileState.UNRESOLVED, "no clear answer, or its process is gone"
    WAIT = (FileState.READY, FileState.SENDING), FileState.READY, "not sent, or the API asks to wait"
    RESEND = (FileState.SENDING,), FileState.READY, "garbled on its way"
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
    REFUSE = (FileState.SENDING,), FileState.REFUSED, "refused for good, or its file is gone"
    STOP = (FileState.READY, FileState.SENDING), FileState.STOPPED, "refused for its key, billing or a limit"
    RESUME = (FileState.STOPPED,), FileState.READY, "a person's run"
    EXCEED = (FileState.SENDING,), FileState.TOO_LARGE, "too large for the API"
    CUT = (FileState.TOO_LARGE,), FileState.SUPERSEDED, "two smaller files"
    GIVE_UP = (FileState.TOO_LARGE,), FileState.COLLECTED, "a single request, whose answer is the refusal"
    SET_ASIDE = (FileState.READY,), FileState.SUPERSEDED, "a newer submission"
    CANCEL = (
        (FileState.READY, FileState.STOPPED, FileState.TOO_LARGE),
        FileState.CANCELED,
        "canceled by a person",
    )
    COLLECT = (FileState.SUBMITTED,), FileState.COLLECTED, "answers stored"
    REOPEN = (FileState.COLLECTED,), FileState.SUBMITTED, "response file is gone"
    DISPROVE = (FileState.SUBMITTED,), FileState.UNRESOLVED, "its batch is not its own"
    REBUILD_IN_DOUBT = (None,), FileState.UNRESOLVED, "rebuilt, and nothing says whether it was sent"
    REBUILD_SUBMITTED = (None,), FileState.SUBMITTED, "rebuilt from its receipt"
    REBUILD_COLLECTED = (None,), FileState.COLLECTED, "rebuilt from its answers"
    REBUILD_LOST = (None,), FileState.REFUSED, "rebuilt, and the file is gone"
    REBUILD_UNWANTED = (None,), FileState.SUPERSEDED, "rebuilt, and other files have its requests"

    def __init__(self, before: tuple[FileState | None, ...], after: FileState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


@unique
class BatchMove(Enum):
    """Every legal move of a batch: where it may begin (None: it was not known), where it ends, the event."""

    MEET = (None,), BatchState.OPEN, "accepted, found, or rebuilt"
    MEET_ENDED = (None,), BatchState.ENDED, "found"
    MEET_FOREIGN = (None,), BatchState.FOREIGN, "somebody else's"
    SEE = (BatchState.OPEN, BatchState.UNREACHABLE), BatchState.OPEN, "the API shows it"
    LOSE = (BatchState.OPEN,), BatchState.UNREACHABLE, "404 for minutes"
    END = (BatchState.OPEN, BatchState.UNREACHABLE), BatchState.ENDED, "the API has ended it, or 29 days are over"
    FAIL = (BatchState.ENDED,), BatchState.ENDED, "a download that failed"
    COLLECT = (BatchState.UNREACHABLE, BatchState.ENDED), BatchState.COLLECTED, "answers stored"
    REOPEN = (BatchState.COLLECTED,), BatchState.ENDED, "response file is gone"
    DELETE = (BatchState.COLLECTED,), BatchState.DELETING, "retention"
    KEEP = (BatchState.DELETING,), BatchState.COLLECTED, "the API did not delete it"
    DELETED = (BatchState.DELETING,), BatchState.DELETED, "the API has deleted it"
    GIVE_UP = (BatchState.COLLECTED,), BatchState.DELETED, "it was deleted before, says a person"
    DISPROVE = (
        (BatchState.OPEN, BatchState.UNREACHABLE, BatchState.ENDED, BatchState.FOREIGN),
        BatchState.DISPROVED,
        "proved to be another's",
    )
    REBUILD_COLLECTED = (None,), BatchState.COLLECTED, "rebuilt from its answers"

    def __init__(self, before: tuple[BatchState | None, ...], after: BatchState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


@unique
class SubmissionMove(Enum):
    """Every legal move of a submission: where it may begin (None: there was none), where it ends, the event."""

    REGISTER = (None,), SubmissionState.REGISTERED, "built"
    BEGIN = (SubmissionState.REGISTERED,), SubmissionState.BEGAN, "a run of batches"
    CANCEL = (
        (SubmissionState.REGISTERED, SubmissionState.BEGAN),
        SubmissionState.CANCELED,
        "canceled by a person",
    )
    FINISH = (
        (SubmissionState.REGISTERED, SubmissionState.BEGAN, SubmissionState.CANCELED),
        SubmissionState.FINAL,
        "every row has its final result",
    )
    REOPEN_UNSENT = (SubmissionState.FINAL,), SubmissionState.REGISTERED, "rows wait again, none was sent"
    REOPEN = (SubmissionState.FINAL,), SubmissionState.BEGAN, "rows wait again"
    REOPEN_CANCELED = (SubmissionState.FINAL,), SubmissionState.CANCELED, "rows wait again after a cancel"

    def __init__(self, before: tuple[SubmissionState | None, ...], after: SubmissionState, event: str) -> None:
        self.before, self.after, self.event = before, after, event


Move = FileMove | BatchMove | SubmissionMove


# For statements, which take values and not properties.
FILES_IN_FLIGHT = [state for state in FileState if state.in_flight]
FILES_IN_DOUBT = [state for state in FileState if state.in_doubt]
FILES_UNSETTLED = [state for state in FileState if not state.settled]
BATCHES_UNENDED = [state for state in BatchState if state.unended]
BATCHES_UNCOLLECTED = [state for state in BatchState if state.uncollected]
BATCHES_STORED = [state for state in BatchState if state.stored]
