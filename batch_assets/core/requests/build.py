"""The first stage: build a submission (request files, index and manifest) from dataset rows.

Requests that are answered, in flight or given up are not written. The index contains every row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from batch_assets.core.errors import BusyError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.notify.notices import note_targets
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.inputs import BuildInputs, preparing_build
from batch_assets.core.requests.partition_build import (
    PartitionBuild,
    checked_inputs,
    ignore_rows,
    readable,
    remove_old_hashes,
)
from batch_assets.core.requests.registration import Registrar
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.unchanged import inputs_digest, unchanged_submission
from batch_assets.core.root import Root

# A build is discarded if a file that it had set aside was sent meanwhile, or if another partition has registered a
# request that its rows want. This many builds are tried.
BUILDS = 5


def build_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str = "",
    on_rows: Callable[[int], None] | None = None,
    *,
    retry_failed: bool = False,
    refresh: bool = False,
    limit: int | None = None,
    accept_rendering: bool = False,
    confirmation: Confirmation | None = None,
    table: Any = None,
) -> RequestsReport:
    """Read the dataset and write a submission of the requests that have to be sent.

    If the dataset and the pipeline are as they were and every row is answered or rejected, the submission in force
    remains and no row is read.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        on_rows: Called with the number of rows read so far.
        retry_failed: See `AskAgain`.
        refresh: See `AskAgain`.
        limit: See `AskAgain`.
        accept_rendering: See `AskAgain`.
        confirmation: Decides whether the request files are held; `None` for a run that no user has approved.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used. Nothing is registered.
        ConfigError: When the pipeline does not fit the dataset's columns.
        RenderingChangedError: When answered rows would render differently since an upgrade.
        PairingError: When the pipeline has lost its files.
        SinkError: When the results could not be written to the pipeline's sink.
        BusyError: When other processes worked on the partition's requests or on the whole pipeline the whole time,
            or kept sending or registering files with requests that its rows want. Or when it is a refresh, and
            follow-ups of answers from before it are in flight.
    """
    again = AskAgain(retry_failed, refresh, limit, accept_rendering)
    if pipeline.config.notify:
        note_targets(root, [pipeline])
    with preparing_build(root, pipeline, partition) as before:
        digest = inputs_digest(pipeline, partition, before.located, before.erased)
        unchanged = unchanged_submission(root, before.newest, digest, again)
        if unchanged is not None:
            return unchanged
        with checked_inputs(root, pipeline, partition, table, before, digest, again) as inputs:
            confirmation = confirmation or Confirmation(pipeline)
            return _built(root, pipeline, partition, inputs, again, on_rows or ignore_rows, confirmation)


def _built(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    inputs: BuildInputs,
    again: AskAgain,
    on_rows: Callable[[int], None],
    confirmation: Confirmation,
) -> RequestsReport:
    """Build until nothing that a build relied on has changed meanwhile."""
    met: set[str] = set()

    def run() -> RequestsReport | None:
        with closing(PartitionBuild(root, pipeline, partition, inputs, again, met=frozenset(met))) as build:
            built = build.write(on_rows)
            registrar = Registrar(root, [built], confirmation)
            is_registered = registrar.register()
            met.update(registrar.wanted)
            return built.report if is_registered else None

    for _ in range(BUILDS):
        report = readable(root, run)
        release_memory()
        if report is not None:
            remove_old_hashes(root, inputs.before)
            return report
    raise not_registered(pipeline.name)


def not_registered(pipeline: str) -> BusyError:
    """Return the error for a build that relied each time on something that changed meanwhile."""
    return BusyError(
        f"request files of {pipeline} were sent or registered during each of {BUILDS} builds: run it again"
    )
