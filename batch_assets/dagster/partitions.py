"""Partitions between Dagster and the core, whose one word for them is a key, "" for none."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote

import dagster as dg

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.partitions import KEY_FORMATS, PartitionsConfig, Window
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.dagster import keys

_FOLDER = "partition="
_SHOWN = 3
_TIME_DEFINITIONS: dict[str, Callable[..., dg.TimeWindowPartitionsDefinition]] = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}
T = TypeVar("T")
Event = dg.MaterializeResult[Any] | dg.AssetMaterialization


class PartitionError(BatchAssetsError):
    """There is no such partition, or none was named. Says which there are."""


class GivenPartitions:
    """A partitions definition of Dagster's, as the core needs to know it.

    Attributes:
        definition: as it was given.
    """

    column = None

    def __init__(self, definition: dg.PartitionsDefinition[Any]) -> None:
        self.definition = definition

    @property
    def is_time(self) -> bool:
        return isinstance(self.definition, dg.TimeWindowPartitionsDefinition)

    @property
    def timezone(self) -> str:
        definition = self.definition
        return definition.timezone if isinstance(definition, dg.TimeWindowPartitionsDefinition) else "UTC"

    def window(self, key: str) -> Window:
        """See Partitions.window."""
        assert isinstance(self.definition, dg.TimeWindowPartitionsDefinition)
        window = self.definition.time_window_for_partition_key(key)
        return Window(window.start, window.end)


def partitions_definition(pipeline: Pipeline) -> dg.PartitionsDefinition[Any] | None:
    """Dagster's definition of a pipeline's partitions; None for a pipeline without."""
    partitions = pipeline.partitions
    if isinstance(partitions, GivenPartitions):
        return partitions.definition
    if not isinstance(partitions, PartitionsConfig):
        return None
    if partitions.static is not None:
        return dg.StaticPartitionsDefinition(partitions.static)
    if not partitions.is_time:
        return dg.DynamicPartitionsDefinition(name=pipeline.name)
    times, written = partitions.times, KEY_FORMATS[partitions.kind]
    end = times.moment(times.end).strftime(written) if times.end is not None else None
    return _TIME_DEFINITIONS[partitions.kind](
        start_date=times.moment(times.start).strftime(written), end_date=end, timezone=times.timezone
    )


def partitions_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[str]:
    """The partitions a step works on: of a backfill several, [""] without any."""
    if context.has_partition_key:
        return [str(context.partition_key)]
    if context.has_partition_key_range:
        return [str(key) for key in context.partition_keys]
    return [""]


def one_partition(context: dg.AssetExecutionContext) -> str:
    """The partition of a step that can work on one only.

    Errors:
        dg.Failure: the run is of several.
    """
    partitions = partitions_of(context)
    if len(partitions) > 1:
        raise dg.Failure(
            description=(
                f"This run is of {len(partitions)} partitions, {partitions[0]} to {partitions[-1]}, and "
                f"{context.asset_key.to_user_string()} reads the table of one at a time: launch a run for each "
                "partition, as a backfill does by itself."
            ),
            allow_retries=False,
        )
    return partitions[0]


def all_partitions(
    context: dg.AssetExecutionContext, materialize: Callable[[str], dg.MaterializeResult[Any]]
) -> Iterator[Event]:
    """Materializes every partition of the run: each whatever becomes of the others, and what follows in the run
    only when all of them are.

    Errors:
        dg.Failure: of every partition that failed, after the others were logged as materialized.
    """
    done, failure = each_partition(context, materialize)
    metadata = {partition: result.metadata or {} for partition, result in done.items()}
    if failure is not None:
        for partition, found in metadata.items():
            yield dg.AssetMaterialization(context.asset_key, partition=partition, metadata=found)
        raise failure
    yield materialized(context, metadata)


def each_partition(
    context: dg.AssetExecutionContext, work: Callable[[str], T]
) -> tuple[dict[str, T], dg.Failure | None]:
    """What comes of every partition of the run, each whatever becomes of the others, and of those that failed one
    failure that names them.

    Errors:
        dg.Failure: of a run of one partition, or of none.
    """
    partitions = partitions_of(context)
    if len(partitions) == 1:
        return {partitions[0]: work(partitions[0])}, None
    done: dict[str, T] = {}
    failed: dict[str, dg.Failure] = {}
    for partition in partitions:
        context.log.info(f"partition {partition}")
        try:
            done[partition] = work(partition)
        except dg.Failure as failure:
            context.log.error(f"partition {partition}: {failure.description}")
            failed[partition] = failure
    return done, _failure(failed, len(partitions)) if failed else None


def materialized(
    context: dg.AssetExecutionContext, metadata: Mapping[str, Mapping[str, Any]]
) -> dg.MaterializeResult[Any]:
    """What a step yields when every partition of its run is materialized: Dagster logs an event for each, and what
    follows in the run, such as checks, goes on.

    Args:
        metadata: of every partition of the run, by its key.
    """
    if len(metadata) == 1:
        (found,) = metadata.values()
        return dg.MaterializeResult(metadata=found)
    for partition, found in metadata.items():
        context.add_asset_metadata(found, context.asset_key, partition)
    return dg.MaterializeResult(asset_key=context.asset_key)


def _failure(failed: dict[str, dg.Failure], count: int) -> dg.Failure:
    shown = [f"{partition}: {failure.description}" for partition, failure in list(failed.items())[:_SHOWN]]
    if len(failed) > _SHOWN:
        shown.append(f"and {len(failed) - _SHOWN} more, which the log names")
    return dg.Failure(
        description=f"{len(failed)} of {count} partitions failed. " + "\n".join(shown),
        allow_retries=any(failure.allow_retries for failure in failed.values()),
    )


def has_dynamic_keys(definition: dg.PartitionsDefinition[Any]) -> bool:
    """Whether an instance alone knows the keys, be it of one dimension of two."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return any(has_dynamic_keys(dimension.partitions_def) for dimension in definition.partitions_defs)
    return isinstance(definition, dg.DynamicPartitionsDefinition)


