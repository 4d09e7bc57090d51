"""Rules between the blocks of a pipeline file: dataset, partitions and watch."""

from __future__ import annotations

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
    by_path = kind in ("path", "files") and PLACEHOLDER in (dataset.path or dataset.files or "")
    parameters = parameters_in(pipeline.query) if kind == "sql" else set()
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
    if not (by_path or parameters or partitions.column or kind == "asset"):
        remedy = {
            "sql": "read :partition, :partition_start or :partition_end in the query",
        }.get(kind, f"put {PLACEHOLDER} into dataset.{kind}")
        return "partitions", (
            f"every partition would read the same rows: {remedy}, or name the column that says which partition a "
            "row belongs to (`column`)"
        )
    return None


def watch_problem(pipeline: Pipeline) -> str | None:
    """Return why the dataset cannot be watched, or `None` if it can or need not be."""
    if not pipeline.config.watch:
        return None
    dataset = pipeline.config.dataset
    if dataset.kind == "sql":
        return "only files can be watched, because databases do not report changed rows: use `schedule`"
    if dataset.kind == "asset":
        return (
            f"only files can be watched; to follow {dataset.location} set an automation condition, "
            "AutomationCondition.eager(), on requests and batches by `post_processing`"
        )
    if pipeline.partitions is not None and PLACEHOLDER not in (dataset.path or dataset.files or ""):
        return (
            f"files do not show which partitions have changed unless {PLACEHOLDER} is in dataset.{dataset.kind}: "
            "put it there, or use `schedule`"
        )
    return None
