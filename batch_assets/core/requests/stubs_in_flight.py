"""Stubs of earlier submissions that a build waits for, in place of sending another one with the same prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import files, stubs, submissions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.stubs import Stub, Warmth
from batch_assets.core.root import Root
from batch_assets.core.store.breakpoints import Breakpoint
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import params_of

# What a build writes is sent a while later. If the cache may have expired by then, it needs a stub of its own.
_LEAST_SECONDS = 900.0


@dataclass(frozen=True)
class StubInFlight:
    """The stub of an earlier submission, which has written the prompt cache, or may still write it.

    Attributes:
        file_id: The id of its request file.
        headers: Its headers.
        params: Its params, as they are in the file.
        breakpoint: Its breakpoint.
    """

    file_id: str
    headers: dict[str, str]
    params: bytes
    breakpoint: Breakpoint


def stubs_in_flight(
    root: Root, newest: Submission, is_wanted: Callable[[Mapping[str, str]], bool]
) -> Iterator[StubInFlight]:
    """Yield the stubs of the files that a partition's newest submission waits on, if they are of use.

    Args:
        root: The root.
        newest: The submission.
        is_wanted: Whether a stub with some headers is wanted. The file of another is not read: partitions that are
            built together wait for the same stub.
    """
    with root.ledger.read() as tx:
        ids = {file.stub for file in submissions.waited_on(tx, newest.id) if file.stub is not None}
        usable = [stub.file for stub in stubs.by_id(tx, ids).values() if _is_usable(stub, tx.now)]
        with_headers = [(file, files.headers_of(tx, file)) for file in usable]
    for file, headers in with_headers:
        if is_wanted(headers) and (stub := _read(root, file, headers)) is not None:
            yield stub


def _is_usable(stub: Stub, now: float) -> bool:
    """Whether its cache is there for long enough. A stub that is not sent yet is replaced by the next build."""
    if stub.file.state.unsent or stub.warmth(now) is Warmth.COLD:
        return False
    return stub.until is None or stub.until - now >= _LEAST_SECONDS


def _read(root: Root, file: RequestFile, headers: dict[str, str]) -> StubInFlight | None:
    """Return a stub with its params; `None` if its file cannot be read."""
    breakpoint = Breakpoint.of(file)
    try:
        line = next(iter(StoredRequestFile.of(root.storage, file).lines()), b"")
        params = params_of(line)
    except (FileNotFoundError, DamagedFileError, ValueError):
        return None
    return StubInFlight(file.id, headers, params, breakpoint) if breakpoint is not None and params else None
