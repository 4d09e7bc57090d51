"""The state that all endpoints share: settings, stored batches, clock and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_assets.emulator.asking import Asking, Source
from batch_assets.emulator.batches import (
    EXPIRY_SECONDS,
    SECOND,
    Progress,
    processed_at,
    progress_of,
    request_counts,
    wire_batch,
)
from batch_assets.emulator.bill import Bill
from batch_assets.emulator.body import MAX_BODY_BYTES, MAX_REQUESTS
from batch_assets.emulator.clock import Clock
from batch_assets.emulator.faults import Faults
from batch_assets.emulator.holding import MAX_BATCHES, MAX_BODIES_IN_MEMORY, MAX_BODIES_ON_DISK, Held
from batch_assets.emulator.outcomes import count_results
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.results import Preparation
from batch_assets.emulator.state import Store
from batch_assets.emulator.wire import HttpError

DEFAULT_WORKSPACE = "default"


@dataclass
class Settings:
    """The settings of the emulator. Those in `CHANGEABLE` may change while it runs.

    Attributes:
        latency: Seconds from a batch's creation until it ends.
        cancel_delay: Seconds from a cancel call until the batch ends.
        expiry: Seconds from a batch's creation until its unfinished requests expire.
        moving_counters: Whether to show the counts of finished requests before a batch has ended.
        max_body_bytes: The largest create body in bytes.
        max_requests: The largest number of requests in a batch.
        queue_limit: The largest number of requests in process over all batches; `None` for no limit.
        max_batches: The largest number of batches that a workspace may have and not delete.
        keys: The accepted API keys; empty to accept any key.
        workspaces: The names of workspaces, by API key. A call with another key names its own, in a header.
        aws_keys: The secrets of accepted AWS access keys, by their ids; empty to accept any, without a check.
        admin_keys: The keys that may call the endpoints of the organization, and no others; empty for any key.
        control: Whether there are control endpoints.
        allow_hosts: Names by which it may be called, apart from those of the loopback interface.
    """

    latency: float = 2.0
    cancel_delay: float = 0.5
    expiry: float = EXPIRY_SECONDS
    moving_counters: bool = False
    max_body_bytes: int = MAX_BODY_BYTES
    max_requests: int = MAX_REQUESTS
    queue_limit: int | None = None
    max_batches: int = MAX_BATCHES
    keys: frozenset[str] = frozenset()
    workspaces: Mapping[str, str] = field(default_factory=dict)
    aws_keys: Mapping[str, str] = field(default_factory=dict)
    admin_keys: frozenset[str] = frozenset()
    control: bool = True
    allow_hosts: frozenset[str] = frozenset()

    def change(self, name: str, value: Any) -> None:
        """Change a setting.

        Raises:
            HttpError: 400 when the setting cannot change while the emulator runs, or the value is not valid.
        """
        if name not in self.CHANGEABLE:
            raise HttpError(400, f"{name}: not one of {', '.join(self.CHANGEABLE)}")
        if name == "moving_counters":
            is_valid = isinstance(value, bool)
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            is_valid = is_number or (name == "queue_limit" and value is None)
        if not is_valid:
            raise HttpError(400, f"{name}: cannot be {value!r}")
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
    """One emulator: its settings and everything that changes while it runs.

    Attributes:
        store: The stored batches.
        settings: The settings.
        faults: The fault rules.
        clock: The clock.
        submissions: How often params were submitted under an error mix, by their digest.
        calls: The number of API calls, by method and path template.
        preparation: Makes results in advance.
        asking: Asks something else for the answers; `None` if they are emulated.
        bill: What the accepted requests cost.
        in_memory: The bytes of bodies in memory, by client.
        on_disk: The bytes of create bodies that are not accepted or refused yet, by client.
    """

    def __init__(self, store: Store, settings: Settings, faults: Faults, source: Source | None = None) -> None:
        self.store, self.settings, self.faults = store, settings, faults
        self.clock = Clock(*store.load_clock())
        self.submissions: Counter[bytes] = Counter()
        self.calls: Counter[str] = Counter()
        self.preparation = Preparation(store)
        self.asking = Asking(store, source, lambda: self.clock.now()) if source is not None else None
        self.bill = Bill(store)
        self.in_memory = Held(MAX_BODIES_IN_MEMORY, "bytes of bodies")
        self.on_disk = Held(MAX_BODIES_ON_DISK, "bytes of bodies")

    def find(self, batch_id: str, workspace: str, action: Mapping[str, Any]) -> BatchRecord:
        """Find a batch of a workspace.

        Args:
            batch_id: The id of the batch.
            workspace: The workspace of the call.
            action: The combined actions of the faults that apply to the call.

        Raises:
            HttpError: 404 when the workspace has no such batch, or a fault hides it.
        """
        record = self.store.find(batch_id, workspace)
        if record is None or self._young(record, action.get("not_found_for", 0)):
            raise HttpError(404, f"Message Batch {batch_id} not found.")
        return record

    def _young(self, record: BatchRecord, seconds: float) -> bool:
        return self.clock.now() < record.created_at + seconds * SECOND

    def is_warm(self, workspace: str, prefix: bytes) -> bool:
        """Whether a request of a workspace that begins now can read a prefix of its prompt from the cache."""
        now = self.clock.now()
        for record, use in self.store.cache_uses(workspace, prefix):
            progress = self.progress(record)
            processed = processed_at(record, progress, use.position)
            is_processed = use.position < progress.finished and processed <= now
            if is_processed and now < processed + use.seconds * SECOND:
                return True
        return False

    def progress(self, record: BatchRecord) -> Progress:
        """Compute the progress of a batch at the current instant."""
        return progress_of(record, self.clock.now())

    def shown(self, record: BatchRecord, base_url: str, action: Mapping[str, Any]) -> dict[str, Any]:
        """Make the JSON object with which the API shows a batch.

        Args:
            record: The batch.
            base_url: The URL at which the client reached the server, for the `results_url`.
            action: The combined actions of the faults that apply to the call.
        """
        progress = self.progress(record)
        template = action.get("results_url", base_url + "/v1/messages/batches/{id}/results")
        return wire_batch(
            record,
            progress,
            request_counts(record, progress, self._shown_types(record, progress)),
            skew=self.clock.skew,
            results_url=lambda batch_id: str(template).replace("{id}", batch_id),
        )

    def _shown_types(self, record: BatchRecord, progress: Progress) -> dict[str, int]:
        """Count the finished requests that a batch shows, by result type."""
        if record.answered is not None:
            return self.store.answer_types(record.id)
        if progress.ended_at is None and not self.settings.moving_counters:
            return {}
        return count_results(self.store.outcomes(record.id)[: progress.finished])

    def begin(self, record: BatchRecord) -> None:
        """Begin to make the results of a batch that was accepted."""
        if self.asking is not None:
            self.asking.begin(record)
        else:
            self.preparation.begin(record)

    def queued(self) -> int:
        """Count the requests of all batches that are in process."""
        progresses = [(record, self.progress(record)) for record in self.store.alive()]
        return sum(
            record.requests - progress.finished for record, progress in progresses if progress.ended_at is None
        )

    def save_clock(self) -> None:
        """Store the clock's settings for the next start."""
        self.store.save_clock(self.clock.shift, self.clock.frozen_at, self.clock.skew)