def is_partition(definition: dg.PartitionsDefinition[Any], key: str, instance: dg.DagsterInstance | None) -> bool:
    """Whether it is a key of a definition.

    Args:
        instance: knows the keys of a dynamic one, which may be a dimension of it.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return definition.has_partition_key(key)


def keys_of(definition: dg.PartitionsDefinition[Any], instance: dg.DagsterInstance | None) -> list[str]:
    """All keys of a definition; see `is_partition`."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return [str(key) for key in definition.get_partition_keys()]


def check_partition(name: str, definition: dg.PartitionsDefinition[Any] | None, key: str) -> None:
    """Whether a pipeline can be run for a partition; new keys of dynamic partitions are.

    Args:
        name: of the pipeline.
        key: "" for none.

    Errors:
        PartitionError: naming some of those that there are.
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
        said = _known(definition, key, instance)
    if not key:
        raise PartitionError(f"{name} has partitions: name one with --partition KEY. {said}")
    raise PartitionError(f"{name} has no partition {key!r}. {said}")


@contextmanager
def _instance_for(name: str, definition: dg.PartitionsDefinition[Any]) -> Iterator[dg.DagsterInstance | None]:
    """The instance that the environment names, where the definition has keys that it alone knows."""
    if not has_dynamic_keys(definition):
        yield None
        return
    try:
        opened = dg.DagsterInstance.get()
    except dg.DagsterError:
        raise PartitionError(
            f"{name} has partitions that Dagster alone knows: set DAGSTER_HOME to the instance that holds them, "
            "or run it in the UI"
        ) from None
    with opened:
        yield opened


def _known(definition: dg.PartitionsDefinition[Any], key: str, instance: dg.DagsterInstance | None) -> str:
    """Some of the keys; of those like the one that is not there, the nearest."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
        if first is None:
            return "There are none yet: the first one has not ended"
        return f"There are {first} to {last}: each comes when its time is over"
    there = keys_of(definition, instance)
    near = difflib.get_close_matches(key, there, n=_SHOWN) or there[: 2 * _SHOWN]
    more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
    return f"There are {', '.join(near)}{more}"


def partitions_with_results(root: Root, pipeline: str) -> list[str]:
    """The partitions that have a folder of results, or "" alone for a pipeline without partitions."""
    names = root.storage.names(pipeline, "results")
    found = [unquote(name.removeprefix(_FOLDER)) for name in names if name.startswith(_FOLDER)]
    return found or [""]


def row_count_key(partition: str) -> str:
    """Where Dagster looks for the number of rows."""
    return keys.PARTITION_ROW_COUNT if partition else keys.ROW_COUNT
