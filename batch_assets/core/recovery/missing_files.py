"""Compare what a ledger knows with the files under a root: do they belong together, and are most files missing?

Only the newest submissions and batches count, because users may clear away old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batch_assets.core.errors import UnfinishedRenamingError
from batch_assets.core.io.layout import response_parts, submission_parts
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Transaction, known_files
from batch_assets.core.ledger.known_files import KnownAnswers, KnownSubmission
from batch_assets.core.recovery.found_files import pipelines_of, submission_folders
from batch_assets.core.remedies import FinishRenaming
from batch_assets.core.store.manifest import MANIFEST
from batch_assets.core.text import count

# The manifests of this many submissions are looked for whenever a root is opened.
_SAMPLE = 3
# If most of these are missing, the files of this many submissions are.
_NEWEST = 20

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """How the files that a ledger knows compare with those under a root.

    Attributes:
        is_same: Whether the ledger can belong to the root.
        as_text: The comparison as text.
    """

    is_same: bool
    as_text: str


def agreement(tx: Transaction, storage: Storage) -> Agreement:
    """Compare the submissions of a ledger and of a root that have no ids of each other.

    They belong together if neither has any, or if most of the ledger's newest submissions are under the root. Ids
    of submissions are random, so a common one is a proof.
    """
    known = [(s.pipeline, s.partition, s.id) for s in known_files.newest_submissions(tx)]
    there = {
        (pipeline, partition, submission_id)
        for pipeline in pipelines_of(storage)
        for partition, submission_id in submission_folders(storage, pipeline)
    }
    common = there.intersection(known)
    newest = known[:_NEWEST]
    is_there = bool(common) and 2 * len(there.intersection(newest)) >= len(newest)
    text = (
        f"the ledger knows {count(len(known), 'submission')}, the root has {len(there):,}, "
        f"and {len(common):,} of them are the same"
    )
    return Agreement(is_there or not (known or there), text)


def lost_most_files(
    tx: Transaction, storage: Storage, since: float, pipeline: str | None = None
) -> Agreement | None:
    """Find out whether most of the files of the ledger's newest submissions are missing.

    Args:
        tx: The transaction.
        storage: The root.
        since: Files from before this time may be missing.
        pipeline: Count the submissions of this pipeline only; `None` for all pipelines.

    Returns:
        The comparison; `None` if most of the files are there.
    """
    newest = known_files.newest_submissions(tx, _NEWEST, since, pipeline)
    if 2 * len(_missing(storage, [*map(_manifest, newest[:_SAMPLE])])) <= len(newest[:_SAMPLE]):
        return None
    ids = [submission.id for submission in newest]
    files = [
        *map(_manifest, newest),
        *((*submission_parts(*owner), name) for *owner, name in known_files.request_files(tx, ids)),
        *(response_parts(*batch) for batch in known_files.stored_batches(tx, ids)),
    ]
    missing = _missing(storage, files)
    if 2 * len(missing) <= len(files) or _are_elsewhere(storage, newest):
        return None
    text = (
        f"{len(missing):,} of {len(files):,} files of its newest submissions are missing, such as "
        f"{storage.uri(*missing[0])}"
    )
    return Agreement(False, text)


def lost_pipelines(tx: Transaction, storage: Storage, since: float) -> dict[str, Agreement]:
    """Find the pipelines that have lost their files, see `lost_files_of`.

    Args:
        tx: The transaction.
        storage: The root.
        since: Files from before this time may be missing.

    Returns:
        The comparison of each, by pipeline.
    """
    lost = {name: lost_files_of(tx, storage, since, name) for name in known_files.pipelines(tx)}
    return {name: comparison for name, comparison in lost.items() if comparison is not None}


def lost_files_of(tx: Transaction, storage: Storage, since: float, pipeline: str) -> Agreement | None:
    """Find out whether a pipeline has lost its files, so that its requests would be sent and paid for again.

    Either most files of its newest submissions are missing, or most answers of its newest batches: the response
    file, the request file and the API's copy. What the API has is downloaded again.

    Args:
        tx: The transaction.
        storage: The root.
        since: Files from before this time may be missing.
        pipeline: The name of the pipeline.

    Returns:
        The comparison; `None` if the files are not missing.
    """
    return lost_most_files(tx, storage, since, pipeline) or _lost_answers(tx, storage, since, pipeline)


def check_renaming(tx: Transaction, storage: Storage, pipeline: str) -> None:
    """Refuse a pipeline whose renaming is not finished. Nothing is sent, and nothing is stored under the old name.

    Args:
        tx: The transaction.
        storage: The root.
        pipeline: The name of the pipeline in the ledger.

    Raises:
        UnfinishedRenamingError: When most of its newest submissions are under another name.
    """
    if (new := _moved_to(tx, storage, pipeline)) is not None:
        raise UnfinishedRenamingError(
            f"the files of {pipeline!r} are under {storage.uri(new)}: it was being renamed. Nothing is sent or "
            "collected before that is finished",
            remedy=FinishRenaming(pipeline, new),
        )


def _moved_to(tx: Transaction, storage: Storage, pipeline: str) -> str | None:
    newest = known_files.newest_submissions(tx, _SAMPLE, pipeline=pipeline)
    if 2 * len(_missing(storage, [*map(_manifest, newest)])) <= len(newest):
        return None
    ids = {submission.id for submission in newest}
    for other in pipelines_of(storage):
        there = {id_ for _, id_ in submission_folders(storage, other)} if other != pipeline else set()
        if 2 * len(ids & there) > len(ids):
            return other
    return None


def _lost_answers(tx: Transaction, storage: Storage, since: float, pipeline: str) -> Agreement | None:
    newest = known_files.newest_answers(tx, pipeline, _NEWEST, since)
    sample = newest[:_SAMPLE]
    if 2 * len(_missing_answers(storage, sample)) <= len(sample):
        return None
    missing = _missing_answers(storage, newest)
    if 2 * len(missing) <= len(newest):
        return None
    return Agreement(
        False,
        f"the answers of {len(missing):,} of its {len(newest):,} newest batches are missing, such as "
        f"{storage.uri(*response_parts(pipeline, missing[0].batch_id))}, and so are their request files, and the "
        "API no longer has these batches",
    )


def _missing_answers(storage: Storage, answers: Sequence[KnownAnswers]) -> list[KnownAnswers]:
    return [
        known
        for known in answers
        if not known.is_at_api
        and not storage.is_file(*response_parts(known.submission.pipeline, known.batch_id))
        and not storage.is_file(*_folder(known.submission), known.file_name)
    ]


def _are_elsewhere(storage: Storage, newest: Sequence[KnownSubmission]) -> bool:
    """Whether most submissions' folders are under the name of another pipeline: a renaming is not finished."""
    there = {id_ for pipeline in pipelines_of(storage) for _, id_ in submission_folders(storage, pipeline)}
    return 2 * sum(submission.id in there for submission in newest) > len(newest)


def _missing(storage: Storage, files: Sequence[Parts]) -> list[Parts]:
    return [parts for parts, is_there in zip(files, storage.were_files(files), strict=True) if not is_there]


def _manifest(submission: KnownSubmission) -> Parts:
    return (*_folder(submission), MANIFEST)


def _folder(submission: KnownSubmission) -> Parts:
    return submission_parts(submission.pipeline, submission.partition, submission.id)
