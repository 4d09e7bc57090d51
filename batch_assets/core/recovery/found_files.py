"""Read the files under a root without a ledger: submissions, their request files and receipts, and responses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import COUNTS
from batch_assets.core.io.json_files import damaged
from batch_assets.core.io.layout import results_parts, submission_parts
from batch_assets.core.io.names import PartName, ResponseName, SubmissionId
from batch_assets.core.io.storage import Storage, partition_folder
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails, digester
from batch_assets.core.store.manifest import MANIFEST, Manifest, PartEntry, Receipt
from batch_assets.core.store.request_files import StoredRequestFile, is_intact
from batch_assets.core.store.request_index import DIGEST, SLICE_ROWS, RequestIndex
from batch_assets.core.store.request_lines import body_bytes
from batch_assets.core.store.responses import digest_array, ended_at_of, open_responses, reading_responses
from batch_assets.core.store.result_table import submission_of

_PIPELINE = re.compile(r"[A-Za-z0-9_]{1,100}")
_PARTITION = "partition="
_ANSWERED = ["digest", "result_type", "attempts"]


@dataclass(frozen=True)
class FoundSubmission:
    """The folder of a submission whose build was finished, so that it has a manifest.

    Attributes:
        manifest: The manifest.
        parts: The request files in order, including those of retries.
    """

    manifest: Manifest
    parts: list[FoundPart]

    @property
    def id(self) -> str:
        return self.manifest.submission

    @property
    def pipeline(self) -> str:
        return self.manifest.pipeline

    @property
    def partition(self) -> str:
        return self.manifest.partition

    @property
    def fresh_after(self) -> float | None:
        """The identity of the refresh; `None` for a submission that is not part of a refresh."""
        return self.manifest.fresh_after

    @property
    def created_at(self) -> float:
        """When it was built, in seconds since 1970 by the ledger's clock. In early versions only the id has it."""
        if self.manifest.created_at is not None:
            return self.manifest.created_at
        return SubmissionId(self.id).built_at or 0.0


@dataclass(frozen=True)
class FoundPart:
    """A request file, or its remains.

    Attributes:
        name: The name of the file.
        stored: The file on disk.
        listed: Its entry in the manifest; `None` for a file of a retry or a half of a split file.
        receipt: Its receipt; `None` if there is none.
        exists: Whether the file itself exists.
    """

    name: PartName
    stored: StoredRequestFile
    listed: PartEntry | None
    receipt: Receipt | None
    exists: bool

    def contents(self) -> tuple[Digests, int]:
        """Read the digests of the requests, S16, shape (n,), and the size of the HTTP body that the file becomes.

        Raises:
            DamagedFileError: When the number of requests differs from the manifest, or a line is incomplete.
        """
        scan = self.stored.scan()
        digests, are_ours = decode_tails(scan.tails)
        if (
            scan.remainder
            or not are_ours.all()
            or (self.listed is not None and self.listed.requests != len(digests))
        ):
            name = self.stored.storage.uri(*self.stored.parts)
            complete = int(are_ours.sum())
            raise damaged(name, f"it has {complete} complete lines, but a different number was written")
        return digests, body_bytes(int(scan.ends[-1]) if len(scan.ends) else 0)

    def headers(self, sets: list[dict[str, str]]) -> dict[str, str]:
        """Return the headers of the file's requests: those that give the digest of the first request.

        Args:
            sets: The header sets of the submission.

        Raises:
            DamagedFileError: When no header set gives the digest.
        """
        text = next(self.stored.lines(), b"")
        for headers in sets:
            if is_intact(text, digester(headers)):
                return headers
        name = self.stored.storage.uri(*self.stored.parts)
        raise damaged(name, "the headers of its first request are not in the header_sets of the manifest")


@dataclass(frozen=True)
class FoundResponses:
    """A file of the response store.

    Attributes:
        name: The name of the file.
        digests: S16, shape (n,): the digests of the requests, in the order of their request file.
        attempt: The attempt of the requests, from 1.
        counts: The request_counts as the API would report them.
        ended_at: When the batch ended, in seconds since 1970; 0.0 if the file does not have it.
    """

    name: ResponseName
    digests: Digests
    attempt: int
    counts: dict[str, int]
    ended_at: float

    @property
    def batch_id(self) -> str:
        """The id of the batch that the responses came from."""
        return self.name.stem


def pipelines_of(storage: Storage) -> Iterator[str]:
    """Return the folders under the root whose name can be that of a pipeline."""
    return (name for name in storage.names() if _PIPELINE.fullmatch(name))


def holds_submissions(storage: Storage) -> bool:
    """Whether the root has any submission."""
    return any(True for pipeline in pipelines_of(storage) for _ in submission_folders(storage, pipeline))


