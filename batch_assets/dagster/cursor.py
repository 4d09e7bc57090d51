"""The sensor's cursor: what it has told, so that a tick in which nothing changed tells nothing.

Everything that must not be lost is in the ledger. Without its cursor the sensor says a few things once more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self


class Told(NamedTuple):
    """The last observation of a submission's batches: when, by the ledger's clock, and its numbers in order."""

    at: float
    counts: list[int]


@dataclass
class SensorCursor:
    """What ticks hand on.

    Attributes:
        warned: pipeline -> what the check of deadlines last said of it.
        observed: submission -> its last observation.
    """

    warned: dict[str, str] = field(default_factory=dict)
    observed: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> Self:
        """The cursor of the last tick; an empty one where there is none, or none that can be read."""
        try:
            found: dict[str, Any] = json.loads(text or "{}")
            observed = found.get("observed", {}).items()
            return cls(
                warned={str(name): str(said) for name, said in found.get("warned", {}).items()},
                observed={str(name): Told(float(at), list(counts)) for name, (at, counts) in observed},
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def write(self) -> str:
        """For the next tick."""
        return json.dumps({"warned": self.warned, "observed": self.observed})
