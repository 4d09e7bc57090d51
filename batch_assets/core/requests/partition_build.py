"""The build of one partition: rows are read, rendered and looked up, and index and request files are written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from batch_assets.core.answers.result_columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import StorageError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.built_submission import BuiltSubmission
from batch_assets.core.requests.estimating import CountTokens, estimate_of
from batch_assets.core.requests.inputs import BeforeBuild, BuildInputs, reading_inputs
from batch_assets.core.requests.known_rows import KnownRows
from batch_assets.core.requests.own_answers import own_answers
from batch_assets.core.requests.pilot_sample import PilotSample, RequestsOfPilot
from batch_assets.core.requests.piloting import BuiltPilot, PilotNeed, PilotTurn, pilot_terms, pilot_turn
from batch_assets.core.requests.priority_order import PriorityOrder
from batch_assets.core.requests.prompt_caching import PromptCaching
from batch_assets.core.requests.rendering_change import check_rendering
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.row_priorities import RowPriorities
from batch_assets.core.requests.row_renderer import RowRenderer
from batch_assets.core.requests.row_requests import RowRequests
from batch_assets.core.requests.selection import Peers, Selection
from batch_assets.core.requests.stubs_in_flight import stubs_in_flight
from batch_assets.core.requests.submission import NewSubmission, RenderedRows
from batch_assets.core.root import Root
from batch_assets.core.sink.write import check_sink
from batch_assets.core.store.file_division import PlannedFiles
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.row_hashes import remove_row_hashes

_log = logging.getLogger("batch_assets")

T = TypeVar("T")


def readable(root: Root, read: Callable[[], T]) -> T:
    """Call a function that reads response files, and warn about each damaged one that was set aside for it."""
    returned, problems = with_readable_responses(root, read)
    for problem in problems:
        _log.warning(problem)
    return returned


@contextmanager
def checked_inputs(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    table: Any,
    before: BeforeBuild,
    digest: str | None,
    again: AskAgain,
) -> Iterator[BuildInputs]:
    """Open what a build reads, and check that it may write a submission of it.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        table: The value of `dataset.asset`, if the pipeline has one.
        before: What is known before.
        digest: See `inputs_digest`.
        again: What is sent again, and the limit.

    Raises:
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        RenderingChangedError: When answered rows would render differently since an upgrade.
        SinkError: When the results could not be written to the pipeline's sink.
    """
    with reading_inputs(root, pipeline, partition, table, before, digest) as inputs:
        check_sink(root, pipeline, _results_columns(pipeline, inputs.dataset), partition)
        newest, dataset, templates = before.newest, inputs.dataset, inputs.templates
        readable(root, lambda: check_rendering(root, pipeline, partition, newest, dataset, templates, again))
        yield inputs


def ignore_rows(rows: int) -> None:
    """Do nothing with the number of rows read, for callers that show no progress."""


def _results_columns(pipeline: Pipeline, dataset: Dataset) -> list[str]:
    typed = pipeline.output.names if pipeline.output else []
    tools = [TOOL_CALLS.name] if pipeline.has_tool_calls else []
    return list(dict.fromkeys([dataset.key_name, *dataset.carried.values(), *RESULT_NAMES, *typed, *tools]))


class PartitionBuild:
    """One build of a partition.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        inputs: What the build reads.
        again: What is sent again, and the limit.
        is_planned: Nothing is written: it is only counted and estimated.
        met: See `Selection`.
        peers: What is built with it, and will be registered at the same time; `None` to build it alone.
        caching: The prompt caching of what is built with it; `None` to build it alone, or without `cache: auto`.

    Attributes:
        pilot_turn: What it does about a pilot.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        inputs: BuildInputs,
        again: AskAgain,
        met: Collection[str] = (),
        peers: Peers | None = None,
        *,
        is_planned: bool = False,
        caching: PromptCaching | None = None,
    ) -> None:
        dataset, templates = inputs.dataset, inputs.templates
        self._dataset, self._templates, self._inputs = dataset, templates, inputs
        self._root, self._pipeline, self._again = root, pipeline, again
        self._selection = Selection(root, pipeline, partition, inputs.before.newest, again, met, peers)
        self._renderer = RowRenderer(
            pipeline, dataset, templates, is_kept=self._selection.is_kept, processes=root.settings.processes
        )
        newest, headers = inputs.before.newest, self._renderer.headers
        self._peers, self.pilot_turn = peers, self._pilot_turn()
        self._pilot = self._pilot_sample()
        self._known = KnownRows(root, pipeline, newest, dataset, templates, headers)
        priority = pipeline.priority
        self._priorities = RowPriorities(pipeline, priority, dataset) if priority is not None else None
        lease, selection, is_gathered = inputs.before.lease, self._selection, peers is not None
        if (caching := caching or PromptCaching.of(pipeline)) is not None and newest is not None:
            caching.offer(stubs_in_flight(root, newest.record, caching.takes_stub))
        self._submission = NewSubmission(
            root,
            pipeline,
            partition,
            dataset,
            lease,
            headers,
            selection,
            is_gathered=is_gathered,
            is_planned=is_planned,
            caching=caching,
            pilot=self._pilot,
            order=PriorityOrder() if priority is not None and not is_planned else None,
        )
        self._requests = RowRequests(
            self._known, self._renderer, self._selection, self._submission, self._priorities
        )
        for problem in self._problems:
            _log.warning(problem)

    def close(self) -> None:
        """End the processes of this build."""
        self._renderer.close()

    @property
    def replaced(self) -> list[RequestFile]:
        """The files that it sets aside."""
        return self._selection.set_aside

    @property
    def _problems(self) -> list[str]:
        """A text about each former row key by which erased rows may come back."""
        return [
            f"rows were erased by the column {column!r}, which the dataset no longer has. If it still has these "
            "rows, they are not recognized and are sent: erase them again by the present row key"
            for column in self._inputs.erased.missing
        ]

    def write(self, on_rows: Callable[[int], None]) -> BuiltSubmission:
        """Write the submission, which is to be registered. A failure removes it."""
        submission = self._submission
        is_covered = submission.write(
            self._read_rows(on_rows),
            limited=self._again.limit is not None,
            context=self._known.context,
            has_read_more=self._has_read_more,
        )
        try:
            for problem in self._selection.lost_files():
                _log.warning(problem)
            submission.report.mixed_columns = self._dataset.mixed_columns  # reads files again, which may fail
            inputs = self._inputs.digest if is_covered else None
            fingerprint, _ = self._root.storage.both(partial(submission.fingerprint, inputs), self._estimate)
            is_new = self.pilot_turn.need is PilotNeed.TAKE
            in_pilot = submission.pilot_size.requests if is_new else 0
            pilot = BuiltPilot(self.pilot_turn, pilot_terms(self._pipeline), in_pilot, self._pilot_range())
            built = submission.finished(fingerprint, pilot)
            if self._peers is not None:
                self._peers.piloted += in_pilot
            return built
        except BaseException:
            submission.remove()
            raise

    def _pilot_turn(self) -> PilotTurn:
        is_refresh = self._selection.fresh_after is not None
        return pilot_turn(self._root, self._pipeline, self._selection.set_aside, is_refresh=is_refresh)

    def _pilot_sample(self) -> PilotSample | RequestsOfPilot | None:
        """Return what takes the requests of a pilot; `None` if there is none, or peers have taken enough."""
        config = self._pipeline.config.pilot
        if self.pilot_turn.own is not None:
            return RequestsOfPilot(self.pilot_turn.own)
        if config is None or self.pilot_turn.need is not PilotNeed.TAKE:
            return None
        left = config.rows - (self._peers.piloted if self._peers is not None else 0)
        return PilotSample(left) if left > 0 else None

    def _pilot_range(self) -> Range | None:
        """Return what the requests of the pilot would cost; `None` if that is not known."""
        size = self._submission.pilot_size
        if not size.requests:
            return None
        answers = own_answers(self._root, self._pipeline)
        estimate = estimate_of(size, answers, self._root.settings.prices, self._selection.is_wanted)
        return estimate.batch if estimate is not None and estimate.is_known else None

    def _has_read_more(self) -> bool:
        """Whether templates have read files that were not known before the first row."""
        return self._dataset.has_read_file or self._templates.files != self._inputs.files

    def plan(self, count_tokens: CountTokens | None) -> tuple[RequestsReport, PlannedFiles]:
        """Count and estimate what would be built, without writing anything.

        Args:
            count_tokens: Counts the tokens of some requests; `None` to estimate them.
        """
        for _ in self._read_rows(ignore_rows):
            pass
        self._estimate(count_tokens)
        assert self._submission.planned is not None, "nothing is written"
        return self._submission.report, self._submission.planned

    def _estimate(self, count_tokens: CountTokens | None = None) -> None:
        """Estimate what was built, and what a limit left out."""
        report, written, beyond = self._submission.report, self._requests.written, self._requests.beyond
        if not written.requests and not beyond.requests:
            return
        answers, prices = own_answers(self._root, self._pipeline), self._root.settings.prices
        known = answers, prices, self._selection.is_wanted, count_tokens, self._pipeline.follow_ups
        report.estimate = estimate_of(written, *known, self._submission.cache_use())
        report.rest = estimate_of(beyond, *known, self._submission.cache_use_later(beyond))
        report.example = next((params.decode() for params in written.params()), None)

    def _read_rows(self, on_rows: Callable[[int], None]) -> Iterator[RenderedRows]:
        """Read, render and look up the dataset's rows, slice by slice."""
        report = self._submission.report
        of_priority = self._priorities.reads if self._priorities is not None else []
        for rows, row_keys in self._inputs.rows([*self._dataset.carried, *self._renderer.reads, *of_priority]):
            rendered = self._requests.of(rows, row_keys)
            yield rendered
            report.rows += len(row_keys)
            report.rejected += len(rendered.rejects)
            on_rows(report.rows)
        report.without_partition = self._dataset.without_partition
        report.without_partition_examples = self._dataset.without_partition_examples


def remove_old_hashes(root: Root, before: BeforeBuild) -> None:
    """Remove the hashes of the submission before, which no build reads now that the next one is registered.

    A build that is killed before it leaves them: they take space, and that is all.
    """
    if (newest := before.newest) is not None:
        record = newest.record
        with suppress(OSError, StorageError):  # the next submission is registered
            remove_row_hashes(root.storage, submission_parts(record.pipeline, record.partition, record.id))
