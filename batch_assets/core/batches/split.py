"""Split request files: those that the API refuses as too large, and those that are too dear for a budget.

A file in the state `too_large` or `held` keeps its requests in flight until its parts take over, so a process may
be killed at any point. The parts are named after the file: a later process writes the same ones.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.layout import refusal_parts, submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import Lease, splits
from batch_assets.core.ledger.columns import FileColumns
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.follow_up_ids import is_follow_up
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import body_bytes
from batch_assets.core.store.responses import RESPONSE_SCHEMA, file_metadata

_CHUNK = 1 << 20


def split(root: Root, file: RequestFile, lease: Lease) -> list[RequestFile]:
    """Replace a file with two files of about half its bytes, in one transaction.

    Args:
        root: The root.
        file: The file, in the state `too_large` or `held`, and with more than one request.
        lease: The lease on the file.

    Returns:
        The parts, ready to be sent.
    """
    stored = StoredRequestFile.of(root.storage, file)
    ends = stored.scan().ends
    # The last line of the first part: its end is nearest to the middle, with at least one request on either side.
    last = int(np.abs(ends[:-1] - ends[-1] / 2).argmin())
    pieces = [(0, int(ends[last]), last + 1), (int(ends[last]), int(ends[-1]), len(ends) - last - 1)]
    folder = submission_parts(file.pipeline, file.partition, file.submission_id)
    parts: list[FileColumns] = []
    for name, (start, end, requests) in zip(PartName.parse(file.name).halves, pieces, strict=True):
        with root.storage.write(*folder, str(name)) as scratch, root.storage.open(*stored.parts) as source:
            with scratch.open("wb") as target:
                checksum = _copy(source, target, start, end, lease)
            lease.check()
        size = body_bytes(end - start)
        parts.append({"name": str(name), "requests": requests, "bytes": size, "checksum": checksum})
    with root.ledger.write(file.pipeline) as tx:
        lease.confirm(tx)
        return splits.replace(tx, file, parts)


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int, lease: Lease) -> str:
    """Copy some bytes of a file. Return their SHA-256 in hexadecimal."""
    hash_ = sha256()
    source.seek(start)
    while start < end:
        chunk = source.read(min(_CHUNK, end - start))
        lease.check()
        target.write(chunk)
        hash_.update(chunk)
        start += len(chunk)
    return hash_.hexdigest()


def give_up(root: Root, file: RequestFile, lease: Lease) -> None:
    """Record the API's refusal of a single request as its answer: the same bytes would be refused again.

    Args:
        root: The root.
        file: The file, in the state `too_large` and with one request.
        lease: The lease on the file.
    """
    stored = StoredRequestFile.of(root.storage, file)
    target = root.storage.path(*refusal_parts(file.pipeline, file.id))
    with root.ledger.read() as tx:
        now = tx.now
    row: dict[str, Any] = {
        **dict.fromkeys(RESPONSE_SCHEMA.names),
        "digest": stored.digests().tobytes(),
        "custom_id": next(stored.custom_ids_at([0])),
        "result_type": ResultType.ERRORED,
        "error_type": ErrorType.REQUEST_TOO_LARGE,
        "error_message": file.error,
        "attempts": file.attempt,
        "ended_at": datetime.fromtimestamp(now, UTC),
    }
    schema = RESPONSE_SCHEMA.with_metadata(file_metadata(now, follows=is_follow_up(row["custom_id"] or "")))
    with root.storage.scratch_file(target) as scratch:
        with TableWriter(scratch, schema) as writer:
            writer.write(pa.Table.from_pylist([row], schema=schema))
        lease.check()
        root.storage.publish(scratch, target)
    with root.ledger.write(file.pipeline) as tx:
        lease.confirm(tx)
        splits.given_up(tx, file.id, "its request is too large by itself")
