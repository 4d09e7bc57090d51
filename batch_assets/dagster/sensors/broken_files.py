"""What the sensor does about pipeline files that are broken: it says so, and lets their checks fail."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import dagster as dg

from batch_assets.dagster.broken_file import BrokenFile, broken_in, check_result
from batch_assets.dagster.checks.events import evaluation
from batch_assets.dagster.cursor import SensorCursor
from batch_assets.dagster.sensors.unwatched import specs_of_location


def broken_of_location(context: dg.SensorEvaluationContext) -> dict[str, BrokenFile]:
    """Return the broken files of the sensor's code location, by the name of the pipeline."""
    return broken_in(specs_of_location(context))


def describe(broken: Mapping[str, BrokenFile]) -> list[str]:
    """Return a sentence for each broken file."""
    return [
        f"{name}: its file is broken, so nothing is sent, while answers are collected all the same: {file}"
        for name, file in broken.items()
    ]


def evaluate_checks(
    broken: Mapping[str, BrokenFile], resource_key: str | None, cursor: SensorCursor
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield a failing evaluation of the check of each broken file, once for each state of the file.

    Args:
        broken: The broken files, by the name of the pipeline.
        resource_key: The `resource_key` of the pipelines that the sensor watches.
        cursor: The state of the last tick. It is changed.
    """
    own = {name: file for name, file in broken.items() if file.resource_key == resource_key}
    digests = {name: hashlib.blake2b(str(file).encode(), digest_size=8).hexdigest() for name, file in own.items()}
    for name, file in own.items():
        if cursor.broken.get(name) != digests[name]:
            yield evaluation(check_result(file))
    cursor.broken = digests
