"""The trace of a request file that is sent again: its uploads that may have been accepted all the same.

It is written beside the request file before the file may be sent again. A lost ledger is rebuilt with it, so an
upload that may have to be paid goes on counting, and its batch is looked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.names import PartName
from batch_assets.core.ledger.records import Intent
from batch_assets.core.store.document import Document
from batch_assets.core.store.request_files import StoredRequestFile


class ResentUpload(Document):
    """An upload whose batch was not found for the grace period.

    Attributes:
        requests: The number of its requests.
        started_at: When it began, in seconds since 1970 by the ledger's clock.
        last_byte_at: When it ended, by the same clock; `None` if that is not known.
        watch_until: Until when its batch is looked for, by the same clock.
        anchor_created_at: When the newest batch before it was created, by the server's clock; `None` if there was
            none or it is not known.
        latest_created_at: No batch that was created later is its own, by the server's clock; `None` if unknown.
        not_its: The ids of batches that were there before.
    """

    requests: int
    started_at: float
    last_byte_at: float | None
    watch_until: float
    anchor_created_at: float | None
    latest_created_at: float | None
    not_its: list[str]

    @classmethod
    def of(cls, intent: Intent, watch_until: float) -> Self:
        """Make the trace of an upload."""
        return cls(
            requests=intent.requests,
            started_at=intent.started_at,
            last_byte_at=intent.last_byte_at,
            watch_until=watch_until,
            anchor_created_at=intent.anchor_created_at,
            latest_created_at=intent.latest_created_at,
            not_its=sorted(intent.excluded),
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns of `intent` that it has."""
        shown = self.model_dump(include={*type(self).model_fields} - {"not_its"})
        return shown | {"seen_before": json.dumps(self.not_its) if self.not_its else None}


class _Trace(Document):
    """The content of the file.

    Attributes:
        uploads: The uploads, oldest first.
    """

    uploads: list[ResentUpload]


@dataclass(frozen=True)
class ResentTrace:
    """The trace beside a request file.

    Attributes:
        stored: The request file.
    """

    stored: StoredRequestFile

    @property
    def parts(self) -> tuple[str, ...]:
        """The path of the trace under the root."""
        *folder, name = self.stored.parts
        return (*folder, PartName.parse(name).resent)

    def uploads(self) -> list[ResentUpload]:
        """Read the uploads, oldest first; nothing without a trace.

        Raises:
            DamagedFileError: When it is not a trace.
        """
        try:
            return read_document(self.stored.storage, self.parts, _Trace).uploads
        except FileNotFoundError:
            return []

    def found(self, problems: list[str]) -> tuple[ResentUpload, ...]:
        """Read the uploads, oldest first. Adds the text about a damaged trace, which shows none, to `problems`."""
        try:
            return tuple(self.uploads())
        except DamagedFileError as error:
            problems.append(str(error))
            return ()

    def add(self, upload: ResentUpload) -> None:
        """Add an upload, unless it is there. The caller must hold a lease that keeps others from writing it."""
        storage, (*folder, name) = self.stored.storage, self.parts
        storage.remove_leftovers(*folder, name=name)
        try:
            uploads = self.uploads()
        except DamagedFileError:
            storage.rename(self.parts, (*folder, f"{name}.damaged"))
            uploads = []
        self._write([*(each for each in uploads if each.started_at != upload.started_at), upload])

    def copy_to(self, stored: StoredRequestFile) -> None:
        """Write the same trace beside another request file, which takes the place of this one."""
        if uploads := self.found([]):
            ResentTrace(stored)._write(list(uploads))

    def _write(self, uploads: list[ResentUpload]) -> None:
        trace = _Trace(uploads=uploads)
        self.stored.storage.write_bytes(json.dumps(trace.model_dump(), indent=2).encode() + b"\n", *self.parts)
