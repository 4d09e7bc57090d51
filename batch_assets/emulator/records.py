"""What the emulator keeps about batches and live calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batch_assets.emulator.body import BodyIndex
from batch_assets.emulator.caching import BatchCaching


@dataclass(frozen=True)
class BatchRecord:
    """The stored data of a batch. Instants and durations are in microseconds.

    Attributes:
        seq: Its number in the order of creation.
        id: The id of the batch.
        workspace: The workspace it belongs to.
        created_at: When it was created.
        requests: The number of its requests.
        latency: The time from its creation until it ends.
        expiry: The time from its creation until its unfinished requests expire.
        cancel_delay: The time from a cancel call until it ends.
        version: The `anthropic-version` header of the create call.
        betas: The `anthropic-beta` header of the create call.
        cancel_at: When it was canceled; `None` if it was not. The same holds for the instants below.
        end_at: When a control call ended it.
        expire_at: When a control call expired it.
        archived_at: When a control call archived it.
        deleted_at: When it was deleted.
        answered: How many of its requests are answered; `None` for a batch whose answers are emulated.
        answered_at: When the last of them was answered, or the batch was created.
    """

    seq: int
    id: str
    workspace: str
    created_at: int
    requests: int
    latency: int
    expiry: int
    cancel_delay: int
    version: str
    betas: str
    cancel_at: int | None = None
    end_at: int | None = None
    expire_at: int | None = None
    archived_at: int | None = None
    deleted_at: int | None = None
    answered: int | None = None
    answered_at: int | None = None


@dataclass(frozen=True)
class LiveCall:
    """A live call that was answered.

    Attributes:
        id: The id of its message.
        workspace: The workspace of its key.
        at: When it was answered, in microseconds.
        model: The model that answered.
        picodollars: What it costs.
        served: Whether the answer was sent: 1, or 0 if a fault lost it.
        params: Its params as JSON.
    """

    id: str
    workspace: str
    at: int
    model: str
    picodollars: int
    served: int
    params: str


@dataclass(frozen=True)
class NewBatch:
    """A batch that is about to be accepted.

    The fields are those of `BatchRecord`, and the following.

    Attributes:
        sha256: The hexadecimal SHA-256 of the body.
        body: The file with the body. `Store.accept` moves it.
        index: The index of the body.
        caching: What its requests do with the prompt cache.
        is_asked: Whether a server is asked for its answers.
    """

    workspace: str
    created_at: int
    latency: int
    expiry: int
    cancel_delay: int
    version: str
    betas: str
    sha256: str
    body: Path
    index: BodyIndex
    caching: BatchCaching
    is_asked: bool
