"""When and how rows without an answer are asked by live calls, as a pipeline file says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RescueRule:
    """When and how rows without an answer are asked by live calls.

    Attributes:
        seconds: How long after the first run of `batches`.
        max_in_flight: The most live calls at a time.
    """

    seconds: float
    max_in_flight: int
