"""Name submissions under the root that the ledger does not know, because it was restored from a backup."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.recovery.unknown_folders import unknown_folders
from batch_assets.core.remedies import Stage
from batch_assets.core.root import Root
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.remedies import materialize

# The folders are listed this often, since a pipeline may have thousands of partitions.
PAUSE_SECONDS = 600.0


def describe(root: Root, pipelines: Iterable[str], cursor: SensorCursor, now: float) -> list[str]:
    """Return sentences that name such submissions. Most ticks read nothing for it.

    A build writes a folder shortly before it registers the submission. So only what two ticks in a row did not
    know is named.

    Args:
        root: The root.
        pipelines: The names of the pipelines.
        cursor: The state of the last tick. It is changed.
        now: The time of the tick, by the ledger's clock.
    """
    if not cursor.unknown and 0.0 <= now - cursor.compared_at < PAUSE_SECONDS:
        return []
    before, cursor.unknown, cursor.compared_at = set(cursor.unknown), [], now
    sentences = []
    for pipeline in pipelines:
        for partition, submission_id in unknown_folders(root.ledger, root.storage, pipeline):
            cursor.unknown.append(submission_id)
            if submission_id in before:
                sentences.append(
                    f"{pipeline}: the ledger does not know the submission {submission_id} under the root, so it "
                    "may have been restored from a backup. To add it and collect its answers, "
                    f"{materialize(Stage.RESULTS, pipeline, partition)}"
                )
    return sentences
