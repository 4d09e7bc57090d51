"""What a request file, a batch and a submission can be: their states, each with its meaning."""

from __future__ import annotations

from enum import StrEnum


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


class RoundState(StrEnum):
    """The state of a round: a run that the sensor asked for."""

    OPEN = "open"
    """Its run is under way, or about to be."""
    CLOSED = "closed"
    """Its run is over."""


class NoticeState(StrEnum):
    """The state of a notice to one target."""

    WAITING = "waiting"
    """It is to be sent, for the first time or once more."""
    SENT = "sent"
    """The target has it."""
    REFUSED = "refused"
    """The target does not want it, and will not: it is not tried again."""
    GIVEN_UP = "given_up"
    """It was tried for too long."""
    DROPPED = "dropped"
    """The pipeline no longer names its target."""


class IntentOutcome(StrEnum):
    """What became of one POST of a request file."""

    OPEN = "open"
    """It has no end yet: under way, or its process is gone."""
    ACCEPTED = "accepted"
    """The API's reply, a receipt or results prove the batch."""
    REFUSED = "refused"
    """The API said no: it took nothing."""
    GARBLED = "garbled"
    """The API could not read the body, which had been changed on its way."""
    NOT_SENT = "not_sent"
    """No body went out, or the API asked to wait."""
    UNRESOLVED = "unresolved"
    """It got no clear answer."""
    RESENT = "resent"
    """The API showed no batch for the grace period, so the file may go out again; the batch may still turn up."""
    ADOPTED = "adopted"
    """A batch in the API's list was taken for its, on the count alone or after its file was sent again."""

    @property
    def in_doubt(self) -> bool:
        """Nothing says yet whether the API accepted it."""
        return self in (IntentOutcome.OPEN, IntentOutcome.UNRESOLVED)


# For statements, which take values and not properties.
FILES_IN_FLIGHT = [state for state in FileState if state.in_flight]
FILES_IN_DOUBT = [state for state in FileState if state.in_doubt]
FILES_UNSETTLED = [state for state in FileState if not state.settled]
BATCHES_UNENDED = [state for state in BatchState if state.unended]
BATCHES_UNCOLLECTED = [state for state in BatchState if state.uncollected]
BATCHES_STORED = [state for state in BatchState if state.stored]
INTENTS_IN_DOUBT = [outcome for outcome in IntentOutcome if outcome.in_doubt]
