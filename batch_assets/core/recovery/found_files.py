"""Read the files under a root without a ledger: submissions, their request files and receipts, and responses."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import COUNTS
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.json_files import damaged
from batch_assets.core.io.layout import results_parts, submission_parts
from batch_assets.core.io.names import PartName, ResponseName, SubmissionId
from batch_assets.core.io.slices import slices_of
from batch_assets.core.io.storage import PARTITION_FOLDER, Storage, partition_folder
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails, digester
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.manifest import MANIFEST, Manifest, PartEntry, was_finished
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_files import StoredRequestFile, is_intact
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.request_lines import body_bytes
from batch_assets.core.store.resent import ResentTrace, ResentUpload
from batch_assets.core.store.responses import (
    digest_array,
    ended_at_of,
    open_responses,
    paid_at_of,
    reading_responses,
)
from batch_assets.core.store.result_table import submission_of

_PIPELINE = re.compile(r"[A-Za-z0-9_]{1,100}")
_ANSWERED = ["digest", "result_type", "attempts"]


@dataclass(frozen=True)
class FoundSubmission:
    """The folder of a submission whose build was finished, so that it has a manifest.

    Attributes:
        manifest: The manifest; a stand-in if it is damaged.
        parts: The request files in order, including those of retries.
        problems: The texts about its files that are damaged.
        is_listed: Whether the manifest is its own: a stand-in does not say what its request files wait for.
    """

    manifest: Manifest
    parts: list[FoundPart]
    problems: list[str]
    is_listed: bool = True

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
        receipt: Its receipt; `None` if there is none, or it is damaged.
        exists: Whether the file itself exists.
        was_sent: Whether it was certainly sent. A damaged receipt shows that too.
        resent: Its uploads that may have been accepted before it was sent again, oldest first.
    """

    name: PartName
    stored: StoredRequestFile
    listed: PartEntry | None
    receipt: Receipt | None
    exists: bool
    was_sent: bool
    resent: tuple[ResentUpload, ...] = ()

    def contents(self) -> Contents:
        """Read the requests of the file, as far as they can be read."""
        scan = self.stored.scan()
        digests, are_ours = decode_tails(scan.tails)
        readable = digests[are_ours]
        size = body_bytes(int(scan.ends[-1]) if len(scan.ends) else 0)
        lines = len(digests) + bool(scan.remainder)
        requests = self.listed.requests if self.listed is not None else lines
        if len(readable) == requests:
            return Contents(readable, requests, size)
        size = self.listed.bytes if self.listed is not None else size
        name = self.stored.storage.uri(*self.stored.parts)
        problem = damaged(name, f"{len(readable):,} of its {requests:,} lines can be read")
        return Contents(readable, requests, size, str(problem))

    def steps(self) -> NDArray[np.int32]:
        """Return the number of follow-ups up to each request that can be read: int32, shape (n,)."""
        scan = self.stored.scan()
        starts = scan.starts[decode_tails(scan.tails)[1]].tolist()
        custom_ids = pa.array(list(self.stored.custom_ids_at(starts)), pa.string())
        steps: NDArray[np.int32] = counts_in(custom_ids).sum(axis=1, dtype=np.int32)
        return steps

    def headers(self, sets: list[dict[str, str]]) -> dict[str, str] | None:
        """Return the headers of the file's requests: those that give the digest of its first intact request.

        Args:
            sets: The header sets of the submission.

        Returns:
            `None` if no header set gives the digest of any request.
        """
        hashes = [(headers, digester(headers)) for headers in sets]
        matching = (headers for line in self.stored.lines() for headers, hash_ in hashes if is_intact(line, hash_))
        return next(matching, None)


@dataclass(frozen=True)
class Contents:
    """What can be read of a request file.

    Attributes:
        digests: S16, shape (n,): the digests of the requests that can be read.
        requests: The number of requests that were written, as far as it is known.
        bytes: The size of the HTTP body that the file becomes.
        problem: The text about the damage; `None` if every line can be read.
    """

    digests: Digests
    requests: int
    bytes: int
    problem: str | None = None


