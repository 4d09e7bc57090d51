"""The one word the core has for partitions: a key, "" for none."""

from __future__ import annotations

from urllib.parse import unquote

import dagster as dg

from batch_assets.core.root import Root
from batch_assets.dagster import keys

_FOLDER = "partition="


def partition_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
    """The partition a step works on."""
    return context.partition_key if context.has_partition_key else ""


def partitions_with_results(root: Root, pipeline: str) -> list[str]:
    """The partitions that have a folder of results, or "" alone for a pipeline without partitions."""
    names = root.storage.names(pipeline, "results")
    found = [unquote(name.removeprefix(_FOLDER)) for name in names if name.startswith(_FOLDER)]
    return found or [""]


def row_count_key(partition: str) -> str:
    """Where Dagster looks for the number of rows."""
    return keys.PARTITION_ROW_COUNT if partition else keys.ROW_COUNT
