"""Partitions between Dagster and the core. The core only knows partition keys; "" means no partitions."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote

import dagster as dg

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.io.storage import PARTITION_FOLDER
from batch_assets.core.pipeline.partitions import KEY_FORMATS, KEYS, PartitionsConfig, Window
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.dagster import keys
from batch_assets.dagster.failures import explained_system_errors

_SHOWN = 3
_TIME_DEFINITIONS: dict[str, Callable[..., dg.TimeWindowPartitionsDefinition]] = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}
# The schedules of time windows that a pipeline file can have too.
_DIVISIONS = {"0 * * * *": "hourly", "0 0 * * *": "daily", "0 0 * * 0": "weekly", "0 0 1 * *": "monthly"}
T = TypeVar("T")
Event = dg.MaterializeResult[Any] | dg.AssetMaterialization
GoOn = Callable[[list[str]], Generator[dg.AssetMaterialization, None, str]]
"""Does what Dagster skips for partitions because others failed, and returns what became of them, as a sentence."""


class PartitionError(BatchAssetsError):
    """The partition does not exist, or the user named none. The error lists partitions."""


class GivenPartitions:
    """A Dagster partitions definition, in the form that the core needs.

    Attributes:
        definition: The Dagster definition.
    """

    column = None

    def __init__(self, definition: dg.PartitionsDefinition[Any]) -> None:
        self.definition = definition

    @property
    def division(self) -> str:
        """See `Partitions`."""
        definition = self.definition
        if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
            return KEYS
        return _DIVISIONS.get(definition.cron_schedule, definition.cron_schedule)

    @property
    def is_time(self) -> bool:
        return isinstance(self.definition, dg.TimeWindowPartitionsDefinition)

    @property
    def timezone(self) -> str:
        definition = self.definition
        return definition.timezone if isinstance(definition, dg.TimeWindowPartitionsDefinition) else "UTC"

    def window(self, key: str) -> Window:
        """See `Partitions.window`."""
        assert isinstance(self.definition, dg.TimeWindowPartitionsDefinition)
        window = self.definition.time_window_for_partition_key(key)
        return Window(window.start, window.end)


def partitions_definition(pipeline: Pipeline) -> dg.PartitionsDefinition[Any] | None:
    """Return Dagster's definition of a pipeline's partitions; None without partitions."""
    partitions = pipeline.partitions
    if isinstance(partitions, GivenPartitions):
        return partitions.definition
    return definition_of(pipeline.name, partitions) if isinstance(partitions, PartitionsConfig) else None


def definition_of(name: str, partitions: PartitionsConfig) -> dg.PartitionsDefinition[Any]:
    """Return Dagster's definition of the partitions of a pipeline file.

    Args:
        name: The name of the pipeline.
        partitions: Its partitions.
    """
    if partitions.static is not None:
        return dg.StaticPartitionsDefinition(partitions.static)
    if not partitions.is_time:
        return dg.DynamicPartitionsDefinition(name=name)
    times, key_format = partitions.times, KEY_FORMATS[partitions.kind]
    end = times.moment(times.end).strftime(key_format) if times.end is not None else None
    return _TIME_DEFINITIONS[partitions.kind](
        start_date=times.moment(times.start).strftime(key_format), end_date=end, timezone=times.timezone
    )


def partitions_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[str]:
    """Return the keys of the partitions that a step works on: several in a backfill, [""] without partitions."""
    if context.has_partition_key:
        return [str(context.partition_key)]
    if context.has_partition_key_range:
        return [str(key) for key in context.partition_keys]
    return [""]


def one_partition(context: dg.AssetExecutionContext) -> str:
    """Return the partition key of a step that can only work on one partition.

    Raises:
        dg.Failure: When the run has several partitions.
    """
    partitions = partitions_of(context)
    if len(partitions) > 1:
        raise dg.Failure(
            description=(
                f"This run has {len(partitions)} partitions, {partitions[0]} to {partitions[-1]}, but "
                f"{context.asset_key.to_user_string()} reads the table of one at a time: launch a run for each "
                "partition, as a backfill does automatically."
            ),
            allow_retries=False,
        )
    return partitions[0]


def all_partitions(
    context: dg.AssetExecutionContext,
    materialize: Callable[[str], dg.MaterializeResult[Any]],
    go_on: GoOn | None = None,
) -> Iterator[Event]:
    """Materialize every partition of the run. A failed partition does not stop the others.

    The later steps of the run only start if no partition failed.

    Args:
        context: The context of the step.
        materialize: Materializes the partition with this key.
        go_on: Called with the materialized partitions if others failed.

    Raises:
        dg.Failure: When partitions failed, after the others were logged as materialized. It names the failed ones.
    """
    results, failure = each_partition(context, materialize)
    metadata = {partition: result.metadata or {} for partition, result in results.items()}
    if failure is not None:
        for partition, entries in metadata.items():
            yield dg.AssetMaterialization(context.asset_key, partition=partition, metadata=entries)
        more = (yield from go_on(list(results))) if go_on is not None and results else ""
        description = "\n".join(filter(None, [failure.description, more]))
        raise dg.Failure(description, allow_retries=failure.allow_retries)
    yield materialized(context, metadata)


def each_partition(
    context: dg.AssetExecutionContext, work: Callable[[str], T], may_go_on: Callable[[], bool] = lambda: True
) -> tuple[dict[str, T], dg.Failure | None]:
    """Do the work for every partition of the run. A failed partition does not stop the others.

    Args:
        context: The context of the step.
        work: Does the work for the partition with this key.
        may_go_on: Returns whether to begin with one more partition after the first. The others are left out.

    Returns:
        The return values by partition key, and one failure that names the failed partitions, or None.

    Raises:
        dg.Failure: When the work fails in a run with one partition or without partitions.
    """
    partitions = partitions_of(context)
    if len(partitions) == 1:
        return {partitions[0]: work(partitions[0])}, None
    results: dict[str, T] = {}
    failed: dict[str, dg.Failure] = {}
    for number, partition in enumerate(partitions):
        if number and not may_go_on():
            context.log.info(f"No time is left for {len(partitions) - number} of {len(partitions)} partitions.")
            break
        context.log.info(f"partition {partition}")
        try:
            with explained_system_errors():
                results[partition] = work(partition)
        except dg.Failure as failure:
            context.log.error(f"partition {partition}: {failure.description}")
            failed[partition] = failure
    return results, _failure(failed, len(partitions)) if failed else None


def materialized(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]
) -> dg.MaterializeResult[Any]:
    """Return what a step yields when every partition of its run is materialized.

    Dagster logs an event for each partition, and the run continues with what follows, such as checks.

    Args:
        context: The context of the step.
        metadata: The metadata of every partition of the run, by partition key.
    """
    if len(metadata) == 1:
        (entries,) = metadata.values()
        return dg.MaterializeResult(metadata=entries)
    for partition, entries in metadata.items():
        context.add_asset_metadata(entries, context.asset_key, partition)
    return dg.MaterializeResult(asset_key=context.asset_key)


def _failure(failed: dict[str, dg.Failure], count: int) -> dg.Failure:
    shown = [f"{partition}: {failure.description}" for partition, failure in list(failed.items())[:_SHOWN]]
    if len(failed) > _SHOWN:
        shown.append(f"and {len(failed) - _SHOWN} more, see the log")
    return dg.Failure(
        description=f"{len(failed)} of {count} partitions failed. " + "\n".join(shown),
        allow_retries=any(failure.allow_retries for failure in failed.values()),
    )


def has_dynamic_keys(definition: dg.PartitionsDefinition[Any]) -> bool:
    """Return whether only an instance knows the keys of the definition or of one of its dimensions."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return any(has_dynamic_keys(dimension.partitions_def) for dimension in definition.partitions_defs)
    return isinstance(definition, dg.DynamicPartitionsDefinition)


