"""Requests that are retried read the prompt that they share from the cache, as long as it is certainly there."""

from __future__ import annotations

import json
from collections.abc import Sequence

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.ledger import files, stubs, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.stubs import Warmth
from batch_assets.core.root import Root
from batch_assets.core.store.breakpoints import Breakpoint, BreakpointWriter
from batch_assets.core.store.manifest import PartEntry
from batch_assets.core.store.request_files import StoredRequestFile


def with_breakpoints(root: Root, submission: Submission, entries: Sequence[PartEntry]) -> list[PartEntry]:
    """Return the entries of request files of a retry, with the breakpoints that all of their requests fit.

    Args:
        root: The root.
        submission: The submission that is retried.
        entries: Its request files, which are written.
    """
    warm = _warm(root, submission)
    return [_with_breakpoint(root, submission, entry, warm) for entry in entries] if warm else [*entries]


def _warm(root: Root, submission: Submission) -> list[tuple[dict[str, str], str, Breakpoint]]:
    """Return headers, stub and breakpoint of each group of requests whose prompt is in the cache."""
    groups: dict[str, tuple[dict[str, str], str, Breakpoint]] = {}
    with root.ledger.read() as tx:
        for file in submissions.waited_on(tx, submission.id):
            breakpoint = Breakpoint.of(file)
            if file.stub is not None and file.stub not in groups and breakpoint is not None:
                groups[file.stub] = files.headers_of(tx, file), file.stub, breakpoint
        known = stubs.by_id(tx, groups) if groups else {}
        return [group for id_, group in groups.items() if _is_warm(known.get(id_), tx.now)]


def _is_warm(stub: stubs.Stub | None, now: float) -> bool:
    return stub is not None and stub.warmth(now) is Warmth.WARM


def _with_breakpoint(
    root: Root, submission: Submission, entry: PartEntry, warm: Sequence[tuple[dict[str, str], str, Breakpoint]]
) -> PartEntry:
    folder = submission_parts(submission.pipeline, submission.partition, submission.id)
    stored = StoredRequestFile(root.storage, (*folder, entry.name))
    own = json.loads(submission.headers) if entry.headers is None else entry.headers
    for headers, stub, breakpoint in warm:
        if headers == own and _fits(stored, breakpoint):
            return entry.model_copy(update={"stub": stub, "breakpoint": breakpoint})
    return entry


def _fits(stored: StoredRequestFile, breakpoint: Breakpoint) -> bool:
    writer = BreakpointWriter(breakpoint)
    try:
        for line in stored.lines():
            writer.with_breakpoint(line.removesuffix(b"\n"))
    except DamagedFileError:
        return False
    return True
