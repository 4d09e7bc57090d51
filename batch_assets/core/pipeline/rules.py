"""Rules between the blocks of a pipeline file: dataset, partitions and watch."""

from __future__ import annotations

from typing import assert_never

from batch_assets.core.pipeline.dataset import DatasetKind
from batch_assets.core.pipeline.partitions import PLACEHOLDER
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.query_parameters import parameters_in


def partitions_problem(pipeline: Pipeline) -> tuple[str, str] | None:
    """Check that dataset and partitions fit together.

    Returns:
        (field, what is wrong and what to do), or `None` if they fit.
    """
    dataset, partitions = pipeline.config.dataset, pipeline.partitions
    kind = dataset.kind
    by_path = PLACEHOLDER in dataset.pattern
    parameters = parameters_in(pipeline.query) if kind is DatasetKind.SQL else set()
    if partitions is None:
        if by_path:
            return f"dataset.{kind}", f"{PLACEHOLDER} needs the field `partitions`, which defines the keys"
        if parameters:
            names = " and ".join(f":{name}" for name in sorted(parameters))
            return "dataset.sql", f"{names} needs the field `partitions`, which defines the keys"
        return None
    windows = sorted(parameters - {"partition"})
    if windows and not partitions.is_time:
        return "dataset.sql", f":{windows[0]} is only for time partitions; :partition is the key"
    if by_path and pipeline.config.partitions is not None and pipeline.config.partitions.by_value:
        return "partitions", (
            f"{PLACEHOLDER} is in dataset.{kind}, but `column` alone reads whole files: use `dynamic: true` "
            "beside `column`"
        )
    remedy = _by_partition(kind)
    if remedy is not None and not (by_path or parameters or partitions.column):
        return "partitions", (
            f"every partition would read the same rows: {remedy}, or name the column that says which partition a "
            "row belongs to (`column`)"
        )
    return None


def _by_partition(kind: DatasetKind) -> str | None:
    """Return how a dataset is read by partition, as text; `None` if its source sees to it."""
    match kind:
        case DatasetKind.PATH | DatasetKind.FILES:
            return f"put {PLACEHOLDER} into dataset.{kind}"
        case DatasetKind.SQL:
            return "read :partition, :partition_start or :partition_end in the query"
        case DatasetKind.ASSET:
            return None
        case _:
            assert_never(kind)


def gathering_problem(pipeline: Pipeline) -> str | None:
    """Return why partitions cannot be gathered, or `None` if they can or need not be."""
    if not pipeline.config.batching.across_partitions:
        return None
    if pipeline.partitions is None:
        return "this pipeline has no partitions to gather: leave it out, or add the field `partitions`"
    if pipeline.config.dataset.kind is DatasetKind.ASSET:
        return (
            f"each partition of {pipeline.config.dataset.location} is loaded by a run of its own, so there is "
            "nothing to gather: leave it out"
        )
    return None


def rescue_problem(pipeline: Pipeline) -> tuple[str, str] | None:
    """Return (field, what is wrong) if one of `deadline` and `rescue` is without the other; `None` if not."""
    deadline, rescue = pipeline.config.deadline, pipeline.config.rescue
    if deadline is not None and rescue is None:
        return (
            "deadline",
            "nothing happens then: add `rescue: live`, which asks rows without an answer by live calls",
        )
    if rescue is not None and deadline is None:
        return "rescue", "it has no time: add `deadline`, such as 6h"
    return None


def rescue_warning(pipeline: Pipeline) -> str | None:
    """Return what `retry` does not do for rows that `rescue` asks; `None` if there is nothing."""
    if pipeline.rescue_rule is None or pipeline.follow_ups is None:
        return None
    retry = pipeline.config.retry
    fields = [f"retry.{name}" for name in ("invalid", "truncated", "paused") if getattr(retry, name)]
    return (
        f"answers of live calls are not asked again or continued, as {' and '.join(fields)} would have it: such a "
        "row keeps the answer of its live call"
    )


def watch_problem(pipeline: Pipeline) -> str | None:
    """Return why the dataset cannot be watched, or `None` if it can or need not be."""
    if not pipeline.config.watch:
        return None
    dataset = pipeline.config.dataset
    match dataset.kind:
        case DatasetKind.PATH | DatasetKind.FILES:
            if pipeline.partitions is None or PLACEHOLDER in dataset.pattern:
                return None
            return (
                f"files do not show which partitions have changed unless {PLACEHOLDER} is in "
                f"dataset.{dataset.kind}: put it there, or use `schedule`"
            )
        case DatasetKind.SQL:
            return "only files can be watched, because databases do not report changed rows: use `schedule`"
        case DatasetKind.ASSET:
            return (
                f"only files can be watched; to follow {dataset.location} set an automation condition, "
                "AutomationCondition.eager(), on requests and batches by `post_processing`"
            )
        case _:
            assert_never(dataset.kind)
