"""The code location of the trial: one pipeline, with a file in the object store for each partition."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from batch_assets import build_message_batch_assets, build_message_batch_sensor
from benchmarks.workload import params_for

PIPELINE = "fleet"
STAGES = ("requests", "batches", "results")
DATASET = "s3://batch-assets/dataset"
PARTITIONS_VARIABLE = "FLEET_PARTITIONS"


def partition_keys(partitions: int) -> list[str]:
    """Return the keys of so many partitions."""
    return [f"part-{number:04d}" for number in range(partitions)]


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the code location."""
    assets = build_message_batch_assets(
        name=PIPELINE,
        dataset={"path": f"{DATASET}/{{partition}}.jsonl", "key": "id"},
        partitions={"static": partition_keys(int(os.environ[PARTITIONS_VARIABLE]))},
        params=params_for(),
        folder=Path(__file__).parent,
        project=Path(__file__).parent,
    )
    return dg.Definitions(assets=assets, sensors=[build_message_batch_sensor()], executor=dg.in_process_executor)
