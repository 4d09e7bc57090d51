"""The receipt of a batch, beside the request file that became it. A lost ledger is rebuilt with it."""

from __future__ import annotations

import json
from typing import Self

from pydantic import field_validator

from batch_assets.core.api.objects import COUNTS, BatchObject, is_batch_id
from batch_assets.core.store.document import Document


class Receipt(Document):
    """The batch that a request file became.

    Attributes:
        batch_id: The id of the batch.
        requests: The number of its requests.
        attempt: The attempt of its requests, from 1.
        created_at: When it was created, in seconds since 1970 by the server's clock.
        expires_at: When it would expire, in seconds since 1970 by the server's clock.
        base_url: The endpoint that it was submitted to.
        organization: The organization of the API key; `None` if the API did not report it.
        workspace: The workspace that the settings named; `None` for that of the key.
        replied: The reply to the create named the batch. False: it was found in the API's list. `None`: a receipt
            of an earlier version, which does not tell.
    """

    omitted_if_none = frozenset({"replied", "workspace"})

    batch_id: str
    requests: int
    attempt: int
    created_at: float
    expires_at: float | None
    base_url: str
    organization: str | None
    replied: bool | None = None
    workspace: str | None = None

    @field_validator("batch_id")
    @classmethod
    def _has_the_form_of_an_id(cls, batch_id: str) -> str:
        if not is_batch_id(batch_id):
            raise ValueError("it is no batch id")
        return batch_id

    @classmethod
    def of(
        cls,
        batch: BatchObject,
        attempt: int,
        base_url: str,
        organization: str | None,
        *,
        replied: bool | None = None,
        workspace: str | None = None,
    ) -> Self:
        """Make the receipt of a batch."""
        return cls(
            batch_id=batch.id,
            requests=batch.total,
            attempt=attempt,
            created_at=batch.created_at,
            expires_at=batch.expires_at,
            base_url=base_url,
            organization=organization,
            replied=replied,
            workspace=workspace,
        )

    @property
    def batch(self) -> BatchObject:
        """The batch as it was at its creation."""
        return BatchObject(
            id=self.batch_id,
            processing_status="in_progress",
            request_counts={**dict.fromkeys(COUNTS, 0), "processing": self.requests},
            created_at=self.created_at,
            expires_at=self.expires_at,
            ended_at=None,
            archived_at=None,
        )

    def to_json(self) -> bytes:
        """Return the content of the receipt's file."""
        return json.dumps(self.model_dump(), indent=2).encode() + b"\n"
