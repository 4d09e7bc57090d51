"""What the endpoints share: settings, state, clock and faults."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .batches import EXPIRY_SECONDS, SECOND, Progress, progress_of, request_counts, wire_batch
from .body import MAX_BODY_BYTES, MAX_REQUESTS
from .clock import Clock
from .faults import Faults
from .results import Preparation
from .state import BatchRecord, Store
from .wire import ApiError

DEFAULT_WORKSPACE = "default"


@dataclass
class Settings:
    """How the emulator behaves; durations in seconds. All but the last three may change while it runs.

    `latency` is the time from a batch's creation until it ends, `cancel_delay` that from a cancel call
    until it ends, `expiry` that after which unfinished requests expire. `moving_counters` shows
    counts before the end. `queue_limit` is how many requests may be in process at once over all batches
    (None: no limit). `keys` are the accepted API keys (empty: any), `workspaces` maps keys to workspace
    names, `control` opens the control endpoints.
    """

    latency: float = 2.0
    cancel_delay: float = 0.5
    expiry: float = EXPIRY_SECONDS
    moving_counters: bool = False
    max_body_bytes: int = MAX_BODY_BYTES
    max_requests: int = MAX_REQUESTS
    queue_limit: int | None = None
    keys: frozenset[str] = frozenset()
    workspaces: Mapping[str, str] = field(default_factory=dict)
    control: bool = True

    def change(self, name: str, value: Any) -> None:
        """Set one of the changeable settings; ApiError 400 for another name or a value that cannot be."""
        if name not in self.CHANGEABLE:
            raise ApiError(400, f"{name}: not one of {', '.join(self.CHANGEABLE)}")
        if name == "moving_counters":
            valid = isinstance(value, bool)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            valid = number or (name == "queue_limit" and value is None)
        if not valid:
            raise ApiError(400, f"{name}: cannot be {value!r}")
        setattr(self, name, value)

    CHANGEABLE = (
        "latency",
        "cancel_delay",
        "expiry",
        "moving_counters",
        "max_body_bytes",
        "max_requests",
        "queue_limit",
    )


class Service:
    """One emulator: its settings and everything that changes while it runs."""

    def __init__(self, store: Store, settings: Settings, faults: Faults) -> None:
        self.store, self.settings, self.faults = store, settings, faults
        self.clock = Clock(*store.load_clock())
        self.submissions: Counter[bytes] = Counter()
        self.calls: Counter[str] = Counter()
        self.preparation = Preparation(store)

    def find(self, batch_id: str, workspace: str, action: Mapping[str, Any]) -> BatchRecord:
        """The batch as this workspace sees it; ApiError 404 when it does not."""
        record = self.store.find(batch_id, workspace)
        if record is None or self._young(record, action.get("not_found_for", 0)):
            raise ApiError(404, f"Message Batch {batch_id} not found.")
        return record

    def _young(self, record: BatchRecord, seconds: float) -> bool:
        return self.clock.now() < record.created_at + seconds * SECOND

    def progress(self, record: BatchRecord) -> Progress:
        """Where the batch stands now."""
        return progress_of(record, self.clock.now())

    def shown(self, record: BatchRecord, base_url: str, action: Mapping[str, Any]) -> dict[str, Any]:
        """The batch as JSON for a client that reached the server at `base_url`."""
        progress = self.progress(record)
        template = action.get("results_url", base_url + "/v1/messages/batches/{id}/results")
        moving = self.settings.moving_counters
        codes = self.store.outcomes(record.id) if moving or progress.ended_at is not None else b""
        return wire_batch(
            record,
            progress,
            request_counts(record, progress, codes, moving=moving),
            skew=self.clock.skew,
            results_url=lambda batch_id: str(template).replace("{id}", batch_id),
        )

    def queued(self) -> int:
        """How many requests of all batches are in process."""
        progresses = [(record, self.progress(record)) for record in self.store.alive()]
        return sum(
            record.requests - progress.finished for record, progress in progresses if progress.ended_at is None
        )

    def save_clock(self) -> None:
        """Keep the clock's setting for the next start."""
        self.store.save_clock(self.clock.shift, self.clock.frozen_at, self.clock.skew)