def is_partition(definition: dg.PartitionsDefinition[Any], key: str, instance: dg.DagsterInstance | None) -> bool:
    """Return whether a text is a partition key of a definition.

    Args:
        definition: The partitions definition.
        key: The text.
        instance: The instance that knows the keys of a dynamic definition or dimension.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return definition.has_partition_key(key)


def keys_of(definition: dg.PartitionsDefinition[Any], instance: dg.DagsterInstance | None) -> list[str]:
    """Return all keys of a definition. For `instance`, see `is_partition`."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return [str(key) for key in definition.get_partition_keys()]


def check_partition(name: str, definition: dg.PartitionsDefinition[Any] | None, key: str) -> None:
    """Check that a pipeline can be run for a partition. Dynamic partitions may have new keys.

    Args:
        name: The name of the pipeline.
        definition: The partitions definition of the pipeline.
        key: The partition key; "" if the user named none.

    Raises:
        PartitionError: When the pipeline cannot be run for it. The error lists some partitions.
    """
    if definition is None:
        if key:
            raise PartitionError(f"{name} has no partitions: leave --partition out")
        return
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        if not key:
            raise PartitionError(f"{name} has dynamic partitions: name one with --partition KEY")
        return
    with _instance_for(name, definition) as instance:
        if key and is_partition(definition, key, instance):
            return
        existing = _existing_keys(definition, key, instance)
    if not key:
        raise PartitionError(f"{name} has partitions: name one with --partition KEY. {existing}")
    raise PartitionError(f"{name} has no partition {key!r}. {existing}")


@contextmanager
def _instance_for(name: str, definition: dg.PartitionsDefinition[Any]) -> Iterator[dg.DagsterInstance | None]:
    """Open the instance that the environment names, if only an instance knows the keys of the definition."""
    if not has_dynamic_keys(definition):
        yield None
        return
    try:
        opened = dg.DagsterInstance.get()
    except dg.DagsterError:
        raise PartitionError(
            f"{name} has partitions that only a Dagster instance knows: set DAGSTER_HOME to this instance, or run "
            "the pipeline in the UI"
        ) from None
    with opened:
        yield opened


def _existing_keys(definition: dg.PartitionsDefinition[Any], key: str, instance: dg.DagsterInstance | None) -> str:
    """Return a text that lists some keys: those that resemble the missing key if there are any, else the first."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
        if first is None:
            return "There are none yet: the first one has not ended"
        return f"There are {first} to {last}: a partition exists once its time is over"
    existing = keys_of(definition, instance)
    shown = difflib.get_close_matches(key, existing, n=_SHOWN) or existing[: 2 * _SHOWN]
    more = f" and {len(existing) - len(shown)} more" if len(existing) > len(shown) else ""
    return f"There are {', '.join(shown)}{more}"


def partitions_with_results(root: Root, pipeline: str) -> list[str]:
    """Return the keys of the partitions that have a folder of results; [""] for a pipeline without partitions."""
    names = root.storage.names(pipeline, "results")
    partitions = [
        unquote(name.removeprefix(PARTITION_FOLDER)) for name in names if name.startswith(PARTITION_FOLDER)
    ]
    return partitions or [""]


def row_count_key(partition: str) -> str:
    """Return the metadata key under which Dagster looks for the number of rows."""
    return keys.PARTITION_ROW_COUNT if partition else keys.ROW_COUNT
