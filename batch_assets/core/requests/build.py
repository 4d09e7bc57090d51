"""The first stage: build a submission (request files, index and manifest) from dataset rows.

Requests that are answered, in flight or given up are not written. The index contains every row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from typing import Any, TypeVar

from batch_assets.core.answers.result_columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.row_keys import KeyCheck
from batch_assets.core.errors import BusyError, StorageError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.memory import release_memory
from batch_assets.core.notify.notices import note_targets
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.inputs import BuildInputs, preparing_build, reading_inputs
from batch_assets.core.requests.known_rows import KnownRows
from batch_assets.core.requests.rendering_change import check_rendering
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.row_renderer import RowRenderer
from batch_assets.core.requests.row_requests import OnRequests, RowRequests
from batch_assets.core.requests.selection import Selection
from batch_assets.core.requests.submission import NewSubmission, RenderedRows
from batch_assets.core.requests.unchanged import inputs_digest, unchanged_submission
from batch_assets.core.root import Root
from batch_assets.core.sink.write import check_sink
from batch_assets.core.store.erased import ErasedRows
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.row_hashes import remove_row_hashes

_log = logging.getLogger("batch_assets")
# A build is discarded if a file that it had set aside was sent meanwhile, or if another partition has registered a
# request that its rows want. This many builds are tried.
_BUILDS = 5

T = TypeVar("T")


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
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used. Nothing is registered.
        ConfigError: When the pipeline does not fit the dataset's columns.
        RenderingChangedError: When answered rows would render differently since an upgrade.
        PairingError: When the pipeline has lost its files.
        SinkError: When the results could not be written to the pipeline's sink.
        BusyError: When other processes worked on the partition's requests or on the whole pipeline the whole time,
            or kept sending or registering files with requests that its rows want.
    """
    again = AskAgain(retry_failed, refresh, limit, accept_rendering)
    if pipeline.config.notify:
        note_targets(root, [pipeline])
    with preparing_build(root, pipeline, partition) as before:
        digest = inputs_digest(pipeline, partition, before.erased)
        unchanged = unchanged_submission(root, before.newest, digest, again)
        if unchanged is not None:
            return unchanged
        with reading_inputs(root, pipeline, partition, table, before, digest) as inputs:
            check_sink(root, pipeline, _results_columns(pipeline, inputs.dataset), partition)
            _readable(
                root,
                lambda: check_rendering(
                    root, pipeline, partition, before.newest, inputs.dataset, inputs.templates, again
                ),
            )
            return _built(root, pipeline, partition, inputs, again, on_rows or _ignore_rows)


def count_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    on_requests: OnRequests,
    again: AskAgain,
    *,
    table: Any = None,
) -> RequestsReport:
    """Report what `build_requests` would write, without writing or registering anything.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        on_requests: Called with requests that would be submitted: their digests, and the params of each.
        again: What is sent again, and the limit.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        BusyError: When other processes worked on the partition's requests or on the whole pipeline the whole time.
    """
    with (
        preparing_build(root, pipeline, partition) as before,
        reading_inputs(root, pipeline, partition, table, before) as inputs,
    ):

        def count() -> RequestsReport:
            with closing(_begun(root, pipeline, partition, inputs, again, on_requests)) as build:
                return build.count()

        return _readable(root, count)


def _built(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    inputs: BuildInputs,
    again: AskAgain,
    on_rows: Callable[[int], None],
) -> RequestsReport:
    """Build until nothing that a build relied on has changed meanwhile."""
    met: set[str] = set()

    def run() -> RequestsReport | None:
        with closing(_begun(root, pipeline, partition, inputs, again, met=frozenset(met))) as build:
            report = build.run(on_rows)
            met.update(build.met)
            return report

    for _ in range(_BUILDS):
        report = _readable(root, run)
        release_memory()
        if report is not None:
            return report
    raise BusyError(
        f"request files of {pipeline.name} were sent or registered during each of {_BUILDS} builds: run it again"
    )


def _begun(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    inputs: BuildInputs,
    again: AskAgain,
    on_requests: OnRequests | None = None,
    met: Collection[str] = (),
) -> _Build:
    """Begin a build, and warn about erased rows that may come back."""
    build = _Build(root, pipeline, partition, inputs, again, on_requests, met)
    for problem in build.problems:
        _log.warning(problem)
    return build


def _readable(root: Root, read: Callable[[], T]) -> T:
    """Call a function that reads response files, and warn about each damaged one that was set aside for it."""
    returned, problems = with_readable_responses(root, read)
    for problem in problems:
        _log.warning(problem)
    return returned


