"""Names under the root: what a submission's id says."""

from __future__ import annotations

import calendar
import time

_ID_TIME = "%Y%m%dT%H%M%S"


def built_at(submission_id: str) -> float | None:
    """When a submission was built, by our clock; None for an id that does not say."""
    try:
        return float(calendar.timegm(time.strptime(submission_id.partition("-")[0], _ID_TIME)))
    except ValueError:
        return None
