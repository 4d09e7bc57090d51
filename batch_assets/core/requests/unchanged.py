"""Recognize a dataset and a pipeline that are as they were, so that no row has to be read.

Files count as unchanged if their names, sizes and versions are the same. The version of an object is its ETag. The
version of a local file is its inode and the times of its last changes, as long as these were long enough before it
was read: a change right after the reading could have the same times.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.answers.result_types import UNCHANGING
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.partition_rows import filled
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.file_systems import OBJECT_STORES
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import joins
from batch_assets.core.ledger.records import Submission
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.exact_json import exact_json
from batch_assets.core.requests.newest_submission import NewestSubmission
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.former_shapes import is_former
from batch_assets.core.store.join_inputs import join_inputs
from batch_assets.core.store.manifest import Fingerprint
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.response_listing import response_versions, versions_digest
from batch_assets.core.template.rendering import CURRENT

# File systems note times in steps of up to 2 seconds (FAT).
_SETTLED_SECONDS = 2.0
_ETAGS = ("ETag", "etag")
ELSEWHERE: Mapping[str, Any] = dict.fromkeys(
    (
        "budget",
        "cache",
        "client",
        "confirm_above",
        "cost_center",
        "max_failed",
        "max_invalid",
        "notify",
        "op",
        "pilot",
        "resource_key",
        "retention",
        "schedule",
        "watch",
    ),
    True,
) | {"batching": {"max_in_flight", "max_wait", "min_requests", "priority"}}
"""Fields of a pipeline file that no request and no row depends on."""


def located_files(pipeline: Pipeline, partition: str) -> LocatedFiles | None:
    """Look the files of a dataset up; `None` if its rows are no files, or there are none.

    Args:
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
    """
    config = pipeline.config.dataset
    if not config.kind.is_files:
        return None
    try:
        return LocatedFiles(filled(config.pattern, partition), pipeline.project)
    except DatasetError:  # the build says what is wrong
        return None


def in_object_store(pipeline: Pipeline) -> bool:
    """Whether the files of a dataset are in an object store, where several threads share the connections."""
    config = pipeline.config.dataset
    return config.kind.is_files and config.pattern.partition("://")[0] in OBJECT_STORES


def inputs_digest(
    pipeline: Pipeline, partition: str, located: LocatedFiles | None, erased: ErasedRecord | None
) -> str | None:
    """Return a digest of everything that a build reads.

    Call it before the dataset is read. A file that changes in between then counts as changed next time.

    Args:
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        located: See `located_files`.
        erased: The rows that were erased; `None` if none were.

    Returns:
        `None` if an equal digest would not show equal inputs: the rows are no files, a file has no version or has
        changed just now, the pipeline's own code changes requests, code defines the partitions, or templates read
        files that are known only when a row is rendered. Also if the pipeline has `notify`: each run has a notice,
        which needs a submission of its own.
    """
    config = pipeline.config
    if located is None or pipeline.hooks.render_request or pipeline.given_partitions is not None:
        return None
    if config.notify or pipeline.picks_files:
        return None
    try:
        files = _versions(located)
    except DatasetError:  # the build says what is wrong
        return None
    if files is None:
        return None
    inputs = [
        version("batch-assets"),
        CURRENT,
        config.model_dump(exclude=dict(ELSEWHERE)),
        pipeline.prompt_digest,
        sorted(pipeline.hooks.tool_functions),
        pipeline.sent_schema,
        pipeline.bounded_schema,
        partition,
        files,
        erased.model_dump() if erased is not None else None,
    ]
    return hashlib.sha256(exact_json(inputs)).hexdigest()


def _versions(located: LocatedFiles) -> list[tuple[Any, ...]] | None:
    """The name and version of each file of the dataset; `None` if one of them has none that can be relied on."""
    versions = []
    for name, info in located.infos().items():
        file_version = _local(name) if isinstance(located.fs, LocalFileSystem) else _remote(info)
        if file_version is None:
            return None
        versions.append((name, *file_version))
    return versions


def _local(name: str) -> tuple[Any, ...] | None:
    try:
        stat = Path(name).stat()
    except OSError:  # it was removed after the listing
        return None
    if max(stat.st_mtime, stat.st_ctime) > time.time() - _SETTLED_SECONDS:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _remote(info: dict[str, Any]) -> tuple[Any, ...] | None:
    etag = next((info[name] for name in _ETAGS if info.get(name)), None)
    return (info.get("size"), etag) if etag is not None else None


def fingerprint_of(
    storage: Storage, pipeline: str, partition: str, report: RequestsReport, inputs: str
) -> Fingerprint:
    """Return what a manifest records so that a later build can be skipped.

    Args:
        storage: The storage of the root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        report: The report of the build, which has written its index.
        inputs: See `inputs_digest`.
    """
    files = _own_files(storage, pipeline, partition, report.submission_id)
    return Fingerprint(inputs=inputs, files=files, without_partition=report.without_partition)


def unchanged_submission(
    root: Root, newest: NewestSubmission | None, inputs: str | None, again: AskAgain
) -> RequestsReport | None:
    """Return a report of the newest submission if a build would have the same rows and nothing to send.

    Args:
        root: The root.
        newest: The newest submission of the partition, and its manifest.
        inputs: See `inputs_digest`.
        again: What is sent again, and the limit.

    Returns:
        `None` if a build is needed: something has changed, not every row is answered or rejected, or the user asks
        for more than that.
    """
    if newest is None or newest.manifest is None or inputs is None:
        return None
    record, fingerprint = newest.record, newest.manifest.fingerprint
    if fingerprint is None or fingerprint.inputs != inputs or again.asks_for_more:
        return None
    is_plain = record.fresh_after is None and not record.left_out and not record.is_canceled
    if not is_plain or record.final_at is None or record.ask_again or not record.count_map.keys() <= UNCHANGING:
        return None
    if _own_files(root.storage, record.pipeline, record.partition, record.id) != fingerprint.files:
        return None
    # Tables of a former shape are moved away. A new submission makes its shape the present one.
    if is_former(root, record.pipeline, record.partition) or not _has_same_answers(root, record):
        return None
    return RequestsReport(
        record.id,
        rows=record.rows,
        rejected=record.rejected,
        requests=record.requests,
        reused=record.requests,
        without_partition=fingerprint.without_partition,
        is_unchanged=True,
    )


def _has_same_answers(root: Root, record: Submission) -> bool:
    """Whether everything that the last join read is as it was."""
    with root.ledger.read() as tx:
        joined = joins.last_join(tx, record.id)
        refreshes, untried = refreshes_of(tx, record.pipeline), untried_of(tx, record)
    if joined is None:
        return False
    versions = versions_digest(response_versions(root.storage, record.pipeline))
    return joined.inputs == join_inputs(versions, record, refreshes, untried)


def _own_files(storage: Storage, pipeline: str, partition: str, submission_id: str) -> list[str]:
    """Return the versions of the files that describe a submission's rows; "" for one that is missing."""
    folder, names = submission_parts(pipeline, partition, submission_id), ("index.parquet", "rejected.parquet")
    versions = storage.together([partial(storage.version, *folder, name) for name in names])
    return [version or "" for version in versions]
