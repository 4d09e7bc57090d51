"""Where imported answers come from: a file of results, or an ended batch of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batch_assets.core.api.errors import ApiError
from batch_assets.core.imports.report import ImportFailedError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.ledger import batches
from batch_assets.core.root import Root

_BATCH_ID = re.compile(r"msgbatch_[A-Za-z0-9]{8,60}", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Results of a batch that this root did not send.

    Attributes:
        name: The file or the id of the batch, as the user gave it.
        path: The file that has them.
        batch_id: The id of the batch; `None` if it is unknown.
        ended_at: When the batch ended, in seconds since 1970; for a file, when it was last changed.
    """

    name: str
    path: Path
    batch_id: str | None
    ended_at: float


@contextmanager
def open_source(root: Root, pipeline: str, name: str) -> Iterator[Source]:
    """Open a file of results, or download those of a batch.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        name: The path of the file, or the id of the batch.

    Raises:
        ImportFailedError: When there is no such file or batch, or the batch is ours or has no results.
        EndpointMismatchError: When the root belongs to another API.
    """
    path = Path(name)
    if path.is_file():
        named = _BATCH_ID.search(path.name)
        yield Source(name, path, named[0] if named is not None else None, path.stat().st_mtime)
        return
    if path.is_dir():
        raise ImportFailedError(f"{name} is a folder: name one of its files, with results as JSON Lines")
    if _BATCH_ID.fullmatch(name) is None:
        raise ImportFailedError(f"{name}: there is no such file, and it is no id of a batch (msgbatch_…)")
    with root.ledger.read() as tx:
        known = batches.by_id(tx, name)
    if known is not None and known.file_id is not None:
        raise ImportFailedError(
            f"{name} was sent by this root, for the pipeline {known.pipeline}: its results are collected by that "
            "pipeline's runs, not imported"
        )
    root.check_endpoint()
    target = root.storage.path(*response_parts(pipeline, name))
    with root.storage.scratch_file(f"{target}.import") as raw:
        yield Source(name, raw, name, _download(root, name, raw))


def _download(root: Root, batch_id: str, raw: Path) -> float:
    """Download the results of a batch. Returns when it ended."""
    try:
        batch = root.api.retrieve(batch_id)
        if not batch.ended:
            raise ImportFailedError(f"{batch_id} has not ended ({batch.processing_status}): import it later")
        if batch.archived_at is not None:
            raise ImportFailedError(f"{batch_id}: the API no longer has its results: 29 days have passed")
        with root.api.results(batch_id) as chunks, raw.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
    except ApiError as error:
        raise ImportFailedError(f"{batch_id}: {error}") from None
    lines = _count_lines(raw)
    if lines != batch.total:
        raise ImportFailedError(
            f"{batch_id}: the download has {lines:,} lines for {batch.total:,} requests: import it again"
        )
    return batch.ended_at or batch.created_at


def _count_lines(path: Path) -> int:
    with path.open("rb", buffering=1 << 20) as file:
        return sum(1 for line in file if line.strip())
