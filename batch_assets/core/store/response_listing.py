"""One listing of a pipeline's response files, which serves all comparisons of a stage.

A history has thousands of files, and a listing of an object store is a call for each thousand.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from batch_assets.core.io.names import ResponseName, response_names
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import collected
from batch_assets.core.root import Root

# A listing serves for this long, as long as the ledger knows of everything that was stored since.
_KEEP_SECONDS = 60.0
FEW_FILES = 20
"""With more new files than this, another listing is faster than one call for each."""


@dataclass(frozen=True)
class ResponseListing:
    """The names of a pipeline's response files.

    Attributes:
        names: The names.
        last: The last collection before it was made, see `last_collection`.
        at: When it was made, in seconds of a steady clock.
        is_indexed: Whether all of them were in the index of answers then.
    """

    names: frozenset[str]
    last: int
    at: float
    is_indexed: bool = False


def list_responses(root: Root, pipeline: str) -> ResponseListing:
    """List the response files of a pipeline, and keep the listing for the comparisons that follow."""
    with root.ledger.read() as tx:  # first: what is stored in between is listed, or counts as stored since
        last = collected.last_collection(tx, pipeline)
    names = frozenset(response_names(root.storage.file_names(pipeline, "responses")))
    listing = ResponseListing(names, last, time.monotonic())
    root.kept[_kept_name(pipeline)] = listing
    return listing


def note_indexed(root: Root, pipeline: str, listing: ResponseListing) -> None:
    """Record that all names of a listing are in the index of answers. What it has of them stays for a day."""
    root.kept[_kept_name(pipeline)] = replace(listing, is_indexed=True)


def listed_responses(root: Root, pipeline: str, last: int) -> ResponseListing:
    """Return the last listing with the files that were stored since; another one if it is not of this stage.

    A file that another process has published and not recorded yet is not in it. Its requests are in flight as long
    as that is so. So call it after the list of request files in flight was read.
    """
    kept = root.kept.get(_kept_name(pipeline))
    if not isinstance(kept, ResponseListing) or time.monotonic() - kept.at >= _KEEP_SECONDS:
        return list_responses(root, pipeline)
    if last == kept.last:
        return kept
    with root.ledger.read() as tx:
        since = collected.batches_since(tx, pipeline, kept.last)
    if None in since or len(since) > FEW_FILES:
        return list_responses(root, pipeline)
    names = {str(ResponseName.of_batch(id_)) for id_ in since if id_ is not None}
    listing = ResponseListing(kept.names | names, last, kept.at)
    root.kept[_kept_name(pipeline)] = listing
    return listing


def forget_listing(root: Root, pipeline: str) -> None:
    """Forget the listing: this process has removed or replaced response files."""
    root.kept.pop(_kept_name(pipeline), None)


def _kept_name(pipeline: str) -> str:
    return f"response files of {pipeline}"


def versions_digest(versions: Mapping[str, str]) -> str:
    """Return a digest of the names and versions of response files."""
    return hashlib.sha256("/".join(sorted(map("/".join, versions.items()))).encode()).hexdigest()


def response_versions(storage: Storage, pipeline: str) -> dict[str, str]:
    """List the response files of a pipeline, each with its version, by name."""
    versions = storage.versions(pipeline, "responses")
    return {name: versions[name] for name in response_names(versions)}
