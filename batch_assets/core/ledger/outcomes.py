"""What becomes of one POST of a request file, of a run that the sensor asked for, and of a message to a person."""

from __future__ import annotations

from enum import StrEnum


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
INTENTS_IN_DOUBT = [outcome for outcome in IntentOutcome if outcome.in_doubt]


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
