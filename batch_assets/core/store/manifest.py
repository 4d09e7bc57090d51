"""The manifest of a submission: its inputs and its request files.

Results need nothing else from the pipeline, and a lost ledger is rebuilt from manifests and receipts. Manifests of
earlier versions can be read. Fields that a later version adds are kept unchanged.
"""

from __future__ import annotations

import json
from typing import Any, Self

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName, SubmissionId
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.pilots import PilotTerms
from batch_assets.core.ledger.records import RequestFileEntry
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.store.breakpoints import Breakpoint
from batch_assets.core.store.document import Document

MANIFEST = "manifest.json"


class PartEntry(Document):
    """A request file as the manifest lists it.

    Attributes:
        name: The name of the file.
        requests: The number of its requests.
        bytes: The size of the HTTP body that it becomes.
        attempt: The attempt of its requests, from 1.
        headers: The headers of its requests, if they differ from those of the submission.
        checksum: The SHA-256 of the file in hexadecimal; `None` in early manifests.
        hold: What has to allow it to be sent, see `HoldReason`; `None` if nothing has to.
        stub: The id of the file that is sent first, so that this one reads the prompt from the cache; `None`
            without a breakpoint.
        breakpoint: Where its requests get the breakpoint while they are sent.
    """

    omitted_if_none = frozenset({"headers", "checksum", "hold", "stub", "breakpoint"})

    name: str
    requests: int
    bytes: int
    attempt: int
    headers: dict[str, str] | None = None
    checksum: str | None = None
    hold: str | None = None
    stub: str | None = None
    breakpoint: Breakpoint | None = None

    @property
    def hold_reason(self) -> HoldReason | None:
        """What has to allow it to be sent."""
        return HoldReason(self.hold) if self.hold is not None else None

    @property
    def breakpoint_json(self) -> str | None:
        """The breakpoint as the ledger records it."""
        return self.breakpoint.model_dump_json() if self.breakpoint is not None else None

    @property
    def part(self) -> PartName:
        """The parsed name of the file.

        Raises:
            ValueError: When it is not the name of a request file.
        """
        return PartName.parse(self.name)

    def ledger_entry(self, submission: SubmissionId, pipeline: str, partition: str) -> RequestFileEntry:
        """Return the file as the ledger registers it."""
        return RequestFileEntry(
            id=str(submission.file(self.part)),
            pipeline=pipeline,
            partition=partition,
            name=self.name,
            requests=self.requests,
            bytes=self.bytes,
            attempt=self.attempt,
            headers=self.headers,
            checksum=self.checksum,
            hold=self.hold_reason,
            stub=self.stub,
            breakpoint=self.breakpoint_json,
        )


class Fingerprint(Document):
    """What shows that another build would make the same submission.

    Attributes:
        inputs: A digest of everything that the build read.
        files: The versions of the submission's index and rejected rows.
        without_partition: The number of rows that belong to no partition.
    """

    inputs: str
    files: list[str]
    without_partition: int


class Division(Document):
    """How the rows of a pipeline are divided into partitions.

    Attributes:
        kind: See `Partitions.division`.
        column: The column that determines a row's partition; `None` if files, a query or an asset do.
    """

    omitted_if_none = frozenset({"column"})

    kind: str
    column: str | None = None

    @property
    def as_text(self) -> str:
        """A short description, for texts."""
        return f"{self.kind}, by the column {self.column}" if self.column is not None else self.kind

    def differs_from(self, other: Division) -> bool:
        """Whether a row has different keys in the two. A file or a query may follow the same column."""
        columns = {self.column, other.column} - {None}
        return self.kind != other.kind or len(columns) > 1


class Gathered(Document):
    """Another submission of a run whose partitions were gathered: all of them were registered at once.

    Attributes:
        partition: The partition key.
        submission: The id of the submission.
    """

    partition: str
    submission: str


class PilotEntry(Document):
    """The pilot that request files of a submission wait for. Without `files`, another submission has it.

    Attributes:
        prompt: The digest of the prompt.
        files: The ids of its request files.
        asks: See `PilotTerms`.
        max_failed: See `PilotTerms`.
        max_invalid: See `PilotTerms`.
        low: See `PilotTerms`.
        high: See `PilotTerms`.
    """

    omitted_if_none = frozenset({"files", "asks", "max_failed", "max_invalid", "low", "high"})

    prompt: str
    files: list[str] | None = None
    asks: bool | None = None
    max_failed: float | None = None
    max_invalid: float | None = None
    low: int | None = None
    high: int | None = None

    @property
    def terms(self) -> PilotTerms:
        """By what its answers are judged."""
        return PilotTerms(
            bool(self.asks), self.max_failed or 0.0, self.max_invalid or 0.0, low=self.low, high=self.high
        )


