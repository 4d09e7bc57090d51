"""The documents of a submission: its manifest, and a receipt beside each request file that became a batch.

Results need nothing else of the pipeline, and a lost ledger is rebuilt from them. Documents of earlier versions
are read; what a later version adds to them is kept as it is.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.api.objects import COUNTS, BatchObject
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage

MANIFEST = "manifest.json"


class _Document(BaseModel):
    """A JSON object under the root. No value is converted: a number in quotes is no number."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    if_any: ClassVar[frozenset[str]] = frozenset()
    """Fields that are written only where they have a value."""

    @model_serializer(mode="wrap")
    def _without_absent(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = written(self)
        return {name: value for name, value in fields.items() if value is not None or name not in self.if_any}


class PartEntry(_Document):
    """A request file as the manifest lists it.

    Attributes:
        name: of the file.
        requests: how many it holds.
        bytes: of the HTTP body that it becomes.
        attempt: which attempt of its requests it is, from 1.
        headers: what it is sent with, where that differs from the submission's.
    """

    if_any = frozenset({"headers"})

    name: str
    requests: int
    bytes: int
    attempt: int
    headers: dict[str, str] | None = None

    @property
    def part(self) -> PartName:
        """Its name, read.

        Raises:
            ValueError: it is no name of a request file.
        """
        return PartName.parse(self.name)


class Manifest(_Document):
    """What a submission was made of. The fields without a default are in the manifests of every version.

    Attributes:
        created_at: when it was built, by the ledger's clock.
        dataset: where the rows came from, for people.
        key: the column that names a row.
        carried: column of the dataset -> column of the results.
        params, output_schema, output_tool, tool_calls: what was asked, and how answers are read.
        headers: of its requests, as far as they change what a request means.
        betas: as the pipeline file has them, where they depend on the row.
        header_sets: the headers of the requests that its rows want, where they depend on the row.
        render_request: name of the pipeline's own function that changes its requests.
        bounded_schema: the output schema with the limits that the API does not take, of a pydantic model.
        fresh_after: of a refresh: what tells it from others, seconds since 1970.
        waits: of a refresh: ids of the request files that were in flight when it was built.
        left_out: distinct requests that a limit left out.
        max_requests, max_bytes: limits of one batch.
        rows, rejected, requests: counts; requests are distinct ones.
        files: the request files it wrote.
    """

    if_any = frozenset(
        {"betas", "header_sets", "render_request", "bounded_schema", "fresh_after", "waits", "left_out"}
    )

    pipeline: str
    partition: str
    submission: str
    created_at: float | None = None
    dataset: str | None = None
    key: str
    carried: dict[str, str] | None = None
    params: dict[str, Any] | None = None
    headers: dict[str, str]
    betas: list[str] | None = None
    header_sets: list[dict[str, str]] | None = None
    render_request: str | None = None
    bounded_schema: dict[str, Any] | None = None
    fresh_after: float | None = None
    waits: list[str] | None = None
    left_out: int | None = None
    output_schema: dict[str, Any] | None
    output_tool: str | None = None
    tool_calls: bool = False
    max_attempts: int
    # These two are defaults for manifests from before they were written down; nothing but retries asks for them.
    max_requests: int = 100_000
    max_bytes: int = 250_000_000
    rows: int
    rejected: int
    requests: int
    files: list[PartEntry]

    @property
    def answers(self) -> Answers:
        """How its answers are read."""
        schema = self.output_schema
        output = OutputSchema(schema, self.bounded_schema) if schema is not None else None
        return Answers(output, self.output_tool, self.tool_calls)

    @classmethod
    def read(cls, storage: Storage, pipeline: str, partition: str, submission_id: str) -> Self:
        """Reads a submission's manifest.

        Raises:
            FileNotFoundError: it is not there.
            DamagedFileError: it is not as it was written.
        """
        return read_document(storage, (*submission_parts(pipeline, partition, submission_id), MANIFEST), cls)

    def write(self, storage: Storage) -> None:
        """Writes it into the submission's folder."""
        content = json.dumps(self.model_dump(), indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_bytes(content, *submission_parts(self.pipeline, self.partition, self.submission), MANIFEST)


class Receipt(_Document):
    """Which batch a request file became.

    Attributes:
        requests: how many the batch holds.
        attempt: which attempt of its requests it was.
        created_at, expires_at: of the batch when it was created, seconds since 1970 by the server's clock.
        base_url: the endpoint it was submitted to.
        organization: whose key it was, None where the API did not say.
    """

    batch_id: str
    requests: int
    attempt: int
    created_at: float
    expires_at: float | None
    base_url: str
    organization: str | None

    @classmethod
    def of(cls, batch: BatchObject, attempt: int, base_url: str, organization: str | None) -> Self:
        """The receipt of a batch that was just created."""
        return cls(
            batch_id=batch.id,
            requests=batch.total,
            attempt=attempt,
            created_at=batch.created_at,
            expires_at=batch.expires_at,
            base_url=base_url,
            organization=organization,
        )

    @property
    def batch(self) -> BatchObject:
        """The batch as it was when it was created."""
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
        """The content of its file."""
        return json.dumps(self.model_dump(), indent=2).encode() + b"\n"
