"""The sensor's cursor: what it has reported, so that it does not report the same again.

Everything that must not be lost is in the ledger. Without its cursor, the sensor repeats a few events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self


class Observed(NamedTuple):
    """The last observation of a submission's batches: its time by the ledger's clock, and its numbers in order."""

    at: float
    counts: list[int]

    @property
    def open(self) -> int:
        """The number of batches that had not ended: the second of the numbers."""
        return self.counts[1] if len(self.counts) > 1 else 0


@dataclass
class SensorCursor:
    """The state that one tick passes to the next.

    Attributes:
        warned: Map of pipeline to the last warning of its deadline check.
        observed: Map of submission to its last observation.
        observed_until: Each submission that became final before this time has had its last observation, by the
            ledger's clock; 0 if no tick has recorded it.
        compared_at: When the folders under the root were last compared with the ledger, by the ledger's clock.
        unknown: The ids of the submissions that the ledger did not know then.
        broken: Map of pipeline to the digest of what is wrong with its file.
        pools_seen_at: When a tick last looked at the pools of the instance, by the code server's clock.
    """

    warned: dict[str, str] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    observed_until: float = 0.0
    compared_at: float = 0.0
    unknown: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    pools_seen_at: float = 0.0

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Read the cursor of the last tick. The result is empty if there is none or it cannot be read."""
        try:
            fields: dict[str, Any] = json.loads(text or "{}")
            observed = fields.get("observed", {}).items()
            return cls(
                warned={str(name): str(warning) for name, warning in fields.get("warned", {}).items()},
                observed={str(name): Observed(float(at), list(counts)) for name, (at, counts) in observed},
                observed_until=float(fields.get("observed_until", 0.0)),
                compared_at=float(fields.get("compared_at", 0.0)),
                unknown=list(map(str, fields.get("unknown", []))),
                broken={str(name): str(digest) for name, digest in fields.get("broken", {}).items()},
                pools_seen_at=float(fields.get("pools_seen_at", 0.0)),
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def write(self) -> str:
        """Return the cursor for the next tick."""
        fields = {"warned": self.warned, "observed": self.observed, "observed_until": self.observed_until}
        more = {"broken": self.broken, "compared_at": self.compared_at, "unknown": self.unknown}
        return json.dumps(fields | more | {"pools_seen_at": self.pools_seen_at})