class Manifest(Document):
    """The inputs of a submission. Fields without a default are in the manifests of every version.

    Attributes:
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        division: How the partitions are made; `None` in early manifests, and without partitions.
        submission: The id of the submission.
        created_at: When it was built, in seconds since 1970 by the ledger's clock.
        dataset: Where the rows came from, for texts.
        key: The column of the row key.
        carried: The carried columns: names in the dataset to names in the results.
        params: The params in the pipeline file.
        headers: The headers of its requests that change the meaning of a request.
        betas: The betas in the pipeline file, if they depend on the row.
        header_sets: The different headers of its requests, if they depend on the row.
        render_request: The name of the pipeline's function that changes its requests.
        rendering: The version of the rendering, see `Rendering`; `None` in early manifests for the first.
        column_kinds: The kinds of the dataset's columns, by which the next submission reads them, see `Kinds`;
            `None` in early manifests, and if no kind depends on other rows.
        fingerprint: What shows that another build would make the same submission; `None` if nothing can show it.
        bounded_schema: The output schema of a pydantic model, with the limits that the API does not support.
        fresh_after: The identity of the refresh, in seconds since 1970; `None` if it is not part of a refresh.
        waits: The ids of the request files that were in flight when a refresh was built.
        left_out: The number of distinct requests that a limit left out.
        output_schema: The schema of the answers.
        output_tool: The name of the tool whose input is the answer.
        tool_calls: Whether answers list the calls of tools.
        max_attempts: The most attempts for a request.
        follow_ups: Which answers are followed by another request; `None` if none are.
        max_requests: The most requests in one batch.
        max_bytes: The most bytes in the HTTP body of one batch.
        rows: The number of rows.
        rejected: The number of rejected rows.
        requests: The number of distinct requests.
        files: The request files that it wrote.
        written: The number of its requests in request files, if it is not the sum of its files: they may have
            requests of others that it was gathered with, and theirs its own; or a file has taken the place of
            another one, without a row that was erased.
        registered_with: The submissions with request files that were registered with it, without itself; `None` if
            it was not gathered.
        pilot: The pilot that its request files wait for; `None` if they wait for none.
        holds: The submissions that have, or may have, requests in its files; `None` without any.
    """

    omitted_if_none = frozenset(
        {
            "written",
            "registered_with",
            "holds",
            "pilot",
            "division",
            "betas",
            "header_sets",
            "render_request",
            "rendering",
            "column_kinds",
            "fingerprint",
            "bounded_schema",
            "fresh_after",
            "waits",
            "left_out",
            "follow_ups",
        }
    )

    pipeline: str
    partition: str
    division: Division | None = None
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
    rendering: int | None = None
    column_kinds: dict[str, dict[str, Any]] | None = None
    fingerprint: Fingerprint | None = None
    bounded_schema: dict[str, Any] | None = None
    fresh_after: float | None = None
    waits: list[str] | None = None
    left_out: int | None = None
    output_schema: dict[str, Any] | None
    output_tool: str | None = None
    tool_calls: bool = False
    max_attempts: int
    follow_ups: FollowUpRules | None = None
    # The defaults of these two are for early manifests, which did not have them. Only retries use the two.
    max_requests: int = 100_000
    max_bytes: int = 250_000_000
    rows: int
    rejected: int
    requests: int
    files: list[PartEntry]
    written: int | None = None
    registered_with: list[Gathered] | None = None
    holds: list[Gathered] | None = None
    pilot: PilotEntry | None = None

    @property
    def requests_written(self) -> int:
        """The number of its requests in request files."""
        return self.written if self.written is not None else sum(entry.requests for entry in self.files)

    @property
    def answers(self) -> Answers:
        """The rules for reading answers."""
        schema = self.output_schema
        output = OutputSchema(schema, self.bounded_schema) if schema is not None else None
        return Answers(output, self.output_tool, self.tool_calls)

    @classmethod
    def read(cls, storage: Storage, pipeline: str, partition: str, submission_id: str) -> Self:
        """Read a submission's manifest.

        Raises:
            MissingFileError: When there is no manifest.
            DamagedFileError: When it is not what this project wrote.
        """
        parts = (*submission_parts(pipeline, partition, submission_id), MANIFEST)
        try:
            return read_document(storage, parts, cls)
        except FileNotFoundError:
            uri, remedy = storage.uri(*parts), RunStage(Stage.REQUESTS, pipeline, partition)
            raise MissingFileError(f"{uri} is gone. Restore it from a backup", remedy=remedy) from None

    def write(self, storage: Storage) -> None:
        """Write the manifest into the submission's folder."""
        content = json.dumps(self.model_dump(), indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_bytes(content, *submission_parts(self.pipeline, self.partition, self.submission), MANIFEST)


def was_finished(storage: Storage, pipeline: str, partition: str, submission_id: str) -> bool:
    """Whether the build of a submission's folder was finished. Otherwise a killed process left the folder."""
    folder = submission_parts(pipeline, partition, submission_id)
    return storage.exists(*folder, MANIFEST) or has_receipts(storage, pipeline, partition, submission_id)


def remove_submission(storage: Storage, pipeline: str, partition: str, submission_id: str) -> None:
    """Remove the folder of a submission that is not registered.

    The manifest goes first: a process that is killed meanwhile leaves a folder that does not look finished.
    """
    folder = submission_parts(pipeline, partition, submission_id)
    storage.remove(*folder, MANIFEST)
    storage.remove(*folder)


def was_sent(storage: Storage, pipeline: str, partition: str, submission_id: str) -> bool:
    """Whether something was sent of a submission, or of those that were registered with it, so it was registered.

    A manifest that cannot be read shows nothing about others.
    """
    if has_receipts(storage, pipeline, partition, submission_id):
        return True
    try:
        manifest = Manifest.read(storage, pipeline, partition, submission_id)
    except (MissingFileError, DamagedFileError):
        return False
    return any(
        has_receipts(storage, pipeline, other.partition, other.submission)
        for other in manifest.registered_with or ()
    )


def has_receipts(storage: Storage, pipeline: str, partition: str, submission_id: str) -> bool:
    """Whether the folder of a submission has a receipt, so that some of it was sent."""
    names = storage.names(*submission_parts(pipeline, partition, submission_id))
    parts = ((name, PartName.of_file(name)) for name in names)
    return any(part is not None and name == part.receipt for name, part in parts)
