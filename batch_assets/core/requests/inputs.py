"""What a build reads, opened while no other process builds requests of the partition."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.dataset.row_keys import KeyCheck
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.ledger import Lease, leases
from batch_assets.core.ledger.request_leases import hold_partition
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import NamePartition
from batch_assets.core.requests.garbage import remove_garbage
from batch_assets.core.requests.newest_submission import NewestSubmission, newest_submission
from batch_assets.core.requests.recorded_kinds import recorded_kinds
from batch_assets.core.requests.row_renderer import row_templates
from batch_assets.core.requests.unchanged import in_object_store, located_files
from batch_assets.core.root import Root
from batch_assets.core.store.erased import ErasedRecord, ErasedRows
from batch_assets.core.store.missing_responses import reopen_lost
from batch_assets.core.template.priority import PRIORITY_FIELD
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.text import nearest

_log = logging.getLogger("batch_assets")


@dataclass(frozen=True)
class BeforeBuild:
    """What a build knows before it reads the dataset.

    Attributes:
        lease: Ensures that no other process builds requests of the partition.
        newest: The partition's newest submission so far; `None` without one.
        erased: The rows that were erased; `None` if none were.
        located: The files of the dataset; `None` if its rows are no files, or there are none.
    """

    lease: Lease
    newest: NewestSubmission | None
    erased: ErasedRecord | None
    located: LocatedFiles | None


@dataclass(frozen=True)
class BuildInputs:
    """The inputs of a build.

    Attributes:
        before: What was known before.
        digest: See `inputs_digest`; `None` if nothing is written.
        dataset: The rows.
        templates: The templates that render them.
        files: The files beside the pipeline that the templates had read before the first row: name to digest.
    """

    before: BeforeBuild
    digest: str | None
    dataset: Dataset
    templates: RowTemplates
    files: dict[str, str]

    @cached_property
    def erased(self) -> ErasedRows:
        """Hides the erased rows."""
        return ErasedRows(self.before.erased, self.dataset.key, self.dataset.schema.names)

    def rows(self, reads: Iterable[str]) -> Iterator[tuple[Rows, list[Any]]]:
        """Yield the rows of the dataset, slice by slice, each with its row keys. Erased rows are hidden.

        Args:
            reads: The columns that are read, apart from those of row keys.

        Raises:
            DatasetError: When the dataset cannot be used.
            LeaseLostError: When another process has taken over the partition's requests.
        """
        keys = KeyCheck(self.dataset)
        for rows in self.dataset.rows(list(dict.fromkeys([*self.erased.reads, *reads]))):
            self.before.lease.check()
            self.erased.hide(rows)
            row_keys = rows.stored_values(self.dataset.key)
            keys.watch(row_keys, rows.rejects)
            yield rows, row_keys
        keys.finish()


@contextmanager
def preparing_build(root: Root, pipeline: Pipeline, partition: str) -> Iterator[BeforeBuild]:
    """Settle what killed processes left, while no other process works on the partition's requests."""
    if pipeline.partitions is not None and not partition:
        raise DatasetError(
            f"{pipeline.source}: partitions: this pipeline has partitions: name the one to run",
            remedy=NamePartition(),
        )
    started = time.monotonic()
    root.catch_up_for(pipeline.name, partition, leases.PATIENCE)
    wait = max(0.0, leases.PATIENCE - (time.monotonic() - started))
    with holding_partition(root, pipeline, partition, wait) as before:
        yield before


@contextmanager
def holding_partition(root: Root, pipeline: Pipeline, partition: str, wait: float) -> Iterator[BeforeBuild]:
    """Settle what killed processes left, in a ledger that is up to date.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        wait: Seconds to wait for other processes that work on the partition's requests.

    Raises:
        BusyError: When they are not done by then.
    """
    with hold_partition(root.ledger, pipeline.name, partition, wait=wait) as lease:
        root.check_files(pipeline.name)
        locate, is_beside = partial(located_files, pipeline, partition), in_object_store(pipeline)
        (_, problems), (erased, located) = root.storage.both(
            lambda: root.storage.both(
                partial(remove_garbage, root, pipeline.name, partition), partial(reopen_lost, root, pipeline.name)
            ),
            lambda: root.storage.both(
                partial(ErasedRecord.read, root.storage, pipeline.name), locate if is_beside else lambda: None
            ),
        )
        if not is_beside:
            located = locate()
        for problem in problems:
            _log.warning(problem)
        yield BeforeBuild(lease, newest_submission(root, pipeline, partition), erased, located)


@contextmanager
def reading_inputs(
    root: Root, pipeline: Pipeline, partition: str, table: Any, before: BeforeBuild, digest: str | None = None
) -> Iterator[BuildInputs]:
    """Open what a build reads.

    The dataset is opened only with the lease: the newest submission must have the newest rows.
    """
    kinds = recorded_kinds(root, pipeline, partition, before.newest)
    with Dataset(pipeline, table, partition, kinds, before.located) as dataset:
        templates = row_templates(pipeline, dataset)
        check_against_dataset(pipeline, dataset, templates)
        yield BuildInputs(before, digest, dataset, templates, dict(templates.files))


def check_against_dataset(pipeline: Pipeline, dataset: Dataset, templates: RowTemplates) -> None:
    """Check that a dataset has the columns that a pipeline reads, and that results have no two of one name.

    Raises:
        ConfigError: When that is not so.
    """
    for error in misfits(pipeline, dataset, templates):
        raise error
    for warning in dataset_warnings(pipeline, dataset):
        _log.warning(warning)


def dataset_warnings(pipeline: Pipeline, dataset: Dataset) -> list[str]:
    """Return what a user should know about a dataset's columns, which only the opened dataset shows.

    These are the `column_warnings` of a pipeline that carries all columns, and a CSV file with another delimiter.
    """
    config = pipeline.config.dataset
    warnings = pipeline.column_warnings(dataset.carried) if config.columns is None else []
    remedy = dataset.delimiter_remedy
    if remedy is not None:
        only = f"{dataset.location} has one column, {dataset.schema.names[0]!r}"
        warnings.append(f"{dataset.source}: dataset: {only}: {remedy}")
    return warnings


def misfits(pipeline: Pipeline, dataset: Dataset, templates: RowTemplates) -> Iterator[ConfigError]:
    """Yield why a pipeline does not fit the columns of a dataset."""
    try:
        pipeline.check_columns(dataset.carried)
    except ConfigError as error:
        yield error
    columns = {*dataset.schema.names, dataset.key}
    for name in sorted(templates.reads - columns):
        yield pipeline.error(
            templates.where(name), f"the template reads {name!r}, which {_missing(name, dataset, columns)}"
        )
    priority = pipeline.priority.fitted(dataset.schema.names, dataset.shapes) if pipeline.priority else None
    for name in sorted(priority.columns - columns) if priority is not None else ():
        yield pipeline.error(PRIORITY_FIELD, f"{name!r} {_missing(name, dataset, columns)}")


def _missing(name: str, dataset: Dataset, columns: set[str]) -> str:
    problem = f"is not a column of {dataset.location}"
    if dataset.delimiter_remedy is not None:
        return f"{problem}; its columns: {', '.join(sorted(columns))}; {dataset.delimiter_remedy}"
    meant = nearest(name, columns)
    hint = f" (did you mean {meant!r}?)" if meant is not None else ""
    return f"{problem}{hint}; its columns: {', '.join(sorted(columns))}"