def _ignore_rows(rows: int) -> None:
    """Do nothing with the number of rows read, for callers that show no progress."""


def _results_columns(pipeline: Pipeline, dataset: Dataset) -> list[str]:
    typed = pipeline.output.names if pipeline.output else []
    tools = [TOOL_CALLS.name] if pipeline.has_tool_calls else []
    return list(dict.fromkeys([dataset.key_name, *dataset.carried.values(), *RESULT_NAMES, *typed, *tools]))


class _Build:
    """One run of the stage.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        inputs: What the build reads.
        again: What is sent again, and the limit.
        on_requests: Called with what would be submitted, and nothing is written; `None` to write it.
        met: See `Selection`.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        inputs: BuildInputs,
        again: AskAgain,
        on_requests: OnRequests | None = None,
        met: Collection[str] = (),
    ) -> None:
        dataset, templates = inputs.dataset, inputs.templates
        self._dataset, self._templates, self._inputs = dataset, templates, inputs
        self._root, self._again = root, again
        self._erased = ErasedRows(inputs.before.erased, dataset.key, dataset.schema.names)
        self._selection = Selection(root, pipeline, partition, inputs.before.newest, again, met)
        self._renderer = RowRenderer(
            pipeline, dataset, templates, is_kept=self._selection.is_kept, processes=root.settings.processes
        )
        newest, headers = inputs.before.newest, self._renderer.headers
        self._known = KnownRows(root, pipeline, newest, dataset, templates, headers)
        self._submission = NewSubmission(
            root, pipeline, partition, dataset, inputs.before.lease, headers, self._selection
        )
        self._requests = RowRequests(self._known, self._renderer, self._selection, self._submission, on_requests)

    def close(self) -> None:
        """End the processes of this build."""
        self._renderer.close()

    @property
    def met(self) -> set[str]:
        """The ids of files that others registered while this build ran, with requests that its rows want."""
        return self._selection.since.wanted

    @property
    def problems(self) -> list[str]:
        """A text about each former row key by which erased rows may come back."""
        return [
            f"rows were erased by the column {column!r}, which the dataset no longer has. If it still has these "
            "rows, they are not recognized and are sent: erase them again by the present row key"
            for column in self._erased.missing
        ]

    def run(self, on_rows: Callable[[int], None]) -> RequestsReport | None:
        """Build and register the submission.

        Returns:
            `None` if request files that this build counted as unsent were sent meanwhile, or if others have
            registered requests that its rows want.
        """
        submission = self._submission
        is_covered = submission.write(
            self._read_rows(on_rows),
            limited=self._again.limit is not None,
            context=self._known.context,
            has_read_more=self._has_read_more,
        )
        for problem in self._selection.lost_files():
            _log.warning(problem)
        mixed_columns = self._dataset.mixed_columns  # reads files again, which may fail: nothing is registered yet
        if not submission.register(self._inputs.digest if is_covered else None):
            return None
        self._remove_old_hashes()
        submission.report.mixed_columns = mixed_columns
        return submission.report

    def _has_read_more(self) -> bool:
        """Whether templates have read files that were not known before the first row."""
        return self._dataset.has_read_file or self._templates.files != self._inputs.files

    def _remove_old_hashes(self) -> None:
        """Remove the hashes of the submission before, which no build reads now that this one is registered.

        A build that is killed before it leaves them: they take space, and that is all.
        """
        if (newest := self._inputs.before.newest) is not None:
            record = newest.record
            with suppress(OSError, StorageError):  # the submission is registered
                folder = submission_parts(record.pipeline, record.partition, record.id)
                remove_row_hashes(self._root.storage, folder)

    def count(self) -> RequestsReport:
        """Count what would be built, without writing anything."""
        for _ in self._read_rows(_ignore_rows):
            pass
        return self._submission.report

    def _read_rows(self, on_rows: Callable[[int], None]) -> Iterator[RenderedRows]:
        """Read, render and look up the dataset's rows, slice by slice."""
        report = self._submission.report
        keys = KeyCheck(self._dataset)
        names = list(dict.fromkeys([*self._erased.reads, *self._dataset.carried, *self._renderer.reads]))
        for rows in self._dataset.rows(names):
            self._inputs.before.lease.check()
            self._erased.hide(rows)
            row_keys = rows.stored_values(self._dataset.key)
            keys.watch(row_keys, rows.rejects)
            rendered = self._requests.of(rows, row_keys)
            yield rendered
            report.rows += len(row_keys)
            report.rejected += len(rendered.rejects)
            on_rows(report.rows)
        keys.finish()
        report.without_partition = self._dataset.without_partition
        report.without_partition_examples = self._dataset.without_partition_examples
