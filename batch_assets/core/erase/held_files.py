"""Find the request files that hold the requests of erased rows, and what the API may still do with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from batch_assets.core.erase.found_rows import FoundRows
from batch_assets.core.erase.replacement import padded
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName, SubmissionId
from batch_assets.core.ledger import erasure, files
from batch_assets.core.ledger.erasure import Unsettled
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.in_flight import digests_of, digests_of_submission
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.text import moment

_DAY = 86400.0
# The API keeps the results of a batch for this long after it was created.
KEPT_SECONDS = 29 * _DAY


@dataclass(frozen=True)
class HeldFile:
    """A request file that may hold a request of an erased row.

    Attributes:
        manifest: The manifest of its submission.
        name: Its name.
        stored: The file on disk.
        file: The file in the ledger; `None` if the ledger does not know it.
        headers: The headers of its requests.
    """

    manifest: Manifest
    name: PartName
    stored: StoredRequestFile
    file: RequestFile | None
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return str(SubmissionId(self.manifest.submission).file(self.name))


@dataclass
class HeldFiles:
    """The request files of some rows.

    Attributes:
        files: The files on disk of each submission that has one of the requests, whether or not they hold it.
        unsent: The unsent files that hold one of the requests.
        blocked: The reasons why a key cannot be erased now, by its position: its request is in flight.
    """

    files: list[HeldFile] = field(default_factory=list)
    unsent: list[RequestFile] = field(default_factory=list)
    blocked: dict[int, list[str]] = field(default_factory=dict)


def find_files(root: Root, pipeline: str, targets: FoundRows) -> HeldFiles:
    """Find the request files of some rows.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        targets: The rows.
    """
    held_files = HeldFiles()
    if not targets.requests:
        return held_files
    with root.ledger.read() as tx:
        unsettled = erasure.unsettled_files(tx, pipeline)
    wanted = targets.digests
    for entry in unsettled:
        matches = _matches(root, entry.file, wanted)
        if not len(matches):
            continue
        if entry.is_unsent:
            held_files.unsent.append(entry.file)
            continue
        for position in sorted({p for digest in matches.tolist() for p in targets.requests[padded(digest)]}):
            held_files.blocked.setdefault(position, []).append(_why_blocked(entry))
    for manifest in _manifests_with_files(root, targets):
        held_files.files += _files_of(root, manifest)
    return held_files


def _manifests_with_files(root: Root, targets: FoundRows) -> list[Manifest]:
    """Return the manifests of the submissions whose files may hold the requests, also of gathered ones."""
    manifests = {each.id: each.manifest for each in [*targets.submissions, *targets.sharing]}
    others = {
        other.submission: (manifest.pipeline, other.partition)
        for manifest in manifests.values()
        for other in manifest.registered_with or ()
    }
    for submission_id, folder in others.items():
        if submission_id not in manifests:
            try:
                manifests[submission_id] = Manifest.read(root.storage, *folder, submission_id)
            except (MissingFileError, DamagedFileError):  # the problem is reported with those of all submissions
                continue
    return [*manifests.values()]


def _matches(root: Root, file: RequestFile, wanted: Digests) -> Digests:
    """Return which requests are, or may be, in a file: S16, shape (n,)."""
    read = digests_of(root.storage, file)
    digests = read.digests
    if read.problem is not None:  # a lost file may hold any request of its submission
        of_submission = digests_of_submission(root, file)
        digests = wanted if of_submission is None else of_submission
    return np.intersect1d(wanted, digests)


def _files_of(root: Root, manifest: Manifest) -> Iterator[HeldFile]:
    folder = submission_parts(manifest.pipeline, manifest.partition, manifest.submission)
    for text in root.storage.names(*folder):
        name = PartName.of_file(text)
        if name is None or text != str(name):
            continue
        file_id = str(SubmissionId(manifest.submission).file(name))
        with root.ledger.read() as tx:
            file = files.known(tx, file_id)
            headers = files.headers_of(tx, file) if file is not None else _listed_headers(manifest, name)
        yield HeldFile(manifest, name, StoredRequestFile(root.storage, (*folder, text)), file, headers)


def _listed_headers(manifest: Manifest, name: PartName) -> dict[str, str]:
    listed = [entry for entry in manifest.files if entry.name == str(name)]
    return dict((listed[0].headers if listed else None) or manifest.headers)


def _why_blocked(entry: Unsettled) -> str:
    if entry.batches:
        return "; ".join(map(batch_text, entry.batches))
    if entry.watched_until is not None:
        return (
            f"the request file {entry.file.id} was sent twice, and its other batch may turn up until "
            f"{moment(entry.watched_until)}"
        )
    if entry.file.state.unsent:
        return f"the request file {entry.file.id} is {entry.file.state}: cancel its pipeline, or send it first"
    return f"the request file {entry.file.id} is {entry.file.state}, and the API may have it"


def batch_text(batch: Batch) -> str:
    """Describe a batch whose answers are not stored: when it ends, and until when the API keeps it."""
    text = f"{batch.id} is {batch.state}"
    if batch.state.unended and batch.expires_at is not None:
        text += f" and ends by {moment(batch.expires_at)}"
    return text + kept_until(batch)


def kept_until(batch: Batch) -> str:
    """Say until when the API keeps the results of a batch that is not deleted; "" if that is unknown."""
    if batch.created_at is None:
        return ""
    return f"; the API keeps its results until {moment(batch.created_at + KEPT_SECONDS)}"
