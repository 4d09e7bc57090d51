"""Outcomes of intents. An intent is one POST of a request file, recorded before it begins."""

from __future__ import annotations

from enum import StrEnum

CLOCK_MARGIN_SECONDS = 300.0
"""A batch sent after the anchor may have an earlier time by this much, because several clocks set these times."""


class IntentOutcome(StrEnum):
    """The outcome of one POST of a request file."""

    OPEN = "open"
    """It has no outcome yet: the upload is running, or its process is gone."""
    ACCEPTED = "accepted"
    """The API's reply, a receipt or results prove the batch."""
    REFUSED = "refused"
    """The API refused it: it took nothing."""
    GARBLED = "garbled"
    """The API could not read the body, which was changed in transit."""
    NOT_SENT = "not_sent"
    """No body was sent, or the API asked to wait."""
    UNRESOLVED = "unresolved"
    """It got no clear answer."""
    RESENT = "resent"
    """The API showed no batch for the grace period, so the file may be sent again. The batch may still turn up."""
    ADOPTED = "adopted"
    """A batch in the API's list was matched to it, by the count alone or after its file was sent again."""

    @property
    def in_doubt(self) -> bool:
        """Whether the API accepted it is still unknown."""
        return self in (IntentOutcome.OPEN, IntentOutcome.UNRESOLVED)


# For SQL statements, which take values and not properties.
INTENTS_IN_DOUBT = [outcome for outcome in IntentOutcome if outcome.in_doubt]
# Refused ones that may be sent again, and ones whose file the API asked to wait with.
INTENTS_REFUSED = [IntentOutcome.REFUSED, IntentOutcome.GARBLED, IntentOutcome.NOT_SENT]
# Another batch of these may turn up, as long as `watch_until` says. It is not set for most refusals.
INTENTS_WATCHED = [
    IntentOutcome.RESENT,
    IntentOutcome.ACCEPTED,
    IntentOutcome.ADOPTED,
    IntentOutcome.REFUSED,
    IntentOutcome.NOT_SENT,
]