@dataclass(frozen=True)
class FoundResponses:
    """A file of the response store.

    Attributes:
        name: The name of the file.
        digests: S16, shape (n,): the digests of the requests, in the order of their request file.
        attempt: The attempt of the requests, from 1.
        counts: The request_counts as the API would report them.
        ended_at: When the batch ended, in seconds since 1970; 0.0 if the file does not have it.
        paid_at: See `paid_at_of`.
    """

    name: ResponseName
    digests: Digests
    attempt: int
    counts: dict[str, int]
    ended_at: float
    paid_at: float = 0.0

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
    storage: Storage,
    pipeline: str,
    partition: str | None = None,
    known: Collection[str] = (),
    names_of: Callable[..., list[str]] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield (partition key, submission id) of every submission folder whose build was finished.

    It has a manifest. If that is gone, a receipt shows that the build was finished, because files were sent.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        partition: Look in this partition only; `None` for all.
        known: Leave out the submissions with these ids.
        names_of: Lists a folder, see `Storage.names_below`; `None` to list each with a call.
    """
    names_of = names_of or storage.names
    top = names_of(pipeline, "requests") if not partition else [partition_folder(partition)]
    names = [name for name in top if not name.startswith(PARTITION_FOLDER)]
    folders = [name for name in top if name.startswith(PARTITION_FOLDER)] if partition != "" else []
    keys = [unquote(name.removeprefix(PARTITION_FOLDER)) for name in folders]
    listed = storage.each(lambda key: names_of(*submission_parts(pipeline, key, "")), keys)
    for key, inner in chain([("", names)], listed):
        for submission_id in inner:
            if submission_id not in known and was_finished(storage, pipeline, key, submission_id):
                yield key, submission_id


def submissions_of(
    storage: Storage, pipeline: str, copies: Collection[str] = ()
) -> tuple[list[FoundSubmission], list[str]]:
    """Read a pipeline's submissions.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        copies: The ids of submissions to leave out.

    Returns:
        The submissions, oldest first, and the texts about manifests that are in the wrong folder, which are left
        out.
    """
    submissions, problems = [], []
    for partition, submission_id in submission_folders(storage, pipeline, known=copies):
        submission = _submission(storage, pipeline, partition, submission_id)
        if isinstance(submission, FoundSubmission):
            submissions.append(submission)
        else:
            problems.append(submission)
    return sorted(submissions, key=lambda submission: (submission.created_at, submission.id)), problems


def set_copied_receipts_aside(submissions: Collection[FoundSubmission]) -> None:
    """Leave out receipts that name the batch of another file. Each shows that its file was sent, as a damaged one.

    The batch is that of the oldest file, among those that have as many requests as the batch.

    Args:
        submissions: The submissions of all pipelines. The texts about these receipts are added to their problems.
    """
    by_batch: dict[str, list[tuple[bool, float, str, FoundSubmission, FoundPart]]] = defaultdict(list)
    for submission in submissions:
        for part in submission.parts:
            if (receipt := part.receipt) is not None:
                is_other = part.listed is not None and part.listed.requests != receipt.batch.total
                name = part.stored.storage.uri(*part.stored.receipt_parts())
                by_batch[receipt.batch.id].append((is_other, submission.created_at, name, submission, part))
    for batch_id, named in by_batch.items():
        owner, *copies = sorted(named, key=lambda each: each[:3])
        for _, _, name, submission, part in copies:
            submission.parts[submission.parts.index(part)] = replace(part, receipt=None)
            submission.problems.append(str(damaged(name, f"it names {batch_id}, and so does {owner[2]}")))


def _submission(storage: Storage, pipeline: str, partition: str, submission_id: str) -> FoundSubmission | str:
    """Read a submission, or return the text about a folder that was copied from elsewhere."""
    folder = submission_parts(pipeline, partition, submission_id)
    names, problems = storage.names(*folder), []
    listed: dict[PartName, PartEntry] | None = None
    try:
        manifest = Manifest.read(storage, pipeline, partition, submission_id)
        listed = _listed(manifest, storage.uri(*folder, MANIFEST))
    except (DamagedFileError, MissingFileError) as error:
        manifest = _stand_in(pipeline, partition, submission_id)
        problems.append(str(error))
    entries = listed or {}
    written_as = manifest.pipeline, manifest.partition, manifest.submission
    if written_as != (pipeline, partition, submission_id):
        problem = f"it is the manifest of {'/'.join(filter(None, written_as))}, in another folder"
        return str(damaged(storage.uri(*folder, MANIFEST), problem))
    parts = []
    for part in sorted(entries.keys() | filter(None, map(PartName.of_file, names))):
        stored = StoredRequestFile(storage, (*folder, str(part)))
        try:
            receipt, was_sent = stored.receipt(), False
        except DamagedFileError as error:
            receipt, was_sent = None, True
            problems.append(str(error))
        was_sent = was_sent or receipt is not None
        resent = ResentTrace(stored).found(problems) if part.resent in names else ()
        parts.append(FoundPart(part, stored, entries.get(part), receipt, str(part) in names, was_sent, resent))
    return FoundSubmission(manifest, parts, problems, is_listed=listed is not None)


def _listed(manifest: Manifest, name: str) -> dict[PartName, PartEntry]:
    try:
        return {entry.part: entry for entry in manifest.files}
    except ValueError as error:
        raise damaged(name, f"'files': {error}") from None


def _stand_in(pipeline: str, partition: str, submission_id: str) -> Manifest:
    """Make a manifest in place of a damaged one: what was paid for is kept.

    Nothing is sent by it, unless a user approves that.
    """
    return Manifest(
        pipeline=pipeline,
        partition=partition,
        submission=submission_id,
        key="",
        headers={},
        output_schema=None,
        max_attempts=1,
        rows=0,
        rejected=0,
        requests=0,
        files=[],
    )


def responses_of(storage: Storage, pipeline: str) -> tuple[dict[ResponseName, FoundResponses], list[str]]:
    """Read a pipeline's response files.

    Returns:
        The response files by name, and the texts about damaged ones, which are downloaded again.
    """
    responses, problems = {}, []
    for name in filter(None, map(ResponseName.parse, storage.versions(pipeline, "responses"))):
        try:
            responses[name] = read_responses(storage, pipeline, name)
        except DamagedFileError as error:
            problems.append(str(error))
    return responses, problems


def read_responses(storage: Storage, pipeline: str, name: ResponseName) -> FoundResponses:
    """Read a response file.

    Raises:
        DamagedFileError: When it cannot be read.
    """
    with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
        table = file.read(columns=_ANSWERED, use_threads=False)
        ended_at, paid_at = ended_at_of(file), paid_at_of(file)
    types = Counter(table["result_type"].to_pylist())
    counts = {name: types[name] for name in COUNTS}
    attempt = int(table["attempts"].to_numpy().max()) if len(table) else 1  # failed live calls count as none
    return FoundResponses(name, digest_array(table["digest"]), attempt, counts, ended_at, paid_at)


def table_is_complete(storage: Storage, submission: FoundSubmission) -> bool:
    """Whether the table of results is that of the submission and has the final result of every row."""
    pipeline, partition = submission.pipeline, submission.partition
    parts = results_parts(pipeline, partition)
    if not storage.exists(*parts):
        return False
    in_index, in_table = blake2b(), blake2b()
    try:
        index = RequestIndex(storage, pipeline, partition, submission.id)
        for rows in index.slices([DIGEST]):
            in_index.update(digest_array(rows.column(0).drop_null()).tobytes())
    except (DamagedFileError, MissingFileError):
        return False
    try:
        with pq.ParquetFile(storage.open(*parts), pre_buffer=False) as file:
            if file.metadata.num_rows != index.rows:
                return False
            if submission_of(file.schema_arrow) not in (None, submission.id):
                return (
                    False  # that of an earlier one, which may have the same requests, such as those of a refresh
                )
            for rows in slices_of(file, ["custom_id", "result_type"]):
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
