"""The one word the core has for partitions: a key, "" for none."""

from __future__ import annotations

import dagster as dg

from batch_assets.dagster import keys


def partition_of(context: dg.AssetExecutionContext) -> str:
    """The partition a step works on."""
    return context.partition_key if context.has_partition_key else ""


def row_count_key(partition: str) -> str:
    """Where Dagster looks for the number of rows."""
    return keys.PARTITION_ROW_COUNT if partition else keys.ROW_COUNT