def submission_folders(
    storage: Storage, pipeline: str, partition: str | None = None, known: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield (partition key, submission id) of every submission folder with a manifest.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        partition: Look in this partition only; `None` for all.
        known: Leave out the submissions with these ids.
    """
    top = storage.names(pipeline, "requests") if not partition else [partition_folder(partition)]
    for name in top:
        is_partition = name.startswith(_PARTITION)
        if partition == "" and is_partition:
            continue
        key = unquote(name.removeprefix(_PARTITION)) if is_partition else ""
        inner = storage.names(*submission_parts(pipeline, key, "")) if is_partition else [name]
        for submission_id in inner:
            if submission_id not in known and storage.exists(
                *submission_parts(pipeline, key, submission_id), MANIFEST
            ):
                yield key, submission_id


def submissions_of(storage: Storage, pipeline: str) -> list[FoundSubmission]:
    """Read a pipeline's submissions, oldest first.

    Raises:
        DamagedFileError: When a manifest or receipt is not what this project wrote, or is in the wrong folder.
    """
    submissions = [
        _submission(storage, pipeline, partition, submission_id)
        for partition, submission_id in submission_folders(storage, pipeline)
    ]
    return sorted(submissions, key=lambda submission: (submission.created_at, submission.id))


def _submission(storage: Storage, pipeline: str, partition: str, submission_id: str) -> FoundSubmission:
    folder = submission_parts(pipeline, partition, submission_id)
    name = storage.uri(*folder, MANIFEST)
    manifest = Manifest.read(storage, pipeline, partition, submission_id)
    written_as = manifest.pipeline, manifest.partition, manifest.submission
    if written_as != (pipeline, partition, submission_id):
        raise damaged(name, f"it is the manifest of {'/'.join(filter(None, written_as))}, in another folder")
    try:
        listed = {entry.part: entry for entry in manifest.files}
    except ValueError as error:
        raise damaged(name, f"'files': {error}") from None
    names = storage.names(*folder)
    parts = []
    for part in sorted(listed.keys() | filter(None, map(PartName.of_file, names))):
        stored = StoredRequestFile(storage, (*folder, str(part)))
        parts.append(FoundPart(part, stored, listed.get(part), stored.receipt(), str(part) in names))
    return FoundSubmission(manifest, parts)


def responses_of(storage: Storage, pipeline: str) -> dict[ResponseName, FoundResponses]:
    """Read a pipeline's response files, by name.

    Raises:
        DamagedFileError: When a file is not a response file.
    """
    names = filter(None, map(ResponseName.parse, storage.names(pipeline, "responses")))
    return {name: _responses(storage, pipeline, name) for name in names}


def _responses(storage: Storage, pipeline: str, name: ResponseName) -> FoundResponses:
    with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
        table = file.read(columns=_ANSWERED, use_threads=False)
        ended_at = ended_at_of(file)
    types = Counter(table["result_type"].to_pylist())
    counts = {name: types[name] for name in COUNTS}
    attempt = int(table["attempts"][0].as_py()) if len(table) else 1
    return FoundResponses(name, digest_array(table["digest"]), attempt, counts, ended_at)


def table_is_complete(storage: Storage, submission: FoundSubmission) -> bool:
    """Whether the table of results is that of the submission and has the final result of every row."""
    pipeline, partition = submission.pipeline, submission.partition
    parts = results_parts(pipeline, partition)
    if not storage.exists(*parts):
        return False
    index = RequestIndex(storage, pipeline, partition, submission.id)
    in_index, in_table = blake2b(), blake2b()
    for rows in index.slices([DIGEST]):
        in_index.update(digest_array(rows.column(0).drop_null()).tobytes())
    try:
        with pq.ParquetFile(storage.open(*parts), pre_buffer=False) as file:
            if file.metadata.num_rows != index.rows:
                return False
            if submission.fresh_after is not None and submission_of(file.schema_arrow) != submission.id:
                return False  # the table from before the refresh, which has the same rows
            for rows in file.iter_batches(SLICE_ROWS, columns=["custom_id", "result_type"], use_threads=False):
                if ResultType.PENDING in rows.column("result_type").to_pylist():
                    return False
                custom_ids = rows.column("custom_id").drop_null().to_pylist()
                tails = np.array(
                    [text[-DIGEST_CHARACTERS:].encode() for text in custom_ids], f"S{DIGEST_CHARACTERS}"
                )
                if len(tails):
                    in_table.update(decode_tails(tails)[0].tobytes())
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return False  # the table will be written again
    return in_index.digest() == in_table.digest()
