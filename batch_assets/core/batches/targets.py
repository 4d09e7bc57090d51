"""Find the submissions of a pipeline or a partition that a user named, or name what there is."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.text import listed, meant, nothing_submitted

_NAMED = 10  # partitions in an error


class UnknownTargetError(BatchAssetsError):
    """The name is no pipeline, partition or batch of the root."""


def submissions_of(root: Root, pipeline: str, partition: str | None) -> list[Submission]:
    """Return the submissions in force of a pipeline.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; `None` for all partitions.

    Raises:
        UnknownTargetError: When there is none. It names the pipelines or partitions that have one.
    """
    with root.ledger.read() as tx:
        newest = submissions.all_newest(tx)
    of_pipeline = [submission for submission in newest if submission.pipeline == pipeline]
    if not of_pipeline:
        raise unknown_pipeline(root, pipeline, {submission.pipeline for submission in newest})
    chosen = [submission for submission in of_pipeline if partition in (None, submission.partition)]
    if not chosen:
        names = sorted(submission.partition or "(none)" for submission in of_pipeline)
        raise UnknownTargetError(
            f"{pipeline} has no partition {partition!r}{meant(partition or '', names)}; partitions submitted: "
            f"{listed(names, _NAMED)}"
        )
    return chosen


def unknown_pipeline(root: Root, name: str, known: Iterable[str]) -> UnknownTargetError:
    """Return the error that nothing was submitted for a pipeline of this name."""
    return UnknownTargetError(nothing_submitted(name, root.storage.url, known))
